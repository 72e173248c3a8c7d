"""The real `fieldrelay gateway serve`, as a process of its own that can be killed and started again.

appliance = Appliance(folder)               # folder: with a short name, and the repository's root.json in it
await appliance.set_up("http://127.0.0.1:1234")
async with appliance.running() as process: ...
"""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from gateway.config import StateFolder
from gateway.setup import Wishes, set_up
from update.durable import Disk


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Appliance:
    """A gateway for the repository `plant`, for nodes at `south_port`, with its plain listener open at `port`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port, self.south_port = free_port(), free_port()

    async def set_up(self, *upstreams: str, south: str = "", repository: str = "", more: str = "") -> None:
        """Make it; `south` and `repository` are further lines of those sections, `more` are further sections."""
        file, state = self._folder / "gateway.toml", self._folder / "state"
        wishes = Wishes(file, "gw", state, self._folder / "s", self.south_port, hosts=("127.0.0.1",))
        await set_up(wishes, Disk(), datetime.now(UTC))
        text = file.read_text().replace("[south]\n", f'[south]\naddresses = ["127.0.0.1"]\n{south}\n')
        named = ", ".join(f'"{upstream}"' for upstream in upstreams)
        file.write_text(
            f'{text}\n[south.content]\nenabled = true\naddresses = ["127.0.0.1"]\nport = {self.port}\n'
            f'[[repository]]\nname = "plant"\nroot = "root.json"\nupstreams = [{named}]\n{repository}\n{more}\n'
        )

    @property
    def state(self) -> StateFolder:
        """What it keeps."""
        return StateFolder(self._folder / "state")

    @property
    def log(self) -> str:
        """What it said so far."""
        return (self._folder / "log").read_text(errors="replace")

    @property
    def sparse_file(self) -> Path:
        """The only `.zck` that is being relayed."""
        (found,) = (self._folder / "state").rglob("sparse/*.zck")
        return found

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """From ready until SIGKILL."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, (self._folder / "log").open("ab") as log:
            manager.bind(f"{self._folder}/notify")
            manager.settimeout(60)
            program = str(Path(sys.executable).with_name("fieldrelay"))
            command = [program, "gateway", "--config", str(self._folder / "gateway.toml"), "serve"]
            environment = os.environ | {"NOTIFY_SOCKET": f"{self._folder}/notify"}
            process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=log, stderr=log)
            try:
                while not (await asyncio.to_thread(manager.recv, 1000)).startswith(b"READY=1"):
                    pass
                yield process
            finally:
                (self._folder / "notify").unlink()
                if process.returncode is None:
                    process.kill()
                await process.wait()
