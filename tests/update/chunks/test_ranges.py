import email.parser
import email.policy
import random
import re
import tracemalloc
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from update.chunks.ranges import (
    MAX_HEADER_BYTES,
    MAX_PART_HEAD_BYTES,
    MultipartParser,
    Range,
    format_content_range,
    format_range,
    multipart_type,
    parse_boundary,
    parse_content_range,
    parse_range,
    part_head,
    tail,
)
from update.errors import ProtocolError, RangeNotSatisfiableError

FILE = random.Random(7).randbytes(5000)


def model(header: str, size: int) -> list[list[int]] | str:
    """The bytes that RFC 9110 gives each range, by enumeration; "whole" to ignore the header, "refused" for a 416."""
    if not re.fullmatch(r"bytes=[^=]*", header):
        return "whole"
    asked = []
    for spec in header.removeprefix("bytes=").split(","):
        match = re.fullmatch(r"[ \t]*([0-9]*)-([0-9]*)[ \t]*", spec)
        if not match or match[1] == match[2] == "" or (match[1] and match[2] and int(match[1]) > int(match[2])):
            return "whole"
        if match[1]:
            asked.append([at for at in range(size) if at >= int(match[1]) and (not match[2] or at <= int(match[2]))])
        else:
            asked.append([at for at in range(size) if size - at <= int(match[2])])
    asked = [part for part in asked if part]
    flat = [at for part in asked for at in part]
    return "refused" if not flat or len(flat) != len(set(flat)) else asked


specs = st.one_of(
    st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda p: f"{p[0]}-{p[1]}"),
    st.integers(0, 60).map(lambda n: f"{n}-"),
    st.integers(0, 60).map(lambda n: f"-{n}"),
    st.text("0123456789- +_\t٣x", max_size=5),
)


@settings(max_examples=100)
@given(st.lists(specs, min_size=1, max_size=4), st.integers(0, 50))
def test_ranges_are_what_the_specification_says(parts: list[str], size: int) -> None:
    header = "bytes=" + ",".join(parts)
    try:
        ranges = parse_range(header, size)
        found = "whole" if ranges is None else [list(range(part.start, part.end)) for part in ranges]
    except RangeNotSatisfiableError:
        found = "refused"
    assert found == model(header, size)


@settings(max_examples=100)
@given(st.text(max_size=60))
def test_any_header_is_read_ignored_or_refused_by_name(header: str) -> None:
    for text in (header, "bytes=" + header):
        try:
            ranges = parse_range(text, 1000)
        except RangeNotSatisfiableError:
            continue
        assert ranges is None or sum(part.length for part in ranges) <= 1000


@pytest.mark.parametrize(
    "header", ["items=0-1", "bytes", "bytes 0-1", "bytes=0-1,", "bytes=--1", "bytes=1-0", "bytes=٣-٤", "bytes=+1-2"]
)
def test_what_is_not_understood_is_ignored(header: str) -> None:
    assert parse_range(header, 100) is None


def test_the_unit_is_compared_without_case_and_the_order_is_kept() -> None:
    assert parse_range("Bytes=50-59, 0-9", 100) == (Range(50, 10), Range(0, 10))


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(-2, 30)), min_size=1, max_size=6),
    st.integers(0, 100),
    st.integers(1, 6),
)
def test_plain_ranges_mean_the_same_as_any_others(pairs: list[tuple[int, int]], size: int, most: int) -> None:
    specs = ",".join(f"{start}-{max(0, start + more)}" for start, more in pairs)

    def outcome(unit: str) -> object:
        try:
            return parse_range(f"{unit}={specs}", size, max_ranges=most)
        except RangeNotSatisfiableError as error:
            return error.code

    assert outcome("bytes") == outcome("Bytes")  # only the first spelling is read the short way


def test_too_many_ranges_or_too_long_a_header_are_ignored() -> None:
    header = "bytes=" + ",".join(f"{2 * n}-{2 * n}" for n in range(5))
    assert parse_range(header, 100, max_ranges=4) is None
    assert len(parse_range(header, 100, max_ranges=5) or ()) == 5
    assert parse_range("bytes=0-1" + " " * MAX_HEADER_BYTES, 100) is None


@pytest.mark.parametrize(
    "header", ["bytes=100-", "bytes=100-200,300-", "bytes=-0", "bytes=0-5,5-9", "bytes=9-,0-20", "bytes=0-,-1"]
)
def test_ranges_behind_the_end_or_overlapping_are_refused(header: str) -> None:
    with pytest.raises(RangeNotSatisfiableError):
        parse_range(header, 100)


def test_an_empty_file_satisfies_no_range() -> None:
    for header in ("bytes=0-", "bytes=-5", "bytes=0-0"):
        with pytest.raises(RangeNotSatisfiableError):
            parse_range(header, 0)


gaps = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 400)), min_size=1, max_size=12)


def ranges_of(pairs: list[tuple[int, int]]) -> tuple[Range, ...]:
    ranges, at = [], 0
    for gap, length in pairs:
        ranges.append(Range(at + gap, length))
        at += gap + length
    return tuple(ranges)


