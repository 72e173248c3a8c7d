"""Server-sent events of anybody, however they are cut and whatever they hold."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.north.calls.stream import MAX_EVENT_BYTES, StreamEvent, StreamReader
from update.errors import EndlessDataError

STREAM = (
    b": welcome\n\nid: a-1\nevent: look\ndata: {}\n\n"
    b"data: one\r\ndata:two\r\nid: a-2\r\n\r\n"
    b"retry: 1500\rdata: three\r\revent: look\n\ndata\n\n"
)
EVENTS = [
    StreamEvent("look", "{}"),
    StreamEvent("message", "one\ntwo"),
    StreamEvent("message", "three"),
    StreamEvent("message", ""),
]


@settings(max_examples=100)
@given(st.lists(st.integers(0, len(STREAM)), max_size=10))
def test_events_are_the_same_however_they_come(cuts: list[int]) -> None:
    reader, found = StreamReader(), list[StreamEvent]()
    for start, end in pairwise([0, *sorted(cuts), len(STREAM)]):
        found += reader.feed(STREAM[start:end])
    assert found == EVENTS
    assert (reader.last_id, reader.retry_s) == ("a-2", 1.5)


@settings(max_examples=100)
@given(st.lists(st.binary(max_size=60) | st.sampled_from([b"data:", b"id:", b"\n", b"\r", b"\n\n"]), max_size=12))
def test_any_bytes_are_read_without_harm(pieces: list[bytes]) -> None:
    reader = StreamReader()
    for piece in pieces:
        reader.feed(piece)
    assert reader.last_id is None or reader.last_id.isprintable()


@pytest.mark.parametrize(
    "stream", [b"data: " + b"x" * MAX_EVENT_BYTES, b"data: xxxxxxxxxxxxxxxxxxxx\n" * (MAX_EVENT_BYTES // 20)]
)
def test_an_event_without_an_end_is_refused(stream: bytes) -> None:
    with pytest.raises(EndlessDataError):
        StreamReader().feed(stream)
