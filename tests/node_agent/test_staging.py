"""One bundle on its way in."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from node_agent.staging import Staging, copy_bundle, digest_bundle
from update.digest import Digest, digest_of
from update.durable import Disk
from update.errors import NoSpaceError, StoreError

ONE, TWO = Digest("1" * 64), Digest("2" * 64)


class Usage(NamedTuple):
    """What `shutil.disk_usage` answers."""

    total: int
    used: int
    free: int


def test_another_bundle_replaces_what_was_left_behind(tmp_path: Path) -> None:
    place = Staging(Disk(), tmp_path / "staging")
    with place.open(ONE, 10) as staged:
        staged.write_at(0, b"12345")
        staged.sync()
    with place.open(ONE, 10) as staged:
        assert staged.size() == 5
    with place.open(TWO, 10):
        assert not place.path(ONE).exists()
    place.clear()
    assert list((tmp_path / "staging").iterdir()) == []


def test_a_bundle_that_does_not_fit_is_refused_before_it_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _path: Usage(0, 0, 5 << 20))
    with pytest.raises(NoSpaceError, match="make room"):
        Staging(Disk(), tmp_path / "staging").open(ONE, 2 << 20)


def test_a_copy_goes_on_behind_what_is_there(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"0123456789")
    assert digest_bundle(file) == (digest_of(b"0123456789"), 10)
    place = Staging(Disk(), tmp_path / "staging")
    with place.open(ONE, 10) as staged:
        staged.write_at(0, b"abc")
        staged.sync()
        copy_bundle(file, staged)
    assert place.path(ONE).read_bytes() == b"abc3456789"


def test_a_stick_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="gone"):
        digest_bundle(tmp_path / "gone")
    with Staging(Disk(), tmp_path / "staging").open(ONE, 10) as staged, pytest.raises(StoreError, match="gone"):
        copy_bundle(tmp_path / "gone", staged)
    assert shutil.disk_usage(tmp_path).free > 0
