"""Interlocks: what must be so before a device may be restarted, such as "the machine is stopped".

They are read before a trial is opened, and again immediately before every restart, also before one that takes a device back:
to restart a machine that runs is worse than a version that stays a while longer.

1. An interlock that cannot be read is shut.
2. All must be open at once. They are read in their configured order; the first that is shut is what is waited for.
3. A shut one is waited for. That is no try of the state that waits, however often the agent is started anew in it.
4. Longer than its `deadline_s` it is not waited for: a trial that is not opened yet ends as failed, one that is opened and not
   started is closed again. A return to the previous version waits on for as long as it takes, and says so every hour.
   The time counts from when the wait began in this process.
"""

import asyncio
import os
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from node_agent.health import Check
from update.errors import InterlockError

_MAX_INPUT_BYTES = 4096
_MAX_REASON_CHARACTERS = 300
_TOLD_EVERY_S = 3600


@dataclass(frozen=True, slots=True)
class Interlock:
    """One condition: `check` is well where it is open. `deadline_s`: how long a shut one is waited for, in seconds."""

    name: str
    check: Check
    deadline_s: float


@dataclass(frozen=True, slots=True)
class Shut:
    """An interlock that is shut, and why."""

    name: str
    reason: str
    deadline_s: float

    def error(self) -> InterlockError:
        """What ends the wait."""
        return InterlockError(f"interlock {self.name} stayed shut for {self.deadline_s:g} s: {self.reason}")


class InputCheck:
    """A digital input, or another attribute of a device in a file: well is `value`, blanks around it aside.

    For `/sys/class/gpio/gpioN/value` of an input, or an attribute of the Industrial I/O subsystem. Read anew each time; one that
    has not answered after `timeout_s` is not well, and is not read again before it has.
    """

    def __init__(self, path: Path, value: str, timeout_s: float) -> None:
        self.path = path
        self._value = value
        self._timeout_s = timeout_s
        self._reading: asyncio.Task[str | None] | None = None

    @property
    def name(self) -> str:
        """The file."""
        return f"input {self.path}"

    async def failure(self, environment: Mapping[str, str]) -> str | None:
        """Read it once."""
        del environment
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(asyncio.to_thread(self._failure))
            await asyncio.wait({self._reading}, timeout=self._timeout_s)
            if self._reading.done():
                return self._reading.result()
        return f"does not answer within {self._timeout_s:g} s"

    def _failure(self) -> str | None:
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    return "cannot be read: it is no file"
                data = os.read(descriptor, _MAX_INPUT_BYTES)
            finally:
                os.close(descriptor)
        except OSError as error:
            return f"cannot be read: {error.strerror or error}"
        got = data.decode("utf-8", "replace").strip()
        return None if got == self._value else f"is {got[:40]!r}, must be {self._value!r}"


class Interlocks:
    """The interlocks of one device, and how long one has been waited for. `monotonic_s`: seconds of any origin."""

    def __init__(self, interlocks: Sequence[Interlock] = (), monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._interlocks = tuple(interlocks)
        self._monotonic_s = monotonic_s
        self._since_s: float | None = None

    @property
    def waiting(self) -> bool:
        """Whether one is being waited for."""
        return self._since_s is not None

    async def shut(self, environment: Mapping[str, str]) -> Shut | None:
        """Read them; the first that is shut, None where all are open."""
        for each in self._interlocks:
            if (reason := await each.check.failure(environment)) is not None:
                return Shut(each.name, f"{each.check.name} {reason}"[:_MAX_REASON_CHARACTERS], each.deadline_s)
        return None

    def wait(self) -> None:
        """A wait begins."""
        self._since_s = self._monotonic_s()

    def end(self) -> None:
        """The wait is over."""
        self._since_s = None

    def waited_too_long(self, shut: Shut) -> bool:
        """Whether the deadline of what is waited for is over."""
        return self._waited_s() >= shut.deadline_s

    def words(self, shut: Shut) -> str:
        """What is told of the wait; it changes every hour."""
        hours = int(self._waited_s() // _TOLD_EVERY_S)
        return f"waiting for interlock {shut.name}{f' for {hours} h' if hours else ''}"

    def _waited_s(self) -> float:
        return 0.0 if self._since_s is None else self._monotonic_s() - self._since_s
