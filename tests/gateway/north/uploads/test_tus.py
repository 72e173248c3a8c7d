"""tus 1.0.0 as it is asked for over HTTP: offsets, refusals by their statuses, and a model that every run must agree with."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.north.uploads.shelf import Push, Shelf
from tests.builders.upload_site import (
    Client,
    UploadSite,
    append,
    checksum,
    create,
    encoded,
    offset_of,
    shown,
)

CONTENT = bytes(range(256)) * 20


@pytest.fixture
def site(tmp_path: Path) -> UploadSite:
    return UploadSite(tmp_path)


async def begun(site: UploadSite, shelf: Shelf) -> Push:
    return await shelf.begin(site.pusher(), "")


async def test_what_is_spoken_is_told_to_anybody(site: UploadSite) -> None:
    async with site.serving(site.shelf()) as client, client.options("/push/v1/files") as response:
        assert response.status == 204
        assert response.headers["Tus-Version"] == "1.0.0"
        assert set(response.headers["Tus-Extension"].split(",")) == {"creation", "expiration", "termination", "checksum"}
        assert set(response.headers["Tus-Checksum-Algorithm"].split(",")) == {"sha256", "sha1"}


async def test_a_file_comes_in_parts_and_ends_where_it_was_announced(site: UploadSite) -> None:
    shelf = site.shelf()
    async with site.serving(shelf) as client:
        push = await begun(site, shelf)
        made = await create(client, push, "targets/a.swu", len(CONTENT))
        assert made.status == 201
        assert "Upload-Expires" in made.headers
        url = made.headers["Location"]
        for start in range(0, len(CONTENT), 2000):
            part = CONTENT[start : start + 2000]
            answer = await append(client, url, start, part, {"Upload-Checksum": checksum(part)})
            assert (answer.status, answer.headers["Upload-Offset"]) == (204, str(start + len(part)))
        (upload,) = push.files.values()
        assert shelf.part(push, upload).read_bytes() == CONTENT


@pytest.mark.parametrize("algorithm", ["sha256", "sha1"])
async def test_a_part_that_is_not_what_was_sent_leaves_nothing(site: UploadSite, algorithm: str) -> None:
    shelf = site.shelf()
    async with site.serving(shelf) as client:
        push = await begun(site, shelf)
        url = (await create(client, push, "a.swu", len(CONTENT))).headers["Location"]
        assert (await append(client, url, 0, CONTENT[:100], {"Upload-Checksum": checksum(b"other", algorithm)})).status == 460
        assert await offset_of(client, url) == 0
        assert (await append(client, url, 0, CONTENT, {"Upload-Checksum": checksum(CONTENT, algorithm)})).status == 204
        assert await offset_of(client, url) == len(CONTENT)


@pytest.mark.parametrize("offset", [1, 99, 101, 10**17])
async def test_an_offset_that_lies_is_refused_and_nothing_is_written(site: UploadSite, offset: int) -> None:
    shelf = site.shelf()
    async with site.serving(shelf) as client:
        push = await begun(site, shelf)
        url = (await create(client, push, "a.swu", len(CONTENT))).headers["Location"]
        await append(client, url, 0, CONTENT[:100])
        assert (await append(client, url, offset, b"x")).status == 409
        assert await offset_of(client, url) == 100


async def test_more_than_was_announced_is_refused(site: UploadSite) -> None:
    shelf = site.shelf()
    async with site.serving(shelf) as client:
        push = await begun(site, shelf)
        url = (await create(client, push, "a.swu", 10)).headers["Location"]
        assert (await append(client, url, 0, b"x" * 11)).status == 413
        assert await offset_of(client, url) == 0


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Upload-Offset": "-1"}, 400),
        ({"Upload-Offset": "0x0"}, 400),
        ({"Content-Type": "text/plain"}, 415),
        ({"Tus-Resumable": "0.2.2"}, 412),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "TargetToken token-of-ci"}, 401),
        ({"Authorization": "Bearer token-of-other"}, 404),
        ({"Upload-Checksum": "md5 1B2M2Y8AsgTpgAmY7PhCfg=="}, 400),
        ({"Upload-Checksum": "sha256 AAAA"}, 400),
    ],
)
async def test_a_part_that_is_asked_for_wrongly_is_refused_by_its_status(
    site: UploadSite, headers: dict[str, str], status: int
) -> None:
    shelf = site.shelf()
    async with site.serving(shelf) as client:
        push = await begun(site, shelf)
        url = (await create(client, push, "a.swu", 10)).headers["Location"]
        assert (await append(client, url, 0, b"x", headers)).status == status
        assert await offset_of(client, url) == 0


@pytest.mark.parametrize(
    "path",
    [
        "../etc/passwd",
        "targets/../../a",
        "targets/%2e%2e/a",
        "targets/a%2fb",
        "/etc/passwd",
        "targets//a",
        "targets/a%00b",
        "targets/a%5cb",
        "metadata/deeper/root.json",
        "metadata/a.txt",
        "elsewhere/a.swu",
        "targets/%ff",
        "a" * 301,
        "",
        "ä.swu",
    ],
)
async def test_a_path_that_means_no_place_in_a_repository_is_refused(site: UploadSite, path: str) -> None:
    shelf = site.shelf()
    async with site.serving(shelf) as client:
        push = await begun(site, shelf)
        assert (await create(client, push, path, 10)).status == 400
        assert push.files == {}
        assert [each.name for each in (site.folder / "pushes").iterdir()] == [f"{push.id}.json"]


@pytest.mark.parametrize(
    ("length", "status"),
    [("", 400), ("-1", 400), ("1e3", 400), (str((1 << 19) + 1), 413), (str(10**18 - 1), 413)],
)
async def test_a_length_is_judged_before_anything_is_allocated(site: UploadSite, length: str, status: int) -> None:
    shelf = site.shelf()
    async with site.serving(shelf) as client:
        push = await begun(site, shelf)
        assert (await create(client, push, "a.swu", 0, **{"Upload-Length": length})).status == status
        assert push.files == {}


async def test_the_quota_of_a_pusher_is_over_all_its_sessions(site: UploadSite) -> None:
    site.quota_bytes = 1000
    shelf = site.shelf()
    async with site.serving(shelf) as client:
        first, second = await begun(site, shelf), await begun(site, shelf)
        assert (await create(client, first, "a.swu", 600)).status == 201
        assert (await create(client, second, "b.swu", 401)).status == 413
        assert (await create(client, second, "b.swu", 400)).status == 201


async def test_a_full_disk_is_named_before_bytes_are_sent(site: UploadSite) -> None:
    shelf = site.shelf()
    object.__setattr__(shelf.limits, "reserve_bytes", 1 << 62)
    async with site.serving(shelf) as client:
        push = await begun(site, shelf)
        assert (await create(client, push, "a.swu", 10)).status == 507


async def test_the_same_path_twice_in_a_session_is_refused_however_it_is_written(site: UploadSite) -> None:
    shelf = site.shelf()
    async with site.serving(shelf) as client:
        push = await begun(site, shelf)
        assert (await create(client, push, "targets/a.swu", 10)).status == 201
        assert (await create(client, push, "targets/%61.swu", 10)).status == 409


async def test_a_file_that_is_being_received_is_locked_and_the_first_goes_on(site: UploadSite) -> None:
    shelf = site.shelf()
    async with site.serving(shelf) as client:
        push = await begun(site, shelf)
        url = (await create(client, push, "a.swu", 10)).headers["Location"]
        (upload,) = push.files.values()
        go_on = asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield b"12345"
            await go_on.wait()
            yield b"67890"

        first = asyncio.create_task(append(client, url, 0, slowly()))
        while not upload.busy:  # noqa: ASYNC110 - by the server
            await asyncio.sleep(0)
        assert (await append(client, url, 0, b"x")).status == 423
        async with client.delete(url, headers=shown()) as response:
            assert response.status == 423
        go_on.set()
        assert (await first).status == 204
        assert shelf.part(push, upload).read_bytes() == b"1234567890"


async def test_no_more_uploads_at_once_than_are_allowed(site: UploadSite) -> None:
    site.uploads = 1
    shelf = site.shelf()
    async with site.serving(shelf) as client:
        push = await begun(site, shelf)
        one = (await create(client, push, "a.swu", 10)).headers["Location"]
        two = (await create(client, push, "b.swu", 10)).headers["Location"]
        (upload, _) = push.files.values()
        go_on = asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield b"12345"
            await go_on.wait()
            yield b"67890"

        first = asyncio.create_task(append(client, one, 0, slowly()))
        while not upload.busy:  # noqa: ASYNC110 - by the server
            await asyncio.sleep(0)
        refused = await append(client, two, 0, b"x")
        assert (refused.status, "Retry-After" in refused.headers) == (503, True)
        go_on.set()
        assert (await first).status == 204
        assert (await append(client, two, 0, b"x")).status == 204


async def test_a_session_that_is_over_its_time_is_gone_and_then_unknown(site: UploadSite) -> None:
    shelf = site.shelf()
    async with site.serving(shelf) as client:
        push = await begun(site, shelf)
        url = (await create(client, push, "a.swu", 10)).headers["Location"]
        site.seconds += 3601
        assert (await append(client, url, 0, b"x")).status == 410
        assert (await create(client, push, "b.swu", 10)).status == 410
        await shelf.sweep()
        assert (await append(client, url, 0, b"x")).status == 404
        assert list((site.folder / "pushes").iterdir()) == []


async def test_an_upload_that_was_terminated_is_unknown_and_its_room_is_free(site: UploadSite) -> None:
    shelf = site.shelf()
    async with site.serving(shelf) as client:
        push = await begun(site, shelf)
        url = (await create(client, push, "a.swu", 10)).headers["Location"]
        await append(client, url, 0, b"x")
        async with client.delete(url, headers=shown()) as response:
            assert response.status == 204
        async with client.head(url, headers=shown()) as response:
            assert response.status == 404
        assert [each.name for each in (site.folder / "pushes").iterdir()] == [f"{push.id}.json"]


async def test_metadata_of_an_upload_that_cannot_be_read_is_refused(site: UploadSite) -> None:
    shelf = site.shelf()
    async with site.serving(shelf) as client:
        push = await begun(site, shelf)
        session = f"session {encoded(push.id)}"
        for said in ("", session, f"{session},path", f"{session},path !!", f"{session},{session}", "a" * 5000):
            assert (await create(client, push, "", 10, **{"Upload-Metadata": said})).status == 400
        assert (await create(client, push, "", 10, **{"Upload-Metadata": f"session {encoded('0' * 32)},path YQ=="})).status == 404


class Run:
    """One upload against a model: what is on disk, and what may not be told otherwise."""

    def __init__(self, site: UploadSite, length: int) -> None:
        self.site = site
        self.length = length
        self.offset = 0

    async def step(self, client: Client, url: str, operation: tuple[str, int, int]) -> None:
        kind, lie, size = operation
        part = CONTENT[self.offset : self.offset + size]
        match kind:
            case "part" | "whole":
                headers = {"Upload-Checksum": checksum(part)} if kind == "whole" else {}
                status = (await append(client, url, self.offset + lie, part, headers)).status
                if lie:
                    assert status == (400 if self.offset + lie < 0 else 409)
                elif self.offset + len(part) > self.length:
                    assert status == 413
                else:
                    assert status == 204
                    self.offset += len(part)
            case "mangled":
                wrong = bytes([part[0] ^ 1]) + part[1:] if part else b"x"
                status = (await append(client, url, self.offset, wrong, {"Upload-Checksum": checksum(part)})).status
                assert status == (413 if self.offset + len(wrong) > self.length else 460)
            case _:
                pass
        if kind not in {"part", "whole"} or lie or self.offset + len(part) <= self.length:
            assert await offset_of(client, url) == self.offset


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["part", "whole", "mangled", "restart"]), st.sampled_from([0, 0, 0, 0, -1, 1, 700]), st.integers(0, 1500)
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(length=st.integers(0, 4000), operations=OPERATIONS)
async def test_however_it_is_cut_and_lied_to_what_is_kept_is_what_was_sent(
    length: int, operations: list[tuple[str, int, int]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        site = UploadSite(Path(folder))
        run, url, session = Run(site, length), "", ""
        for batch in _between_restarts(operations):
            shelf = site.shelf()
            async with site.serving(shelf) as client:
                if not url:
                    push = await begun(site, shelf)
                    url, session = (await create(client, push, "a.swu", length)).headers["Location"], push.id
                for operation in batch:
                    await run.step(client, url, operation)
                push = shelf.find(site.pusher(), session)
                (upload,) = push.files.values()
                part = shelf.part(push, upload)
                assert (part.read_bytes() if part.exists() else b"") == CONTENT[: run.offset]


def _between_restarts(operations: list[tuple[str, int, int]]) -> list[list[tuple[str, int, int]]]:
    batches: list[list[tuple[str, int, int]]] = [[]]
    for operation in operations:
        if operation[0] == "restart":
            batches.append([])
        else:
            batches[-1].append(operation)
    return batches
