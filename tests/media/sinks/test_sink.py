"""Several sinks as one."""

import logging
from dataclasses import dataclass, field

import pytest

from media.signals import Show, Signal
from media.sinks.sink import Sinks

SAFE = Signal(Show.SAFE, "UPDATE", removable=True, since=1)


@dataclass
class Heard:
    fails: bool = False
    shown: list[Signal | None] = field(default_factory=list)

    def show(self, signal: Signal | None) -> None:
        if self.fails:
            raise OSError("no such light")
        self.shown.append(signal)


def test_a_sink_that_fails_harms_no_other_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    before, broken, after = Heard(), Heard(fails=True), Heard()
    sinks = Sinks({"the screen": before, "the lights": broken, "the journal": after})

    with caplog.at_level(logging.INFO):
        sinks.show(SAFE)
        sinks.show(None)
        broken.fails = False
        sinks.show(SAFE)
        broken.fails = True
        sinks.show(SAFE)

    assert before.shown == after.shown == [SAFE, None, SAFE, SAFE]
    assert broken.shown == [SAFE], "it was tried again"
    assert [record.getMessage().partition(" cannot")[0].partition(" shows")[0] for record in caplog.records] == ["the lights"] * 3
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "WARNING"]
