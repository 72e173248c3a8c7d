"""Which signed URL stands for which content: the only addresses beyond our own that stock clients are served.

A delta bundle names the whole `.zck` of its image by a URL in its signed description, and carries the `.zck`'s header, whose
hash is signed too. Stock clients ask for that URL, here as origin or as proxy. Rules:

1. Only a bundle that was verified, by TUF and by its own signature, registers anything (`learn`); what it registers is
   served while its repository lists it (`shown`) and no longer. A bundle that only its own signature proves, from an assigner
   elsewhere, is taken note of by `adopt` and served while an open action wants it (`wanted`). Nothing is kept on disk: a start
   verifies what is stored, and learns it again.
2. The body is a target of the same repository that pins the same zchunk header, by SHA-256 and length. Names and URLs join
   nothing. A body that no target carries is served only where the repository allows the URL's own host: then it is known by
   its header alone, which names every chunk (`known_by_header`), and fetched from where the URL says (`bodies`). The body of an
   adopted bundle that no target carries is known by its header in any case: an artifact of its assigner may be it.
3. The name of a repository as host belongs to that repository: no other one's bundles can claim URLs of it.
4. A URL that several claim stands for one header: of the repositories the first one configured has it, of its bundles the
   one with the highest release counter. An adopted bundle comes after everything that is listed, and takes no path of a listed
   target; of several the one adopted last wins. A client's own check of every chunk makes any other choice harmless, if useless.
5. Limits: `MAX_URLS_PER_BUNDLE`, and `MAX_URLS` in all, first come by repository and path.
"""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from gateway.config import RepositorySection
from gateway.south.signed_urls import authority_of_key, host_of_key, path_of_key, signed_key
from update.bundle.deltas import deltas
from update.bundle.verified import VerifiedBundle
from update.digest import Digest
from update.errors import BundleError
from update.trust.verified import TargetCustom, TargetInfo, ZckHeader

_log = logging.getLogger(__name__)

