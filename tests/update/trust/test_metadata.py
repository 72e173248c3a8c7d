"""Hostile metadata raises only leaves of TrustError, whatever it holds and however it was mutated."""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from tests.builders.repository import START, RepositoryBuilder
from update.errors import MetadataError, TrustError
from update.trust import rules
from update.trust.floor_values import RoleVersions
from update.trust.metadata import parse
from update.trust.rules import Trusted


def built() -> RepositoryBuilder:
    builder = RepositoryBuilder()
    builder.delegate("vendor", ["vendor/*"])
    custom = {"hwIds": ["a:1"], "releaseCounter": 1, "zckHeader": {"sha256": "0" * 64, "length": 5}, "requires": {"x": ">=1"}}
    builder.add_target("line/app.swu", b"x", custom)
    builder.publish()
    return builder


BUILDER = built()
FILES: dict[str, bytes] = {
    "root": BUILDER.files["metadata/1.root.json"],
    "timestamp": BUILDER.files["metadata/timestamp.json"],
    "snapshot": BUILDER.files["metadata/2.snapshot.json"],
    "targets": BUILDER.files["metadata/2.targets.json"],
}
ROOT = rules.pinned_root(FILES["root"])
TIMESTAMP = rules.accept_timestamp(ROOT, FILES["timestamp"], trusted=None, floor=RoleVersions())
SNAPSHOT = rules.accept_snapshot(ROOT, TIMESTAMP, FILES["snapshot"], trusted=None, floor=RoleVersions())


def accept(role: str, data: bytes) -> None:
    """Everything that the client does with bytes of a role, as far as they get."""
    match role:
        case "root":
            rules.pinned_root(data)
            rules.next_root(ROOT, data)
        case "timestamp":
            found = rules.accept_timestamp(ROOT, data, trusted=TIMESTAMP, floor=RoleVersions())
            rules.issued_time(found.signed, ROOT.signed)
        case "snapshot":
            rules.accept_snapshot(ROOT, TIMESTAMP, data, trusted=SNAPSHOT, floor=RoleVersions())
        case _:
            rules.accept_targets("targets", ROOT, SNAPSHOT, data)


def explore(role: str, data: bytes) -> None:
    """As a compromised but trusted key may have signed it: walk everything that is read after the signatures."""
    match role:
        case "root":
            root = parse(data, Root).signed
            rules.keys_rotated(ROOT.signed, root)
            rules.check_expiry(Trusted("root", data, root), START)
        case "timestamp":
            timestamp = parse(data, Timestamp).signed
            rules.issued_time(timestamp, ROOT.signed)
            rules.announced_limit("snapshot", timestamp.snapshot_meta, 1 << 20)
        case "snapshot":
            snapshot = parse(data, Snapshot).signed
            rules.announced_limit("targets", rules.announced_targets(snapshot, "targets"), 1 << 20)
        case _:
            targets = Trusted("targets", data, parse(data, Targets).signed)
            for path in ["vendor/a.swu", *targets.signed.targets]:
                rules.roles_for(targets.signed, path)
                rules.target_info("plant", targets, path, prefixed=True)
            rules.delegated_roles(targets.signed, SNAPSHOT.signed)


def only_named_refusals(act: Callable[[str, bytes], None], role: str, data: bytes) -> bool:
    """Whether it was refused; any other error than a leaf of TrustError fails the test."""
    refusal: TrustError | None = None
    try:
        act(role, data)
    except TrustError as error:
        refusal = error
    assert type(refusal) is not TrustError, "a refusal without a name of its own"
    return refusal is not None


@pytest.mark.parametrize("role", FILES)
def test_the_honest_file_is_read(role: str) -> None:
    assert not only_named_refusals(explore, role, FILES[role])


