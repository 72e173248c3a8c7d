"""The layout: made once, upgraded step by step, never entered by an older release."""

from pathlib import Path

import pytest

from tests.replay import CrashState, Recorder, Trace, assert_every_crash, needless_syncs
from update.digest import digest_of
from update.durable import Disk
from update.errors import ConfigurationError, CorruptError, FormatVersionError, MetadataError, StateError
from update.store.layout import FORMAT_VERSION, UPGRADES, Layout, open_layout
from update.trust.verified import TargetCustom, TargetInfo


def info_of(path: str, repository: str = "site") -> TargetInfo:
    return TargetInfo(repository, path, 1, digest_of(b"x"), TargetCustom(), "targets")


def test_an_empty_folder_becomes_a_store_of_this_version(tmp_path: Path) -> None:
    layout = open_layout(Disk(), tmp_path / "deep" / "store")
    assert (layout.root / "format_version").read_text() == f"{FORMAT_VERSION}\n"
    assert {path.name for path in layout.root.iterdir() if path.is_dir()} == {
        "staging",
        "repositories",
        "sparse",
        "headers",
        "pairs",
        "pins",
        "quarantine",
    }
    assert open_layout(Disk(), layout.root) == layout


def test_a_fresh_file_system_counts_as_empty(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    (tmp_path / ".format_version.tmp").write_bytes(b"")
    open_layout(Disk(), tmp_path)


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(StateError, match="photos"):
        open_layout(Disk(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_a_newer_layout_is_refused_and_not_touched(tmp_path: Path) -> None:
    (tmp_path / "format_version").write_text(f"{FORMAT_VERSION + 1}\n")
    with pytest.raises(FormatVersionError) as caught:
        open_layout(Disk(), tmp_path)
    assert caught.value.code == "usage.format-version"
    assert [path.name for path in tmp_path.iterdir()] == ["format_version"]


@pytest.mark.parametrize("text", ["", "one", "-1", "1.0", "9" * 100, "\u0661"])
def test_an_unreadable_version_is_damage(tmp_path: Path, text: str) -> None:
    (tmp_path / "format_version").write_text(text)
    with pytest.raises(CorruptError):
        open_layout(Disk(), tmp_path)


def test_older_layouts_are_upgraded_one_version_at_a_time(tmp_path: Path) -> None:
    open_layout(Disk(), tmp_path)
    seen: list[tuple[str, str]] = []

    def note(step: str) -> None:
        seen.append((step, (tmp_path / "format_version").read_text().strip()))

    open_layout(
        Disk(), tmp_path, current=3, upgrades={1: lambda _disk, _root: note("1to2"), 2: lambda _disk, _root: note("2to3")}
    )
    assert seen == [("1to2", "1"), ("2to3", "2")]
    assert (tmp_path / "format_version").read_text() == "3\n"


def test_a_layout_without_a_way_to_this_version_is_refused(tmp_path: Path) -> None:
    open_layout(Disk(), tmp_path)
    with pytest.raises(FormatVersionError, match="no way"):
        open_layout(Disk(), tmp_path, current=2, upgrades={})


def test_every_older_version_has_its_upgrade() -> None:
    assert set(UPGRADES) == set(range(1, FORMAT_VERSION))


def test_an_interrupted_start_is_continued_and_each_sync_is_needed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    recorder = Recorder(root)
    open_layout(Disk(recorder), root)
    recorder.mark()

    def check(folder: Path, state: CrashState) -> None:
        if state.marks:
            assert (folder / "format_version").read_text() == "1\n"
            assert (folder / "quarantine").is_dir()
        open_layout(Disk(), folder)

    def verify(trace: Trace) -> int:
        return assert_every_crash(trace, check)

    assert verify(recorder.trace()) > 10
    folders = "sync-folder ."  # of several new folders in one parent only the last sync counts in the end
    needless = needless_syncs(recorder.trace(), verify)
    assert {text.partition(": ")[2] for text in needless} <= {folders}
    assert f"{recorder.trace().syncs()[-1]}: {folders}" not in needless


@pytest.mark.parametrize(
    "path", ["../x", "/x", "a//b", "", "a/../b", ".x", "a/.x", "a\\b", "a b", "x\0", "a/" * 16 + "b", "x" * 201]
)
def test_a_target_path_that_could_leave_its_folder_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(MetadataError):
        Layout(tmp_path).target(info_of(path))


@pytest.mark.parametrize("name", ["..", "a/b", "", ".x"])
def test_a_repository_name_that_could_leave_the_store_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError):
        Layout(tmp_path).target(info_of("x", name))


def test_content_lies_where_tuf_looks_for_it(tmp_path: Path) -> None:
    layout, sha256 = Layout(tmp_path), digest_of(b"x")
    assert layout.target(info_of("line/fw.swu")) == tmp_path / "repositories" / "site" / "targets" / "line" / f"{sha256}.fw.swu"
    assert layout.metadata("site") == tmp_path / "repositories" / "site" / "metadata"
    assert layout.trusted("site") == tmp_path / "repositories" / "site" / "trusted"
    assert layout.staged(sha256).parent == layout.staging
