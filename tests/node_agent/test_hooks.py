"""Hooks before a step may veto it; hooks after one only hear of it."""

import logging
import sys
from pathlib import Path

import pytest

from node_agent.hooks import Hook, Hooks, Moment
from update.errors import HandlerError


def hook(moment: Moment, code: str, timeout_s: float = 30) -> Hook:
    return Hook(moment, (sys.executable, "-c", code), timeout_s)


async def test_hooks_run_in_order_and_are_told_the_moment(tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = f"import os; open({str(out)!r}, 'a').write(os.environ['FIELDRELAY_MOMENT'] + os.environ['WHO'] + ' ')"
    hooks = Hooks([hook(Moment.BEFORE_WRITE, code), hook(Moment.AFTER_CONFIRM, code), hook(Moment.BEFORE_WRITE, code)])
    await hooks.run(Moment.BEFORE_WRITE, {"WHO": "-x"})
    assert out.read_text() == "before_write-x before_write-x "


async def test_a_failing_hook_before_a_step_stops_it() -> None:
    with pytest.raises(HandlerError, match="machine is running"):
        await Hooks([hook(Moment.BEFORE_RESTART, "raise SystemExit('machine is running')")]).run(Moment.BEFORE_RESTART, {})


async def test_a_hook_that_does_not_end_is_stopped_and_counts_as_failed() -> None:
    with pytest.raises(HandlerError, match="stopped after"):
        await Hooks([hook(Moment.BEFORE_WRITE, "import time; time.sleep(600)", 0.3)]).run(Moment.BEFORE_WRITE, {})


@pytest.mark.parametrize("moment", [Moment.AFTER_CONFIRM, Moment.AFTER_REVERT])
async def test_a_failing_hook_after_a_step_is_only_logged(moment: Moment, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        await Hooks([hook(moment, "raise SystemExit(1)")]).run(moment, {})
    assert str(moment) in caplog.text