@pytest.mark.parametrize(
    ("case", "data"),
    {
        "empty": b"",
        "a number": b"1",
        "null": b"null",
        "a list": b"[]",
        "not utf-8": b'{"signed": "\xff"}',
        "utf-16": '{"signed": {}}'.encode("utf-16"),
        "a lone surrogate": FILES["targets"].replace(b'"line/app.swu"', b'"\\ud800"'),
        "nested lists": b"[" * 10_000 + b"]" * 10_000,
        "nested objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        "nested within what is signed": FILES["targets"].replace(b'"a:1"', b"[" * 40 + b"]" * 40),
        "a huge number": FILES["targets"].replace(b'"version": 2', b'"version": ' + b"9" * 5000),
        "a number of 17 digits": FILES["targets"].replace(b'"version": 2', b'"version": 10000000000000000'),
        "a float": FILES["targets"].replace(b'"version": 2', b'"version": 2.0'),
        "an exponent": FILES["targets"].replace(b'"version": 2', b'"version": 2e0'),
        "infinity": FILES["targets"].replace(b'"version": 2', b'"version": Infinity'),
        "a text for a version": FILES["targets"].replace(b'"version": 2', b'"version": "2"'),
        "true for a version": FILES["targets"].replace(b'"version": 2', b'"version": true'),
        "a negative version": FILES["targets"].replace(b'"version": 2', b'"version": -2'),
        "version zero": FILES["targets"].replace(b'"version": 2', b'"version": 0'),
        "a duplicate key": FILES["targets"].replace(b'"version": 2', b'"version": 2, "version": 3'),
        "another role": FILES["snapshot"],
        "an unknown role": FILES["targets"].replace(b'"_type": "targets"', b'"_type": "mirrors"'),
        "another specification": FILES["targets"].replace(b'"spec_version": "1', b'"spec_version": "2'),
        "a bad expiry": FILES["targets"].replace(b'"expires": "2027', b'"expires": "now'),
        "a negative length": FILES["targets"].replace(b'"length": 1\n', b'"length": -1\n'),
        "a text for a threshold": FILES["targets"].replace(b'"threshold": 1', b'"threshold": "1"'),
        "threshold zero": FILES["targets"].replace(b'"threshold": 1', b'"threshold": 0'),
        "a text for terminating": FILES["targets"].replace(b'"terminating": true', b'"terminating": "no"'),
    }.items(),
)
def test_malformed_metadata_is_refused_by_name(case: str, data: bytes) -> None:
    assert data != FILES["targets"], "the mutation did not apply"
    with pytest.raises(MetadataError) as caught:
        parse(data, Targets)
    assert caught.value.code == "trust.metadata"
    assert len(str(caught.value)) < 400


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=12), children, max_size=4),
    max_leaves=12,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:  # any JSON
    found = [path]
    if isinstance(value, dict):
        for key in value:
            found += places(value[key], (*path, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            found += places(child, (*path, index))
    return found


def replaced(value: Any, path: tuple[Any, ...], new: object) -> Any:  # any JSON
    if not path:
        return new
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[path[0]] = replaced(value[path[0]], path[1:], new)
    return changed


@given(st.sampled_from(sorted(FILES)), st.data(), json_values)
@settings(max_examples=100, deadline=None)
def test_any_value_anywhere_raises_only_named_refusals(role: str, data: st.DataObject, value: object) -> None:
    honest = json.loads(FILES[role])
    place = data.draw(st.sampled_from(places(honest)))
    mutated = json.dumps(replaced(honest, place, value)).encode()
    only_named_refusals(explore, role, mutated)
    assert only_named_refusals(accept, role, mutated) or role == "timestamp"


@given(st.sampled_from(sorted(FILES)), st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_arbitrary_bytes_raise_only_named_refusals(role: str, data: bytes) -> None:
    assert only_named_refusals(accept, role, data)


@pytest.mark.parametrize("role", FILES)
def test_flipped_bytes_raise_only_named_refusals(role: str) -> None:
    seeded = random.Random(20260301)
    accepted = 0
    for _ in range(400):
        mutated = bytearray(FILES[role])
        for _ in range(seeded.randint(1, 4)):
            mutated[seeded.randrange(len(mutated))] = seeded.randrange(256)
        accepted += not only_named_refusals(accept, role, bytes(mutated)) and mutated != FILES[role]
        only_named_refusals(explore, role, bytes(mutated))
    assert accepted < (40 if role in {"timestamp", "root"} else 1)  # a hash pins the others; white space is not signed


@pytest.mark.parametrize("role", FILES)
def test_truncated_files_are_refused(role: str) -> None:
    data = FILES[role].rstrip()
    for length in range(0, len(data), max(1, len(data) // 60)):
        assert only_named_refusals(accept, role, data[:length])
