"""Bundles proved by this node: every byte against what names the file, then the bundle by its own signature.

Which kind a bundle is, its name says (`.raucb`, or else `.swu`), since name and content are signed together; a file that was
handed in is refused by the form that its name does not fit. Both kinds are judged by the same authorities, each by the rules of
who will install it (`update.bundle.reader`, `update.bundle.rauc_reader`).
"""

from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from node_agent.record import Release
from node_agent.staging import digest_bundle
from update.bundle.cms import CmsPolicy
from update.bundle.rauc_layout import is_rauc_bundle
from update.bundle.rauc_reader import RaucPolicy, verify_rauc_bundle
from update.bundle.reader import verify_bundle
from update.bundle.verified import AnyBundle, VerifiedBundle
from update.errors import LengthOrHashError, UnsupportedError
from update.trust.verified import Provenance, TargetInfo, verify_target


@dataclass(frozen=True, slots=True)
class Signers:
    """Who may sign the bundles of one repository; without `rauc` its RAUC bundles are refused."""

    cms: CmsPolicy
    rauc: RaucPolicy | None = None

    def judging_at(self, time: datetime) -> "Signers":
        """The same, judging certificates at `time`."""
        rauc = None if self.rauc is None else replace(self.rauc, cms=replace(self.rauc.cms, at=time))
        return Signers(replace(self.cms, at=time), rauc)


def prove(path: Path, signers: Signers, release: Release, info: TargetInfo | None) -> AnyBundle:
    """The bundle of `release` at `path`. `info`: what signed metadata says of it; None: it was handed in.

    Errors: `LengthOrHashError`, leaves of `BundleError` and `TrustError`, `StoreError`.
    """
    if info is not None:
        verify_target(info, path)
    elif digest_bundle(path) != (release.sha256, release.length):
        raise LengthOrHashError(f"{path} changed since it was copied: it no longer has the SHA-256 {release.sha256}")
    provenance = Provenance.CMS if info is None else Provenance.TUF
    if not is_rauc_bundle(release.path):
        return verify_bundle(path, signers.cms, provenance=provenance, target=info)
    if signers.rauc is None:
        raise UnsupportedError(f"{release.path} is a RAUC bundle, and nobody is trusted here to sign one; see cms_roots")
    return verify_rauc_bundle(path, signers.rauc, provenance=provenance, target=info)


def version_of(bundle: AnyBundle) -> str:
    """What the bundle itself says; empty where it cannot be read (a `plain` RAUC bundle) or is not said."""
    if isinstance(bundle, VerifiedBundle):
        return bundle.description.version
    return "" if bundle.manifest is None else bundle.manifest.version
