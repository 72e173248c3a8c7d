"""The demo's gateway: set up by `fieldrelay gateway init`, run as a process of its own, killed and started again."""

import asyncio
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from gateway.config import StateFolder
from gateway.control.client import ControlClient
from gateway.demo.release import REPOSITORY, Release
from gateway.setup import Wishes, set_up
from update.durable import Disk
from update.errors import StateError, WireError

_END_S = 20.0
_READY_S = 30.0
_POLL_S = 0.1
_LAST_WORDS_BYTES = 2000


class Appliance:
    """One gateway in one folder."""

    def __init__(self, folder: Path, *, interface: str, address: str) -> None:
        self._folder = folder
        self._interface = interface
        self._address = address
        self._config = folder / "gateway.toml"
        self._socket = folder / "control.sock"
        self._log = folder / "gateway.log"
        self._process: asyncio.subprocess.Process | None = None
        self.client = ControlClient(self._socket)

    @property
    def site_ca(self) -> Path:
        """What nodes trust."""
        return StateFolder(self._folder / "state").authority[0]

    @property
    def intake(self) -> Path:
        """Where it meets whoever reads media."""
        return self._folder / "intake"

    async def set_up(self, disk: Disk, release: Release, upstreams: Sequence[str]) -> None:
        """Make keys, database and configuration; the mirror polls every few seconds, since a demo has no patience."""
        wishes = Wishes(
            file=self._config,
            name="demo-gateway",
            state=self._folder / "state",
            socket=self._socket,
            port=_free_port(self._address),
            interfaces=(self._interface,),
        )
        await set_up(wishes, disk, datetime.now(UTC))
        text = self._config.read_text().replace(
            "[south]\n", f'[south]\naddresses = ["{self._address}"]\npolling_interval_s = 1\n'
        )
        ways = ", ".join(f'"{upstream}"' for upstream in upstreams)
        repository = (
            f'\n[[repository]]\nname = "{REPOSITORY}"\nroot = "{release.root}"\ncms_roots = ["{release.anchors}"]\n'
            f"upstreams = [{ways}]\npoll_interval_s = 5\n"
        )
        media = f'\n[media]\nenabled = true\nintake = "{self.intake}"\n'
        disk.write_file(self._config, (text + media + repository).encode())

    async def start(self) -> None:
        """Start, and return when it answers its operators."""
        with self._log.open("ab") as log:
            program = str(Path(sys.executable).with_name("fieldrelay"))
            self._process = await asyncio.create_subprocess_exec(
                program,
                "gateway",
                "--config",
                str(self._config),
                "serve",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            async with asyncio.timeout(_READY_S):
                while not await self._answers():
                    if self._process.returncode is not None:
                        raise StateError(f"the gateway ended with status {self._process.returncode}{self._last_words()}")
                    await asyncio.sleep(_POLL_S)
        except TimeoutError as error:
            raise StateError(f"the gateway did not answer in {_READY_S:g} s{self._last_words()}") from error

    async def kill(self) -> None:
        """SIGKILL: no goodbye, nothing flushed."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        self._process = None

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL if that does not end it."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        with suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                await self._process.wait()
        await self.kill()

    async def grow(self, disk: Disk, more: str) -> None:
        """Put `more` into the configuration, and start anew with it."""
        await self.stop()
        disk.write_file(self._config, self._config.read_bytes() + more.encode())
        await self.start()

    def _last_words(self) -> str:
        """The end of its log, since the folder may be gone when somebody wants to read it."""
        lines = self._log.read_bytes()[-_LAST_WORDS_BYTES:].decode(errors="replace").splitlines()
        return f": {lines[-1]} (all of {self._log} stays with --keep)" if lines else ", without a word"

    async def _answers(self) -> bool:
        try:
            await self.client.status()
        except WireError:
            return False
        return True


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
    return port
