"""Verify a `.raucb` without rauc, all of it: who signed, what the manifest says, and every byte of payload and hash tree.

`rauc info` checks the signature only, and RAUC on a device reads the payload while it writes it; a bundle that was damaged on
its way is noticed when half of a slot is overwritten. So here the whole tree is recomputed before the bundle is a proof.

Where RAUC and the rules for `.swu` differ, RAUC's hold, so that nothing is offered that a device would refuse:

- every signer info must be good, since OpenSSL's CMS_verify demands it; the threshold of distinct keys comes on top (whether a
  node's RAUC takes several signers at all is for `rauc_rules`);
- the purpose is OpenSSL's `smimesign` by default: a signer's extended key usage, if there is any, must name e-mail
  protection; or `codesign`, for devices with `check-purpose=codesign`;
- intermediates that are embedded in the signature are used; the roots are the pinned ones only.

Stricter than RAUC is `update.bundle.cms`: signed attributes, SHA-256 and better, a keyUsage in every CA certificate.

`plain` bundles carry the manifest inside the squashfs, where it cannot be read without unpacking: they are refused unless the
policy accepts them, and then nothing but their signature is known (`manifest` is None). Above 2 GiB they are always refused:
RAUC before 1.15.2 signed only a part of such a one (CVE-2026-34155).
"""

import functools
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, Final

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from update.bundle.cms import CmsPolicy, DigestBy, verify_structure
from update.bundle.cms_structure import Structure, parse_signature
from update.bundle.rauc_crypt import Recipient, is_envelope, open_envelope
from update.bundle.rauc_layout import RaucFormat, RaucLayout, read_layout
from update.bundle.rauc_manifest import RaucManifest, parse_manifest
from update.bundle.rauc_verity import verify_tree
from update.bundle.verified import VerifiedRaucBundle
from update.digest import Digest
from update.errors import (
    ContainerError,
    DescriptionError,
    LengthOrHashError,
    LimitError,
    ProvenanceError,
    StoreError,
    UnsupportedError,
)
from update.trust.signers import HashName
from update.trust.verified import Provenance, TargetInfo

MAX_PLAIN_BYTES: Final = 2**31 - 1
_READ_BYTES = 1 << 20


class RaucPurpose(StrEnum):
    """What a signer's certificate must be for: RAUC's `check-purpose`."""

    SMIMESIGN = "smimesign"
    CODESIGN = "codesign"


_USAGES = {
    RaucPurpose.SMIMESIGN: ExtendedKeyUsageOID.EMAIL_PROTECTION,
    RaucPurpose.CODESIGN: ExtendedKeyUsageOID.CODE_SIGNING,
}


@dataclass(frozen=True, slots=True)
class RaucPolicy:
    """What a RAUC bundle must satisfy. `recipient` opens encrypted bundles; `cms` as `rauc_policy` makes it."""

    cms: CmsPolicy
    accept_plain: bool = False
    recipient: Recipient | None = None


def rauc_policy(
    roots: tuple[x509.Certificate, ...],
    at: datetime,
    *,
    intermediates: tuple[x509.Certificate, ...] = (),
    purpose: RaucPurpose = RaucPurpose.SMIMESIGN,
    threshold: int = 1,
    accept_plain: bool = False,
    recipient: Recipient | None = None,
) -> RaucPolicy:
    """The policy that refuses what RAUC with the same keyring refuses. Errors: `ConfigurationError`."""
    cms = CmsPolicy(
        roots,
        at,
        intermediates,
        purpose=_USAGES[purpose],
        purpose_optional=purpose is RaucPurpose.SMIMESIGN,
        threshold=threshold,
        require_all=True,
        use_embedded_intermediates=True,
    )
    return RaucPolicy(cms, accept_plain, recipient)


def verify_rauc_bundle(
    file: Path, policy: RaucPolicy, *, provenance: Provenance = Provenance.CMS, target: TargetInfo | None = None
) -> VerifiedRaucBundle:
    """Read `file` completely and prove it. `target`: what TUF metadata said of this very file, which its caller verified.

    Errors: `ContainerError`, `LimitError`, `HashMismatchError`, `DescriptionError`, `UnsupportedError` for the file;
    `SignatureError`, `CertificateError`, `ThresholdError` for the signature; `ProvenanceError` for a claim without proof.
    """
    if (provenance is Provenance.TUF) != (target is not None):
        raise ProvenanceError(f"provenance {provenance} of {file} and the presence of TUF metadata do not fit together")
    cms = replace(policy.cms, require_all=True)
    with _opened(file) as stream:
        layout = read_layout(stream, file)
        if target is not None and (length := stream.seek(0, 2)) != target.length:
            raise LengthOrHashError(f"{file} has {length} bytes, the metadata of {target.path} says {target.length}")
        opened = _open(layout, policy.recipient)
        if opened.plain:
            _check_plain(layout, policy, file)
        digest_by = _digests(stream, layout, opened.structure.content)
        signers = verify_structure(opened.structure, digest_by, cms)
        manifest, payload_bytes = (None, layout.content_bytes) if opened.plain else _prove(stream, layout, opened)
        digest = Digest(digest_by(HashName.SHA256).hex())
    return VerifiedRaucBundle(file, manifest, digest, signers, provenance, payload_bytes, target)


