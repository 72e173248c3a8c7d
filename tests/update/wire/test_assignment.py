"""The gateway's hint to its agent: whole and well-formed, or refused."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.database.records import Commit as Stored
from update.digest import digest_of
from update.errors import ProtocolError
from update.wire.assignment import MAX_HOLD_S, Assignment, Commit, Lost
from update.wire.ddi import MAX_ACTION_ID, Metadata

ASSIGNMENT = Assignment("site", "line/fw.swu", digest_of(b"x"), 8, 3, Commit.HOLD)
HELD = Assignment("site", "line/fw.swu", digest_of(b"x"), 8, 3, Commit.HOLD, 600, Lost.KEEP)
ASSIGNMENTS = st.builds(
    Assignment,
    repository=st.from_regex(r"[A-Za-z0-9]{1,10}", fullmatch=True),
    target=st.from_regex(r"[a-z]{1,5}/[A-Za-z0-9_][A-Za-z0-9._+-]{0,20}", fullmatch=True),
    sha256=st.binary(max_size=3).map(digest_of),
    action=st.integers(1, MAX_ACTION_ID),
    fence=st.integers(0, 2**40),
    commit=st.sampled_from(Commit),
    hold_s=st.just(0) | st.integers(0, MAX_HOLD_S),
    lost=st.sampled_from(Lost),
)


def changed(key: str, value: str) -> list[Metadata]:
    entries = (Metadata(key=entry.key, value=value if entry.key.endswith(key) else entry.value) for entry in HELD.metadata())
    return list(entries)


@given(ASSIGNMENTS)
def test_an_assignment_is_read_as_it_was_written(assignment: Assignment) -> None:
    assert Assignment.parse(assignment.metadata()) == assignment


def test_the_keys_are_those_of_the_architecture() -> None:
    assert [entry.key for entry in ASSIGNMENT.metadata()] == [
        "fieldrelay.repository",
        "fieldrelay.target",
        "fieldrelay.sha256",
        "fieldrelay.action",
        "fieldrelay.fence",
        "fieldrelay.commit",
    ]
    assert [entry.key for entry in HELD.metadata()][6:] == ["fieldrelay.hold_s", "fieldrelay.lost"]


def test_the_four_decisions_have_the_names_that_other_parts_use() -> None:
    assert list(Commit) == ["prepare", "hold", "commit", "abort"]
    assert [commit.value for commit in Stored] == [commit.value for commit in Commit]
    assert list(Lost) == ["revert", "keep"]


@pytest.mark.parametrize(("hold_s", "lost"), [(0, Lost.REVERT), (600, Lost.REVERT), (0, Lost.KEEP), (MAX_HOLD_S, Lost.KEEP)])
def test_the_limit_of_a_hold_is_absent_only_where_there_is_none(hold_s: int, lost: Lost) -> None:
    held = replace(ASSIGNMENT, hold_s=hold_s, lost=lost)
    assert len(held.metadata()) == (8 if hold_s or lost is Lost.KEEP else 6)
    assert Assignment.parse(held.metadata()) == held


@pytest.mark.parametrize("position", [6, 7])
def test_half_a_limit_of_a_hold_is_refused(position: int) -> None:
    entries = list(HELD.metadata())
    del entries[position]
    with pytest.raises(ProtocolError, match="lacks"):
        Assignment.parse(entries)


def test_another_server_s_metadata_is_no_assignment_and_later_keys_are_ignored() -> None:
    assert Assignment.parse([]) is None
    assert Assignment.parse([Metadata(key="k", value="v"), Metadata(key="fieldrelay.later", value="v")]) is None
    assert Assignment.parse([*ASSIGNMENT.metadata(), Metadata(key="fieldrelay.later", value="v")]) == ASSIGNMENT


@pytest.mark.parametrize("position", range(6))
def test_half_an_assignment_is_refused(position: int) -> None:
    entries = list(ASSIGNMENT.metadata())
    del entries[position]
    with pytest.raises(ProtocolError, match="lacks"):
        Assignment.parse(entries)


def test_a_key_that_is_there_twice_is_refused() -> None:
    with pytest.raises(ProtocolError, match="twice"):
        Assignment.parse([*ASSIGNMENT.metadata(), ASSIGNMENT.metadata()[0]])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("repository", "../x"),
        ("repository", ""),
        ("target", "../../etc/passwd"),
        ("target", "/x"),
        ("sha256", "A" * 64),
        ("sha256", ""),
        ("action", "0"),
        ("action", str(2**31)),
        ("fence", "-1"),
        ("fence", "1e3"),
        ("fence", "9" * 20),
        ("commit", "COMMIT"),
        ("commit", ""),
        ("commit", "committed"),
        ("hold_s", ""),
        ("hold_s", "-1"),
        ("hold_s", "060"),
        ("hold_s", "1.5"),
        ("hold_s", str(MAX_HOLD_S + 1)),
        ("lost", ""),
        ("lost", "confirm"),
    ],
)
def test_a_malformed_value_is_refused(key: str, value: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        Assignment.parse(changed(key, value))
    assert caught.value.code == "wire.protocol"


@given(st.sampled_from([entry.key for entry in HELD.metadata()]), st.text(max_size=80))
def test_hostile_values_raise_only_the_named_error(key: str, value: str) -> None:
    try:
        Assignment.parse(changed(key, value))
    except ProtocolError:
        return
