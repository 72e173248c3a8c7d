"""The real gateway is killed in the middle of downloads and comes back: right bytes, and upstream pays little for it.

`make test` kills at a few moments, `make soak` at many; the seed is printed, and FIELDRELAY_SEED repeats it.
"""

import asyncio
import os
import random
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest

from gateway.simulators.upstream import Faults, UpstreamServer
from gateway.south.relay import CONCURRENT_REQUESTS, WRITE_BYTES
from tests.builders.appliance import Appliance
from tests.builders.relayed import custom_of, info_of, until
from tests.builders.repository import RepositoryBuilder
from update.chunks.ranges import MultipartParser, Range, format_range, parse_boundary
from update.durable import Disk
from update.publish.images import write_zchunk, zck_header
from update.trust.verified import TargetInfo

IMAGE_BYTES = 24 << 20
LINE_BYTES_PER_S = 16 << 20
ON_ITS_WAY_BYTES = CONCURRENT_REQUESTS * (WRITE_BYTES + (512 << 10))
"""What may have left upstream and not reached the file: chunks in the making, and the buffers of the connections."""


def seed_of_run() -> int:
    seed = int(os.environ.get("FIELDRELAY_SEED", random.randrange(1 << 32)))
    print(f"FIELDRELAY_SEED={seed}")
    return seed


class Client:
    """Reads a file by ranges, in a random order, until it has all of it; a gateway that is gone is asked again."""

    def __init__(self, port: int, info: TargetInfo, dice: random.Random) -> None:
        self._url = f"http://127.0.0.1:{port}/{info.wire_path}"
        step = 100_000
        self._left = [Range(start, min(step, info.length - start)) for start in range(0, info.length, step)]
        dice.shuffle(self._left)
        self._dice = dice
        self.image = bytearray(info.length)
        self.failures = 0

    async def read_all(self) -> None:
        async with aiohttp.ClientSession(headers={"Host": "plant"}, timeout=aiohttp.ClientTimeout(total=60)) as session:
            while self._left:
                some = self._left[: self._dice.choice([1, 3, 20])]
                try:
                    await self._read(session, some)
                except (aiohttp.ClientError, TimeoutError):
                    self.failures += 1
                    await asyncio.sleep(0.02)
                else:
                    self._left = self._left[len(some) :]

    async def _read(self, session: aiohttp.ClientSession, some: Sequence[Range]) -> None:
        async with session.get(self._url, headers={"Range": format_range(some)}) as response:
            if response.status != 206:
                raise aiohttp.ClientError(f"status {response.status}")
            boundary = parse_boundary(response.headers["Content-Type"])
            body = await response.read()
        pieces = [(some[0].start, body)] if boundary is None else MultipartParser(boundary).feed(body)
        assert sum(len(piece) for _, piece in pieces) == sum(span.length for span in some)
        for offset, piece in pieces:
            self.image[offset : offset + len(piece)] = piece


@pytest.fixture(scope="module")
def zck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zck")
    (folder / "image").write_bytes(random.Random(6).randbytes(IMAGE_BYTES))
    write_zchunk(folder / "image", folder / "image.zck", Disk())
    return folder / "image.zck"


@pytest.mark.parametrize("kills", [pytest.param(2, id="few"), pytest.param(30, id="many", marks=pytest.mark.soak)])
@pytest.mark.timeout(600)
async def test_a_gateway_killed_in_the_middle_of_downloads_serves_right_bytes_and_repeats_few(zck: Path, kills: int) -> None:
    dice = random.Random(seed_of_run())
    content, info = zck.read_bytes(), info_of(zck)
    builder = RepositoryBuilder(now=datetime.now(UTC))
    builder.add_target(info.path, content, custom_of(zck).as_json())
    builder.publish()
    with tempfile.TemporaryDirectory() as place:  # short: a socket's name has 107 bytes
        folder = Path(place)
        builder.write_to(folder / "upstream")
        (folder / "root.json").write_bytes(builder.root_bytes)
        moments = sorted(dice.sample(range(len(zck_header(zck)), len(content)), kills))
        async with UpstreamServer(folder / "upstream", faults=Faults(bytes_per_s=LINE_BYTES_PER_S)) as upstream:
            appliance = Appliance(folder)
            await appliance.set_up(upstream.url)
            clients = [Client(appliance.port, info, random.Random(dice.random())) for _ in range(3)]
            reading = [asyncio.create_task(client.read_all()) for client in clients]
            try:
                for moment in moments:
                    async with appliance.running() as process:
                        await until(
                            lambda moment=moment: _union(upstream) >= moment or all(task.done() for task in reading),  # type: ignore[misc]  # the loop's own
                            within_s=60,
                        )
                        process.kill()
                        await process.wait()
                async with appliance.running():
                    async with asyncio.timeout(120):
                        await asyncio.gather(*reading)
            finally:
                for task in reading:
                    task.cancel()
        repeated = upstream.traffic.repeated_bytes(".zck")
        figures = {"kills": kills, "repeated_bytes": repeated, "failures": sum(client.failures for client in clients)}
        print(figures, asdict(upstream.traffic)["requests"])
        assert all(client.image == content for client in clients)
        assert repeated <= kills * ON_ITS_WAY_BYTES, "what was written is found by reading, claimed or not"
        assert sum(client.failures for client in clients) > 0


def _union(upstream: UpstreamServer) -> int:
    """Bytes of the image that upstream has sent, each counted once."""
    sent = sum(part.length for path, parts in upstream.traffic.bodies.items() if path.endswith(".zck") for part in parts)
    return sent - upstream.traffic.repeated_bytes(".zck")
