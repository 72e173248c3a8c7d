"""The real gateway fetches what is ordered before it is asked for: exactly that, through a kill, and once only."""

import asyncio
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest

from gateway.cli.output import show_status
from gateway.config import PrefetchMode, StateFolder
from gateway.control.client import ControlClient
from gateway.control.messages import AssignRequest
from gateway.database.engine import Database, sqlite_url
from gateway.database.records import Running
from gateway.simulators.upstream import Faults, UpstreamServer
from gateway.south.relay import CONCURRENT_REQUESTS, WRITE_BYTES
from gateway.status import GatewayState
from tests.builders.appliance import Appliance
from tests.builders.delta_bundle import delta_bundle
from tests.builders.fleet import Clock, register
from tests.builders.keys import make_pki
from tests.builders.relayed import custom_of, index_of, info_of, make_next, make_zck, new_chunks, until
from tests.builders.repository import RepositoryBuilder
from update.chunks.plan import Source, plan_delta
from update.chunks.ranges import Range, format_range
from update.chunks.zchunk import HeaderIndex
from update.digest import digest_file
from update.store.layout import Layout

VERSIONS = ("1.0", "1.1", "1.2")
LINE_BYTES_PER_S = 4 << 20
ON_ITS_WAY_BYTES = CONCURRENT_REQUESTS * (WRITE_BYTES + (512 << 10))


@dataclass(frozen=True, slots=True)
class Vendor:
    """Three releases in one repository, each a bundle and the image that it fetches by chunks."""

    folder: Path
    zcks: Mapping[str, Path]
    bundles: Mapping[str, Path]

    def index(self, version: str) -> HeaderIndex:
        return index_of(self.zcks[version]).header

    def runs(self, version: str) -> Running:
        return Running(version, digest_file(self.bundles[version])[0], "a")

    def wire_path(self, version: str) -> str:
        return info_of(self.zcks[version], path=f"os/image-{version}.zck").wire_path


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Vendor:
    folder = tmp_path_factory.mktemp("vendor")
    zcks = {"1.0": make_zck(tmp_path_factory.mktemp("1.0"), blocks=3000)}
    zcks["1.1"] = make_next(tmp_path_factory.mktemp("1.1"), zcks["1.0"], at=0.1, blocks=600)
    zcks["1.2"] = make_next(tmp_path_factory.mktemp("1.2"), zcks["1.1"], at=0.5, blocks=600, seed=7)
    builder, bundles = RepositoryBuilder(now=datetime.now(UTC)), {}
    for counter, version in enumerate(VERSIONS, 1):
        content = zcks[version].read_bytes()
        url = f"http://plant/{info_of(zcks[version], path=f'os/image-{version}.zck').wire_path}"
        builder.add_target(f"os/image-{version}.zck", content, custom_of(zcks[version]).as_json())
        bundles[version] = delta_bundle(zcks[version].parent, zcks[version], url, name=f"{version}.swu")
        custom = {"version": version, "hwIds": ["board:1"], "releaseCounter": counter}
        builder.add_target(f"os/{version}.swu", bundles[version].read_bytes(), custom)
    builder.publish()
    builder.write_to(folder / "upstream")
    (folder / "root.json").write_bytes(builder.root_bytes)
    return Vendor(folder, zcks, bundles)


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose name is short enough for a socket."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


