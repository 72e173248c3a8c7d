"""One route: keeps what its upstream serves, asks again when due, answers stale for as long as configured, then refuses.

| what is held | and it is | answer |
|---|---|---|
| lasting content | - | it, without asking |
| a changing name | confirmed within `revalidate_s` | it, without asking |
| a changing name | older | upstream is asked (conditionally): 304 confirms it, 200 replaces it, 404 removes it |
| the same | upstream away, confirmed within `stale_if_error_s` | it, stale |
| the same | upstream away, older | refused with the upstream's error and both ages |
| "not there" | as a changing name, but of a lasting name always asked for again | 404 |

*Away* is: unreachable, too slow, or 5xx. A clock that went back makes ages unknown: then upstream is asked, and while it is
away the limit does not count; it limits age, and is no proof. Content that fails its proof is not kept, whatever was held
stays, and the client is refused by name, or cut where it reads already (`growing`).
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from gateway.sections.routes import RouteSection
from gateway.single_flight import SingleFlight
from gateway.south.mirrored.growing import Growing
from gateway.south.mirrored.objects import Held, Objects, confirmed
from gateway.south.mirrored.origin import Fetched, Origin
from gateway.south.mirrored.proof import check_file
from gateway.south.mirrored.rules import Rule, rule_of
from gateway.status import RouteState
from update.errors import FieldrelayError, NotFoundError, SlowError, UnreachableError

_LOG = logging.getLogger(__name__)
_TRIES = 2
"""Content may be evicted, or found damaged, between being found and being opened: then it is fetched once more."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a request is answered with: the record, and the file behind it."""

    held: Held
    file: Path


