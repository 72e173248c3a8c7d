"""A push over a line that is cut, to a gateway that is killed: it arrives, and what had come is not sent again."""

import asyncio
import base64
import random
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.builders.appliance import Appliance
from tests.builders.bundles import describe, image, signed
from tests.builders.cutting_line import CuttingLine
from tests.builders.keys import make_pki
from tests.builders.repository import RepositoryBuilder
from tests.builders.standing_site import now
from update.errors import FieldrelayError
from update.publish.pushes import PushedFile, files_of, label_of
from update.wire.http import Manner
from update.wire.push_messages import UPLOAD_TYPE, Begin, Session, Taken, Verdict
from update.wire.pushing import PushClient
from update.wire.rate import Retry
from update.wire.tls import GATEWAY_IDENTITY, client_context

PUSH = '[push]\nenabled = true\n[[push.pusher]]\nname = "ci"\ntoken = "ci.token"\nrepositories = ["plant"]\nsingles = true\n'
SHOWN = {"Authorization": "Bearer token-of-ci"}


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose name is short enough for a socket."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
async def appliance(short: Path) -> Appliance:
    builder = RepositoryBuilder(now=now())
    builder.publish()
    (short / "root.json").write_bytes(builder.root_bytes)
    (short / "anchors.pem").write_bytes(make_pki().anchors_pem)
    (short / "ci.token").write_text("token-of-ci\n")
    made = Appliance(short)
    await made.set_up("nowhere", repository='cms_roots = ["anchors.pem"]', more=PUSH)
    return made


def bundle(folder: Path, size_bytes: int) -> Path:
    generator = random.Random(7)
    content = b"".join(generator.randbytes(1 << 20) for _ in range(size_bytes >> 20))
    return signed(folder, describe(images=[image("a.img", content, type="raw")]), {"a.img": content}, name="big.swu")


@asynccontextmanager
async def client(appliance: Appliance, port: int, attempts: int = 12) -> AsyncIterator[PushClient]:
    tls = client_context(appliance.state.authority[0])
    manner = Manner(headers=SHOWN, server_hostname=GATEWAY_IDENTITY, tls=tls)
    async with aiohttp.ClientSession() as session:
        retry = Retry(attempts=attempts, first_s=0.01, longest_s=0.1)
        yield PushClient(session, f"https://127.0.0.1:{port}", manner, retry)


async def push(pushing: PushClient, source: Path, offsets: list[int]) -> Verdict:
    (file,) = files_of(source)
    session = await pushing.begin(Begin(label=label_of([file])))
    await pushing.send(session, file.path, file.file, offsets.append)
    return await pushing.finish(session.session)


async def interrupted(appliance: Appliance, short: Path, size_bytes: int) -> CuttingLine:
    """Pushed over a line that is cut five times on the way."""
    source, offsets = bundle(short, size_bytes), list[int]()
    line = CuttingLine(appliance.south_port, [size_bytes // 6] * 5)
    async with appliance.running(), line.open(), client(appliance, line.port) as pushing:
        verdict = await push(pushing, source, offsets)
    assert [each.verdict for each in verdict.files] == [Taken.ACCEPTED]
    assert offsets == sorted(offsets)
    return line


async def test_a_bundle_arrives_over_a_line_that_is_cut_five_times(appliance: Appliance, short: Path) -> None:
    assert (await interrupted(appliance, short, 24 << 20)).done == 5


@pytest.mark.soak
async def test_a_large_bundle_arrives_over_a_line_that_is_cut_five_times(appliance: Appliance, short: Path) -> None:
    assert (await interrupted(appliance, short, 300 << 20)).done == 5


async def test_a_gateway_that_is_killed_goes_on_where_it_durably_was(appliance: Appliance, short: Path) -> None:
    source, offsets = bundle(short, 24 << 20), list[int]()
    came = asyncio.Event()

    def report(offset: int) -> None:
        offsets.append(offset)
        if offset:
            came.set()

    (file,) = files_of(source)
    async with appliance.running() as process, client(appliance, appliance.south_port, attempts=2) as pushing:
        session = await pushing.begin(Begin(label=label_of([file])))
        sending = asyncio.create_task(pushing.send(session, file.path, file.file, report))
        await came.wait()
        process.kill()
        await process.wait()
        with pytest.raises(FieldrelayError):
            await sending
    assert 0 < offsets[-1] < file.length

    async with appliance.running(), client(appliance, appliance.south_port) as pushing:
        again = await pushing.begin(Begin(label=label_of([file])))
        assert again.session == session.session
        (standing,) = again.files
        assert standing.offset >= offsets[-1], "what was told to be there is there"
        resumed = list[int]()
        await pushing.send(again, file.path, file.file, resumed.append)
        assert resumed[0] == standing.offset
        verdict = await pushing.finish(again.session)
    assert [each.verdict for each in verdict.files] == [Taken.ACCEPTED]


async def test_a_part_without_a_checksum_counts_as_far_as_it_is_on_disk(appliance: Appliance, short: Path) -> None:
    source = bundle(short, 24 << 20)
    (file,) = files_of(source)
    async with appliance.running() as process, client(appliance, appliance.south_port, attempts=2) as pushing:
        session = await pushing.begin(Begin(label="raw"))
        url = await _created(appliance, session, file)
        go_on = asyncio.Event()
        sending = asyncio.create_task(_stream(appliance, url, source, go_on))
        while (await pushing.show(session.session)).files[0].offset < 16 << 20:  # noqa: ASYNC110 - by the gateway
            await asyncio.sleep(0.02)
        process.kill()
        await process.wait()
        sending.cancel()
        await asyncio.wait([sending])
    async with appliance.running(), client(appliance, appliance.south_port) as pushing:
        (standing,) = (await pushing.show(session.session)).files
        assert 16 << 20 <= standing.offset <= 20 << 20
        await pushing.send(session, file.path, source, lambda _done: None)
        assert (await pushing.finish(session.session)).refused == ()


async def _created(appliance: Appliance, session: Session, file: PushedFile) -> str:
    tls = client_context(appliance.state.authority[0])
    said = f"session {_encoded(session.session)},path {_encoded(file.path)}"
    headers = {**SHOWN, "Tus-Resumable": "1.0.0", "Upload-Length": str(file.length), "Upload-Metadata": said}
    async with (
        aiohttp.ClientSession(f"https://127.0.0.1:{appliance.south_port}") as http,
        http.post("/push/v1/files", headers=headers, ssl=tls, server_hostname=GATEWAY_IDENTITY) as response,
    ):
        assert response.status == 201
        return response.headers["Location"]


async def _stream(appliance: Appliance, url: str, source: Path, go_on: asyncio.Event) -> None:
    """All but the end, in one part that does not end."""

    async def body() -> AsyncIterator[bytes]:
        yield source.read_bytes()[: 20 << 20]
        await go_on.wait()

    tls = client_context(appliance.state.authority[0])
    headers = {**SHOWN, "Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Content-Type": UPLOAD_TYPE}
    async with (
        aiohttp.ClientSession(f"https://127.0.0.1:{appliance.south_port}") as http,
        http.patch(url, headers=headers, data=body(), ssl=tls, server_hostname=GATEWAY_IDENTITY) as response,
    ):
        await response.read()


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
