"""The journal: what was written is read, damage is named, a crash leaves the old or the new object."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.replay import Recorder, Trace, assert_old_or_new, needless_syncs
from update.digest import digest_of
from update.durable import Disk
from update.errors import CorruptError, FormatVersionError, LimitError
from update.store.journal import FORMAT_VERSION, MAX_BYTES, Journal, JsonValue, decode, encode

BODIES = st.dictionaries(
    st.text(max_size=8),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=8,
    ),
    max_size=5,
)


@given(BODIES)
def test_what_is_written_is_read(body: dict[str, JsonValue]) -> None:
    assert decode(encode(body)) == body


def test_a_journal_that_was_never_written_or_was_cleared_reads_as_none(tmp_path: Path) -> None:
    journal = Journal(Disk(), tmp_path / "journal")
    assert journal.read() is None
    journal.write({"state": "writing"})
    assert journal.read() == {"state": "writing"}
    journal.clear()
    assert journal.read() is None


@given(st.binary(max_size=200))
def test_hostile_bytes_raise_only_the_named_error(data: bytes) -> None:
    with pytest.raises(CorruptError):
        decode(data)


@given(BODIES, st.data())
def test_any_changed_byte_is_noticed(body: dict[str, JsonValue], data: st.DataObject) -> None:
    line = bytearray(encode(body))
    position = data.draw(st.integers(0, len(line) - 2))
    line[position] ^= data.draw(st.integers(1, 255))
    try:
        assert decode(bytes(line)) == body  # e.g. another spelling of the same escape
    except (CorruptError, FormatVersionError):
        return


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "nul",
        "[" * 100_000,
        '{"body":' * 100_000,
        '{"body": {}, "checksum": "", "format_version": 1}',
        '{"body": {"a": NaN}, "checksum": "", "format_version": 1}',
        '{"body": {"a": 1e999}, "checksum": "", "format_version": 1}',
        '{"body": {"a": ' + "9" * 5000 + '}, "checksum": "", "format_version": 1}',
        '{"body": [], "checksum": "", "format_version": 1}',
        '{"body": {}, "checksum": "", "format_version": 0}',
        '{"body": {}, "checksum": "", "format_version": "1"}',
        '{"body": {}, "checksum": "' + digest_of(b"{}") + '", "format_version": 1, "x": 1}',
    ],
)
def test_damage_is_named_with_its_path(tmp_path: Path, text: str) -> None:
    (tmp_path / "journal").write_text(text)
    with pytest.raises(CorruptError, match="journal") as caught:
        Journal(Disk(), tmp_path / "journal").read()
    assert caught.value.code == "store.corrupt"


@pytest.mark.parametrize("version", [True, 0, -1, "2"])
def test_a_version_that_is_none_is_damage(version: object) -> None:
    document = json.loads(encode({"a": 1})) | {"format_version": version}
    with pytest.raises(CorruptError):
        decode(json.dumps(document).encode())


def test_a_body_that_older_readers_would_misread_is_written_as_of_the_version_that_knows_it(tmp_path: Path) -> None:
    journal = Journal(Disk(), tmp_path / "journal")
    journal.write({"a": 1})
    assert json.loads(journal.path.read_bytes())["format_version"] == 1
    journal.write({"a": 2}, version=2)
    assert json.loads(journal.path.read_bytes())["format_version"] == 2
    assert journal.read() == {"a": 2}


def test_a_journal_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    document = json.loads(encode({"a": 1})) | {"format_version": FORMAT_VERSION + 1, "something": "new"}
    (tmp_path / "journal").write_text(json.dumps(document))
    with pytest.raises(FormatVersionError) as caught:
        Journal(Disk(), tmp_path / "journal").read()
    assert caught.value.code == "usage.format-version"


def test_a_journal_above_its_limit_is_not_written_and_not_read(tmp_path: Path) -> None:
    journal = Journal(Disk(), tmp_path / "journal")
    journal.write({"state": "old"})
    with pytest.raises(LimitError):
        journal.write({"state": "x" * MAX_BYTES})
    assert journal.read() == {"state": "old"}
    (tmp_path / "journal").write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(CorruptError):
        journal.read()


def test_a_folder_in_its_place_is_damage(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    with pytest.raises(CorruptError):
        Journal(Disk(), tmp_path / "journal").read()


def test_every_crash_leaves_the_old_or_the_new_object_and_each_sync_is_needed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    recorder = Recorder(root)
    journal = Journal(Disk(recorder), root / "journal")
    values: list[Mapping[str, JsonValue] | None] = [None]
    for state in ("fetching", "writing", "testing"):
        values.append({"state": state, "tries": len(values)})
        journal.write(values[-1] or {})
        recorder.mark()
    journal.clear()
    recorder.mark()
    values.append(None)

    def read(folder: Path) -> Mapping[str, JsonValue] | None:
        return Journal(Disk(), folder / "journal").read()

    def verify(trace: Trace) -> int:
        return assert_old_or_new(trace, lambda folder: Journal(Disk(), folder / "journal").read(), values)

    assert verify(recorder.trace()) > 20
    assert needless_syncs(recorder.trace(), verify) == []