class Mirror:
    """The content of one route. `now` is the gateway's clock. Used on one event loop; `close` ends what is under way."""

    def __init__(self, route: RouteSection, objects: Objects, origin: Origin, now: Callable[[], datetime]) -> None:
        self.route = route
        self._objects = objects
        self._origin = origin
        self._now = now
        self._flights: SingleFlight[str, Held] = SingleFlight()
        self._growing: dict[str, Growing] = {}
        self._beginnings: dict[str, asyncio.Future[None]] = {}
        self._stale_answers = 0
        self._trouble = ""

    async def get(self, path: str) -> Content:
        """The content of a plain path.

        Errors: `NotFoundError`; `LengthOrHashError` for wrong content; `ProtocolError`; `UnreachableError` and `SlowError`
        while upstream is away and nothing, or nothing young enough, is held; `TooLargeError`, `NoSpaceError`.
        """
        rule = rule_of(self.route.kind, path, self.route.lasting)
        for _ in range(_TRIES):
            held = await self._current(path, rule)
            if held.absent:
                raise NotFoundError(f"{path} is not there; upstream said so last")
            file = await self._objects.open(held)
            if file is not None:
                return Content(held, file)
        raise UnreachableError(f"{path} was removed while it was asked for; ask again")

    async def begin(self, path: str) -> Content | Growing:
        """The same as `get`, or content that lasts and is on its way in: to be lent before anything is waited for."""
        if growing := self._growing.get(path):
            return growing
        loop = asyncio.get_running_loop()
        whole = loop.create_task(self.get(path))
        beginning = self._beginnings.setdefault(path, loop.create_future())
        either: set[asyncio.Future[Any]] = {whole, beginning}  # Any: one of them has no value
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            growing = None if whole.done() else self._growing.get(path)
            return await whole if growing is None else growing
        finally:
            whole.cancel()  # not the flight that it waits for
            if path not in self._flights:
                self._beginnings.pop(path, None)

    def state(self) -> RouteState:
        """Figures and limits of this route."""
        route = self.route
        return RouteState(
            name=route.name,
            kind=route.kind.value,
            upstream=route.upstream,
            objects=len(self._objects),
            used_bytes=self._objects.used_bytes,
            quota_bytes=route.quota_bytes,
            revalidate_s=route.revalidate_s,
            stale_if_error_s=route.stale_if_error_s,
            stale_answers=self._stale_answers,
            trouble=self._trouble,
        )

    async def close(self) -> None:
        """End what is under way; what is held stays."""
        await self._flights.close()

    async def _current(self, path: str, rule: Rule) -> Held:
        """What is known of `path`, asked for if it is due."""
        held = self._objects.find(path)
        if held is not None and self._settled(held, rule):
            return held
        try:
            return await self._flights.share(path, lambda: self._ask(path, rule))
        except (UnreachableError, SlowError) as error:
            return self._stale(held, error)

    def _settled(self, held: Held, rule: Rule) -> bool:
        if rule.lasting:
            return not held.absent
        return 0 <= self._age_s(held) < self.route.revalidate_s

    def _stale(self, held: Held | None, error: UnreachableError | SlowError) -> Held:
        if held is None:
            raise error
        age_s = self._age_s(held)
        if age_s > self.route.stale_if_error_s:
            limit = f"stale_if_error_s of route {self.route.name} is {self.route.stale_if_error_s}"
            raise UnreachableError(f"{held.path} was confirmed {age_s:.0f} s ago, {limit}; upstream: {error}") from error
        self._stale_answers += 1
        _LOG.info("route %s: answering %s, confirmed %.0f s ago: %s", self.route.name, held.path, age_s, error)
        return held

    def _age_s(self, held: Held) -> float:
        """Seconds since the last confirmation; negative when the clock went back."""
        return self._now().timestamp() - held.confirmed_s

    async def _ask(self, path: str, rule: Rule) -> Held:
        """Ask upstream, and keep what it says; whatever happens, nobody reads on for ever."""
        trouble: FieldrelayError | None = UnreachableError("the gateway is going down; ask again")
        try:
            held = await self._ask_upstream(path, rule)
            trouble = None
        except FieldrelayError as error:
            trouble = error
            raise
        finally:
            if growing := self._growing.pop(path, None):
                growing.end(trouble)
            self._no_longer_beginning(path)
        return held

    def _grow(self, path: str, growing: Growing) -> None:
        """Content begins to come: whoever waits for it may read meanwhile."""
        self._growing[path] = growing
        self._no_longer_beginning(path)

    def _no_longer_beginning(self, path: str) -> None:
        if beginning := self._beginnings.pop(path, None):
            beginning.set_result(None)

    async def _ask_upstream(self, path: str, rule: Rule) -> Held:
        held, now_s = self._objects.find(path), self._now().timestamp()
        begun = partial(self._grow, path) if rule.lasting else None
        has_proof = rule.proof is not None
        try:
            fetched = await self._origin.fetch(path, held, self._objects, now_s, begun=begun, has_proof=has_proof)
        except NotFoundError:
            return await self._absent(path, held, now_s)
        except (UnreachableError, SlowError) as error:
            self._trouble = str(error)
            raise
        self._trouble = ""
        if fetched is not None:
            return await self._keep(fetched, rule)
        assert held is not None, "only what is held is asked for with a condition"
        held = confirmed(held, now_s)
        await self._objects.note(held)
        return held

    async def _absent(self, path: str, held: Held | None, now_s: float) -> Held:
        self._trouble = ""
        if held is not None and not held.absent:
            await self._objects.forget(path)
        absent = Held(path, "", 0, now_s)
        await self._objects.note(absent)
        return absent

    async def _keep(self, fetched: Fetched, rule: Rule) -> Held:
        staged = fetched.file.path
        fetched.file.close()
        try:
            if rule.proof is not None:
                await asyncio.to_thread(check_file, rule.proof, staged, max_bytes=self.route.max_object_bytes)
            if growing := self._growing.get(fetched.held.path):
                growing.proved()
            await self._objects.keep(fetched.held, staged)
        finally:
            self._objects.discard(staged)
        return fetched.held
