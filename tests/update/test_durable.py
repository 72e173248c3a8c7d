"""Durable writes: real files, and every crash that the replay model allows."""

import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.replay import CrashState, Killed, Recorder, Trace, assert_every_crash, assert_old_or_new, crash_states, needless_syncs
from update.digest import digest_of
from update.durable import Disk, Kind, Operation
from update.errors import NoSpaceError, StoreError


def text_of(name: str) -> Callable[[Path], bytes | None]:
    def read(folder: Path) -> bytes | None:
        path = folder / name
        return path.read_bytes() if path.exists() else None

    return read


def replaced(root: Path, *, disk: Disk, recorder: Recorder) -> None:
    for value in (b"the first value", b"second, and longer than the first", b"3"):
        disk.write_file(root / "value", value)
        recorder.mark()


REPLACED = [None, b"the first value", b"second, and longer than the first", b"3"]


def records_of(folder: Path) -> list[str]:
    path = folder / "log"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    pairs = [line.partition(b" ") for line in lines]
    return [body.decode() for digest, _, body in pairs if digest == digest_of(body).encode()]


def appended(root: Path, disk: Disk, recorder: Recorder) -> list[list[str]]:
    values: list[list[str]] = [[]]
    for body in ("one", "two", "three"):
        disk.append(root / "log", f"{digest_of(body.encode())} {body}\n".encode())
        recorder.mark()
        values.append([*values[-1], body])
    return values


class TwoCopies:
    """As a floor does it: generations alternate between two files written in place; the newest intact one counts."""

    def __init__(self, disk: Disk, root: Path) -> None:
        self.disk = disk
        self.copies = (root / "floor.0", root / "floor.1")

    def read(self) -> tuple[int, int]:
        found = [(0, 0)]
        for path in self.copies:
            if path.exists() and path.stat().st_size >= 64:
                digest, body = path.read_bytes()[:64], path.read_bytes()[64:]
                found += [tuple(json.loads(body))] if digest_of(body).encode() == digest else []
        return max(found)

    def write(self, value: int) -> None:
        generation, _ = self.read()
        body = json.dumps([generation + 1, value]).encode()
        path = self.copies[(generation + 1) % 2]
        new = not path.exists()
        with self.disk.open(path) as file:
            file.truncate(0)
            file.write_at(0, digest_of(body).encode() + body)
            file.sync()
        if new:
            self.disk.sync_folder(path.parent)


