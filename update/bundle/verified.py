"""The proof that a bundle was verified: who signed, what it says, and where its members are in the file.

`VerifiedBundle` (`.swu`) is made only by `update.bundle.reader`, `VerifiedRaucBundle` (`.raucb`) only by
`update.bundle.rauc_reader` (a test searches the tree for other places); drivers and servers accept nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from update.bundle.cms import Signer
from update.bundle.description import Description
from update.bundle.rauc_manifest import RaucManifest
from update.digest import Digest
from update.trust.verified import Provenance, TargetInfo


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a bundle: its stored bytes are `size` bytes at `offset` of the bundle."""

    name: str
    offset: int
    size: int
    sha256: Digest


@dataclass(frozen=True, slots=True)
class VerifiedBundle:
    """A bundle of which every byte was verified. `digest` is of sw-description: it identifies the release.

    A signature can be encoded in many ways, so the hash of the whole file identifies only a copy. `target` is there, and
    `provenance` is `tuf`, when signed metadata named the file.
    """

    file: Path
    description: Description
    digest: Digest
    signers: tuple[Signer, ...]
    provenance: Provenance
    members: Mapping[str, Member]
    target: TargetInfo | None = None


@dataclass(frozen=True, slots=True)
class VerifiedRaucBundle:
    """A RAUC bundle of which every byte was verified. `digest` is of the manifest: it identifies the release.

    The payload is the first `payload_bytes` of `file`. A `plain` bundle has no readable manifest (`rauc_reader`): its `digest` is
    of the payload.
    """

    file: Path
    manifest: RaucManifest | None
    digest: Digest
    signers: tuple[Signer, ...]
    provenance: Provenance
    payload_bytes: int
    target: TargetInfo | None = None


AnyBundle = VerifiedBundle | VerifiedRaucBundle
"""What an agent fetches; a driver takes one kind of them and refuses the other."""
