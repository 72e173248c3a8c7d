"""What only shows when the power goes between two writes of one word; the words themselves are in the contract suite."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from node_agent.bootloaders.scripted import ScriptedBootloader
from node_agent.bootloaders.simulated import SimulatedEnvironment
from node_agent.drivers.driver import SlotState
from node_agent.drivers.slots.records import SlotRecord, SlotRecords
from node_agent.drivers.slots.switch import SlotSwitch
from tests.contract.boards import Board, simulated_board
from tests.replay import Killed
from update.durable import Disk, Operation
from update.errors import ConfigurationError, SlotError

_WRITTEN = SlotRecord(SlotState.PENDING, "2.0")


class _Unwritable(SimulatedEnvironment):
    """The power goes when the environment is written while `armed`."""

    armed = False

    def write(self, changes: Mapping[str, str]) -> None:
        if self.armed:
            raise Killed
        super().write(changes)


@pytest.fixture
def board(tmp_path: Path) -> Board:
    board = simulated_board(tmp_path)
    board.power_on()
    return board


def _switch(board: Board, environment: SimulatedEnvironment | None = None) -> tuple[SlotSwitch, SlotRecords]:
    bootloader = board.bootloader if environment is None else ScriptedBootloader(environment, board.bootloader.booted)
    records = SlotRecords(Disk(), board.media.parent / "slots")
    return SlotSwitch(["a", "b"], bootloader, records), records


def _fallen_back(board: Board) -> None:
    """Slot b failed its trial."""
    switch, records = _switch(board)
    records.write("b", _WRITTEN)
    switch.activate()
    assert [board.power_on() for _ in range(3)] == ["b", "b", "a"]


def test_an_old_failure_is_not_taken_for_that_of_the_new_content(board: Board) -> None:
    _fallen_back(board)
    environment = _Unwritable(board.media, Disk())
    switch, records = _switch(board, environment)
    records.write("b", replace(_WRITTEN, version="3.0"))
    assert switch.slots()[1].state is SlotState.PENDING
    for armed_at in (1, 2):
        _arm(environment, armed_at)
        with pytest.raises(Killed):
            switch.activate()
        environment.armed = False
        assert _switch(board)[0].slots()[1].state is SlotState.PENDING
    _switch(board)[0].activate()
    assert board.power_on() == "b"


def _arm(environment: _Unwritable, at: int) -> None:
    """Lose the power at the write number `at` of the environment that changes something."""
    if at == 1:
        environment.armed = True
        return
    write = SimulatedEnvironment.write

    def once(changes: Mapping[str, str]) -> None:
        write(environment, changes)
        environment.armed = True
        del environment.__dict__["write"]

    environment.__dict__["write"] = once


@pytest.mark.parametrize("lost", ["environment", "record"])
def test_a_return_that_was_interrupted_is_not_undone_by_doing_it_again(board: Board, lost: str) -> None:
    switch, records = _switch(board)
    records.write("b", _WRITTEN)
    switch.activate()
    board.power_on()
    switch.confirm()
    environment = _Unwritable(board.media, Disk())
    environment.armed = lost == "environment"
    bootloader = ScriptedBootloader(environment, board.bootloader.booted)
    unwritable = SlotRecords(Disk(_lose_power if lost == "record" else _no_power_loss), board.media.parent / "slots")
    with pytest.raises(Killed):
        SlotSwitch(["a", "b"], bootloader, unwritable).revert()
    board.power_on()
    switch.revert()
    assert board.power_on() == "a"
    switch.revert()
    assert board.power_on() == "a"
    assert [slot.state for slot in switch.slots()] == [SlotState.ACTIVE, SlotState.BAD]


def _lose_power(_operation: Operation) -> None:
    raise Killed


def _no_power_loss(_operation: Operation) -> None:
    """All is well."""


def test_a_confirmation_that_was_interrupted_is_finished_by_the_next_update(board: Board) -> None:
    switch, records = _switch(board)
    records.write("b", _WRITTEN)
    switch.activate()
    board.power_on()
    board.bootloader.mark_good("b")  # and the power goes before the record says so
    assert [slot.state for slot in switch.slots()] == [SlotState.CONFIRMED, SlotState.ACTIVE]
    assert switch.inactive() == "a"
    records.write("a", replace(_WRITTEN, version="3.0"))
    switch.activate()
    assert board.power_on() == "a"
    assert [slot.state for slot in switch.slots()] == [SlotState.PENDING, SlotState.CONFIRMED]


def test_a_slot_that_the_configuration_does_not_know_is_refused(board: Board) -> None:
    records = SlotRecords(Disk(), board.media.parent / "slots")
    with pytest.raises(SlotError, match="slot a runs"):
        SlotSwitch(["b", "c"], board.bootloader, records).slots()


@pytest.mark.parametrize("names", [[], ["a"], ["a", "a"], ["a", "b", "c"]])
def test_a_device_has_two_slots_of_different_names(board: Board, names: list[str]) -> None:
    with pytest.raises(ConfigurationError):
        SlotSwitch(names, board.bootloader, SlotRecords(Disk(), board.media.parent))
