"""Which release an operator means: a target's path, or a version, looked up in the verified metadata of the repositories.

A version may name several targets, one per hardware; the node's hardware picks its own. Only bundles can be ordered: other
targets (images, chunk files) are parts of them.

One release may be brought by a whole bundle and by deltas. A bundle whose signed metadata has `deltaOf` stands for the
bundle of that path, if both agree in version, hardware and counters; names and versions alone join nothing. Ordered is the
delta then: what a node is offered of it is decided when it asks (`variants`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cmp_to_key
from typing import Protocol

from update.errors import AmbiguousError, HardwareError, UnknownTargetError
from update.identity import Hardware
from update.trust.verified import TargetInfo
from update.version import compare_versions

BUNDLE_SUFFIXES = (".swu", ".raucb")


class Catalogue(Protocol):
    """What the mirror knows; everything in it was verified."""

    def repositories(self) -> Sequence[str]:
        """The configured repositories, by name."""
        ...

    def targets(self, repository: str) -> Sequence[TargetInfo]:
        """All targets of one repository; empty until its metadata was verified once."""
        ...


@dataclass(frozen=True, slots=True)
class RepositoryState:
    """How a mirrored repository stands: `versions` by role, `stale` the roles past their expiry, `problem` with its code."""

    name: str
    targets: int
    versions: Mapping[str, int]
    stale: tuple[str, ...] = ()
    issued: datetime | None = None
    refreshed: datetime | None = None
    code: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class AssignerState:
    """How an assigner elsewhere stands: nodes that it has, the last contact, messages that wait for it, its trouble."""

    name: str
    nodes: int
    contact: datetime | None
    waiting: int
    code: str = ""
    problem: str = ""


class Repositories(Protocol):
    """The mirror as its watchers see it."""

    def states(self) -> Sequence[RepositoryState]:
        """Every configured repository."""
        ...

    async def refresh(self, repository: str) -> RepositoryState:
        """Ask the upstreams for news now; trouble with them is in the answer. `UnknownTargetError`: no such repository."""
        ...


def find_release(catalogue: Catalogue, release: str, repository: str = "") -> tuple[TargetInfo, ...]:
    """The bundles whose path or version is `release`, in `repository` or (empty) in all; `UnknownTargetError` if none."""
    known = catalogue.repositories()
    if repository and repository not in known:
        raise UnknownTargetError(f"no repository {repository!r}; configured: {', '.join(known) or 'none'}")
    everything = [target for name in known if repository in {"", name} for target in catalogue.targets(name)]
    bundles = [target for target in everything if target.path.endswith(BUNDLE_SUFFIXES)]
    found = [target for target in bundles if target.path == release]
    found = found or [target for target in bundles if target.custom.version == release]
    if not found:
        versions = sorted(
            {target.custom.version for target in bundles if target.custom.version}, key=cmp_to_key(compare_versions)
        )
        raise UnknownTargetError(
            f"no bundle has the path or version {release!r} in {repository or 'any repository'}; "
            f"versions known: {', '.join(versions) or 'none (has the mirror been refreshed?)'}"
        )
    return tuple(found)


def for_hardware(candidates: Iterable[TargetInfo], hardware: Hardware | None, node: str) -> TargetInfo:
    """The one candidate that is for this hardware; `HardwareError` if none is, `AmbiguousError` if several releases are."""
    offered = tuple(candidates)
    if hardware is None:
        raise HardwareError(f"node {node} has not said what hardware it is; wait for its next contact and order again")
    fitting = [target for target in offered if hardware.accepts(target.custom.hw_ids)]
    if not fitting:
        meant = sorted({identifier for target in offered for identifier in target.custom.hw_ids})
        raise HardwareError(f"node {node} is {hardware}; the release is for {', '.join(meant) or 'no hardware at all'}")
    if len(fitting) > 1 and not set(fitting) <= set(siblings(fitting[0], fitting)):
        paths = ", ".join(f"{target.repository}/{target.path}" for target in fitting)
        raise AmbiguousError(
            f"several bundles fit node {node} ({hardware}): {paths}; order one of them by its path and repository"
        )
    return min(fitting, key=lambda target: (target.custom.delta_from is not None, not target.custom.delta_of, target.path))


def siblings(wanted: TargetInfo, listed: Iterable[TargetInfo]) -> tuple[TargetInfo, ...]:
    """Every target of `listed` that brings the release of `wanted`, itself included, by path."""
    place, release = _place(wanted), _release(wanted)
    same = (info for info in listed if _place(info) == place and _release(info) == release)
    return tuple(sorted({wanted, *same}, key=lambda info: info.path))


def _place(info: TargetInfo) -> tuple[str, str]:
    """Where the whole bundle is."""
    return info.repository, info.custom.delta_of or info.path


def _release(info: TargetInfo) -> tuple[str, tuple[str, ...], int, int]:
    custom = info.custom
    return custom.version, custom.hw_ids, custom.release_counter, custom.security_counter
