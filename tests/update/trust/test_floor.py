"""The floor: it only rises, survives the loss of either copy and any power cut, and says so when both are gone."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.repository import START
from tests.replay import CrashState, Recorder, Trace, assert_every_crash, needless_syncs
from update.digest import digest_of
from update.durable import Disk
from update.errors import FloorError, FormatVersionError, StateError
from update.trust.floor import Floor
from update.trust.floor_values import EPOCH, FloorValues, RoleVersions, decode, encode


def copies_in(folder: Path) -> tuple[Path, Path]:
    return folder / "one" / "floor", folder / "two" / "floor"


@pytest.fixture
def floor(tmp_path: Path) -> Floor:
    made = Floor(Disk(), copies_in(tmp_path))
    made.create(START)
    return made


def test_a_first_start_is_said_explicitly_and_once(tmp_path: Path) -> None:
    floor = Floor(Disk(), copies_in(tmp_path))
    assert not floor.exists()
    with pytest.raises(FloorError) as caught:
        floor.load()
    assert "there is no floor" in str(caught.value)
    assert floor.create(START) == floor.load() == FloorValues(generation=1, time=START)
    assert floor.exists()
    with pytest.raises(StateError):
        floor.create()


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("damage", [None, b"", b"\0" * 300, b"half"])
def test_one_lost_copy_is_healed(floor: Floor, tmp_path: Path, which: int, damage: bytes | None) -> None:
    floor.confirm(release_counter=7, security_counter=2)
    expected = floor.load()
    lost, other = copies_in(tmp_path)[which], copies_in(tmp_path)[1 - which]
    if damage is None:
        lost.unlink()
        lost.parent.rmdir()
    else:
        lost.write_bytes(damage)
    assert floor.read() == expected
    assert floor.load() == expected
    assert lost.read_bytes() == other.read_bytes()


def test_the_newer_copy_wins(floor: Floor, tmp_path: Path) -> None:
    first, second = copies_in(tmp_path)
    old = first.read_bytes()
    expected = floor.confirm(release_counter=7, security_counter=2)
    first.write_bytes(old)
    assert floor.load() == expected
    assert first.read_bytes() == second.read_bytes()


def test_two_lost_copies_ask_an_operator(floor: Floor, tmp_path: Path) -> None:
    for copy in copies_in(tmp_path):
        copy.write_bytes(b"")
    for attempt in (
        floor.load,
        floor.read,
        lambda: floor.raise_time(START),
        lambda: floor.confirm(release_counter=1, security_counter=1),
    ):
        with pytest.raises(FloorError) as caught:
            attempt()
        assert caught.value.code == "trust.floor-lost"
        assert "lost or damaged" in str(caught.value)
    with pytest.raises(StateError):
        floor.create()


def test_a_newer_format_is_refused_and_left_alone(floor: Floor, tmp_path: Path) -> None:
    newer = encode(FloorValues()).partition(b"\n")[0].replace(b'"format_version":1', b'"format_version":2')
    data = newer + b"\n" + digest_of(newer).encode() + b"\n"
    for copy in copies_in(tmp_path):
        copy.write_bytes(data)
    with pytest.raises(FormatVersionError):
        floor.load()
    assert [copy.read_bytes() for copy in copies_in(tmp_path)] == [data, data]


def test_everything_only_rises(floor: Floor) -> None:
    floor.raise_time(START + timedelta(days=2))
    floor.raise_time(START + timedelta(days=1))
    floor.raise_versions("plant", RoleVersions(2, 5, 4, 3), START + timedelta(days=3))
    floor.raise_versions("plant", RoleVersions(1, 9, 1, 1), START)
    floor.raise_versions("other", RoleVersions(1, 1, 1, 1))
    floor.confirm(release_counter=7, security_counter=2)
    floor.confirm(release_counter=5, security_counter=1)
    values = floor.load()
    assert values.time == START + timedelta(days=3)
    assert values.versions("plant") == RoleVersions(2, 9, 4, 3)
    assert values.versions("other") == RoleVersions(1, 1, 1, 1)
    assert values.versions("never seen") == RoleVersions()
    assert (values.release_counter, values.security_counter) == (7, 2)


def test_what_changes_nothing_writes_nothing(floor: Floor, tmp_path: Path) -> None:
    floor.confirm(release_counter=7, security_counter=2)
    operations: list[object] = []
    observed = Floor(Disk(operations.append), copies_in(tmp_path))
    observed.raise_time(EPOCH)
    observed.confirm(release_counter=7, security_counter=0)
    observed.load()
    assert operations == []


def test_a_rotation_lowers_the_floor_once(floor: Floor) -> None:
    floor.raise_versions("plant", RoleVersions(1, 900, 800, 700))
    floor.raise_versions("other", RoleVersions(1, 2, 3, 4))
    assert floor.follow_rotation("plant", 2).versions("plant") == RoleVersions(root=2)
    floor.raise_versions("plant", RoleVersions(2, 6, 5, 4))
    for root in (1, 2):
        assert floor.follow_rotation("plant", root).versions("plant") == RoleVersions(2, 6, 5, 4)
    assert floor.load().versions("other") == RoleVersions(1, 2, 3, 4)


names = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12)
versions = st.builds(RoleVersions, *[st.integers(0, 2**31 - 1)] * 4)
times = st.integers(0, 2**32).map(lambda seconds: EPOCH + timedelta(seconds=seconds))
values = st.builds(
    FloorValues,
    generation=st.integers(0, 2**40),
    time=times,
    security_counter=st.integers(0, 2**31 - 1),
    release_counter=st.integers(0, 2**31 - 1),
    repositories=st.dictionaries(names, versions, max_size=5),
)


@given(values)
@settings(max_examples=100, deadline=None)
def test_a_copy_reads_back_as_it_was_written(value: FloorValues) -> None:
    assert decode(encode(value)) == value


CHANGES: list[Callable[[Floor], FloorValues]] = [
    lambda floor: floor.create(START),
    lambda floor: floor.raise_versions("plant", RoleVersions(1, 5, 4, 3), START + timedelta(days=1)),
    lambda floor: floor.follow_rotation("plant", 2),
    lambda floor: floor.confirm(release_counter=7, security_counter=2),
]


def recorded(folder: Path) -> tuple[Trace, list[FloorValues | None]]:
    folder.mkdir()
    recorder = Recorder(folder)
    floor = Floor(Disk(recorder), copies_in(folder))
    states: list[FloorValues | None] = [None]
    for change in CHANGES:
        states.append(change(floor))
        recorder.mark()
    return recorder.trace(), states


def test_a_power_cut_anywhere_leaves_the_old_or_the_new_floor_even_if_a_copy_dies_too(tmp_path: Path) -> None:
    """And no sync is needless: between two changes both copies are whole, so that losing one, too, loses nothing."""
    trace, states = recorded(tmp_path / "device")

    def check(folder: Path, state: CrashState) -> None:
        allowed = states[state.marks : state.marks + 1 + state.busy]
        assert read(folder) in allowed
        for copy in copies_in(folder) if not state.busy else ():
            if copy.exists():
                content = copy.read_bytes()
                copy.unlink()
                assert read(folder) in allowed
                copy.write_bytes(content)
        if states[state.marks] is not None:
            assert Floor(Disk(), copies_in(folder)).load() in allowed

    rounds = iter(range(1000))

    def verify(cut: Trace) -> int:
        return assert_every_crash(cut, check, into=tmp_path / f"crash{next(rounds)}", limit=40)

    assert verify(trace) > 50
    # Here both copies' folders have the same parent, which is synced again for the second one.
    assert needless_syncs(trace, verify) == ["1: sync-folder ."]


def read(folder: Path) -> FloorValues | None:
    floor = Floor(Disk(), copies_in(folder))
    try:
        return floor.read()
    except FloorError:
        return None
