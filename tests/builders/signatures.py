"""CMS signatures by the test PKI: good ones, and ones correctly signed by a trusted key over what must not be accepted."""

import hashlib
from collections.abc import Callable
from typing import cast

from asn1crypto import cms as asn1
from asn1crypto import core
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from tests.builders.keys import NOW, Identity, make_pki
from update.bundle.cms import CmsPolicy, verify
from update.bundle.cms_build import sign
from update.trust.signers import FileSigner

PKI = make_pki()
CONTENT = b'{"software": {"version": "1.2.0"}}'
POLICY = CmsPolicy(roots=(PKI.root.certificate,), intermediates=(PKI.intermediate.certificate,), at=NOW)


def signer(identity: Identity, *, pss: bool = False) -> FileSigner:
    return FileSigner(identity.certificate, identity.key, pss=pss)


def signed_by(*identities: Identity) -> bytes:
    return sign(CONTENT, [signer(identity) for identity in identities])


def names(signature: bytes, policy: CmsPolicy = POLICY, content: bytes = CONTENT) -> set[str]:
    return {each.name for each in verify(content, signature, policy)}


def rebuilt(signature: bytes, change: Callable[[asn1.SignedData], None], *, force: bool = True) -> bytes:
    """The same signature after `change` to its structure."""
    outer = asn1.ContentInfo.load(signature)
    change(outer["content"])
    return outer.dump(force=force)


def put(sequence: core.Sequence, key: str, value: object) -> None:
    """Assignment into an asn1crypto sequence (None removes), which the stubs leave out: the product never changes one."""
    cast("dict[str, object]", sequence)[key] = value


def forged(attributes: list[dict[str, object]] | None, *, digest: str = "sha256", algorithm: str = "sha256_ecdsa") -> bytes:
    """Signed by a trusted key, correctly, over attributes that must not be accepted (None: over the content itself)."""
    identity = PKI.signers[0]
    assert isinstance(identity.key, ec.EllipticCurvePrivateKey)
    built = None if attributes is None else asn1.CMSAttributes(attributes)
    value = identity.key.sign(CONTENT if built is None else built.dump(), ec.ECDSA(hashes.SHA256()))

    def change(data: asn1.SignedData) -> None:
        info = data["signer_infos"][0]
        put(info, "signed_attrs", built)
        put(info, "digest_algorithm", {"algorithm": digest})
        put(info, "signature_algorithm", {"algorithm": algorithm})
        put(info, "signature", value)

    return rebuilt(signed_by(identity), change)


TYPE: dict[str, object] = {"type": "content_type", "values": ["data"]}
MESSAGE_DIGEST: dict[str, object] = {"type": "message_digest", "values": [hashlib.sha256(CONTENT).digest()]}


def certificates_of(data: asn1.SignedData) -> list[object]:
    held = data["certificates"]
    assert not isinstance(held, core.Void)
    return [each.chosen for each in held]


def der_length(size: int) -> bytes:
    if size < 128:
        return bytes([size])
    encoded = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(encoded)]) + encoded