def read_manifest(file: Path, recipient: Recipient | None = None) -> RaucManifest:
    """The manifest as it stands in `file`, unverified: fit to be shown. `UnsupportedError` where it cannot be read."""
    with _opened(file) as stream:
        opened = _open(read_layout(stream, file), recipient)
    if opened.plain:
        raise UnsupportedError(f"{file} is a plain bundle: its manifest is inside the squashfs, look with `rauc info`")
    return parse_manifest(opened.structure.content or b"")


def is_encrypted(file: Path) -> bool:
    """Whether only recipients can read what `file` is."""
    with _opened(file) as stream:
        return is_envelope(read_layout(stream, file).signature)


def check_integrity(file: Path, recipient: Recipient | None = None) -> RaucManifest:
    """The manifest, after payload and hash tree were compared with it. Who signed is not asked: publishers ask that."""
    with _opened(file) as stream:
        layout = read_layout(stream, file)
        opened = _open(layout, recipient)
        if opened.plain:
            raise UnsupportedError(f"{file} is a plain bundle, which only its signature protects; build it as verity")
        return _prove(stream, layout, opened)[0]


@dataclass(frozen=True, slots=True)
class _Opened:
    """A signature out of its envelope."""

    structure: Structure
    encrypted: bool

    @property
    def plain(self) -> bool:
        """Whether the signature is detached: over the whole content, and not over a manifest."""
        return self.structure.content is None


def _open(layout: RaucLayout, recipient: Recipient | None) -> _Opened:
    encrypted = is_envelope(layout.signature)
    signature = open_envelope(layout.signature, recipient) if encrypted else layout.signature
    opened = _Opened(parse_signature(signature, attached=True), encrypted)
    if encrypted and opened.plain:
        raise ContainerError("the envelope holds a detached signature; only crypt bundles are encrypted")
    return opened


def _prove(stream: BinaryIO, layout: RaucLayout, opened: _Opened) -> tuple[RaucManifest, int]:
    """The manifest, and the payload's size, once payload and tree are as it says."""
    manifest = parse_manifest(opened.structure.content or b"")
    if opened.encrypted and manifest.format is not RaucFormat.CRYPT:
        raise DescriptionError(f"the envelope holds the manifest of a {manifest.format} bundle; only crypt bundles are encrypted")
    if manifest.format is RaucFormat.VERITY and not layout.is_squashfs:
        raise ContainerError(f"the payload begins with {layout.magic.hex()} and is no squashfs; build it again")
    return manifest, verify_tree(stream, layout.content_bytes, manifest.verity)


def _check_plain(layout: RaucLayout, policy: RaucPolicy, file: Path) -> None:
    if layout.content_bytes > MAX_PLAIN_BYTES:
        raise LimitError(
            f"{file} is a plain bundle of {layout.content_bytes} bytes; above {MAX_PLAIN_BYTES} its signature may cover only "
            "a part (CVE-2026-34155): build it as verity"
        )
    if not policy.accept_plain:
        raise UnsupportedError(f"{file} is a plain bundle, which the policy does not accept; build it as verity")
    if not layout.is_squashfs:
        raise ContainerError(f"the payload begins with {layout.magic.hex()} and is no squashfs; build it again")


def _digests(stream: BinaryIO, layout: RaucLayout, content: bytes | None) -> DigestBy:
    """Digests of what was signed, each made once: a plain bundle is read for every hash that its signers chose."""

    @functools.cache
    def digest_by(name: HashName) -> bytes:
        state = hashlib.new(name, content or b"")
        if content is None:
            stream.seek(0)
            left = layout.content_bytes
            while left and (block := stream.read(min(_READ_BYTES, left))):
                state.update(block)
                left -= len(block)
        return state.digest()

    return digest_by


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    try:
        with file.open("rb") as stream:
            yield stream
    except OSError as error:
        raise StoreError(f"cannot read the bundle {file}: {error.strerror or error}") from error
