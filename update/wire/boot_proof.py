"""What a node signs when it has confirmed an update: which release it runs, in which slot and boot, for which order.

The node signs with the key of its certificate, so that its word can be checked by whoever holds the certificate: by the gateway
at once, and by an upstream that gets it days later or on a stick. A proof is bound to one action and its fence: it cannot be
shown again for another order. It says what the node knows; a node whose kernel is not its own can say anything.

    fieldrelay boot proof 1 LF node LF action LF fence LF version LF slot LF slot_sha256 LF boot_id
"""

import base64
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from update.errors import SignatureError, StoreError
from update.trust.chain import refusing

FORMAT: Final = "fieldrelay boot proof 1"
MAX_CHARACTERS: Final = 512
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_ALGORITHM = ec.ECDSA(hashes.SHA256())


@dataclass(frozen=True, slots=True)
class BootProof:
    """What is signed; texts without line feeds."""

    node: str
    action: int
    fence: int
    version: str
    slot: str
    slot_sha256: str
    boot_id: str

    def statement(self) -> bytes:
        """The bytes that are signed. `SignatureError` for a text that would mean two things."""
        parts = (FORMAT, self.node, str(self.action), str(self.fence), self.version, self.slot, self.slot_sha256, self.boot_id)
        if any("\n" in part for part in parts):
            raise SignatureError("a boot proof holds no line feeds")
        return "\n".join(parts).encode()

    def sign(self, key: ec.EllipticCurvePrivateKey) -> str:
        """The proof, in base64."""
        return base64.b64encode(key.sign(self.statement(), _ALGORITHM)).decode()

    def verify(self, proof: str, certificate: bytes) -> None:
        """Check a proof by the node's certificate (DER). `SignatureError` for any other."""
        if len(proof) > MAX_CHARACTERS:
            raise SignatureError(f"a boot proof has at most {MAX_CHARACTERS} characters, got {len(proof)}")
        with refusing(SignatureError, "malformed certificate of a boot proof"):
            key = x509.load_der_x509_certificate(certificate).public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise SignatureError("a boot proof is signed by an elliptic curve key")
        try:
            key.verify(base64.b64decode(proof, validate=True), self.statement(), _ALGORITHM)
        except (InvalidSignature, ValueError) as error:  # of base64, too
            raise SignatureError(f"the boot proof of node {self.node} for action {self.action} is not by its key") from error


@lru_cache(maxsize=1)
def boot_id() -> str:
    """The kernel's name for this boot (random(4)); `StoreError` where it has none."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError as error:
        raise StoreError(f"cannot read {_BOOT_ID}: {error.strerror}") from error
