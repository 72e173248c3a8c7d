"""CBOR beside JSON, as hawkBit's DDI takes and answers it (`application/cbor`, RFC 8949).

A message is read as the JSON that it stands for: maps with text keys, lists, texts, finite numbers, booleans and null.
Everything else that CBOR could carry (tags, byte strings, references that make circles) is refused, and so is what is nested
deeper than any message is. The size is limited before anything is read.
"""

import json
import math
from typing import Final

import cbor2

from update.errors import ProtocolError

CONTENT_TYPE: Final = "application/cbor"
_DEEPEST = 16
_LARGEST = 2**64


def to_json(data: bytes) -> bytes:
    """The JSON text of a CBOR message; `ProtocolError` for what has none. The caller has limited the size of `data`."""
    try:
        value = cbor2.loads(data, max_depth=_DEEPEST, allow_duplicate_keys=False, strict_hashable_types=True)
    except (cbor2.CBORError, ValueError, OverflowError, RecursionError) as error:
        raise ProtocolError(f"not a CBOR message: {str(error)[:120]}") from error
    _check(value, _DEEPEST)
    return json.dumps(value, allow_nan=False).encode()


def from_json(data: bytes) -> bytes:
    """The CBOR of one of our own JSON messages."""
    return cbor2.dumps(json.loads(data))


def _check(value: object, left: int) -> None:
    match value:
        case None | bool() | str():
            return
        case int() if abs(value) < _LARGEST:
            return
        case float() if math.isfinite(value):
            return
        case list() if left:
            for each in value:
                _check(each, left - 1)
        case dict() if left and all(isinstance(key, str) for key in value):
            for each in value.values():
                _check(each, left - 1)
        case _:
            raise ProtocolError(f"a CBOR message holds what JSON cannot say: {type(value).__name__}, or too deep")
