from dataclasses import replace
from pathlib import Path

import pytest

from node_agent.drivers.driver import SlotState
from node_agent.drivers.slots.records import PartRecord, SlotRecord, SlotRecords
from tests.contract.devices import URL, make_release
from tests.replay import Recorder, assert_old_or_new
from update.chunks.zchunk import HeaderIndex, parse_header
from update.digest import Digest
from update.durable import Disk, Operation
from update.errors import CorruptError, FormatVersionError
from update.publish.images import zck_header
from update.store.journal import Journal

_RECORD = SlotRecord(
    SlotState.PENDING,
    "1.2",
    Digest("a" * 64),
    None,
    True,
    {"root": PartRecord(1 << 30, Digest("b" * 64))},
    {"release": "1.2", "x": ""},
)


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> HeaderIndex:
    return parse_header(zck_header(make_release(tmp_path_factory.mktemp("release"), 2).chunks.files[URL]))


def test_a_record_is_what_was_written(tmp_path: Path) -> None:
    records = SlotRecords(Disk(), tmp_path / "state/slots")
    assert records.read("b") == SlotRecord()
    records.write("b", _RECORD)
    assert SlotRecords(Disk(), tmp_path / "state/slots").read("b") == _RECORD
    assert records.read("a") == SlotRecord()


def test_an_unchanged_record_is_not_written_again(tmp_path: Path) -> None:
    seen: list[Operation] = []
    records = SlotRecords(Disk(seen.append), tmp_path)
    records.write("b", _RECORD)
    count = len(seen)
    records.write("b", replace(_RECORD))
    records.write("a", SlotRecord())
    assert len(seen) == count


def test_a_damaged_record_is_an_error_and_no_empty_slot(tmp_path: Path) -> None:
    records = SlotRecords(Disk(), tmp_path)
    records.write("b", _RECORD)
    path = tmp_path / "slot-b.json"
    path.write_bytes(path.read_bytes().replace(b"1.2", b"1.3"))
    with pytest.raises(CorruptError):
        records.read("b")
    Journal(Disk(), path).write({"state": "perfect"})
    with pytest.raises(CorruptError):
        records.read("b")
    path.write_text('{"body": {}, "checksum": "", "format_version": 99}')
    with pytest.raises(FormatVersionError):
        records.read("b")


def test_a_power_loss_leaves_the_old_or_the_new_record(tmp_path: Path) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    recorder = Recorder(root)
    records = SlotRecords(Disk(recorder), root)
    records.write("b", _RECORD)
    recorder.mark()
    records.write("b", replace(_RECORD, state=SlotState.CONFIRMED))
    recorder.mark()

    def read(folder: Path) -> SlotState:
        return SlotRecords(Disk(), folder).read("b").state

    values = [SlotState.EMPTY, SlotState.PENDING, SlotState.CONFIRMED]
    assert_old_or_new(recorder.trace(), read, values, into=tmp_path / "crash")


def test_a_kept_header_is_had_again(tmp_path: Path, header: HeaderIndex) -> None:
    records = SlotRecords(Disk(), tmp_path / "slots")
    assert records.header("a", "root") is None
    records.keep_header("a", "root", header)
    found = records.header("a", "root")
    assert found is not None
    assert found.raw == header.raw
    assert records.header("b", "root") is None
    records.forget_header("a", "root")
    assert records.header("a", "root") is None


@pytest.mark.parametrize("damage", [b"", b"\0ZCK1", b"garbage" * 100])
def test_a_damaged_header_is_none(tmp_path: Path, header: HeaderIndex, damage: bytes) -> None:
    records = SlotRecords(Disk(), tmp_path)
    records.keep_header("a", "root", header)
    (tmp_path / "headers/a-root.zck-header").write_bytes(damage)
    assert records.header("a", "root") is None
    records.keep_header("a", "root", header)
    assert records.header("a", "root") is not None
