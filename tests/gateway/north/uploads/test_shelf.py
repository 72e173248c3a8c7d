"""Pushes on disk: what a restart finds, what damage costs, and a disk that fills up on the way."""

import json
from pathlib import Path

import pytest

from gateway.north.uploads.files import PushedFiles
from gateway.north.uploads.shelf import MAX_SESSIONS
from tests.builders.upload_site import UploadSite, append, create, offset_of
from update.durable import Disk, Kind, Operation
from update.errors import EndlessDataError, NoSpaceError, NotFoundError, StateError
from update.wire.push_messages import Taken, Told, Verdict

CONTENT = b"a bundle" * 1000
VERDICT = Verdict("plant", (Told("a.swu", Taken.ACCEPTED, bytes=8000),), 1)


@pytest.fixture
def site(tmp_path: Path) -> UploadSite:
    return UploadSite(tmp_path)


async def test_a_restart_finds_what_was_told_and_removes_what_no_record_names(site: UploadSite) -> None:
    shelf = site.shelf()
    async with site.serving(shelf) as client:
        push = await shelf.begin(site.pusher(), "plant", "label")
        url = (await create(client, push, "a.swu", len(CONTENT))).headers["Location"]
        await append(client, url, 0, CONTENT[:3000])
    pushes = site.folder / "pushes"
    (pushes / f"{'0' * 32}.{'1' * 32}.part").write_bytes(b"of nobody")
    (pushes / f"{push.id}.{'1' * 32}.part").write_bytes(b"of no record")
    with next(pushes.glob("*.part")).open("ab") as torn:
        torn.write(b"not synced")

    shelf = site.shelf()
    async with site.serving(shelf) as client:
        assert await offset_of(client, url) == 3000
        again = await shelf.begin(site.pusher(), "plant", "label")
        assert (again.id, again.repository, [each.path for each in again.files.values()]) == (push.id, "plant", ["a.swu"])
        assert len(list(pushes.glob("*.part"))) == 1
        assert (await append(client, url, 3000, CONTENT[3000:])).status == 204
        (upload,) = again.files.values()
        assert shelf.part(again, upload).read_bytes() == CONTENT


async def test_a_damaged_record_costs_its_push_and_nothing_else(site: UploadSite) -> None:
    shelf = site.shelf()
    async with site.serving(shelf) as client:
        lost, kept = await shelf.begin(site.pusher(), ""), await shelf.begin(site.pusher(), "")
        await create(client, lost, "a.swu", 10)
    (site.folder / "pushes" / f"{lost.id}.json").write_text("damaged")
    shelf = site.shelf()
    await shelf.load()
    assert shelf.find(site.pusher(), kept.id).id == kept.id
    with pytest.raises(NotFoundError):
        shelf.find(site.pusher(), lost.id)
    assert [each.name for each in (site.folder / "pushes").iterdir()] == [f"{kept.id}.json"]


async def test_a_verdict_is_kept_over_a_restart_and_the_files_are_not(site: UploadSite) -> None:
    shelf = site.shelf()
    async with site.serving(shelf) as client:
        push = await shelf.begin(site.pusher(), "", "label")
        await create(client, push, "a.swu", 10)
        await shelf.end(push, VERDICT)
    shelf = site.shelf()
    await shelf.load()
    assert shelf.find(site.pusher(), push.id).verdict == VERDICT
    assert (await shelf.begin(site.pusher(), "", "label")).id != push.id, "a finished one is not gone on with"
    with pytest.raises(StateError):
        await shelf.add(site.pusher(), shelf.find(site.pusher(), push.id), "b.swu", 10)


async def test_no_more_sessions_are_open_than_a_pusher_needs(site: UploadSite) -> None:
    shelf = site.shelf()
    await shelf.load()
    for _ in range(MAX_SESSIONS):
        await shelf.begin(site.pusher(), "")
    with pytest.raises(StateError, match="open"):
        await shelf.begin(site.pusher(), "")
    assert (await shelf.begin(site.pusher("other"), "")).pusher == "other"


async def test_a_disk_that_fills_up_is_told_as_such_and_what_was_there_stays(site: UploadSite) -> None:
    full = False

    def observe(operation: Operation) -> None:
        if full and operation.kind is Kind.WRITE and operation.path.suffix == ".part":
            raise NoSpaceError("no space left on device")

    site.disk = Disk(observe)
    shelf = site.shelf()
    async with site.serving(shelf) as client:
        push = await shelf.begin(site.pusher(), "")
        url = (await create(client, push, "a.swu", len(CONTENT))).headers["Location"]
        await append(client, url, 0, CONTENT[:3000])
        full = True
        refused = await append(client, url, 3000, CONTENT[3000:])
        assert refused.status == 507
        assert await offset_of(client, url) == 3000
        full = False
        assert (await append(client, url, 3000, CONTENT[3000:])).status == 204


async def test_files_of_a_push_are_found_by_their_path_and_bounded(site: UploadSite) -> None:
    shelf = site.shelf()
    async with site.serving(shelf) as client:
        push = await shelf.begin(site.pusher(), "")
        url = (await create(client, push, "metadata/1.root.json", 7)).headers["Location"]
        await append(client, url, 0, json.dumps([1, 2]).encode() + b"\n")
        files = PushedFiles(shelf, push)
        assert await files.fetch("metadata/1.root.json", max_bytes=7) == b"[1, 2]\n"
        with pytest.raises(EndlessDataError):
            await files.fetch("metadata/1.root.json", max_bytes=6)
        for path in ("metadata/2.root.json", "../1.root.json", "metadata/%2e%2e/a"):
            with pytest.raises(NotFoundError):
                await files.fetch(path, max_bytes=7)


async def test_a_session_is_its_pushers_own(site: UploadSite) -> None:
    shelf = site.shelf()
    await shelf.load()
    push = await shelf.begin(site.pusher(), "", "label")
    with pytest.raises(NotFoundError):
        shelf.find(site.pusher("other"), push.id)
    assert (await shelf.begin(site.pusher("other"), "", "label")).id != push.id
