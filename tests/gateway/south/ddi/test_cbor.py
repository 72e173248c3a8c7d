import json

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.south.ddi import cbor
from update.errors import ProtocolError

messages = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(messages)
@settings(max_examples=100)
def test_what_json_can_say_comes_back(message: object) -> None:
    assert json.loads(cbor.to_json(cbor2.dumps(message))) == message
    assert cbor2.loads(cbor.from_json(json.dumps(message).encode())) == message


@pytest.mark.parametrize(
    ("message", "what"),
    [
        (b"", "premature end"),
        (cbor2.dumps({"a": b"bytes"}), "bytes"),
        (cbor2.dumps({1: "a"}), "hashable|int|key|JSON"),
        (cbor2.dumps({"a": float("nan")}), "float"),
        (cbor2.dumps({"a": 2**70}), "int"),
        (bytes.fromhex("c11a514b67b0"), "datetime"),
        (bytes.fromhex("d81c81d81d00"), "list|deep|shared"),  # a list that holds itself
        (b"\x81" * 17 + b"\x00", "depth"),
        (bytes.fromhex("9b7fffffffffffffff"), "premature end"),
        (bytes.fromhex("a2616101616102"), "duplicate|Duplicate"),
        (bytes.fromhex("61ff"), "utf|UTF|decod"),
    ],
)
def test_what_json_cannot_say_is_refused(message: bytes, what: str) -> None:
    with pytest.raises(ProtocolError, match=what):
        cbor.to_json(message)


@given(st.binary(max_size=64))
@settings(max_examples=100)
def test_any_bytes_are_read_or_refused_by_name(data: bytes) -> None:
    try:
        json.loads(cbor.to_json(data))
    except ProtocolError:
        return