def copied(root: Path, disk: Disk, recorder: Recorder) -> list[tuple[int, int]]:
    floor = TwoCopies(disk, root)
    for value in (7, 9, 12, 40):
        floor.write(value)
        recorder.mark()
    return [(0, 0), (1, 7), (2, 9), (3, 12), (4, 40)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


# Every user shows two things: no crash is seen by the reader, and without any one of its syncs some crash is.


def test_a_replaced_file_is_old_or_new_after_every_crash_and_needs_each_sync(root: Path) -> None:
    recorder = Recorder(root)
    replaced(root, disk=Disk(recorder), recorder=recorder)

    def verify(trace: Trace) -> int:
        return assert_old_or_new(trace, text_of("value"), REPLACED)

    assert verify(recorder.trace()) > 20
    assert needless_syncs(recorder.trace(), verify) == []


def test_appended_records_that_were_promised_survive_every_crash_and_need_each_sync(root: Path) -> None:
    recorder = Recorder(root)
    values = appended(root, Disk(recorder), recorder)

    def verify(trace: Trace) -> int:
        return assert_old_or_new(trace, records_of, values)

    assert verify(recorder.trace()) > 10
    assert needless_syncs(recorder.trace(), verify) == []


def test_two_copies_written_in_place_never_lose_both_and_need_each_sync(root: Path) -> None:
    recorder = Recorder(root)
    values = copied(root, Disk(recorder), recorder)

    def read(folder: Path) -> tuple[int, int]:
        return TwoCopies(Disk(), folder).read()

    def verify(trace: Trace) -> int:
        return assert_old_or_new(trace, read, values)

    assert verify(recorder.trace()) > 20
    assert needless_syncs(recorder.trace(), verify) == []


def test_a_published_file_is_whole_under_one_name_after_every_crash_and_needs_each_sync(root: Path) -> None:
    recorder = Recorder(root)
    disk = Disk(recorder)
    for name in ("staging", "targets/deep"):
        disk.make_folder(root / name)
        recorder.mark()
    with disk.open(root / "staging" / "part", fresh=True) as file:
        file.write_at(0, b"all of ")
        file.write_at(7, b"the content")
        file.sync()
    disk.publish(root / "staging" / "part", root / "targets" / "deep" / "final")
    recorder.mark()

    def check(folder: Path, state: CrashState) -> None:
        staged, final = folder / "staging" / "part", folder / "targets" / "deep" / "final"
        assert staged.parent.is_dir() or state.marks < 1
        assert final.parent.is_dir() or state.marks < 2
        assert not final.exists() or final.read_bytes() == b"all of the content"
        assert state.marks < 3 or (final.exists() and not staged.exists())

    def verify(trace: Trace) -> int:
        return assert_every_crash(trace, check)

    assert verify(recorder.trace()) > 10
    assert needless_syncs(recorder.trace(), verify) == []


def test_several_files_are_each_old_or_new_and_need_each_sync(root: Path) -> None:
    recorder = Recorder(root)
    disk = Disk(recorder)
    values: list[list[bytes | None]] = [[None, None], [b"a1", b"b1"], [b"a two", b"b two"]]
    for first, second in values[1:]:
        disk.write_files(root, [("a", first or b""), ("b", second or b"")])
        recorder.mark()

    def check(folder: Path, state: CrashState) -> None:
        for position, name in enumerate("ab"):
            assert text_of(name)(folder) in [value[position] for value in values[state.marks : state.marks + 1 + state.busy]]

    def verify(trace: Trace) -> int:
        return assert_every_crash(trace, check)

    assert verify(recorder.trace()) > 20
    assert needless_syncs(recorder.trace(), verify) == []


def test_a_removed_file_stays_removed_and_needs_its_sync(root: Path) -> None:
    (root / "value").write_bytes(b"here")
    recorder = Recorder(root)
    recorder.mark()
    Disk(recorder).remove(root / "value")
    recorder.mark()

    def verify(trace: Trace) -> int:
        return assert_old_or_new(trace, text_of("value"), [b"here", b"here", None])

    assert verify(recorder.trace()) >= 3
    assert needless_syncs(recorder.trace(), verify) == []


# A process that dies while the machine runs on leaves names that are visible and not durable.


def rerun_after_kills(root: Path, run: Callable[[Disk], None]) -> list[Trace]:
    """Kill `run` before each of its operations in turn, run it again with a new disk, and record both as one trace."""
    traces = []
    for count in range(100):
        folder = root / f"kill-{count}"
        folder.mkdir()
        recorder = Recorder(folder)
        recorder.kill_at(count)
        try:
            run(Disk(recorder))
        except Killed:
            run(Disk(recorder))
            recorder.mark()
            traces.append(recorder.trace())
        else:
            return traces
    raise AssertionError("more operations than expected")


@pytest.mark.parametrize("name", ["append", "make_folder", "remove", "write_file"])
def test_what_a_killed_process_left_is_made_durable_by_the_next(name: str, tmp_path: Path) -> None:
    def run(disk: Disk) -> None:
        folder = max(tmp_path.glob("kill-*"), key=lambda path: int(path.name[5:]))
        match name:
            case "append":
                disk.append(folder / "log", b"record\n")
            case "make_folder":
                disk.make_folder(folder / "a" / "b")
            case "remove":
                disk.write_file(folder / "other", b"")
                disk.remove(folder / "other")
            case _:
                disk.write_file(folder / "value", b"new")

    def check(folder: Path, state: CrashState) -> None:
        if state.marks:
            found: dict[str, Callable[[], bool]] = {
                "append": lambda: b"record\n" in (folder / "log").read_bytes(),
                "make_folder": (folder / "a" / "b").is_dir,
                "remove": lambda: not (folder / "other").exists(),
                "write_file": lambda: (folder / "value").read_bytes() == b"new",
            }
            assert found[name]()

    traces = rerun_after_kills(tmp_path, run)
    assert len(traces) >= 3
    for trace in traces:
        assert_every_crash(trace, check)


# The model itself: what it takes for the living state is what the real disk shows.

NAMES = st.sampled_from(["a", "b", "c"])
PROGRAMS = st.lists(
    st.tuples(
        st.sampled_from(["write_file", "append", "remove", "publish", "poke", "truncate"]), NAMES, NAMES, st.binary(max_size=9)
    ),
    max_size=12,
)


def execute(disk: Disk, root: Path, program: list[tuple[str, str, str, bytes]]) -> None:
    for action, one, two, data in program:
        path = root / one
        match action:
            case "write_file":
                disk.write_file(path, data)
            case "append":
                disk.append(path, data)
            case "remove":
                disk.remove(path)
            case "publish":
                if path.exists() and one != two:
                    disk.make_folder(root / "sub")
                    disk.publish(path, root / "sub" / two)
            case "poke":
                with disk.open(path) as file:
                    file.write_at(len(data), data)
            case _:
                with disk.open(path) as file:
                    file.truncate(len(data))


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes() for path in folder.rglob("*")}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PROGRAMS)
def test_after_a_sync_of_everything_the_only_crash_state_is_what_the_disk_shows(
    tmp_path_factory: pytest.TempPathFactory, program: list[tuple[str, str, str, bytes]]
) -> None:
    base = tmp_path_factory.mktemp("model")
    root = base / "root"
    root.mkdir()
    recorder = Recorder(root)
    disk = Disk(recorder)
    execute(disk, root, program)
    for path in [root, *root.rglob("*")]:
        if path.is_dir():
            disk.sync_folder(path)
        else:
            with disk.open(path) as file:
                file.sync()
    last = [state for state in crash_states(recorder.trace(), limit=50) if state.done == len(recorder)]
    if last:  # none: the state before the last sync was the same
        (base / "crash").mkdir()
        last[0].materialise(base / "crash")
        assert len(last) == 1
        assert tree(base / "crash") == tree(root)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=4), st.integers(0, 5))
