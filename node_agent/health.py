"""Is the new version well? Checks that must pass together, several times in a row, before a deadline.

A version is confirmed only if *every* check passes in `passes` consecutive rounds. One failing round starts the count
again: a service that comes up and falls over is not well. A deadline that passes is a failed trial; it bounds the whole
of it, so that a check that hangs cannot keep an unconfirmed version alive.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import aiohttp

from node_agent.programs import run_program
from update.errors import FieldrelayError, HealthError

_MAX_REASON_CHARACTERS = 300


class Check(Protocol):
    """One question to the running system."""

    @property
    def name(self) -> str:
        """How the check is called in messages."""
        ...

    async def failure(self, environment: Mapping[str, str]) -> str | None:
        """None when all is well, else the reason."""
        ...


@dataclass(frozen=True, slots=True)
class CommandCheck:
    """A program: status 0 is well. It gets FIELDRELAY_VERSION and FIELDRELAY_SLOT in its environment."""

    command: tuple[str, ...]
    timeout_s: float

    @property
    def name(self) -> str:
        """The program's name."""
        return f"command {self.command[0]!r}"

    async def failure(self, environment: Mapping[str, str]) -> str | None:
        """Run it."""
        ended = await run_program(self.command, timeout_s=self.timeout_s, environment=environment)
        return None if ended.succeeded else ended.describe()


@dataclass(frozen=True, slots=True)
class HttpCheck:
    """A GET of a local service: the expected status is well. Redirects are not followed, the body is not read."""

    url: str
    status: int
    timeout_s: float

    @property
    def name(self) -> str:
        """The URL."""
        return f"GET {self.url}"

    async def failure(self, environment: Mapping[str, str]) -> str | None:
        """Ask once."""
        del environment
        timeout = aiohttp.ClientTimeout(total=self.timeout_s)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(self.url, allow_redirects=False) as response,
            ):
                got = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return f"no answer: {type(error).__name__} {error}".rstrip()
        return None if got == self.status else f"answered {got}, expected {self.status}"


@dataclass(frozen=True, slots=True)
class GatewayCheck:
    """The gateway can be reached, so that the next update can be had: a version that lost the network is not well."""

    reach: Callable[[], Awaitable[object]]
    timeout_s: float
    name: str = "gateway reachable"

    async def failure(self, environment: Mapping[str, str]) -> str | None:
        """Try to reach it once."""
        del environment
        try:
            async with asyncio.timeout(self.timeout_s):
                await self.reach()
        except (FieldrelayError, TimeoutError) as error:
            return str(error) or f"no answer within {self.timeout_s:g} s"
        return None


@dataclass(frozen=True, slots=True)
class Patience:
    """How long and how often: `passes` rounds in a row, `interval_s` apart, all before `deadline_s`."""

    deadline_s: float
    interval_s: float
    passes: int


class Health:
    """The checks of one node."""

    def __init__(self, checks: Sequence[Check], patience: Patience) -> None:
        self._checks = tuple(checks)
        self._patience = patience

    async def require(self, environment: Mapping[str, str]) -> None:
        """Return when the version is well; `HealthError` with the last reason when the deadline passes first."""
        reasons = ["no round was completed"]
        try:
            async with asyncio.timeout(self._patience.deadline_s):
                await self._until_well(environment, reasons)
        except TimeoutError as error:
            raise HealthError(f"not well within {self._patience.deadline_s:g} s: {reasons[-1]}") from error

    async def _until_well(self, environment: Mapping[str, str], reasons: list[str]) -> None:
        passed = 0
        while True:
            reason = await self._round(environment)
            passed = 0 if reason else passed + 1
            reasons[:] = [reason or f"{passed} of {self._patience.passes} rounds in a row passed"]
            if passed >= self._patience.passes:
                return
            await asyncio.sleep(self._patience.interval_s)

    async def _round(self, environment: Mapping[str, str]) -> str | None:
        """One after the other, in the configured order: the first reason found."""
        for check in self._checks:
            if reason := await check.failure(environment):
                return f"{check.name} {reason}"[:_MAX_REASON_CHARACTERS]
        return None
