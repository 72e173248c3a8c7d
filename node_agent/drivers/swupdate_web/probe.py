"""Which version a device runs, asked of the device itself: by a URL of its own, or by a command of the integrator's.

SWUpdate's webserver does not tell. The answer must hold the version just as the bundle's sw-description writes it. A boot id,
where the device tells one, proves a restart; without it a restart is seen by the device's silence.
"""

import asyncio
import re
from dataclasses import dataclass

import aiohttp

from node_agent.programs import run_program
from update.errors import HandlerError, UnreachableError

_MOST_BYTES = 64 << 10
_OK = 200


@dataclass(frozen=True, slots=True)
class Seen:
    """What a device answered; `boot_id` is empty where it tells none."""

    version: str
    boot_id: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """How to ask: `url` or `command`, and patterns whose first group is what is looked for."""

    url: str
    command: tuple[str, ...]
    version: str
    boot_id: str
    timeout_s: float

    async def look(self) -> Seen:
        """Ask. Errors: `UnreachableError` where there is no answer, `HandlerError` where it does not say."""
        answer = await (self._run() if self.command else self._get())
        found = re.search(self.version, answer, re.MULTILINE)
        if found is None:
            raise HandlerError(f"the device's answer {answer[:80]!r} holds no version (pattern {self.version!r})")
        boot = re.search(self.boot_id, answer, re.MULTILINE) if self.boot_id else None
        return Seen(found[1].strip(), boot[1].strip() if boot else "")

    async def _run(self) -> str:
        ended = await run_program(self.command, timeout_s=self.timeout_s, environment={})
        if not ended.succeeded:
            raise UnreachableError(f"the probe {self.command[0]} {ended.describe()}")
        return ended.output

    async def _get(self) -> str:
        try:
            async with (
                asyncio.timeout(self.timeout_s),
                aiohttp.ClientSession(trust_env=False) as session,
                session.get(self.url, allow_redirects=False) as answer,
            ):
                if answer.status != _OK:
                    raise HandlerError(f"{self.url} answered {answer.status} instead of the device's version")
                return (await answer.content.read(_MOST_BYTES)).decode(errors="replace")
        except TimeoutError as error:
            raise UnreachableError(f"{self.url} did not answer within {self.timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise UnreachableError(f"{self.url} cannot be asked for the device's version: {error}") from error
