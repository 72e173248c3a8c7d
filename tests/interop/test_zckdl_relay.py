"""Many real zckdl at once through the real gateway, each from another old version, while everything goes wrong that may.

zckdl does not ask again by itself: it ends at a refused connection, at a status that is no 206, and at a wrong chunk. So each is
started again until it has succeeded, as a user would do it by hand. `make test` runs 10, `make soak` 100; what upstream sent
is compared with the union of what the clients lack, and written into build/soak/zckdl-relay.json by the soak.

What was on its way when the gateway was killed is sent twice, and how much that is depends on the machine: on one that is
overloaded the kernel takes megabytes from the line which the gateway has had no time to read. So the gateway is stopped, and
counted, before it is killed. The rest holds on any machine:

- the gateway itself has had no more in its hands than its window;
- of what was in the file, whole and undamaged, nothing is ever sent again;
- beside what was on its way upstream has sent the union, and 2 % for the heads of parts and the like.
"""

import asyncio
import json
import os
import random
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from gateway.simulators.characters import corrupt
from gateway.simulators.upstream import Faults, UpstreamServer
from gateway.south.relay import CONCURRENT_REQUESTS, WRITE_BYTES
from tests.builders.appliance import Appliance
from tests.builders.relayed import custom_of, info_of, until
from tests.builders.repository import RepositoryBuilder
from tests.peers import need_tool
from update.chunks.zchunk import Chunk, HeaderIndex, parse_header
from update.durable import Disk
from update.publish.images import write_zchunk, zck_header

pytestmark = pytest.mark.interop

LINE_BYTES_PER_S = 4 << 20
CLUSTER_BYTES = 128 << 10
DAMAGED_CHUNKS = 5
MOST_TRIES = 60
RATIO = 1.02
WINDOW_BYTES = CONCURRENT_REQUESTS * (WRITE_BYTES + (512 << 10) + (128 << 10))
"""What may have left upstream and be neither in the file nor in the kernel: what is gathered for the next write, a chunk in the
making, the buffers of both ends of a connection."""
_FIGURES = Path(__file__).parents[2] / "build" / "soak" / "zckdl-relay.json"


@dataclass(frozen=True, slots=True)
class Size:
    """`image_bytes` of random content; each of `clients` runs a version that is `edits` clusters older than the one before."""

    clients: int
    image_bytes: int
    edits: int


FEW, MANY = Size(10, 8 << 20, 4), Size(100, 32 << 20, 4)
_SOAK = [pytest.mark.soak, pytest.mark.timeout(3600)]
TROUBLES = ["killed", "damaged while stopped", "damaged while running", "lying upstream"]
CASES = [
    pytest.param(FEW, "damaged while stopped", id="few-damaged"),  # killed, too
    pytest.param(FEW, "lying upstream", id="few-lying"),
    *(pytest.param(MANY, trouble, id=f"many-{trouble.replace(' ', '-')}", marks=_SOAK) for trouble in TROUBLES),
]


class Versions:
    """The newest `.zck` in a repository, and the old ones of the clients."""

    def __init__(self, folder: Path, size: Size) -> None:
        dice, image = random.Random(19), folder / "image"
        new = dice.randbytes(size.image_bytes)
        self.size = size
        self.folder, self.zck = folder, folder / "new.zck"
        image.write_bytes(new)
        write_zchunk(image, self.zck, Disk())
        self.content, self.index, self.old = self.zck.read_bytes(), parse_header(zck_header(self.zck)), list[Path]()
        old, lacking = bytearray(new), set[int]()
        for number in range(size.clients):
            for _ in range(size.edits):
                place = dice.randrange(len(old) // CLUSTER_BYTES) * CLUSTER_BYTES
                old[place : place + CLUSTER_BYTES] = dice.randbytes(CLUSTER_BYTES)
            image.write_bytes(old)
            self.old.append(folder / f"old-{number}.zck")
            lacking |= _lacking(self.index, write_zchunk(image, self.old[-1], Disk()))
        image.unlink()
        self.union_bytes = self.index.header_size + sum(self.index[number].length for number in lacking)
        self.root = self._publish()

    def _publish(self) -> bytes:
        builder = RepositoryBuilder(now=datetime.now(UTC))
        builder.add_target(info_of(self.zck).path, self.content, custom_of(self.zck).as_json())
        builder.publish()
        builder.write_to(self.folder / "upstream")
        return builder.root_bytes


def _lacking(new: HeaderIndex, old: HeaderIndex) -> set[int]:
    """Chunks that zckdl does not find: it compares compressed digests."""
    have = {chunk.compressed_digest for chunk in old}
    return {chunk.index for chunk in new if chunk.length and chunk.compressed_digest not in have}


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Versions]:
    folder = tmp_path_factory.mktemp("versions")
    yield Versions(folder, request.param)
    shutil.rmtree(folder)  # gigabytes