@settings(max_examples=60)
@given(gaps, st.randoms(use_true_random=False))
def test_a_header_of_ours_is_read_as_it_was_written(pairs: list[tuple[int, int]], dice: random.Random) -> None:
    ranges = list(ranges_of(pairs))
    dice.shuffle(ranges)
    assert parse_range(format_range(ranges), 20000) == tuple(ranges)


def body_of(ranges: tuple[Range, ...], boundary: str = "0a1b2c") -> bytes:
    return b"".join(part_head(boundary, part, len(FILE)) + FILE[part.start : part.end] for part in ranges) + tail(boundary)


def collect(parser: MultipartParser, body: bytes, cuts: list[int]) -> tuple[bytearray, list[tuple[int, int]]]:
    """Feed the body in pieces; a picture of the file with what came, and the merged places."""
    image, places = bytearray(len(FILE)), list[tuple[int, int]]()
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    for begin, end in pairwise(edges):
        for offset, data in parser.feed(body[begin:end]):
            image[offset : offset + len(data)] = data
            if places and places[-1][0] + places[-1][1] == offset:
                places[-1] = (places[-1][0], places[-1][1] + len(data))
            else:
                places.append((offset, len(data)))
    return image, places


@settings(max_examples=100)
@given(gaps.filter(lambda pairs: sum(map(sum, pairs)) <= len(FILE)), st.lists(st.integers(0, 10000), max_size=12))
def test_a_multipart_answer_is_read_as_it_was_written(pairs: list[tuple[int, int]], cuts: list[int]) -> None:
    ranges = ranges_of([(gap + 1, length) for gap, length in pairs])
    assume(ranges[-1].end <= len(FILE))
    body = body_of(ranges)
    parser = MultipartParser("0a1b2c", size=len(FILE), max_parts=len(ranges))
    image, places = collect(parser, body, cuts)
    assert places == list(ranges)
    assert all(image[part.start : part.end] == FILE[part.start : part.end] for part in ranges)
    assert parser.complete


def test_a_multipart_answer_byte_by_byte_is_the_same() -> None:
    body = body_of((Range(0, 5), Range(10, 1), Range(4999, 1)))
    parser = MultipartParser("0a1b2c", size=len(FILE))
    _, places = collect(parser, body, list(range(len(body))))
    assert places == [(0, 5), (10, 1), (4999, 1)]
    assert parser.complete


def test_an_independent_parser_reads_our_parts() -> None:
    ranges = (Range(100, 200), Range(0, 50), Range(4000, 1000))
    head = f"Content-Type: {multipart_type('0a1b2c')}\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body_of(ranges))
    parts = list(message.iter_parts())
    assert [part["Content-Range"] for part in parts] == [format_content_range(part, len(FILE)) for part in ranges]


@pytest.mark.parametrize(
    "head", [b"--B\r\ncontent-range:bytes 3-5/5000\r\n\r\n", b"--B \r\nX: y\r\nCONTENT-RANGE: bytes 3-5/*\r\n\r\n"]
)
def test_other_servers_spellings_are_understood(head: bytes) -> None:
    parser = MultipartParser("B", size=5000)
    assert parser.feed(b"a preamble\r\n" + head + b"abc\r\n--B--") == [(3, b"abc")]
    assert parser.complete
    without_preamble = MultipartParser("B", size=5000)
    assert without_preamble.feed(head + b"abc\r\n--B--\r\nan epilogue") == [(3, b"abc")]


@pytest.mark.parametrize(
    "content", [b"(\xb5/\xfd", b"abc", b"\n", b"x" * 70 + b":", b": no field", b"a b: c", b"A" * 64, b"\r?\n"]
)
@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_a_head_without_the_empty_line_is_understood_as_hawkbit_sends_it(content: bytes, step: int) -> None:
    end = len(content) + 3
    part = b"\r\n--B\r\nContent-Range: bytes 3-%d/5000\r\n%s" % (end - 1, content)
    body = part + b"\r\n--B\r\nContent-Range: bytes 90-90/5000\r\n?\r\n--B--"
    parser = MultipartParser("B", size=5000)
    image, _ = collect(parser, body, list(range(0, len(body), step)))
    assert (bytes(image[3:end]), bytes(image[90:91])) == (content, b"?")
    assert parser.complete


@pytest.mark.parametrize("content", [b"\r\n\r\n", b"\r\nabc", b"Name: value", b"\r\n--B--"])
@pytest.mark.parametrize("step", [1, 1 << 20])
def test_where_one_head_lacks_the_empty_line_all_do(content: bytes, step: int) -> None:
    head = b"\r\n--B\r\nContent-Range: bytes %d-%d/5000\r\n"
    body = head % (3, 3) + b"\x00" + head % (10, 9 + len(content)) + content + b"\r\n--B--"
    parser = MultipartParser("B", size=5000)
    image, _ = collect(parser, body, list(range(0, len(body), step)))
    assert bytes(image[10 : 10 + len(content)]) == content
    assert parser.complete


