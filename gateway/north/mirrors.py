"""All mirrored repositories of this gateway: polled in the background, looked up by name."""

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta

from gateway.fleet.catalogue import RepositoryState
from gateway.north.sources import TargetSource, Upstream
from gateway.north.upstream import Lacking, Mirror
from update.errors import FieldrelayError, UnknownTargetError
from update.trust.verified import TargetInfo

_SPREAD = 0.1


class Mirrors:
    """The catalogue that every other part reads. `polling_s` gives each repository's interval."""

    def __init__(self, mirrors: Sequence[Mirror], polling_s: Mapping[str, float]) -> None:
        self._mirrors = {mirror.name: mirror for mirror in mirrors}
        self._polling_s = dict(polling_s)
        self._watchers: list[Callable[[], None]] = []
        self.restored = asyncio.Event()
        """Set once everything that was on disk is shown."""

    def watch(self, refreshed: Callable[[], None]) -> None:
        """Have `refreshed` called whenever an upstream was asked for news, and once what is on disk is shown."""
        self._watchers.append(refreshed)

    def repositories(self) -> Sequence[str]:
        """Names, in the configured order."""
        return tuple(self._mirrors)

    def targets(self, repository: str) -> Sequence[TargetInfo]:
        """What one repository lists and can be had."""
        mirror = self._mirrors.get(repository)
        return () if mirror is None else mirror.targets()

    def find(self, repository: str, wire_path: str) -> TargetInfo | None:
        """The target behind `targets/<folder>/<sha256>.<name>`, or None."""
        mirror = self._mirrors.get(repository)
        return None if mirror is None else mirror.find(wire_path)

    def metadata(self, repository: str, name: str) -> bytes | None:
        """A metadata file as it was verified, byte for byte, or None."""
        mirror = self._mirrors.get(repository)
        return None if mirror is None else mirror.metadata(name)

    def unread(self) -> Sequence[str]:
        """The repositories that have upstreams, and of which nothing has been verified so far."""
        return [mirror.name for mirror in self._mirrors.values() if mirror.is_unread()]

    def sources_of(self, info: TargetInfo) -> tuple[TargetSource, ...]:
        """Where the relay gets missing chunks of a target: the upstreams of its repository, the best first.

        None for what no metadata lists (no role): they would not know it by that name.
        """
        if not info.role:
            return ()
        return self._mirrors[info.repository].sources_of(info)

    def reachable(self, info: TargetInfo) -> tuple[str, ...]:
        """The names of those upstreams that could be reached lately."""
        return self._mirrors[info.repository].reachable() if info.role else ()

    def twins(self, info: TargetInfo) -> Iterator[TargetInfo]:
        """Targets of other repositories with the same content: what is stored for one need not be fetched for the other."""
        listed = (twin for name, mirror in self._mirrors.items() if name != info.repository for twin in mirror.targets())
        return (twin for twin in listed if (twin.sha256, twin.length) == (info.sha256, info.length))

    def states(self) -> Sequence[RepositoryState]:
        """Every repository's state."""
        return tuple(mirror.state() for mirror in self._mirrors.values())

    async def refresh(self, repository: str) -> RepositoryState:
        """Ask the upstreams of one repository for news now."""
        if repository not in self._mirrors:
            raise UnknownTargetError(f"no repository {repository!r}; configured: {', '.join(self._mirrors) or 'none'}")
        return await self._refresh(self._mirrors[repository])

    def leave(self, repository: str, visitor: Upstream) -> None:
        """The visitor goes."""
        self._mirrors[repository].leave(visitor)

    async def visited(
        self, repository: str, visitor: Upstream, lacking: Lacking, *, grace: timedelta = timedelta()
    ) -> Mapping[str, FieldrelayError]:
        """`Mirror.visit`, and everybody who watches is told."""
        try:
            return await self._mirrors[repository].visit(visitor, lacking, grace=grace)
        finally:
            self._tell()

    async def run(self) -> None:
        """Restore what is on disk, then poll every repository until cancelled; intervals are spread by a tenth."""
        for mirror in self._mirrors.values():
            await mirror.restore()
        self.restored.set()
        self._tell()
        async with asyncio.TaskGroup() as group:
            for mirror in self._mirrors.values():
                group.create_task(self._poll(mirror))

    async def _poll(self, mirror: Mirror) -> None:
        while True:
            await self._refresh(mirror)
            spread = 1 + random.uniform(-_SPREAD, _SPREAD)  # noqa: S311 - keeps gateways of one plant apart, no secret
            await asyncio.sleep(self._polling_s[mirror.name] * spread)

    async def _refresh(self, mirror: Mirror) -> RepositoryState:
        state = await mirror.refresh()
        self._tell()
        return state

    def _tell(self) -> None:
        for refreshed in self._watchers:
            refreshed()
