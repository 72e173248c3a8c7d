"""Archives from strangers: what is well-formed is read to the byte, everything else is refused by name."""

import io
import stat
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.bundles import TRAILER, archive, entry, finish
from update.bundle.cpio import ArchiveReader, Form, Limits, check_member_name, entry_head, entry_tail, trailer
from update.errors import ContainerError, FieldrelayError, LimitError

MAGICS = [b"070701", b"070702"]


class Dribble:
    """A stream that hands out a byte or two at a time and cannot seek."""

    def __init__(self, data: bytes, step: int) -> None:
        self._stream = io.BytesIO(data)
        self._step = step

    def read(self, size: int, /) -> bytes:
        return self._stream.read(min(size, self._step))


def unpack(data: bytes, *, limits: Limits | None = None) -> dict[str, bytes]:
    reader = ArchiveReader(io.BytesIO(data), limits=limits)
    return {header.name: b"".join(iter(reader.read, b"")) for header in reader}


def pack(members: dict[str, bytes], form: Form) -> bytes:
    whole = b""
    for number, (name, data) in enumerate(members.items(), start=1):
        check = sum(data) & 0xFFFFFFFF if form is Form.CRC else 0
        whole += entry_head(form, number=number, name=name, size=len(data), check=check) + data + entry_tail(len(data))
    return whole + trailer(form, len(whole))


names = st.text("abcXYZ019._-", min_size=1, max_size=40).filter(lambda name: ".." not in name and name != "." and name[0] != "-")


@settings(max_examples=60)
@given(st.dictionaries(names, st.binary(max_size=300), max_size=5), st.sampled_from(Form), st.integers(1, 7))
def test_what_is_written_is_read_whatever_the_stream_hands_out(members: dict[str, bytes], form: Form, step: int) -> None:
    packed = pack(members, form)
    reader = ArchiveReader(Dribble(packed, step))
    found = {header.name: (header.offset, header.size, b"".join(iter(reader.read, b""))) for header in reader}
    assert {name: data for name, (_, _, data) in found.items()} == members
    assert all(packed[offset : offset + size] == data for offset, size, data in found.values())
    assert len(packed) % 512 == 0


@pytest.mark.parametrize("magic", MAGICS)
def test_entries_left_unread_are_stepped_over(magic: bytes) -> None:
    reader = ArchiveReader(io.BytesIO(archive([("a", b"12345"), ("b", b"6")], magic=magic)))
    assert [header.name for header in reader] == ["a", "b"]


def test_upper_case_digits_are_read() -> None:
    first = entry("a", bytes(171)).replace(b"000000ab", b"000000AB", 1)
    assert unpack(finish(first)) == {"a": bytes(171)}


@pytest.mark.parametrize("end", [1, 50, 110, 113, 118, 130, 240])
def test_a_truncated_archive_is_refused(end: int) -> None:
    whole = archive([("name", b"x" * 100)])
    with pytest.raises(ContainerError):
        unpack(whole[:end])


def test_an_archive_without_a_trailer_is_refused() -> None:
    with pytest.raises(ContainerError):
        unpack(entry("a", b"data"))


@pytest.mark.parametrize(
    "bad",
    [
        entry("../etc/passwd", b"x"),
        entry("/etc/passwd", b"x"),
        entry("a/b", b"x"),
        entry("..", b"x"),
        entry(".", b"x"),
        entry("a..b", b"x"),
        entry("-rf", b"x"),
        entry("a\nb", b"x"),
        entry("caf\xe9".encode("latin-1"), b"x"),
        entry(b"a\x00b", b"x"),
        entry("", b"x"),
        entry("n" * 256, b"x"),
        entry("name", b"x", name_size=3),
        entry("name", b"x", name_size=0),
        entry("name", b"x", name_size=0xFFFFFFFF),
        entry("link", b"/etc/passwd", mode=stat.S_IFLNK | 0o777),
        entry("folder", mode=stat.S_IFDIR | 0o755),
        entry("device", mode=stat.S_IFBLK | 0o600),
        entry("pipe", mode=stat.S_IFIFO | 0o600),
        entry("socket", mode=stat.S_IFSOCK | 0o600),
        entry("nothing", mode=0),
        entry("twice", b"x") + entry("twice", b"y"),
        entry("mixed", b"x") + entry("forms", b"y", magic=b"070702"),
        entry("a", b"x", padding=b"\x00\x01\x00"),
        entry("a", b"x", magic=b"070707"),
        entry("a", b"x").replace(b"000081a4", b"+00081a4"),
        entry("a", b"x").replace(b"000081a4", b" 00081a4"),
        entry("a", b"x").replace(b"000081a4", b"0x0081a4"),
        entry("a", b"x", size=9),
        entry("a", b"x", size=-1),
        entry("a", b"x", size=0x7FFFFFFF),
        entry(TRAILER, b"smuggled", mode=0),
    ],
)
def test_what_no_bundle_needs_is_refused(bad: bytes) -> None:
    with pytest.raises(ContainerError):
        unpack(finish(bad))


@pytest.mark.parametrize("check", [0, 119, 121, 0xFFFFFFFF])
def test_data_that_do_not_sum_up_are_refused(check: int) -> None:
    good = entry("a", b"x", magic=b"070702", check=120)
    assert unpack(finish(good, magic=b"070702")) == {"a": b"x"}
    with pytest.raises(ContainerError, match="sums up"):
        unpack(finish(entry("a", b"x", magic=b"070702", check=check), magic=b"070702"))


def test_data_after_the_trailer_are_refused() -> None:
    with pytest.raises(ContainerError):
        unpack(archive([("a", b"x")]) + b"unsigned")


def test_zeros_after_the_trailer_are_bounded() -> None:
    assert unpack(archive([("a", b"x")]) + bytes(10_240)) == {"a": b"x"}
    with pytest.raises(ContainerError):
        unpack(archive([("a", b"x")]) + bytes(1 << 20))


def test_a_member_above_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(LimitError):
        unpack(entry("a", b"", size=1001), limits=Limits(member_bytes=1000))


def test_more_members_than_allowed_are_refused() -> None:
    with pytest.raises(LimitError):
        unpack(archive([(f"m{number}", b"") for number in range(4)]), limits=Limits(members=3))


def test_the_writer_refuses_what_the_reader_would() -> None:
    with pytest.raises(ContainerError):
        check_member_name("../x")
    with pytest.raises(LimitError):
        entry_head(Form.NEWC, number=1, name="big", size=1 << 32)


GOOD = {magic: archive([("sw-description", b"text" * 9), ("image", bytes(range(256)))], magic=magic) for magic in MAGICS}


@settings(max_examples=100)
@given(st.sampled_from(MAGICS), st.data())
def test_a_damaged_archive_is_read_or_refused_by_name(magic: bytes, data: st.DataObject) -> None:
    damaged = bytearray(GOOD[magic])
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(damaged) - 1))
        damaged[position] = data.draw(st.integers(0, 255))
    with suppress(FieldrelayError):
        unpack(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))
