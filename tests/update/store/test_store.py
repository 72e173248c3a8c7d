"""The store: only verified content, byte for byte, durable whenever the power goes."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.replay import CrashState, Killed, Recorder, Trace, assert_every_crash, needless_syncs
from update.digest import digest_of
from update.durable import Disk
from update.errors import CorruptError, MetadataError, NoSpaceError, NotStoredError, StateError
from update.store.directory import DirectoryFetcher
from update.store.store import UNREADABLE, Store
from update.trust.verified import TargetCustom, TargetInfo, VerifiedTarget, verify_target

CONTENT = b"the whole content of one bundle"


def info_of(data: bytes = CONTENT, path: str = "line/fw.swu", repository: str = "site") -> TargetInfo:
    return TargetInfo(repository, path, len(data), digest_of(data), TargetCustom(), "targets")


def put(store: Store, data: bytes = CONTENT, path: str = "line/fw.swu", repository: str = "site") -> Path:
    info = info_of(data, path, repository)
    with store.stage(info) as staged:
        staged.write_at(0, data)
    return store.publish(verify_target(info, staged.path))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> Store:
    return Store(Disk(), root)


def test_verified_content_gets_its_final_name_and_leaves_staging(store: Store, root: Path) -> None:
    final = put(store)
    assert final == root / "repositories" / "site" / "targets" / "line" / f"{digest_of(CONTENT)}.fw.swu"
    assert final.read_bytes() == CONTENT
    assert list(store.layout.staging.iterdir()) == []
    assert store.find(info_of()) == final
    assert store.open_verified(info_of()) == VerifiedTarget(info_of(), final)


def test_publishing_again_changes_nothing(store: Store) -> None:
    assert put(store) == put(store)
    assert len(store.held()) == 1


def test_a_file_outside_of_staging_is_refused_since_its_owner_may_change_it(store: Store, tmp_path: Path) -> None:
    (tmp_path / "stick").write_bytes(CONTENT)
    with pytest.raises(StateError) as caught:
        store.publish(verify_target(info_of(), tmp_path / "stick"))
    assert caught.value.code == "usage.state"
    assert (tmp_path / "stick").exists()
    assert store.held() == ()


def test_a_completed_sparse_image_is_published_from_where_the_relay_filled_it(store: Store) -> None:
    sparse = store.layout.sparse / f"{digest_of(CONTENT)}.zck"
    sparse.write_bytes(CONTENT)
    assert store.publish(verify_target(info_of(), sparse)).read_bytes() == CONTENT


def test_a_partial_file_is_continued_by_the_next_process(store: Store, root: Path) -> None:
    with store.stage(info_of()) as staged:
        staged.write_at(0, CONTENT[:10])
        staged.sync()
    with Store(Disk(), root).stage(info_of()) as staged:
        assert staged.size() == 10


def test_content_that_does_not_fit_the_disk_is_refused_before_it_is_fetched(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "free_bytes", lambda _self: len(CONTENT) - 1)
    with pytest.raises(NoSpaceError) as caught:
        store.stage(info_of())
    assert caught.value.code == "store.no-space"


def test_content_that_is_not_there_is_named(store: Store) -> None:
    assert store.find(info_of()) is None
    with pytest.raises(NotStoredError) as caught:
        store.open_verified(info_of())
    assert caught.value.code == "store.not-found"


@pytest.mark.parametrize("damage", [CONTENT[:-1] + b"X", CONTENT[:-1], CONTENT + b"X", b""])
def test_content_damaged_on_disk_is_quarantined_and_counts_as_missing(root: Path, damage: bytes) -> None:
    final = put(Store(Disk(), root))
    final.write_bytes(damage)
    store = Store(Disk(), root)
    with pytest.raises((CorruptError, NotStoredError)):
        store.open_verified(info_of())
    assert store.find(info_of()) is None
    assert [path.read_bytes() for path in store.layout.quarantine.iterdir()] == [damage]
    assert put(store).read_bytes() == CONTENT
    assert store.open_verified(info_of()).file == final


def test_a_symbolic_link_in_place_of_content_is_not_followed(store: Store, tmp_path: Path) -> None:
    final = put(store)
    (tmp_path / "elsewhere").write_bytes(CONTENT)
    final.unlink()
    final.symlink_to(tmp_path / "elsewhere")
    assert store.find(info_of()) is None
    assert (tmp_path / "elsewhere").read_bytes() == CONTENT


def test_content_is_hashed_once_by_each_process(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(Store(Disk(), root))
    hashed: list[Path] = []

    def counted(info: TargetInfo, file: Path) -> VerifiedTarget:
        hashed.append(file)
        return verify_target(info, file)

    monkeypatch.setattr("update.store.store.verify_target", counted)
    store = Store(Disk(), root)
    store.open_verified(info_of())
    store.open_verified(info_of())
    assert len(hashed) == 1
    put(store, b"other", "other.swu")
    store.open_verified(info_of(b"other", "other.swu"))
    assert len(hashed) == 1  # publishing took the proof with it


METADATA = [("1.root.json", b"{root}"), ("timestamp.json", b"{t1}"), ("1.snapshot.json", b"{s1}"), ("1.targets.json", b" {a}\n")]


def test_metadata_is_kept_byte_for_byte(store: Store) -> None:
    store.publish_metadata("site", METADATA)
    folder = store.layout.metadata("site")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == dict(METADATA)


def test_the_timestamp_is_written_last_wherever_it_stands_in_the_list(root: Path) -> None:
    Store(Disk(), root)
    recorder = Recorder(root)
    Store(Disk(recorder), root).publish_metadata("site", METADATA)
    written = [step.target[-1] for step in recorder.trace().steps if step.target]
    assert written == ["1.root.json", "1.snapshot.json", "1.targets.json", "timestamp.json"]


def test_unchanged_metadata_is_not_written_again(store: Store, root: Path) -> None:
    store.publish_metadata("site", METADATA)
    recorder = Recorder(root)
    Store(Disk(recorder), root).publish_metadata("site", [*METADATA, ("2.root.json", b"{2}")])
    assert [step.target[-1] for step in recorder.trace().steps if step.target] == ["2.root.json"]


async def test_a_stored_repository_is_read_as_one(store: Store) -> None:
    store.publish_metadata("site", [*METADATA, ("1.line \u00e4.json", b"{delegated}")])
    put(store)
    fetcher = DirectoryFetcher(store.layout.repository("site"))
    assert await fetcher.fetch("metadata/timestamp.json", max_bytes=9) == b"{t1}"
    assert await fetcher.fetch("metadata/1.line%20%C3%A4.json", max_bytes=99) == b"{delegated}"
    assert await fetcher.fetch(info_of().wire_path, max_bytes=99) == CONTENT


NO_NAMES = ["../x.json", "a/b.json", ".json", ".x.json", "x", "x.json\n", "x\0.json", "", "\ud800.json", "x" * 240 + ".json"]


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_metadata_name_that_could_leave_the_folder_is_refused_and_nothing_is_written(store: Store, name: str) -> None:
    with pytest.raises(MetadataError) as caught:
        store.publish_metadata("site", [("1.root.json", b"x"), (name, b"x")])
    assert caught.value.code == "trust.metadata"
    assert not store.layout.metadata("site").exists()


def test_pins_add_up_and_outlive_the_process(store: Store, root: Path) -> None:
    sha256 = digest_of(CONTENT)
    store.pin(sha256, "runs on node-1")
    store.pin(sha256, "rollout 7")
    store.pin(sha256, "rollout 7")
    again = Store(Disk(), root)
    assert again.pins() == {sha256: {"runs on node-1", "rollout 7"}}
    again.unpin(sha256, "rollout 7")
    again.unpin(sha256, "never pinned")
    assert again.pins() == {sha256: {"runs on node-1"}}
    again.unpin(sha256, "runs on node-1")
    assert again.pins() == {}


@pytest.mark.parametrize("reason", ["", "x" * 201])
def test_a_pin_needs_a_reason_that_can_be_shown(store: Store, reason: str) -> None:
    with pytest.raises(StateError):
        store.pin(digest_of(b""), reason)


def test_a_damaged_pin_keeps_its_content_until_an_operator_says_otherwise(store: Store) -> None:
    sha256 = digest_of(CONTENT)
    store.pin(sha256, "rollout 7")
    store.layout.pin(sha256).write_bytes(b"\xff")
    store.unpin(sha256, "rollout 7")
    assert store.pins() == {sha256: {UNREADABLE}}
    store.unpin(sha256, UNREADABLE)
    assert store.pins() == {}


def test_what_is_removed_counts_as_missing_and_the_rest_tells_its_last_use(root: Path) -> None:
    clock = [0.0]
    store = Store(Disk(), root, now=lambda: clock[0])
    for clock[0], name in ((1.0, "pinned"), (2.0, "gone"), (1.5, "used")):
        put(store, name.encode() * 10, f"{name}.swu")
    store.pin(digest_of(b"pinned" * 10), "runs on node-1")
    clock[0] = 9.0
    assert store.find(info_of(b"used" * 10, "used.swu"))
    held = {each.file.name.partition(".")[2]: each for each in store.held()}
    assert {name: (each.last_used_s, each.pinned) for name, each in held.items()} == {
        "pinned.swu": (1.0, True),
        "gone.swu": (2.0, False),
        "used.swu": (9.0, False),
    }
    store.remove(held["gone.swu"])
    with pytest.raises(NotStoredError):
        store.open_verified(info_of(b"gone" * 10, "gone.swu"))
    store.remove(held["gone.swu"])  # by somebody else meanwhile: no error
    assert len(store.held()) == 2


def test_what_was_damaged_is_kept_until_there_is_no_room(store: Store) -> None:
    (store.layout.quarantine / "junk").write_bytes(b"junk")
    store.empty_quarantine()
    assert list(store.layout.quarantine.iterdir()) == []


def test_after_any_power_cut_while_content_is_removed_it_is_whole_or_gone(tmp_path: Path) -> None:
    for name in ("a", "b"):
        put(Store(Disk(), tmp_path / "store"), name.encode() * 100, f"{name}.swu")

    def run(store: Store, recorder: Recorder) -> None:
        store.remove(store.held()[0])
        recorder.mark()

    def check(folder: Path, state: CrashState) -> None:
        store = Store(Disk(), folder)
        held = store.held()
        for each in held:
            name = each.file.name.partition(".")[2]
            assert store.open_verified(info_of(name[0].encode() * 100, name)).file == each.file
        assert len(held) == 1 or (len(held) == 2 and not state.marks)

    assert crashes(tmp_path / "store", run, check)


def test_partial_files_that_nobody_wants_are_swept(store: Store) -> None:
    for data in (b"wanted", b"withdrawn"):
        with store.stage(info_of(data)) as staged:
            staged.write_at(0, data)
            staged.sync()
    store.sweep_staging({digest_of(b"wanted")})
    assert {path.stem for path in store.layout.staging.iterdir()} == {digest_of(b"wanted")}


# Crashes.


def crashes(root: Path, run: Callable[[Store, Recorder], None], check: Callable[[Path, CrashState], None]) -> int:
    """Crash `run` everywhere, and show that each of its syncs is needed for `check` to pass."""
    Store(Disk(), root)
    recorder = Recorder(root)
    store = Store(Disk(recorder), root)
    opened = len(recorder)
    run(store, recorder)

    def verify(trace: Trace) -> int:
        return assert_every_crash(trace, check, limit=40)

    assert needless_syncs(recorder.trace(), verify, after=opened) == []
    return verify(recorder.trace())


def test_published_content_survives_every_crash_and_each_sync_is_needed(root: Path) -> None:
    def run(store: Store, recorder: Recorder) -> None:
        with store.stage(info_of()) as staged:
            staged.write_at(0, CONTENT[:9])
            staged.sync()
            recorder.mark()
            staged.write_at(9, CONTENT[9:])
        store.publish(verify_target(info_of(), staged.path))
        recorder.mark()

    def check(folder: Path, state: CrashState) -> None:
        names = {names[-1] for names, _ in state.names if names[0] == "staging"}
        assert state.marks < 2 or names == {"staging"}, "publish left something in staging"
        store = Store(Disk(), folder)
        if store.find(info_of()) is None:
            assert state.marks < 2
            with store.stage(info_of()) as staged:
                assert CONTENT.startswith(staged.path.read_bytes()[: staged.size()])
                assert state.marks < 1 or staged.size() >= 9
        else:
            assert store.open_verified(info_of()).file.read_bytes() == CONTENT
            assert list(store.layout.staging.glob("*.part")) == []

    assert crashes(root, run, check) > 30


def test_metadata_is_the_old_or_the_new_repository_after_every_crash_and_each_sync_is_needed(root: Path) -> None:
    versions = [
        [
            ("1.root.json", b"{root}"),
            *((f"{n}.snapshot.json", b"{s%d}" % n), (f"{n}.targets.json", b"{a%d}" % n)),
            ("timestamp.json", b"%d" % n),
        ]
        for n in (1, 2)
    ]

    def run(store: Store, recorder: Recorder) -> None:
        for files in versions:
            store.publish_metadata("site", files)
            recorder.mark()

    def check(folder: Path, state: CrashState) -> None:
        metadata = folder / "repositories" / "site" / "metadata"
        timestamp = metadata / "timestamp.json"
        seen = int(timestamp.read_bytes()) if timestamp.exists() else 0
        assert seen in {state.marks, state.marks + 1}
        for name, data in versions[seen - 1] if seen else []:
            assert (metadata / name).read_bytes() == data
        Store(Disk(), folder)

    assert crashes(root, run, check) > 30


def test_pins_are_the_old_or_the_new_ones_after_every_crash_and_each_sync_is_needed(root: Path) -> None:
    sha256 = digest_of(CONTENT)
    values: list[dict[str, set[str]]] = [{}, {sha256: {"a"}}, {sha256: {"a", "b"}}, {sha256: {"b"}}, {}]

    def run(store: Store, recorder: Recorder) -> None:
        for action, reason in ((store.pin, "a"), (store.pin, "b"), (store.unpin, "a"), (store.unpin, "b")):
            action(sha256, reason)
            recorder.mark()

    def check(folder: Path, state: CrashState) -> None:
        assert Store(Disk(), folder).pins() in values[state.marks : state.marks + 1 + state.busy]

    assert crashes(root, run, check) > 20


def test_a_process_killed_in_publish_is_followed_by_one_that_settles_what_it_finds(tmp_path: Path) -> None:
    def check(folder: Path, state: CrashState) -> None:
        if state.marks:
            assert Store(Disk(), folder).open_verified(info_of()).file.read_bytes() == CONTENT

    for count in range(60):
        root = tmp_path / str(count)
        Store(Disk(), root)
        recorder = Recorder(root)
        recorder.kill_at(count)
        try:
            put(Store(Disk(recorder), root))
        except Killed:
            store = Store(Disk(recorder), root)
            if store.find(info_of()) is None:
                put(store)
            recorder.mark()  # the next process has seen it stored: it may tell others so
            assert_every_crash(recorder.trace(), check, limit=16)
        else:
            assert count > 15
            return
    raise AssertionError("more operations than expected")


def test_a_publish_cut_between_two_folders_does_not_leave_the_content_writable_in_staging(store: Store) -> None:
    final = put(store)
    os.link(final, store.layout.staged(digest_of(CONTENT)))
    again = Store(Disk(), store.layout.root)
    assert list(again.layout.staging.iterdir()) == []
    assert again.open_verified(info_of()).file == final