def test_any_sequence_of_replacements_is_old_or_new(
    tmp_path_factory: pytest.TempPathFactory, values: list[bytes], seed: int
) -> None:
    base = tmp_path_factory.mktemp("replace")
    root = base / "root"
    root.mkdir()
    recorder = Recorder(root)
    disk = Disk(recorder)
    for value in values:
        disk.write_file(root / "value", value)
        recorder.mark()
    assert_old_or_new(recorder.trace(), text_of("value"), [None, *values], limit=40, seed=seed)


def test_the_model_loses_tears_and_reorders_unsynced_data(root: Path) -> None:
    recorder = Recorder(root)
    with Disk(recorder).open(root / "x") as file:
        file.write_at(0, b"AAAA")
        file.write_at(4, b"BBBB")
    Disk(recorder).sync_folder(root)
    found = {
        dict(state.contents)[inode] for state in crash_states(recorder.trace()) for _, inode in state.names if inode is not None
    }
    assert {b"", b"AAAA", b"AA", b"AAAABBBB", b"\0\0\0\0BBBB", b"\0\0AABBBB", b"\0\0\0\0"} <= found


def test_the_model_refuses_a_write_to_a_name_that_is_gone(root: Path) -> None:
    recorder = Recorder(root)
    disk = Disk(recorder)
    with disk.open(root / "x") as file:
        disk.publish(root / "x", root / "y")
        file.write_at(0, b"late")
    with pytest.raises(ValueError, match="no such name"):
        list(crash_states(recorder.trace()))


