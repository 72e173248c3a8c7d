"""TUF metadata from untrusted bytes: stricter than the library, and every failure has one name. Pure.

`tuf.api.metadata` builds objects without checking most types, takes the last of two equal keys, and lets floats and
numbers of any size through. Metadata is parsed before its signature can be checked, so here the JSON itself is checked
first: UTF-8 without lone surrogates, no duplicate keys, integers of at most 16 digits only, at most 32 levels; then the
types of everything that the rules compare. `MetadataError` is the only error.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NoReturn

from tuf.api.metadata import Key, Metadata, MetaFile, Role, Root, Snapshot, T, Targets, Timestamp

from update.errors import MetadataError

MAX_LEVELS = 32
_MAX_DIGITS = 16


def parse(data: bytes, kind: type[T]) -> Metadata[T]:
    """Read one metadata file of role type `kind`; signatures are not checked here."""
    try:
        fields = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=_no_number,
            parse_constant=_no_number,
        )
        _check_tree(fields)
        metadata: Metadata[T] = Metadata.from_dict(fields)
    except Exception as error:  # a library's parser on hostile bytes: whatever it raises is a refusal
        raise MetadataError(f"{kind.type} metadata ({len(data)} bytes) is malformed: {_short(error)}") from error
    if not isinstance(metadata.signed, kind):
        raise MetadataError(f"expected {kind.type} metadata, found {metadata.signed.type}")
    for what, good in _checks(metadata.signed):
        if not good:
            raise MetadataError(f"{kind.type} metadata: {what} is not of its type")
    return metadata


def signed_bytes(metadata: Metadata[T]) -> bytes:
    """The canonical bytes that are signed (TUF 1.0, section 4.2)."""
    try:
        return metadata.signed_bytes
    except Exception as error:  # the same: without a canonical form there is no signature to check
        raise MetadataError(f"{metadata.signed.type} metadata has no canonical form: {_short(error)}") from error


def _unique(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("an object holds a key twice")
    return fields


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text[:40]} is not an integer")


def _check_tree(value: object) -> None:
    pending = [(value, 1)]
    while pending:
        node, level = pending.pop()
        if level > MAX_LEVELS:
            raise ValueError(f"more than {MAX_LEVELS} levels deep")
        match node:
            case str():
                node.encode("utf-8")  # a lone surrogate has no UTF-8 form
            case dict():
                pending.extend((name, level) for name in node)
                pending.extend((child, level + 1) for child in node.values())
            case list():
                pending.extend((child, level + 1) for child in node)


def _checks(signed: Root | Timestamp | Snapshot | Targets) -> Iterator[tuple[str, bool]]:
    yield "version", _is_positive(signed.version)
    match signed:
        case Root():
            yield "consistent_snapshot", _is_flag(signed.consistent_snapshot)
            yield from _key_checks(signed.keys, signed.roles.values())
        case Timestamp():
            yield from _meta_checks("snapshot.json", signed.snapshot_meta)
        case Snapshot():
            for name, meta in signed.meta.items():
                yield from _meta_checks(name, meta)
        case Targets():
            yield from _targets_checks(signed)


def _targets_checks(signed: Targets) -> Iterator[tuple[str, bool]]:
    for path, target in signed.targets.items():
        yield f"the length of {path[:80]!r}", _is_integer(target.length)
    if signed.delegations is None:
        return
    roles = signed.delegations.roles
    yield from _key_checks(signed.delegations.keys, roles.values() if roles is not None else [])
    for role in roles.values() if roles is not None else []:
        yield "a delegated role's name", isinstance(role.name, str)
        yield f"terminating of {role.name!r}", isinstance(role.terminating, bool)
        yield f"paths of {role.name!r}", role.paths is None or _is_texts(role.paths)
    if (succinct := signed.delegations.succinct_roles) is not None:
        yield from _key_checks({}, [succinct])
        yield "bit_length", _is_positive(succinct.bit_length)


def _key_checks(keys: Mapping[str, Key], roles: Iterable[Role]) -> Iterator[tuple[str, bool]]:
    for keyid, key in keys.items():
        yield f"key {keyid[:16]!r}", isinstance(key.keyval, dict)
    for role in roles:
        yield "a threshold", _is_positive(role.threshold)
        yield "a list of key ids", _is_texts(role.keyids)


def _meta_checks(name: str, meta: MetaFile) -> Iterator[tuple[str, bool]]:
    yield f"the version of {name[:80]!r}", _is_positive(meta.version)
    yield f"the length of {name[:80]!r}", meta.length is None or _is_integer(meta.length)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_flag(value: object) -> bool:
    return value is None or isinstance(value, bool)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]
