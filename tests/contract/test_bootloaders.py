"""The rules of `node_agent.bootloaders.bootloader`, kept by every bootloader."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.boards import BOARDS, FACTORY, Board, BoardMaker
from update.errors import BootloaderError


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.interop if name == "uboot" else ()) for name in BOARDS])
def make_board(request: pytest.FixtureRequest) -> BoardMaker:
    return BOARDS[request.param]


@pytest.fixture
def board(make_board: BoardMaker, tmp_path: Path) -> Board:
    board = make_board(tmp_path)
    board.power_on()
    return board


def _picture(board: Board) -> tuple[str, str, str | None, str | None]:
    loader = board.bootloader
    return loader.booted(), loader.primary(), loader.trial(), loader.failed()


def test_a_factory_board_runs_a_with_no_trial(board: Board) -> None:
    assert _picture(board) == ("a", "a", None, None)


def test_a_trial_starts_at_the_next_power_on_and_not_before(board: Board) -> None:
    board.bootloader.try_once("b", {})
    assert _picture(board) == ("a", "b", "b", None)
    assert board.power_on() == "b"
    assert _picture(board) == ("b", "b", "b", None)


def test_a_confirmed_trial_stays_for_good(board: Board) -> None:
    board.bootloader.try_once("b", {})
    board.power_on()
    board.bootloader.mark_good("b")
    assert _picture(board) == ("b", "b", None, None)
    assert [board.power_on() for _ in range(5)] == ["b"] * 5


def test_a_trial_nobody_confirms_falls_back_after_the_limit_and_says_so(board: Board) -> None:
    board.bootloader.try_once("b", {})
    assert [board.power_on() for _ in range(5)] == ["b", "b", "a", "a", "a"]
    assert _picture(board) == ("a", "a", None, "b")


def test_the_failure_is_forgotten_by_the_next_trial(board: Board) -> None:
    board.bootloader.try_once("b", {})
    for _ in range(3):
        board.power_on()
    board.bootloader.try_once("b", {})
    assert _picture(board) == ("a", "b", "b", None)
    assert [board.power_on() for _ in range(3)] == ["b", "b", "a"]


def test_the_failure_is_forgotten_when_the_running_slot_is_marked_good(board: Board) -> None:
    board.bootloader.try_once("b", {})
    board.bootloader.mark_bad("b")
    board.bootloader.mark_good("a")
    assert _picture(board) == ("a", "a", None, None)


def test_a_running_trial_is_left_by_marking_it_bad(board: Board) -> None:
    board.bootloader.try_once("b", {})
    board.power_on()
    board.bootloader.mark_bad("b")
    assert _picture(board) == ("b", "a", None, "b")
    assert board.power_on() == "a"
    assert _picture(board) == ("a", "a", None, "b")


def test_an_activated_slot_can_be_given_up_before_it_ever_started(board: Board) -> None:
    board.bootloader.try_once("b", {})
    board.bootloader.mark_bad("b")
    assert _picture(board) == ("a", "a", None, "b")
    assert board.power_on() == "a"


def test_a_confirmed_slot_can_be_left_for_the_previous_one(board: Board) -> None:
    board.bootloader.try_once("b", {})
    board.power_on()
    board.bootloader.mark_good("b")
    board.bootloader.mark_bad("b")
    assert board.power_on() == "a"
    assert _picture(board) == ("a", "a", None, "b")


def test_the_bundles_variables_travel_with_the_switch(board: Board) -> None:
    board.bootloader.try_once("b", {"release": "1.2 of today", "board": ""})
    variables = board.environment.read()
    assert variables["release"] == "1.2 of today"
    assert not variables.get("board", "")
    assert variables["bootslot"] == "b"


def test_a_bundle_may_repeat_what_the_switch_sets_anyway(board: Board) -> None:
    board.bootloader.try_once("b", {"bootslot": "b", "upgrade_available": "1", "bootlimit": "2"})
    assert _picture(board) == ("a", "b", "b", None)


@pytest.mark.parametrize(
    "extra",
    [
        {"bootslot": "a"},
        {"bootlimit": "9"},
        {"upgrade_available": "0"},
        {"ustate": "0"},
        {"bootcount": "-5"},
        {"": "x"},
        {"a=b": "x"},
        {"two\nlines": "x"},
        {"name": "two\nlines"},
        {"name": "nul\0"},
        {"name": "x" * 2000},
        {"#name": "x"},
        {"n" * 65: "x"},
    ],
)
def test_variables_that_break_the_switch_are_refused_in_advance(board: Board, extra: Mapping[str, str]) -> None:
    before = board.media.read_bytes()
    with pytest.raises(BootloaderError):
        board.bootloader.check("b", extra)
    with pytest.raises(BootloaderError):
        board.bootloader.try_once("b", extra)
    assert board.media.read_bytes() == before


@pytest.mark.parametrize("limit", ["", "0", "10", "a", "-1"])
def test_no_trial_without_a_limit_that_ends_it(make_board: BoardMaker, tmp_path: Path, limit: str) -> None:
    board = make_board(tmp_path, {**FACTORY, "bootlimit": limit})
    board.power_on()
    with pytest.raises(BootloaderError, match="bootlimit"):
        board.bootloader.check("b", {})
    with pytest.raises(BootloaderError, match="bootlimit"):
        board.bootloader.try_once("b", {})


def test_calls_made_again_change_nothing_and_write_nothing(board: Board) -> None:
    loader = board.bootloader
    loader.try_once("b", {"release": "1.2"})
    tried = board.media.read_bytes()
    loader.try_once("b", {"release": "1.2"})
    assert board.media.read_bytes() == tried
    board.power_on()
    counted = board.media.read_bytes()
    loader.try_once("b", {"release": "1.2"})  # the agent's journal was lost: the count must not begin anew
    assert board.media.read_bytes() == counted
    loader.mark_good("b")
    good = board.media.read_bytes()
    loader.mark_good("b")
    assert board.media.read_bytes() == good
    loader.mark_bad("b")
    bad = board.media.read_bytes()
    loader.mark_bad("b")
    assert board.media.read_bytes() == bad


def test_only_the_running_primary_slot_can_be_confirmed(board: Board) -> None:
    with pytest.raises(BootloaderError):
        board.bootloader.mark_good("b")
    board.bootloader.try_once("b", {})
    for slot in ("a", "b"):
        with pytest.raises(BootloaderError):
            board.bootloader.mark_good(slot)
    assert board.power_on() == "b"


def test_the_slot_that_runs_cannot_be_tried(board: Board) -> None:
    with pytest.raises(BootloaderError):
        board.bootloader.try_once("a", {})
    with pytest.raises(BootloaderError):
        board.bootloader.check("a", {})


def test_while_a_trial_runs_its_way_back_is_kept(board: Board) -> None:
    board.bootloader.try_once("b", {})
    board.power_on()
    with pytest.raises(BootloaderError):
        board.bootloader.mark_bad("a")
    with pytest.raises(BootloaderError):
        board.bootloader.try_once("a", {})
    assert [board.power_on(), board.power_on()] == ["b", "a"]


@pytest.mark.parametrize("slot", ["c", "", "A"])
def test_an_unknown_slot_is_refused(board: Board, slot: str) -> None:
    for call in (board.bootloader.mark_good, board.bootloader.mark_bad):
        with pytest.raises(BootloaderError):
            call(slot)
    with pytest.raises(BootloaderError):
        board.bootloader.try_once(slot, {})


def test_variables_of_others_survive_every_call(board: Board) -> None:
    board.bootloader.try_once("b", {})
    board.power_on()
    board.bootloader.mark_good("b")
    assert board.environment.read()["board"] == "demo"


def test_nothing_that_cannot_be_read_is_taken_for_an_environment(board: Board) -> None:
    board.media.write_bytes(b"\xff" * board.media.stat().st_size)
    for call in (board.bootloader.primary, board.bootloader.trial, board.bootloader.failed):
        with pytest.raises(BootloaderError):
            call()
    with pytest.raises(BootloaderError):
        board.bootloader.try_once("b", {})


_STEPS = st.lists(st.sampled_from(["try a", "try b", "good a", "good b", "bad a", "bad b", "power"]), max_size=12)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_STEPS)
def test_whatever_is_called_a_trial_ends_within_its_limit_and_always_returns(
    make_board: BoardMaker, tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    board = make_board(tmp_path_factory.mktemp("board"))
    board.power_on()
    for step in steps:
        way_back = board.bootloader.booted() if board.bootloader.trial() is None else None
        _act(board, step)
        if way_back is not None and board.bootloader.trial() is not None:
            assert board.bootloader.trial() != way_back
    trial = board.bootloader.trial()
    started = [board.power_on() for _ in range(4)]
    assert board.bootloader.trial() is None
    if trial is not None:
        assert started[-1] != trial
        assert board.bootloader.failed() == trial
    assert started[-1] == board.bootloader.primary() == board.bootloader.booted()


def _act(board: Board, step: str) -> None:
    verb, _, slot = step.partition(" ")
    calls = {"good": board.bootloader.mark_good, "bad": board.bootloader.mark_bad}
    try:
        if verb == "power":
            board.power_on()
        elif verb == "try":
            board.bootloader.try_once(slot, {})
        else:
            calls[verb](slot)
    except BootloaderError:
        return
