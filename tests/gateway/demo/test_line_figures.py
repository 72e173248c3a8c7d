"""The judgement about the demo's line."""

from dataclasses import replace

import pytest

from gateway.demo.line_figures import COMPLETE, REVERTED, LineDevice, LineRun, LineWish, line_problems

IMAGES = {("motor-1", "1.1"): "new", ("motor-1", "1.0"): "old", ("press-1", "1.1"): "disk", ("press-1", "1.0"): "before"}
DEVICES = (LineDevice("press-1", "linux", "1.1", "disk"), LineDevice("motor-1", "mcuboot", "1.1.0", "new"))
RUN = LineRun("1.1", (("press-1",), ("motor-1",)), COMPLETE, "", 1.0, DEVICES)
BACK = replace(RUN, release="1.2", ending=REVERTED, why="motor-1 did not come up")


def test_what_is_as_promised_has_no_problems() -> None:
    assert line_problems(RUN, LineWish("1.1", COMPLETE, "1.1"), IMAGES) == []
    assert line_problems(BACK, LineWish("1.2", REVERTED, "1.1", blamed="motor-1"), IMAGES) == []


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (replace(BACK, ending="inconsistent"), "ended as inconsistent"),
        (replace(BACK, why="press-1 was late"), "does not blame motor-1"),
        (replace(BACK, devices=(DEVICES[0], replace(DEVICES[1], sha256="old"))), "motor-1 holds old"),
        (replace(BACK, devices=(DEVICES[0], replace(DEVICES[1], says=""))), "motor-1 says that it runs nothing"),
        (replace(BACK, devices=(replace(DEVICES[0], says="1.2"), DEVICES[1])), "press-1 says that it runs 1.2"),
    ],
)
def test_whatever_is_not_as_promised_is_named(run: LineRun, words: str) -> None:
    (found,) = line_problems(run, LineWish("1.2", REVERTED, "1.1", blamed="motor-1"), IMAGES)
    assert words in found
