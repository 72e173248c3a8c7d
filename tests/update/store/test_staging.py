"""Partial files: a restart continues only from what is known to be on disk."""

from pathlib import Path

import pytest

from tests.replay import CrashState, Killed, Recorder, Trace, assert_every_crash, needless_syncs
from update.durable import Disk
from update.store.staging import Staged

OLD, NEW, THIRD = b"AAAABBBBCCCC", b"aaaabbbbcccc", b"aazzzzzzzzzz"


def open_staged(folder: Path, disk: Disk, length: int = len(OLD)) -> Staged:
    return Staged(disk, folder / "x.part", folder / "x.json", length=length)


def content(folder: Path) -> bytes:
    with open_staged(folder, Disk()) as staged:
        return (folder / "x.part").read_bytes()[: staged.size()]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def test_what_was_synced_is_continued_and_the_rest_is_cut_off(root: Path) -> None:
    with open_staged(root, Disk()) as staged:
        staged.write_at(0, OLD[:4])
        staged.sync()
        staged.write_at(4, OLD[4:8])
    assert content(root) == OLD[:4]


def test_a_partial_file_longer_than_its_target_is_cut_back(root: Path) -> None:
    with open_staged(root, Disk()) as staged:
        staged.write_at(0, OLD)
        staged.sync()
    with open_staged(root, Disk(), length=5) as staged:
        assert staged.size() == 5


@pytest.mark.parametrize("record", [b"", b"{}", b"\xff", b'{"body": {"synced_bytes": "8"}}'])
def test_a_damaged_record_costs_the_download_and_nothing_else(root: Path, record: bytes) -> None:
    with open_staged(root, Disk()) as staged:
        staged.write_at(0, OLD)
        staged.sync()
    (root / "x.json").write_bytes(record)
    assert content(root) == b""


def test_discarded_content_leaves_nothing(root: Path) -> None:
    staged = open_staged(root, Disk())
    staged.write_at(0, OLD)
    staged.sync()
    staged.discard()
    assert list(root.iterdir()) == []


def test_every_crash_leaves_a_beginning_of_the_content_at_least_as_long_as_promised(root: Path, tmp_path: Path) -> None:
    recorder = Recorder(root)
    with open_staged(root, Disk(recorder)) as staged:
        for start in (0, 4, 8):
            staged.write_at(start, OLD[start : start + 4])
            staged.sync()
            recorder.mark()

    def check(folder: Path, state: CrashState) -> None:
        found = content(folder)
        assert OLD.startswith(found)
        assert len(found) >= 4 * state.marks

    def verify(trace: Trace) -> int:
        return assert_every_crash(trace, check)

    assert verify(recorder.trace()) > 20
    assert needless_syncs(recorder.trace(), verify) == []


def test_beginning_again_never_mixes_two_contents_and_each_sync_is_needed(root: Path, tmp_path: Path) -> None:
    with open_staged(root, Disk()) as staged:
        staged.write_at(0, OLD)
        staged.sync()
    recorder = Recorder(root)
    with open_staged(root, Disk(recorder)) as staged:
        recorder.mark()
        staged.truncate(0)
        staged.write_at(0, NEW[:8])
        staged.sync()
        recorder.mark()
        staged.write_at(2, THIRD[2:])  # writing over what is recorded is taken out of the record first
        staged.sync()
        recorder.mark()

    def check(folder: Path, state: CrashState) -> None:
        found = content(folder)
        assert any(whole.startswith(found) for whole in (OLD, NEW, THIRD))
        assert len(found) >= [0, 0, 2, len(THIRD)][state.marks]

    def verify(trace: Trace) -> int:
        return assert_every_crash(trace, check)

    assert verify(recorder.trace()) > 20
    assert needless_syncs(recorder.trace(), verify) == []


def test_a_record_without_its_file_vouches_for_nothing_written_later(root: Path, tmp_path: Path) -> None:
    with open_staged(root, Disk()) as staged:
        staged.write_at(0, OLD)
        staged.sync()
    (root / "x.part").unlink()
    recorder = Recorder(root)
    with open_staged(root, Disk(recorder)) as staged:
        staged.write_at(0, NEW)

    def check(folder: Path, _state: CrashState) -> None:
        assert NEW.startswith(content(folder))

    assert assert_every_crash(recorder.trace(), check) > 5


def test_a_process_killed_anywhere_is_continued_by_the_next_and_a_power_cut_later_is_harmless(tmp_path: Path) -> None:
    def run(folder: Path, disk: Disk) -> None:
        disk.sync_folder(folder)  # as the store does when it opens
        with open_staged(folder, disk) as staged:
            for start in range(staged.size(), 12, 4):
                staged.write_at(start, OLD[start : start + 4])
                staged.sync()

    def check(folder: Path, state: CrashState) -> None:
        found = content(folder)
        assert OLD.startswith(found)
        assert found == OLD or not state.marks

    for count in range(40):
        folder = tmp_path / str(count)
        folder.mkdir()
        recorder = Recorder(folder)
        recorder.kill_at(count)
        try:
            run(folder, Disk(recorder))
        except Killed:
            run(folder, Disk(recorder))
            recorder.mark()
            assert_every_crash(recorder.trace(), check, limit=40)
        else:
            assert count > 10
            return
    raise AssertionError("more operations than expected")
