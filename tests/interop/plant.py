"""A plant: a real gateway process, nodes with unmodified swupdate behind it, and a hawkBit above it.

async with plant(folder, url, ["n1", "n2"]) as site:
    async with site.running(), site.nodes["n1"].running():
        deployed = await site.deploy(operator, "n1", site.bundle(content))
        assert await deployed.end() == ["finished"]

Node `n1` is target `<prefix>n1`; the prefix is the plant's own, since the server may be shared.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from uuid import uuid4

from gateway.database.engine import Database, sqlite_url
from gateway.database.queries import nodes
from gateway.database.records import ClientKind
from gateway.fleet.accounts import Accounts
from tests.builders.appliance import Appliance
from tests.builders.bundles import describe, image, signed
from tests.builders.keys import make_pki
from tests.builders.repository import RepositoryBuilder
from tests.interop.hawkbit_management import GATEWAY_TOKEN, Entry, Management, ManagementError, Window
from tests.interop.stock_node import Ground, StockNode
from update.trust.verified import Provenance

_PATIENCE_S = 60.0
_LOOK_EVERY_S = 0.1
COMPANY = "hawkbit:company"
"""The server, as an assigner."""
BY_TOKEN = 'gateway_token = "token"'  # noqa: S105 - the name of a file
"""How the gateway shows the server who it is."""
WRITTEN = "All Chunks Installed."
"""What swupdate says when it has installed; nothing is proved then."""
_ENDS = frozenset({"finished", "error", "canceled"})


@dataclass(frozen=True, slots=True)
class Deployed:
    """One action of one node, as hawkBit's operator sees it."""

    operator: Management
    target: str
    action: int

    async def history(self) -> list[Entry]:
        """Every status, the oldest first."""
        return await self.operator.history(self.target, self.action)

    async def ends(self) -> list[str]:
        """Every status that ends it."""
        return [entry.type for entry in await self.history() if entry.type in _ENDS]

    async def words(self) -> str:
        """Everything that was said about it, in order."""
        return "\n".join(line or "" for entry in await self.history() for line in entry.messages)

    async def says(self, text: str) -> None:
        """Wait until hawkBit was told that."""

        async def is_there() -> bool:
            return text in await self.words()

        await until(f"hawkBit was told {text!r} about {self.target}", is_there)

    async def end(self) -> list[str]:
        """Wait until it has ended; every status that ended it."""

        async def is_over() -> bool:
            return bool(await self.ends())

        await until(f"{self.target} has ended", is_over)
        return await self.ends()

    async def cancel(self) -> None:
        """Ask the node to stop."""
        await self.operator.cancel(self.target, self.action)


@dataclass(slots=True)
class Plant:
    """The parts. `place` is what bundles write to, as far as the nodes can tell, `source` what their deltas read."""

    folder: Path
    prefix: str
    appliance: Appliance
    nodes: dict[str, StockNode]
    place: Path
    source: Path

    def target(self, node: str) -> str:
        """The controller id of a node."""
        return self.prefix + node

    def bundle(self, content: bytes, version: str = "1.2", *, place: Path | None = None) -> bytes:
        """A signed `.swu` that writes `content`."""
        described = describe(images=[image("rootfs.img", content, device=str(place or self.place))], version=version)
        return signed(self.folder, described, {"rootfs.img": content}, name=f"{uuid4().hex}.swu").read_bytes()

    async def deploy(self, operator: Management, node: str, bundle: bytes, *, window: Window | None = None) -> Deployed:
        """Assign a bundle to one node."""
        return (await self.deploy_to(operator, [node], bundle, window=window))[node]

    async def deploy_to(
        self, operator: Management, names: Sequence[str], bundle: bytes, *, window: Window | None = None
    ) -> dict[str, Deployed]:
        """Assign one set to several nodes, once they are targets."""
        number = await operator.publish(f"firmware-{uuid4().hex}", "1.2", "os.swu", bundle)
        return await self.assign_to(operator, names, number, window=window)

    async def assign_to(
        self, operator: Management, names: Sequence[str], number: int, *, window: Window | None = None
    ) -> dict[str, Deployed]:
        """Assign a set to several nodes, once they are targets."""
        found = {}
        for name in names:
            target = self.target(name)
            await until(f"{target} is a target", partial(is_target, operator, target))
            found[name] = Deployed(operator, target, await operator.assign(target, number, window=window))
        return found

    async def is_taken_over(self, node: str) -> None:
        """Wait until the gateway wants something of a node."""

        async def is_wanted() -> bool:
            return f"wants os.swu on {node}" in self.appliance.log

        await until(f"the gateway has taken over what {node} shall have", is_wanted)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """The gateway, from ready until SIGKILL."""
        async with self.appliance.running() as process:
            yield process


