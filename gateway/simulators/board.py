"""A Linux board with two slots, as a process: its boot script, its kernel command line, its agent.

A start is what a real board does at power-on: the boot script reads the environment, counts a trial and chooses a slot;
the "kernel" is then this board's command line file naming that slot, and its user land is the agent process. An agent
that ends with `RESTART_STATUS` asked for a restart; any other end leaves the board off. Power can be cut at any time.
"""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
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
        if ended is not None:
            self._running.add_done_callback(lambda task: None if task.cancelled() else ended(task.result()))

    async def run(self) -> int:
        """Start and restart until the agent ends by itself; its exit status. Bounded by `MAX_RESTARTS`."""
        status = RESTART_STATUS
        while status == RESTART_STATUS and len(self.starts) < MAX_RESTARTS:
            slot = await asyncio.to_thread(start, self._environment)
            self._command_line.write_text(f"console=ttyS0 fieldrelay.slot={slot}\n")
            self.starts.append(slot)
            status = await self._run_agent()
        return status

    async def off(self) -> None:
        """Cut the power: the agent dies without a word. Returns when it is gone."""
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running
            self._running = None

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
            process.kill()
            async with asyncio.timeout(_END_S):
                await process.wait()