MAX_URLS = 20_000
MAX_URLS_PER_BUNDLE = 256
NOWHERE: Mapping[str, Collection[str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class SignedUrl:
    """A URL in the form it is known by (`signed_urls`), the header of the `.zck` that it was signed for, and its whole length."""

    key: str
    header: ZckHeader
    length: int


class Registry:
    """The signed URLs of all repositories, named in their configured order.

    `fetched` are the hosts, with the port unless it is the scheme's own, from which each repository lets bodies be fetched.
    `learn` may be called in threads; everything else belongs to the event loop.
    """

    def __init__(
        self, repositories: Sequence[str], *, fetched: Mapping[str, Collection[str]] = NOWHERE, max_urls: int = MAX_URLS
    ) -> None:
        self._repositories = tuple(repositories)
        self._fetched = fetched
        self._max_urls = max_urls
        self._learned: dict[TargetInfo, tuple[SignedUrl, ...]] = {}
        self._listed: dict[str, tuple[TargetInfo, ...]] = {}
        self._adopted: dict[TargetInfo, tuple[SignedUrl, ...]] = {}
        self._found: dict[str, TargetInfo] = {}
        self._places: dict[Digest, tuple[str, ...]] = {}

    def __len__(self) -> int:
        """How many URLs are served."""
        return len(self._found)

    def find(self, key: str) -> TargetInfo | None:
        """The target behind a URL, given in the form of `url_key`."""
        return self._found.get(key)

    def places_of(self, info: TargetInfo) -> tuple[str, ...]:
        """The URLs that a body known by its header may be fetched from; none for any other."""
        return self._places.get(info.sha256, ()) if known_by_header(info) else ()

    def learn(self, info: TargetInfo, bundle: VerifiedBundle) -> None:
        """Take note of what a verified bundle names; served from the next `shown` that lists it."""
        self._learned[info] = self._readable(info, bundle)

    def adopt(self, info: TargetInfo, bundle: VerifiedBundle) -> None:
        """Take note of what a bundle names that no repository lists; served from the next `wanted` that names it.

        `info.repository` is the one whose authorities proved it. May be called in threads.
        """
        signed = self._readable(info, bundle)
        self._adopted.pop(info, None)  # adopted again, it is the last one
        self._adopted[info] = signed

    def wanted(self, adopted: Collection[TargetInfo]) -> None:
        """These adopted bundles are what open actions want now; what others named is forgotten."""
        for info in [each for each in tuple(self._adopted) if each not in adopted]:
            self._adopted.pop(info, None)
        self._resolve()

    def shown(self, repository: str, listed: Collection[TargetInfo]) -> None:
        """These targets are what the repository lists now; what other bundles named is forgotten."""
        self._listed[repository] = tuple(sorted(listed, key=lambda info: info.path))
        kept = frozenset(listed)
        for info in tuple(self._learned):  # a copy: other repositories' bundles may be learned meanwhile
            if info.repository == repository and info not in kept:
                del self._learned[info]
        self._resolve()

    def _resolve(self) -> None:
        self._found = self._resolved()
        self._places = {}
        for key, body in self._found.items():
            if known_by_header(body) and self._is_fetched(body.repository, key):
                self._places[body.sha256] = (*self._places.get(body.sha256, ()), key)

    def _readable(self, info: TargetInfo, bundle: VerifiedBundle) -> tuple[SignedUrl, ...]:
        try:
            return tuple(self._signed(info, bundle))
        except BundleError as error:  # whoever installs it is told the same; agents need no URL
            _log.warning("registry: no URL of %s is served: %s (%s)", info.path, error, error.code)
            return ()

    def _signed(self, info: TargetInfo, bundle: VerifiedBundle) -> Iterator[SignedUrl]:
        named = {delta.url: delta for delta in deltas(bundle)}
        if len(named) > MAX_URLS_PER_BUNDLE:
            _log.warning(
                "registry: %s names %d URLs, the first %d of them are served", info.path, len(named), MAX_URLS_PER_BUNDLE
            )
        for url, delta in list(named.items())[:MAX_URLS_PER_BUNDLE]:
            key = signed_key(url)
            if key is None:
                _log.warning("registry: %s names a URL that no request can mean: %.120r", info.path, url)
            elif self._belongs_to_another(key, info.repository):
                _log.warning("registry: %s of %s names a URL of another repository: %s", info.path, info.repository, key)
            else:
                header = delta.index.header
                yield SignedUrl(key, ZckHeader(delta.index.sha256, len(header.raw)), header.total_length)

    def _belongs_to_another(self, key: str, repository: str) -> bool:
        host = host_of_key(key)
        return any(host == name.lower() for name in self._repositories if name != repository)

    def _resolved(self) -> dict[str, TargetInfo]:
        found: dict[str, TargetInfo] = {}
        for key, info in self._claims():
            if key not in found and len(found) >= self._max_urls:
                _log.warning("registry: %s is not served: %d URLs are registered, and that is the limit", key, len(found))
                break
            found.setdefault(key, info)
        return found

    def _claims(self) -> Iterator[tuple[str, TargetInfo]]:
        """URLs with their bodies, those that win first."""
        for repository in self._repositories:
            listed = self._listed.get(repository, ())
            carriers = _carriers(listed)
            for info in sorted(listed, key=lambda info: -info.custom.release_counter):
                for signed in self._learned.get(info, ()):
                    if body := carriers.get(_header(signed)) or self._fetchable(repository, signed):
                        yield signed.key, body
        yield from self._adopted_claims()

    def _adopted_claims(self) -> Iterator[tuple[str, TargetInfo]]:
        adopted = tuple(self._adopted.items())  # a copy: others may be adopted meanwhile
        listed = {name: self._listed.get(name, ()) for name in {info.repository for info, _ in adopted}}
        carriers = {name: _carriers(targets) for name, targets in listed.items()}
        paths = {name: frozenset(f"/{target.wire_path}" for target in targets) for name, targets in listed.items()}
        for info, urls in reversed(adopted):
            for signed in urls:
                name = info.repository
                if host_of_key(signed.key) == name.lower() and path_of_key(signed.key) in paths[name]:
                    _log.warning("registry: %s names a listed target of %s: %s", info.path, name, signed.key)
                else:
                    yield signed.key, carriers[name].get(_header(signed)) or _by_header(name, signed)

    def _fetchable(self, repository: str, signed: SignedUrl) -> TargetInfo | None:
        """The body as far as it is known without a target, where it may be fetched."""
        return _by_header(repository, signed) if self._is_fetched(repository, signed.key) else None

    def _is_fetched(self, repository: str, key: str) -> bool:
        return authority_of_key(key) in self._fetched.get(repository, ())


def make_registry(sections: Sequence[RepositorySection]) -> Registry:
    """The registry of the configured repositories."""
    return Registry([each.name for each in sections], fetched={each.name: each.fetch_signed_urls for each in sections})


def known_by_header(info: TargetInfo) -> bool:
    """Whether no metadata lists it: its digest is that of its zchunk header, which pins every byte behind it by chunks."""
    pinned = info.custom.zck_header
    return not info.role and pinned is not None and pinned.sha256 == info.sha256


def _by_header(repository: str, signed: SignedUrl) -> TargetInfo:
    """The body under a plain name."""
    custom = TargetCustom(zck_header=signed.header)
    name = f"signed-urls/{signed.header.sha256}.zck"
    return TargetInfo(repository, name, signed.length, signed.header.sha256, custom, role="")


def _header(signed: SignedUrl) -> tuple[Digest, int]:
    return signed.header.sha256, signed.header.length


def _carriers(listed: Iterable[TargetInfo]) -> dict[tuple[Digest, int], TargetInfo]:
    """The targets that pin a zchunk header, by that header; of several the first by path."""
    carriers: dict[tuple[Digest, int], TargetInfo] = {}
    for info in listed:
        if pinned := info.custom.zck_header:
            carriers.setdefault((pinned.sha256, pinned.length), info)
    return carriers