@asynccontextmanager
async def plant(
    folder: Path, url: str, names: Sequence[str], *, slot_bytes: int = 1 << 16, credential: str = BY_TOKEN, more: str = ""
) -> AsyncIterator[Plant]:
    """A plant that the server at `url` assigns for; nothing runs yet. `more` are further sections of the gateway."""
    prefix, pki = f"p{uuid4().hex[:12]}-", make_pki().write(folder / "pki")
    builder = RepositoryBuilder(now=datetime.now(UTC))
    builder.write_to(folder / "repository")
    (folder / "root.json").write_bytes(builder.root_bytes)
    appliance = Appliance(folder)
    await appliance.set_up(
        str(folder / "repository"),
        south="polling_interval_s = 1",
        repository=f'cms_roots = ["{pki.anchors}"]',
        more=above(folder, url, prefix, credential) + more,
    )
    place, source = folder / "device", folder / "source"
    place.touch()
    source.touch()
    ground = Ground(place, source, pki.anchors, appliance.state.authority[0], appliance.south_port, appliance.port)
    tokens = await _admit(appliance, names)
    made = {name: StockNode(folder / name, name, token, ground, slot_bytes=slot_bytes) for name, token in tokens.items()}
    yield Plant(folder, prefix, appliance, made, place, source)


def above(folder: Path, url: str, prefix: str, credential: str = BY_TOKEN) -> str:
    """The section of a gateway in `folder` for the server at `url`, with the file of its token: node `n1` is `<prefix>n1`."""
    (folder / "token").write_text(GATEWAY_TOKEN)
    (folder / "token").chmod(0o600)
    return (
        f'[[hawkbit]]\nname = "company"\nurl = "{url}"\nrepository = "plant"\n{credential}\n'
        f'controller = "{prefix}{{node}}"\nrequests_per_s = 100\n'
    )


async def _admit(appliance: Appliance, names: Sequence[str]) -> dict[str, str]:
    """Give each node its token, and all of them to the server."""
    database = await Database.open(sqlite_url(appliance.state.database))
    try:
        accounts = Accounts(database, lambda: datetime.now(UTC))
        tokens = {name: await accounts.give_token(name, ClientKind.SWUPDATE) for name in names}
        async with database.writing() as transaction:
            for name in names:
                await nodes.set_assigner(transaction, name, COMPANY)
                await nodes.set_accepts(transaction, name, Provenance.CMS)
    finally:
        await database.close()
    return tokens


@asynccontextmanager
async def hurried(operator: Management) -> AsyncIterator[Management]:
    """Have the server want to be asked every second."""
    before = await operator.setting("pollingTime")
    await operator.configure("pollingTime", "00:00:01")
    yield operator
    await operator.configure("pollingTime", before)


async def until(what: str, holds: Callable[[], Awaitable[bool]], *, patience_s: float = _PATIENCE_S) -> None:
    """Look again and again until it holds; `what` is said if it never does."""
    deadline = time.monotonic() + patience_s
    while not await holds():
        assert time.monotonic() < deadline, f"after {patience_s:.0f} s still not: {what}"
        await asyncio.sleep(_LOOK_EVERY_S)


async def is_target(operator: Management, target: str) -> bool:
    """Whether the server knows what a device is."""
    try:
        return bool(await operator.attributes(target))
    except ManagementError:
        return False