class Gateway(Appliance):
    """A gateway that fetches beforehand, and nodes that have been there."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder = folder
        self.operator = ControlClient(folder / "s")

    async def make(self, vendor: Vendor, upstream: UpstreamServer, mode: PrefetchMode, **nodes: Running) -> None:
        (self.folder / "root.json").write_bytes((vendor.folder / "root.json").read_bytes())
        (self.folder / "anchors.pem").write_bytes(make_pki().anchors_pem)
        await self.set_up(upstream.url)
        with (self.folder / "gateway.toml").open("a") as file:
            file.write(f'cms_roots = ["anchors.pem"]\nprefetch = "{mode}"\n')
        database = await Database.open(sqlite_url(StateFolder(self.folder / "state").database))
        try:
            for name, running in nodes.items():
                await register(database, Clock(datetime.now(UTC)), name, running=running)
        finally:
            await database.close()

    async def order(self, version: str) -> None:
        assert (await self.operator.refresh("plant")).problem == ""
        await self.operator.assign(AssignRequest(release=version, nodes=None))

    async def fetched(self, condition: Callable[[GatewayState], bool]) -> GatewayState:
        """Its state, once that is as it should be."""
        for _ in range(1200):
            state = await self.operator.status()
            if condition(state):
                return state
            await asyncio.sleep(0.05)
        pytest.fail(show_status(await self.operator.status()))

    def pins(self) -> set[str]:
        return {path.stem for path in Layout(StateFolder(self.folder / "state").store).pins.iterdir()}


def all_here(version: str) -> Callable[[GatewayState], bool]:
    path = f"os/image-{version}.zck"
    return lambda state: [each.path for each in state.prefetch if each.done_bytes == each.wanted_bytes] == [path]


def sent(upstream: UpstreamServer, path: str) -> list[Range]:
    """What upstream has sent of a file."""
    return [part for name, parts in upstream.traffic.bodies.items() if name.endswith(path) for part in parts]


def positions(spans: list[Range]) -> set[int]:
    return {position for span in spans for position in range(span.start, span.end)}


async def read(port: int, path: str, spans: tuple[Range, ...]) -> int:
    """As a node asks for what it lacks."""
    headers = {"Host": "plant", "Range": format_range(spans)}
    async with aiohttp.request("GET", f"http://127.0.0.1:{port}/{path}", headers=headers) as response:
        assert response.status == 206
        return len(await response.read())


@pytest.mark.timeout(300)
async def test_the_union_comes_once_through_a_kill_and_then_nodes_cost_nothing(vendor: Vendor, short: Path) -> None:
    new, path = vendor.index("1.2"), vendor.wire_path("1.2")
    plans = {version: plan_delta(new, Source.of_index(vendor.index(version))).ranges for version in ("1.0", "1.1")}
    union = positions([Range(0, new.header_size), *(span for ranges in plans.values() for span in ranges)])
    assert 1_000_000 < len(union) < new.total_length * 2 // 3
    async with UpstreamServer(vendor.folder / "upstream", faults=Faults(bytes_per_s=LINE_BYTES_PER_S)) as upstream:
        gateway = Gateway(short)
        nodes = {"a": vendor.runs("1.0"), "b": vendor.runs("1.1"), "c": Running("0.9", "0" * 64, "a")}
        await gateway.make(vendor, upstream, PrefetchMode.UNION, **nodes)
        async with gateway.running() as process:
            await gateway.order("1.2")
            await until(lambda: len(positions(sent(upstream, path))) > len(union) // 2, within_s=60)
            process.kill()
            await process.wait()
        async with gateway.running():
            state = await gateway.fetched(all_here("1.2"))
            assert positions(sent(upstream, path)) == union
            assert upstream.traffic.repeated_bytes(".zck") <= ON_ITS_WAY_BYTES
            (image,) = state.prefetch
            assert (image.mode, image.nodes, image.unknown) == ("union", 2, 1)
            assert image.wanted_bytes == len(union) - new.header_size
            assert "os/image-1.2.zck" in show_status(state)
            assert gateway.pins() == {digest_file(vendor.zcks["1.2"])[0]}
            before = upstream.traffic.sent_bytes
            for ranges in plans.values():
                assert await read(gateway.port, path, ranges) >= sum(span.length for span in ranges)
            assert upstream.traffic.sent_bytes == before


@pytest.mark.timeout(300)
async def test_a_second_release_costs_only_what_the_first_does_not_have(vendor: Vendor, short: Path) -> None:
    first, second = vendor.index("1.1"), vendor.index("1.2")
    async with UpstreamServer(vendor.folder / "upstream") as upstream:
        gateway = Gateway(short)
        await gateway.make(vendor, upstream, PrefetchMode.FULL, a=Running("0.9", "0" * 64, "a"))
        async with gateway.running():
            await gateway.order("1.1")
            await gateway.fetched(all_here("1.1"))
            assert len(positions(sent(upstream, vendor.wire_path("1.1")))) == first.total_length
            await gateway.order("1.2")
            await gateway.fetched(all_here("1.2"))
            new = sum(new_chunks(vendor.zcks["1.2"], vendor.zcks["1.1"]).values())
            spans = sent(upstream, vendor.wire_path("1.2"))
            assert sum(span.length for span in spans) == second.header_size + new < second.total_length // 2
            await until(lambda: gateway.pins() == {digest_file(vendor.zcks["1.2"])[0]}, within_s=60)
            whole = Range(0, second.total_length)
            assert await read(gateway.port, vendor.wire_path("1.2"), (whole,)) == second.total_length
            assert sent(upstream, vendor.wire_path("1.2")) == spans


async def test_on_demand_nothing_is_fetched_or_pinned(vendor: Vendor, short: Path) -> None:
    async with UpstreamServer(vendor.folder / "upstream") as upstream:
        gateway = Gateway(short)
        await gateway.make(vendor, upstream, PrefetchMode.ON_DEMAND, a=vendor.runs("1.0"))
        async with gateway.running():
            await gateway.order("1.2")
            state = await gateway.operator.status()
            assert state.prefetch == ()
            assert "PREFETCH" not in show_status(state)
        assert sent(upstream, ".zck") == []
        assert gateway.pins() == set()