# Real files.


def test_an_observer_hears_of_each_operation_before_it_happens(root: Path) -> None:
    seen: list[tuple[Kind, str, bool]] = []

    def observe(operation: Operation) -> None:
        seen.append((operation.kind, operation.path.name, (root / "value").exists()))

    Disk(observe).write_file(root / "value", b"x")
    assert seen == [
        (Kind.CREATE, ".value.tmp", False),
        (Kind.WRITE, ".value.tmp", False),
        (Kind.SYNC, ".value.tmp", False),
        (Kind.RENAME, ".value.tmp", False),
        (Kind.SYNC_FOLDER, "root", True),
    ]


def test_every_announced_sync_reaches_the_kernel(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    recorder = Recorder(root)
    disk = Disk(recorder)
    disk.make_folder(root / "a" / "b")
    disk.write_file(root / "a" / "value", b"x")
    disk.append(root / "a" / "log", b"x")
    disk.publish(root / "a" / "log", root / "a" / "b" / "log")
    disk.remove(root / "a" / "value")
    trace = recorder.trace()
    outside = 1  # make_folder settles the folder that it found: its name stands in one that is not recorded
    assert len(synced) == len(trace.syncs()) + outside
    assert synced[outside:] == [trace.steps[index].kind is Kind.SYNC_FOLDER for index in trace.syncs()]


def test_a_full_disk_is_named_and_leaves_the_old_content_and_no_rest(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Disk().write_file(root / "value", b"old")

    def pwrite(_descriptor: int, _data: memoryview, _offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(NoSpaceError) as caught:
        Disk().write_file(root / "value", b"new")
    assert caught.value.code == "store.no-space"
    assert tree(root) == {"value": b"old"}


def test_a_short_write_is_continued(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: real(descriptor, data[:3], offset))
    Disk().write_file(root / "value", b"0123456789")
    assert (root / "value").read_bytes() == b"0123456789"


def test_a_symbolic_link_in_the_way_is_not_followed(root: Path) -> None:
    (root / "victim").write_bytes(b"precious")
    (root / ".value.tmp").symlink_to(root / "victim")
    (root / "log").symlink_to(root / "victim")
    with pytest.raises(StoreError):
        Disk().append(root / "log", b"x")
    with pytest.raises(StoreError):
        Disk().write_file(root / "value", b"x")
    assert (root / "victim").read_bytes() == b"precious"


def test_a_missing_folder_is_named(root: Path) -> None:
    with pytest.raises(StoreError, match="missing"):
        Disk().write_file(root / "missing" / "value", b"x")
    assert not (root / "missing").exists()


def test_a_left_over_temporary_file_does_not_lend_its_permissions(root: Path) -> None:
    (root / ".key.tmp").write_bytes(b"left by a crash")
    (root / ".key.tmp").chmod(0o644)
    Disk().write_file(root / "key", b"secret", mode=0o600)
    assert stat.S_IMODE((root / "key").stat().st_mode) == 0o600


def test_a_device_is_never_created_and_its_links_are_followed(root: Path) -> None:
    with pytest.raises(StoreError):
        Disk().open_device(root / "slot")
    (root / "image").write_bytes(bytes(16))
    (root / "slot").symlink_to(root / "image")
    with Disk().open_device(root / "slot") as slot:
        slot.write_at(4, b"data")
        assert slot.read_at(2, 8) == b"\0\0data\0\0"
        assert slot.read_at(14, 100) == b"\0\0"
        assert slot.size() == 16
    slot.close()


def test_opening_without_fresh_keeps_the_content(root: Path) -> None:
    (root / "part").write_bytes(b"kept")
    with Disk().open(root / "part") as file:
        assert file.size() == 4
        file.truncate(2)
    assert (root / "part").read_bytes() == b"ke"


def test_removing_what_is_not_there_is_no_error(root: Path) -> None:
    Disk().remove(root / "missing")
    Disk().remove(root / "no folder" / "either")
