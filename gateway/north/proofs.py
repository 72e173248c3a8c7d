"""How the bundles of each repository are proved by their own signatures, beside TUF: where it has authorities for them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509

from gateway.config import RepositorySection
from update.bundle.cms import CmsPolicy
from update.bundle.deltas import Delta, deltas
from update.bundle.rauc_crypt import Recipient
from update.bundle.rauc_layout import is_rauc_bundle
from update.bundle.rauc_reader import RaucPolicy, RaucPurpose, rauc_policy, verify_rauc_bundle
from update.bundle.reader import verify_bundle
from update.bundle.verified import VerifiedBundle, VerifiedRaucBundle
from update.errors import ConfigurationError, ProvenanceError
from update.provided import read_provided
from update.store.store import Store
from update.trust.chain import split_anchors
from update.trust.verified import Provenance, TargetInfo

_NATIVE_BUNDLE = ".swu"


@dataclass(frozen=True, slots=True)
class _Authorities:
    """Who may sign bundles of one repository."""

    roots: tuple[x509.Certificate, ...]
    intermediates: tuple[x509.Certificate, ...]
    purpose: x509.ObjectIdentifier | None
    threshold: int
    rauc_purpose: RaucPurpose
    accept_plain: bool
    recipient: Recipient | None

    def policy(self, now: datetime) -> CmsPolicy:
        return CmsPolicy(self.roots, now, self.intermediates, purpose=self.purpose, threshold=self.threshold)

    def rauc(self, now: datetime) -> RaucPolicy:
        return rauc_policy(
            self.roots,
            now,
            intermediates=self.intermediates,
            purpose=self.rauc_purpose,
            threshold=self.threshold,
            accept_plain=self.accept_plain,
            recipient=self.recipient,
        )


class Proofs:
    """The authorities of all repositories. Errors: `ConfigurationError` for files that hold none."""

    def __init__(self, repositories: Iterable[RepositorySection], now: Callable[[], datetime]) -> None:
        self._authorities = {section.name: _authorities(section) for section in repositories if section.cms_roots}
        self._now = now

    def verify(self, file: Path, info: TargetInfo) -> VerifiedBundle | VerifiedRaucBundle | None:
        """The bundle in `file`, proved; None if it is no bundle, or its repository names no authorities.

        Errors: `TrustError`, `BundleError`.
        """
        authorities = self._authorities.get(info.repository)
        if authorities is None or not (is_rauc_bundle(info.path) or info.path.endswith(_NATIVE_BUNDLE)):
            return None
        return self._verify(file, info, authorities, Provenance.TUF)

    def prove(self, file: Path, info: TargetInfo) -> VerifiedBundle | VerifiedRaucBundle:
        """A bundle that no metadata lists, proved by its own signature against the authorities of `info.repository`.

        Errors: `ProvenanceError` where there are none, `TrustError`, `BundleError`.
        """
        authorities = self._authorities.get(info.repository)
        if authorities is None:
            raise ProvenanceError(f"{info.path}: repository {info.repository} names no cms_roots that could vouch for it")
        return self._verify(file, info, authorities, Provenance.CMS)

    def _verify(
        self, file: Path, info: TargetInfo, authorities: _Authorities, provenance: Provenance
    ) -> VerifiedBundle | VerifiedRaucBundle:
        target, now = info if provenance is Provenance.TUF else None, self._now()
        if is_rauc_bundle(info.path):
            return verify_rauc_bundle(file, authorities.rauc(now), provenance=provenance, target=target)
        return verify_bundle(file, authorities.policy(now), provenance=provenance, target=target)

    def deltas_of(self, store: Store, info: TargetInfo) -> tuple[Delta, ...]:
        """What a stored bundle fetches by chunks; nothing if it cannot be proved here. Reads the whole bundle.

        Errors: `StoreError`, `TrustError`, `BundleError`.
        """
        file = store.open_verified(info).file
        bundle = self.verify(file, info) if info.role else self.prove(file, info)
        return deltas(bundle) if isinstance(bundle, VerifiedBundle) else ()


def _authorities(section: RepositorySection) -> _Authorities:
    roots: list[x509.Certificate] = []
    intermediates: list[x509.Certificate] = []
    for file in section.cms_roots:
        found = split_anchors(read_provided(file))
        roots += found[0]
        intermediates += found[1]
    if not roots:
        raise ConfigurationError(f"repository {section.name}: cms_roots hold no self-issued certificate")
    purpose = x509.ObjectIdentifier(section.cms_purpose) if section.cms_purpose else None
    return _Authorities(
        tuple(roots),
        tuple(intermediates),
        purpose,
        section.cms_threshold,
        section.rauc_purpose,
        section.rauc_accept_plain,
        _recipient(section),
    )


def _recipient(section: RepositorySection) -> Recipient | None:
    if section.rauc_certificate is None or section.rauc_key is None:
        return None
    return Recipient.from_pem(read_provided(section.rauc_certificate), read_provided(section.rauc_key))
