"""A folder as a repository: what is read from it, and that nothing on a hostile stick leads outside."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.repository import RepositoryBuilder
from tests.builders.trust import Device
from update.errors import EndlessDataError, FieldrelayError, NotFoundError, ProtocolError
from update.store.directory import DirectoryFetcher


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    folder = tmp_path / "stick"
    (folder / "metadata").mkdir(parents=True)
    (folder / "metadata" / "timestamp.json").write_bytes(b"0123456789")
    (tmp_path / "secret").write_bytes(b"secret")
    return folder


async def fetch(folder: Path, path: str, max_bytes: int = 100) -> bytes:
    return await DirectoryFetcher(folder).fetch(path, max_bytes=max_bytes)


async def test_a_repository_on_a_stick_is_followed(tmp_path: Path) -> None:
    builder = RepositoryBuilder()
    builder.add_target("line/app.swu", b"content", {"version": "1"})
    builder.publish()
    builder.write_to(tmp_path / "stick")
    fetcher = DirectoryFetcher(tmp_path / "stick")
    repository = Device(tmp_path / "device", builder).repository(fetcher)
    await repository.refresh()
    info = await repository.find("line/app.swu")
    with os.fdopen(fetcher.open(info.wire_path), "rb") as file:
        assert file.read() == b"content"


async def test_whole_files_up_to_the_limit(stick: Path) -> None:
    assert await fetch(stick, "metadata/timestamp.json", 10) == b"0123456789"
    with pytest.raises(EndlessDataError):
        await fetch(stick, "metadata/timestamp.json", 9)


async def test_a_file_that_grows_while_it_is_read_is_bounded(stick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fstat
    with (stick / "metadata" / "timestamp.json").open("rb+") as file:
        file.truncate(10)

    def before_growing(descriptor: int) -> os.stat_result:
        status = real(descriptor)
        (stick / "metadata" / "timestamp.json").write_bytes(b"x" * 1000)
        return status

    monkeypatch.setattr(os, "fstat", before_growing)
    with pytest.raises(EndlessDataError):
        await fetch(stick, "metadata/timestamp.json", 20)


@pytest.mark.parametrize("path", ["metadata/2.root.json", "nothing/at/all", "metadata/x"])
async def test_what_is_not_there_is_not_found(stick: Path, path: str) -> None:
    with pytest.raises(NotFoundError):
        await fetch(stick, path)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "metadata//timestamp.json",
        "../secret",
        "metadata/../../secret",
        "%2e%2e/secret",
        "metadata/..%2f..%2fsecret",
        "%2Fetc%2Fpasswd",
        "metadata/timestamp.json%00",
        "metadata/%ff",
        "metadata/\ud800",
        "metadata/é.json",
        "metadata/.",
        "metadata",
        "metadata/timestamp.json/x",
    ],
)
async def test_what_is_no_file_inside_is_refused(stick: Path, path: str) -> None:
    with pytest.raises(ProtocolError):
        await fetch(stick, path)


async def test_links_are_not_followed_anywhere(stick: Path, tmp_path: Path) -> None:
    (stick / "metadata" / "2.root.json").symlink_to(tmp_path / "secret")
    (stick / "metadata" / "3.root.json").symlink_to("timestamp.json")
    (stick / "targets").symlink_to(tmp_path)
    for path in ("metadata/2.root.json", "metadata/3.root.json", "targets/secret"):
        with pytest.raises(ProtocolError):
            await fetch(stick, path)


async def test_pipes_and_devices_are_refused_without_blocking(stick: Path) -> None:
    os.mkfifo(stick / "metadata" / "pipe")
    with pytest.raises(ProtocolError):
        await fetch(stick, "metadata/pipe")
    (stick / "metadata" / "null").symlink_to("/dev/null")
    with pytest.raises(ProtocolError):
        await fetch(stick, "metadata/null")


async def test_names_are_percent_decoded(stick: Path) -> None:
    (stick / "metadata" / "1.a b%.json").write_bytes(b"x")
    assert await fetch(stick, "metadata/1.a%20b%25.json") == b"x"


@pytest.mark.parametrize("path", ["metadata/timestamp.json", "pipe", "metadata/x/y", "metadata", "../secret", "metadata/missing"])
async def test_no_descriptor_is_left_open(stick: Path, path: str) -> None:
    os.mkfifo(stick / "pipe")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with pytest.raises(FieldrelayError):
            DirectoryFetcher(stick)._read(path, 0)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@given(st.text(max_size=40) | st.text("usr/lib.%2eE\0", max_size=20))
@settings(max_examples=100, deadline=None)
def test_no_path_leads_outside_or_raises_anything_else(path: str) -> None:
    try:
        descriptor = DirectoryFetcher(Path("/usr/lib")).open(path)
    except (NotFoundError, ProtocolError):
        return
    found = Path(f"/proc/self/fd/{descriptor}").readlink()
    os.close(descriptor)
    assert found.is_relative_to("/usr/lib")
