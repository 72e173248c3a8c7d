"""What the journal is told, over a real socket, and read back as the protocol says."""

import logging
import socket
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.signals import Show, Signal
from media.sinks.journal import MESSAGE_IDS, SystemJournal, encode

FAILED = Signal(Show.FAILED, "UP\nPRIORITY=0", removable=True, since=1, code="trust.expired", message="it expired\nyesterday")


@pytest.fixture
def journal() -> Iterator[tuple[Path, socket.socket]]:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(f"{folder}/socket")
        line.setblocking(False)
        yield Path(folder) / "socket", line


def decode(datagram: bytes) -> dict[str, str]:
    fields = {}
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        key, equals, value = line.partition(b"=")
        if not equals:
            (size,) = struct.unpack_from("<Q", rest)
            value, rest = rest[8 : 8 + size], rest[8 + size + 1 :]
        fields[key.decode()] = value.decode()
        datagram = rest
    return fields


def test_a_failure_is_a_warning_with_its_code(journal: tuple[Path, socket.socket]) -> None:
    where, line = journal
    SystemJournal(where).show(FAILED)
    fields = decode(line.recv(65536))
    assert fields["MESSAGE_ID"] == MESSAGE_IDS[Show.FAILED]
    assert fields["MESSAGE"] == "UP PRIORITY=0: Failed trust.expired. The stick may be removed. it expired yesterday"
    assert (fields["PRIORITY"], fields["FIELDRELAY_CODE"], fields["FIELDRELAY_REMOVABLE"]) == ("4", "trust.expired", "1")
    assert fields["FIELDRELAY_MEDIUM"] == "UP\nPRIORITY=0", "one field, whatever the label says"


def test_per_cents_are_no_news_and_nodes_are(journal: tuple[Path, socket.socket]) -> None:
    where, line = journal
    sink = SystemJournal(where)
    for done in range(5):
        sink.show(Signal(Show.COPYING, "A", removable=False, since=1, done=done, total=9))
    for done in (0, 1):
        sink.show(Signal(Show.UPDATING, "A", removable=True, since=1, done=done, total=9))
    sink.show(None)
    told = [decode(line.recv(65536)) for _ in range(3)]
    with pytest.raises(BlockingIOError):
        line.recv(65536)
    assert [(each["FIELDRELAY_STATE"], each["FIELDRELAY_DONE"]) for each in told] == [
        ("copying", "0"),
        ("updating", "0"),
        ("updating", "1"),
    ]


def test_without_a_journal_the_log_says_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        SystemJournal(tmp_path / "none").show(FAILED)
    (record,) = caplog.records
    assert (record.levelname, record.getMessage().partition(":")[0]) == ("WARNING", "UP PRIORITY=0".partition(":")[0])


def test_every_state_has_an_id_of_its_own() -> None:
    assert set(MESSAGE_IDS) == set(Show)
    assert len(set(MESSAGE_IDS.values())) == len(Show)
    assert all(len(bytes.fromhex(each)) == 16 for each in MESSAGE_IDS.values())


@given(st.dictionaries(st.from_regex(r"[A-Z]{1,8}", fullmatch=True), st.text(max_size=40)))
def test_fields_survive_the_protocol(fields: dict[str, str]) -> None:
    sent = {key: value.encode(errors="replace").decode() for key, value in fields.items()}
    assert decode(encode(fields)) == sent
