"""Melodies, as events and as a terminal's bell."""

import os
import pty
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from media.signals import Show, Signal
from media.sinks.beeper import Beeper, melody

EVENT = struct.Struct("llHHi")


@dataclass
class Call:
    delay_s: float
    what: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class Clock:
    calls: list[Call] = field(default_factory=list)

    def later(self, delay_s: float, what: Callable[[], None]) -> Call:
        self.calls.append(Call(delay_s, what))
        return self.calls[-1]

    def run(self) -> float:
        """Until nothing is to come; how long that took."""
        took = 0.0
        for call in self.calls:
            if not call.cancelled:
                call.cancelled, took = True, took + call.delay_s
                call.what()
        return took


def signal(show: Show, code: str = "") -> Signal:
    return Signal(show, "UPDATE", removable=show not in {Show.FOUND, Show.CHECKING, Show.COPYING}, since=1, code=code)


def tones(device: Path) -> list[int]:
    events = list(EVENT.iter_unpack(device.read_bytes()))
    assert {(kind, code) for _, _, kind, code, _ in events} <= {(0x12, 0x02)}
    return [hz for *_, hz in events]


@pytest.fixture
def device(tmp_path: Path) -> Path:
    (tmp_path / "event3").touch()
    return tmp_path / "event3"


@pytest.fixture
def appended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device takes one event after the other; a file would take each at its beginning."""
    opened = os.open
    monkeypatch.setattr("media.sinks.beeper.os.open", lambda path, flags: opened(path, flags | os.O_APPEND))


def test_the_way_of_a_good_stick_is_heard(device: Path, appended: None) -> None:
    clock = Clock()
    beeper = Beeper(device, clock.later)
    for show in (Show.FOUND, Show.CHECKING, Show.COPYING, Show.COPYING, Show.SAFE, Show.UPDATING, Show.DONE):
        beeper.show(signal(show))
        clock.run()
    assert [hz for hz in tones(device) if hz] == [880, 880, 1320, 880, 1100, 1320]
    assert tones(device)[-1] == 0, "it ends"


def test_a_failure_is_as_many_low_tones_as_its_family(device: Path, appended: None) -> None:
    clock = Clock()
    beeper = Beeper(device, clock.later)
    beeper.show(signal(Show.CHECKING))
    beeper.show(signal(Show.FAILED, "bundle.hash"))
    assert clock.run() == pytest.approx(3 * 0.4 + 2 * 0.08)
    assert [hz for hz in tones(device) if hz] == [220] * 3


def test_what_comes_next_cuts_a_melody_off(device: Path, appended: None) -> None:
    clock = Clock()
    beeper = Beeper(device, clock.later)
    beeper.show(signal(Show.FOUND))
    beeper.show(None)
    clock.run()
    assert tones(device) == [880, 0]


def test_an_end_that_stood_before_the_start_is_no_news(device: Path) -> None:
    Beeper(device, Clock().later).show(signal(Show.DONE))
    assert device.read_bytes() == b""


def test_a_device_that_goes_in_the_middle_is_told_in_the_log(
    device: Path, appended: None, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    beeper = Beeper(device, clock.later)
    beeper.show(signal(Show.FOUND))
    device.unlink()
    clock.run()
    assert "in the middle" in caplog.text
    with pytest.raises(FileNotFoundError):
        beeper.show(signal(Show.SAFE))


def test_a_terminal_rings_once_for_each_tone() -> None:
    master, slave = pty.openpty()
    try:
        clock = Clock()
        beeper = Beeper(Path(os.ttyname(slave)), clock.later)
        beeper.show(signal(Show.CHECKING))
        beeper.show(signal(Show.SAFE))
        clock.run()
        rung = b""
        while len(rung) < 2:
            rung += os.read(master, 100)
        assert rung == b"\a\a"
    finally:
        os.close(master)
        os.close(slave)


def test_melodies_differ() -> None:
    heard = [melody(signal(show, "trust")) for show in (Show.FOUND, Show.SAFE, Show.DONE, Show.FAILED)]
    assert len({*heard}) == len(heard)
    assert melody(signal(Show.COPYING)) == ()
