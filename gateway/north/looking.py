"""Looking now: somebody says that there is news, and the upstreams are asked before their time.

However often it is said, upstreams are asked one look after the other and at most every `every_s`: what is said meanwhile is
taken together into the next look. Nothing is believed of who says so: what is found is judged as ever.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

_LOG = logging.getLogger(__name__)


class _Mirrors(Protocol):
    """The repositories of this gateway."""

    def repositories(self) -> Sequence[str]: ...

    async def refresh(self, repository: str) -> object: ...


class Looking:
    """Asks `mirrors`, and has `hasten` ask the assigners elsewhere."""

    def __init__(self, mirrors: _Mirrors, hasten: Callable[[], None], *, every_s: float) -> None:
        self._mirrors = mirrors
        self._hasten = hasten
        self._every_s = every_s
        self._wanted: set[str] = set()
        self._assigners = False
        self._news = asyncio.Event()

    def want(self, repositories: Collection[str], *, assigners: bool) -> None:
        """Look soon; names that are not configured are left out."""
        self._wanted.update(set(repositories) & set(self._mirrors.repositories()))
        self._assigners |= assigners
        self._news.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._news.wait()
            self._news.clear()
            wanted, self._wanted = sorted(self._wanted), set()
            assigners, self._assigners = self._assigners, False
            _LOG.info("looking now: %s%s", ", ".join(wanted) or "no repository", ", and who assigns" if assigners else "")
            for name in wanted:
                await self._mirrors.refresh(name)
            if assigners:  # afterwards: what they want may be listed by now
                self._hasten()
            await asyncio.sleep(self._every_s)
