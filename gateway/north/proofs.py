"""How the bundles of each repository are proved by their own signatures, beside TUF: where it has authorities for them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509

from gateway.config import RepositorySection
from update.bundle.cms import CmsPolicy
from update.bundle.deltas import Delta, deltas
from update.bundle.reader import verify_bundle
from update.bundle.verified import VerifiedBundle
from update.errors import ConfigurationError
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

    def policy(self, now: datetime) -> CmsPolicy:
        return CmsPolicy(self.roots, now, self.intermediates, purpose=self.purpose, threshold=self.threshold)


class Proofs:
    """The authorities of all repositories. Errors: `ConfigurationError` for files that hold none."""

    def __init__(self, repositories: Iterable[RepositorySection], now: Callable[[], datetime]) -> None:
        self._authorities = {section.name: _authorities(section) for section in repositories if section.cms_roots}
        self._now = now

    def verify(self, file: Path, info: TargetInfo) -> VerifiedBundle | None:
        """The bundle in `file`, proved; None if it is no bundle, or its repository names no authorities.

        Errors: `TrustError`, `BundleError`.
        """
        authorities = self._authorities.get(info.repository)
        if authorities is None or not info.path.endswith(_NATIVE_BUNDLE):
            return None
        return verify_bundle(file, authorities.policy(self._now()), provenance=Provenance.TUF, target=info)

    def deltas_of(self, store: Store, info: TargetInfo) -> tuple[Delta, ...]:
        """What a stored bundle fetches by chunks; nothing if it cannot be proved here. Reads the whole bundle.

        Errors: `StoreError`, `TrustError`, `BundleError`.
        """
        bundle = self.verify(store.open_verified(info).file, info)
        return () if bundle is None else deltas(bundle)


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
    return _Authorities(tuple(roots), tuple(intermediates), purpose, section.cms_threshold)
