"""A Linux board with two slots, as a process: its boot script, its kernel command line, its agent.

A start is what a real board does at power-on: the boot script reads the environment, counts a trial and chooses a slot;
the "kernel" is then this board's command line file naming that slot, and its user land is the agent process. An agent
that ends with `RESTART_STATUS` asked for a restart; any other end leaves the board off. Power can be cut at any time, and
then everything that ran on the board is gone: the agent, and whatever programs it had started.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from node_agent.bootloaders.scripted import Environment, start
from node_agent.drivers.driver import RESTART_STATUS

MAX_RESTARTS = 20
_END_S = 10.0


class Board:
    """One board; `run` keeps it powered until its agent ends for good, `off` cuts the power."""

    def __init__(
        self,
        name: str,
        *,
        environment: Environment,
        command_line: Path,
        agent: Sequence[str],
        variables: Mapping[str, str],
        log: Path,
    ) -> None:
        self.name = name
        self.starts: list[str] = []
        self._environment = environment
        self._command_line = command_line
        self._agent = tuple(agent)
        self._variables = dict(variables)
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._running: asyncio.Task[int] | None = None

    def power_on(self, ended: Callable[[int], None] | None = None) -> None:
        """Run in the background; `ended` hears the agent's last exit status."""
        self._running = asyncio.get_running_loop().create_task(self.run())
        self._running.add_done_callback(lambda task: self._ended(task, ended))

    async def run(self) -> int:
        """Start and restart until the agent ends by itself; its exit status. At most `MAX_RESTARTS` starts."""
        status = RESTART_STATUS
        for _ in range(MAX_RESTARTS):
            slot = await self._boot()
            self._command_line.write_text(f"console=ttyS0 fieldrelay.slot={slot}\n")
            self.starts.append(slot)
            status = await self._run_agent()
            if status != RESTART_STATUS:
                break
        return status

    async def off(self) -> None:
        """Cut the power: everything dies without a word. Returns when it is gone."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            await asyncio.wait([running])

    def _ended(self, task: "asyncio.Task[int]", ended: Callable[[int], None] | None) -> None:
        if task.cancelled():
            return
        if error := task.exception():  # it does not even boot: nobody awaits this task, so the board's log tells it
            with self._log.open("a") as log:
                log.write(f"{self.name} did not start: {error}\n")
        elif ended is not None:
            ended(task.result())

    async def _boot(self) -> str:
        """The boot script, to its end: a power cut is between two of its writes, which are atomic, never beside it."""
        booting = asyncio.ensure_future(asyncio.to_thread(start, self._environment))
        try:
            return await asyncio.shield(booting)
        except asyncio.CancelledError:
            await asyncio.wait([booting])
            raise

    async def _run_agent(self) -> int:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._agent,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self._variables},
            )
        try:
            return await self._process.wait()
        finally:
            await self._end()

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            for each in await asyncio.to_thread(_stopped_family, process.pid):
                with suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)
            async with asyncio.timeout(_END_S):
                await process.wait()


def _stopped_family(process: int) -> list[int]:
    """The ids of a process and of all that descend from it, in whatever sessions; stopped, so that no more are born."""
    family: list[int] = []
    found = [process]
    while found:
        for each in found:
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGSTOP)
        family += found
        found = [child for child, parent in _parents() if parent in family and child not in family]
    return family


def _parents() -> Iterator[tuple[int, int]]:
    """Every process with its parent's id (proc(5), /proc/pid/stat)."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):  # it has ended
                fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
                yield int(folder.name), int(fields[1])
