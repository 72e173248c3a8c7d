"""The stream of events, however it is cut."""

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.north.wfx.events import MAX_EVENT_BYTES, EventReader
from gateway.north.wfx.messages import Event
from update.errors import EndlessDataError


def event(number: int, action: str = "UPDATE_STATUS") -> bytes:
    told = {"action": action, "ctime": "2026-11-20T12:00:00Z", "job": {"id": f"j{number}", "clientId": "n1"}, "tags": None}
    return f"data: {json.dumps(told)}\nid: {number}\n\n".encode()


STREAM = b": hello\n\n" + event(1) + event(2, "DELETE").replace(b"\n", b"\r\n") + b"retry: 10\n\ndata: {}\n\n" + event(3)


@settings(max_examples=100)
@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_events_are_the_same_however_they_come(cuts: list[int]) -> None:
    reader, found = EventReader(), list[Event]()
    places = [0, *sorted(cuts), len(STREAM)]
    for start, end in pairwise(places):
        found += reader.feed(STREAM[start:end])
    assert [(each.job.id, each.action) for each in found] == [("j1", "UPDATE_STATUS"), ("j2", "DELETE"), ("j3", "UPDATE_STATUS")]


def test_an_event_of_several_lines_is_one() -> None:
    assert [each.job.id for each in EventReader().feed(b'data: {"action": "CREATE",\ndata:"job": {"id": "j"}}\n\n')] == ["j"]


@settings(max_examples=100)
@given(st.lists(st.binary(max_size=60) | st.sampled_from([b"data:", b"\n", b"\n\n", b"{}"]), max_size=12))
def test_any_bytes_are_read_without_harm(pieces: list[bytes]) -> None:
    reader = EventReader()
    for piece in pieces:
        reader.feed(piece)


@pytest.mark.parametrize("unit", [b"x", b"data: x\n"], ids=["one line", "many lines"])
def test_an_event_that_does_not_end_is_refused(unit: bytes) -> None:
    reader, piece = EventReader(), unit * (MAX_EVENT_BYTES // len(unit) // 2)
    reader.feed(piece)
    reader.feed(piece)
    with pytest.raises(EndlessDataError):
        reader.feed(piece)