@pytest.fixture(scope="module")
def table() -> Iterator[list[dict[str, object]]]:
    """What the soak has measured, written at its end."""
    rows: list[dict[str, object]] = []
    yield rows
    _FIGURES.parent.mkdir(parents=True, exist_ok=True)
    _FIGURES.write_text(json.dumps(rows, indent=1) + "\n")


class Plant:
    """The gateway between its upstreams and its zckdl clients."""

    def __init__(self, folder: Path, versions: Versions) -> None:
        self._folder, self._versions = folder, versions
        self._tool = need_tool("zckdl")
        self._up = asyncio.Event()
        self._new = True
        self.appliance = Appliance(folder)
        self.tries = 0

    @asynccontextmanager
    async def gateway(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """The gateway runs; clients ask only while it does, and not before it has read its repository once."""
        async with self.appliance.running() as process, aiohttp.ClientSession(headers={"Host": "plant"}) as session:
            url = f"http://127.0.0.1:{self.appliance.port}/{info_of(self._versions.zck).wire_path}"
            for _ in range(600 if self._new else 0):
                async with session.head(url) as response:
                    if response.status == 200:
                        break
                await asyncio.sleep(0.1)
            self._new = False
            self._up.set()
            try:
                yield process
            finally:
                self._up.clear()

    @asynccontextmanager
    async def clients(self) -> AsyncIterator["list[asyncio.Task[None]]"]:
        """All of them at work; at the end none is."""
        tasks = [asyncio.create_task(self._client(number)) for number in range(len(self._versions.old))]
        try:
            yield tasks
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _client(self, number: int) -> None:
        """Run zckdl until it has the file; the file is compared, and removed."""
        info, folder = info_of(self._versions.zck), self._folder / f"client-{number}"
        folder.mkdir()
        command = [self._tool, "-s", str(self._versions.old[number]), f"http://plant/{info.wire_path}"]
        environment = os.environ | {"http_proxy": f"http://127.0.0.1:{self.appliance.port}"}
        for _ in range(MOST_TRIES):
            await self._up.wait()
            self.tries += 1
            with (folder / "log").open("ab") as log:
                process = await asyncio.create_subprocess_exec(*command, cwd=folder, env=environment, stdout=log, stderr=log)
                try:
                    ended = await process.wait()
                finally:
                    if process.returncode is None:
                        process.kill()
                        await process.wait()
            if ended == 0:
                (file,) = folder.glob("*.zck")
                assert file.read_bytes() == self._versions.content
                file.unlink()
                return
            await asyncio.sleep(0.2)  # as somebody does who types the command again
        raise AssertionError(f"zckdl {number} did not succeed: {(folder / 'log').read_text()[-2000:]}")

    def stored(self) -> list[Chunk]:
        """The chunks that are whole in the sparse file."""
        content, held = self._versions.content, self.appliance.sparse_file.read_bytes()
        spans = ((chunk, slice(chunk.start, chunk.start + chunk.length)) for chunk in self._versions.index if chunk.length)
        return [chunk for chunk, span in spans if held[span] == content[span]]

    def stored_bytes(self) -> int:
        """What is of use in the sparse file."""
        return self._versions.index.header_size + sum(chunk.length for chunk in self.stored())

    def damage(self, dice: random.Random) -> int:
        """Flip a byte in some chunks that are in the sparse file; how many bytes these have."""
        damaged = dice.sample(self.stored(), DAMAGED_CHUNKS)
        with self.appliance.sparse_file.open("r+b") as opened:
            for chunk in damaged:
                opened.seek(chunk.start)
                opened.write(bytes([self._versions.content[chunk.start] ^ 1]))
        return sum(chunk.length for chunk in damaged)


@dataclass(frozen=True, slots=True)
class Lost:
    """What had left upstream when the gateway ended and was not in its file, and how much of it the gateway had in its hands."""

    sent_bytes: int = 0
    in_hand_bytes: int = 0


def in_hand(process: asyncio.subprocess.Process, plant: Plant, honest: UpstreamServer) -> int:
    """Have the gateway stand still, and count. Nothing else runs here meanwhile, so that upstream stands still, too."""
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    return _sent(honest) - plant.stored_bytes() - in_kernel(urlsplit(honest.url).port or 0)


def in_kernel(port: int) -> int:
    """Bytes that the kernel has of connections to that port: sent and not read, or not even sent (proc_net_tcp)."""
    queued = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues, *_ = line.split()
        unsent, unread = (int(count, 16) for count in queues.split(":"))
        queued += unsent * (int(local.split(":")[1], 16) == port) + unread * (int(remote.split(":")[1], 16) == port)
    return queued


@dataclass(frozen=True, slots=True)
class Outcome:
    """Bytes of the image that the honest upstream sent, those that damage made it send again, those that it sent again although
    they were in the file, and starts of zckdl.
    """

    origin_bytes: int
    damaged_bytes: int
    needless_bytes: int
    lost: Lost
    tries: int


async def _run(versions: Versions, trouble: str) -> Outcome:
    dice = random.Random(trouble)
    with tempfile.TemporaryDirectory() as place:  # short: a socket's name has 107 bytes
        folder, damaged_bytes, lost, stored = Path(place), 0, Lost(), list[Chunk]()
        (folder / "root.json").write_bytes(versions.root)
        liars = [corrupt()] if trouble == "lying upstream" else []
        async with (
            UpstreamServer(versions.folder / "upstream", faults=Faults(bytes_per_s=LINE_BYTES_PER_S)) as honest,
            UpstreamServer(versions.folder / "upstream", faults=corrupt()) as liar,
        ):
            plant = Plant(folder, versions)
            await plant.appliance.set_up(*[liar.url for _ in liars], honest.url)
            async with plant.clients() as clients:
                if not liars:
                    async with plant.gateway() as process:
                        await until(lambda: _sent(honest) > versions.union_bytes // 2, within_s=300)
                        held_bytes = in_hand(process, plant, honest)
                        if trouble == "damaged while running":
                            damaged_bytes = plant.damage(dice)
                            process.send_signal(signal.SIGTERM)  # as who reads in the log of wrong content
                            process.send_signal(signal.SIGCONT)
                        else:
                            process.kill()
                        await process.wait()
                    await honest.stop()  # what was being sent to nobody has an end
                    lost = Lost(_sent(honest) - plant.stored_bytes() - damaged_bytes, held_bytes)
                    if trouble == "damaged while stopped":
                        damaged_bytes = plant.damage(dice)
                    stored = plant.stored()
                    honest.traffic.bodies.clear()
                    await honest.start()
                async with plant.gateway():
                    await asyncio.wait_for(asyncio.gather(*clients), 900)
            return Outcome(_sent(honest), damaged_bytes, _sent_of(honest, stored), lost, plant.tries)


def _sent(upstream: UpstreamServer) -> int:
    return sum(count for path, count in upstream.traffic.per_path_bytes.items() if path.endswith(".zck"))


def _sent_of(upstream: UpstreamServer, chunks: Iterable[Chunk]) -> int:
    """Bytes of these chunks in what upstream has sent."""
    parts = [part for path, parts in upstream.traffic.bodies.items() if path.endswith(".zck") for part in parts]
    spans = [(max(part.start, chunk.start), min(part.end, chunk.start + chunk.length)) for chunk in chunks for part in parts]
    return sum(end - start for start, end in spans if end > start)


@pytest.mark.parametrize(("versions", "trouble"), CASES, indirect=["versions"])
async def test_all_clients_end_with_the_right_file_and_upstream_sends_the_union(
    versions: Versions, trouble: str, request: pytest.FixtureRequest
) -> None:
    outcome = await _run(versions, trouble)
    owed_bytes = outcome.origin_bytes - outcome.damaged_bytes - outcome.lost.sent_bytes
    figures = {
        "trouble": trouble,
        "clients": len(versions.old),
        "union_bytes": versions.union_bytes,
        "origin_bytes": outcome.origin_bytes,
        "damaged_bytes": outcome.damaged_bytes,
        "lost_bytes": outcome.lost.sent_bytes,
        "in_hand_bytes": outcome.lost.in_hand_bytes,
        "needless_bytes": outcome.needless_bytes,
        "ratio": round((outcome.origin_bytes - outcome.damaged_bytes) / versions.union_bytes, 4),
        "ratio_beside_what_was_lost": round(owed_bytes / versions.union_bytes, 4),
        "starts_of_zckdl": outcome.tries,
    }
    print(json.dumps(figures))
    if versions.size == MANY:
        request.getfixturevalue("table").append(figures)
    assert outcome.lost.in_hand_bytes <= WINDOW_BYTES
    assert outcome.needless_bytes == 0
    assert owed_bytes <= RATIO * versions.union_bytes