def test_a_field_behind_the_range_is_no_content() -> None:
    body = b"\r\n--B\r\nContent-Range: bytes 3-5/5000\r\nContent-Type: x/y\r\n\r\nabc\r\n--B--"
    assert MultipartParser("B").feed(body) == [(3, b"abc")]


def test_content_that_looks_like_a_delimiter_is_content() -> None:
    content = b"\r\n--B\r\n\r\n--B--\r\n"
    head = b"\r\n--B\r\nContent-Range: bytes 0-%d/99\r\n\r\n" % (len(content) - 1)
    parser = MultipartParser("B")
    assert b"".join(data for _, data in parser.feed(head + content + b"\r\n--B--\r\n")) == content
    assert parser.complete


PART = b"\r\n--B\r\nContent-Range: bytes 0-2/5000\r\n\r\nabc"
BAD_BODIES = {
    "no delimiter": b"x" * (MAX_PART_HEAD_BYTES + 100),
    "an endless head": b"\r\n--B\r\n" + b"X: y\r\n" * MAX_PART_HEAD_BYTES,
    "no Content-Range": b"\r\n--B\r\nContent-Type: x/y\r\n\r\nabc",
    "no fields": b"\r\n--B\r\n\r\nabc",
    "two Content-Ranges": b"\r\n--B\r\nContent-Range: bytes 0-2/5\r\nContent-Range: bytes 0-2/5\r\n\r\n",
    "a malformed range": b"\r\n--B\r\nContent-Range: bytes 5-2/5000\r\n\r\nabc",
    "a range behind the end": b"\r\n--B\r\nContent-Range: bytes 0-5000/5000\r\n\r\nabc",
    "another file's size": b"\r\n--B\r\nContent-Range: bytes 0-2/6000\r\n\r\nabc",
    "a longer part": PART + b"d\r\n--B--\r\n",
    "another boundary": PART + b"\r\n--C--\r\n",
    "a boundary that goes on": PART + b"\r\n--Bx\r\n",
    "more parts than asked": PART * 4,
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES.keys())
@pytest.mark.parametrize("step", [1, 50, 1 << 20])
def test_a_malformed_answer_is_refused_however_it_arrives(body: bytes, step: int) -> None:
    parser = MultipartParser("B", size=5000, max_parts=3)
    pieces = [body[at : at + step] for at in range(0, len(body), step)]
    with pytest.raises(ProtocolError):
        feed_all(parser, pieces)


def feed_all(parser: MultipartParser, pieces: list[bytes]) -> None:
    for piece in pieces:
        parser.feed(piece)


FRAGMENTS = [PART, b"\r\n--B", b"--", b"\r\n", b"Content-Range: bytes 1-3/9"]


@settings(max_examples=100)
@given(st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=9))))
def test_any_answer_is_read_or_refused_by_name(pieces: list[bytes]) -> None:
    with suppress(ProtocolError):
        feed_all(MultipartParser("B", max_parts=2), pieces)


def test_an_answer_cut_short_is_not_complete() -> None:
    body = body_of((Range(0, 100), Range(200, 100)))
    for end in range(0, len(body) - 4, 17):
        parser = MultipartParser("0a1b2c")
        parser.feed(body[:end])
        assert not parser.complete


def test_a_large_part_is_passed_on_not_collected() -> None:
    parser = MultipartParser("B")
    parser.feed(b"\r\n--B\r\nContent-Range: bytes 0-99999999/100000000\r\n\r\n")
    block, got = bytes(1 << 16), 0
    tracemalloc.start()
    try:
        for _ in range(200):
            got += sum(len(data) for _, data in parser.feed(block))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert got == 200 << 16
    assert peak < 1 << 20


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/byteranges; boundary=00a1", "00a1"),
        ('Multipart/ByteRanges;charset=x; BOUNDARY="squid/5.7:abc"', "squid/5.7:abc"),
        ("application/octet-stream; boundary=x", None),
    ],
)
def test_the_boundary_is_found_in_either_form(content_type: str, boundary: str | None) -> None:
    assert parse_boundary(content_type) == boundary


@pytest.mark.parametrize("value", ["", "boundary=", "boundary=" + "x" * 71, "boundary=é", "other=1"])
def test_a_multipart_answer_without_a_usable_boundary_is_refused(value: str) -> None:
    with pytest.raises(ProtocolError):
        parse_boundary(f"multipart/byteranges; {value}")


def test_our_own_boundary_is_one_that_swupdate_reads() -> None:
    assert multipart_type("0a1b") == "multipart/byteranges; boundary=0a1b"
    for boundary in ("", "UPPER", 'a"b', "x" * 71):
        with pytest.raises(ValueError, match="boundary"):
            part_head(boundary, Range(0, 1), 1)


@given(st.integers(0, 1 << 62), st.integers(1, 1 << 62))
def test_a_content_range_is_read_as_it_was_written(start: int, length: int) -> None:
    part = Range(start, length)
    assert parse_content_range(format_content_range(part, part.end)) == (part, part.end)


@given(st.text(max_size=40))
def test_any_content_range_is_read_or_refused_by_name(value: str) -> None:
    for text in (value, "bytes " + value):
        with pytest.raises(ProtocolError):
            parse_content_range(text)
