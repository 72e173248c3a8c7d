"""The lines of nodes become messages within hawkBit's quotas: nothing is cut, and what is left out is said."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.north.hawkbit.gathering import LONGEST_LINE, MOST_LINES, as_told, batches, is_kept_back, kept_back, pieces

MOST_UNITS = 512
LINES = st.lists(st.text(st.characters(codec="utf-8"), max_size=1300), max_size=8)


def units(line: str) -> int:
    """Its length as hawkBit counts it."""
    return len(line.encode("utf-16-le")) // 2


@settings(max_examples=100, deadline=None)
@given(LINES)
def test_a_long_line_goes_as_several_and_none_is_cut(lines: list[str]) -> None:
    assert all(units(piece) <= MOST_UNITS for piece in pieces(lines))
    assert "".join(pieces(lines)) == "".join(lines)
    assert len(pieces(lines)) >= len(lines), "an empty line stays one"


def test_what_needs_two_units_is_told_in_lines_half_as_long() -> None:
    assert [len(piece) for piece in pieces(["\U0001f600" * 600, "x" * 501])] == [250, 250, 100, 500, 1]
    assert LONGEST_LINE <= MOST_UNITS


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(max_size=3), max_size=200), st.integers(0, MOST_LINES))
def test_a_message_is_filled_before_another_is_begun(lines: list[str], room: int) -> None:
    first, *others = batches(lines, room)
    assert [line for batch in (first, *others) for line in batch] == lines
    assert len(first) == min(room, len(lines))
    assert all(len(each) == MOST_LINES for each in others[:-1])
    assert all(1 <= len(each) <= MOST_LINES for each in others)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.sets(st.integers(0, 400), max_size=30))
def test_what_is_kept_back_holds_the_last_lines_and_those_of_errors_and_counts_the_rest(
    reports: list[int], errors: set[int]
) -> None:
    body: dict[str, object] = {"execution": "proceeding", "details": []}
    held: list[str] = []
    said: list[str] = []
    for many in reports:
        new = [f"{number} {'ERROR' if number in errors else 'step'}" for number in range(len(said), len(said) + many)]
        said += new
        body = kept_back(body, held, new)
        held = [str(line) for line in body["details"]] if isinstance(body["details"], list) else []
    told = as_told(body, held)
    assert is_kept_back(body)
    assert len(told) <= MOST_LINES
    assert held == [line for line in said if line in set(held)], "in order"
    assert held[-10:] == said[-10:]
    if len(said) > len(held):
        assert told[0] == f"{len(said) - len(held)} lines left out"
        assert {line for line in said if "ERROR" in line} <= set(held)
    else:
        assert told == said
