"""A report's reader meets whatever lies on a stick: it says what is wrong with it, and nothing else happens."""

import json
from contextlib import suppress

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from media.records import Content, Kind, NodeResult, Verdict
from media.report_form import Message, Report, from_bytes, is_report, to_bytes
from update.errors import CorruptError, SignatureError

KEY = Ed25519PrivateKey.from_private_bytes(b"r" * 32)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
JSON = st.recursive(st.none() | st.booleans() | st.integers() | TEXT, lambda each: st.lists(each) | st.dictionaries(TEXT, each))
REPORTS = st.builds(
    Report,
    gateway=st.just("gw"),
    visit=st.just("v1"),
    created=st.integers(0, 1 << 40),
    complete=st.booleans(),
    label=TEXT,
    contents=st.lists(
        st.builds(Content, kind=st.sampled_from(Kind), name=TEXT, verdict=st.sampled_from(Verdict), asks=st.just(())), max_size=2
    ).map(tuple),
    nodes=st.lists(st.builds(NodeResult, node=TEXT, wanted=TEXT), max_size=2).map(tuple),
    pending=st.lists(
        st.builds(
            Message,
            receiver=TEXT,
            id=TEXT,
            node=TEXT,
            action=TEXT,
            created=st.integers(0, 1 << 40),
            final=st.booleans(),
            body=st.dictionaries(TEXT, JSON, max_size=3),
        ),
        max_size=2,
    ).map(tuple),
    inventory=st.just(()),
    logs=st.lists(TEXT, max_size=2).map(tuple),
    schema=st.just("fieldrelay-report-1"),
)


@settings(max_examples=60)
@given(REPORTS)
def test_what_was_signed_reads_back_as_it_was(report: Report) -> None:
    assert from_bytes(to_bytes(report, KEY), {"gw": KEY.public_key()}.get) == report


@settings(max_examples=100)
@given(st.binary(max_size=300) | JSON.map(lambda value: json.dumps({"signed": value, "signatures": [value]}).encode()))
def test_anything_else_is_refused_by_name(data: bytes) -> None:
    is_report(data)
    with suppress(CorruptError, SignatureError):
        raise AssertionError(from_bytes(data, {"gw": KEY.public_key()}.get))


@settings(max_examples=100)
@given(st.integers(0), st.integers(1, 255))
def test_a_flipped_byte_changes_nothing_unseen(place: int, flip: int) -> None:
    report = Report(gateway="gw", visit="v1", created=1, complete=True, label="UPDATE", message="words")
    data = bytearray(to_bytes(report, KEY))
    data[place % len(data)] ^= flip
    with suppress(CorruptError, SignatureError):
        assert from_bytes(bytes(data), {"gw": KEY.public_key()}.get) == report
