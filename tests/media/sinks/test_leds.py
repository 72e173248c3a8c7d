"""What lights say, in a tree of files as the kernel has it."""

import shutil
from pathlib import Path

import pytest

from media.signals import Show, Signal
from media.sinks.leds import Leds, Role

ONE = dict.fromkeys(Role, "usb:status")


def signal(show: Show, code: str = "") -> Signal:
    removable = show not in {Show.FOUND, Show.CHECKING, Show.COPYING}
    return Signal(show, "UPDATE", removable=removable, since=1, code=code)


def led(root: Path, name: str = "usb:status") -> Path:
    (root / name).mkdir()
    values = {"trigger": "[none] timer pattern", "max_brightness": "255\n", "brightness": "0"}
    for attribute, value in (values | dict.fromkeys(["delay_on", "delay_off", "pattern"], "")).items():
        (root / name / attribute).write_text(value)
    return root / name


def says(light: Path, *attributes: str) -> tuple[str, ...]:
    return tuple((light / attribute).read_text() for attribute in attributes)


@pytest.mark.parametrize("show", [Show.FOUND, Show.CHECKING, Show.COPYING])
def test_a_busy_light_blinks_slowly_by_the_kernel(tmp_path: Path, show: Show) -> None:
    light = led(tmp_path)
    Leds(tmp_path, ONE).show(signal(show))
    assert says(light, "trigger", "delay_on", "delay_off") == ("timer", "500", "500")


@pytest.mark.parametrize("show", [Show.SAFE, Show.DONE, Show.NOTHING_NEW, Show.IGNORED])
def test_a_lit_light_means_that_the_stick_may_go(tmp_path: Path, show: Show) -> None:
    light = led(tmp_path)
    Leds(tmp_path, ONE).show(signal(show))
    assert says(light, "trigger", "brightness") == ("none", "255")


def test_it_winks_while_nodes_are_updated(tmp_path: Path) -> None:
    light = led(tmp_path)
    Leds(tmp_path, ONE).show(signal(Show.UPDATING))
    assert says(light, "trigger", "delay_on", "delay_off") == ("timer", "1900", "100")


@pytest.mark.parametrize(
    ("code", "flashes"),
    [("usage.state", 1), ("trust.expired", 2), ("bundle", 3), ("store.no-space", 5), ("medium.gone", 7), ("rolled-back", 4)],
)
def test_a_failure_flashes_its_family(tmp_path: Path, code: str, flashes: int) -> None:
    light = led(tmp_path)
    Leds(tmp_path, ONE).show(signal(Show.FAILED, code))
    trigger, pattern = says(light, "trigger", "pattern")
    numbers = [int(each) for each in pattern.split()]
    steps = list(zip(numbers[::2], numbers[1::2], strict=True))
    assert (trigger, steps.count((255, 150)), steps[-2:]) == ("pattern", flashes, [(0, 1500), (0, 0)])


def test_a_kernel_that_cannot_count_flashes_fast(tmp_path: Path) -> None:
    light = led(tmp_path)
    (light / "pattern").unlink()
    Leds(tmp_path, ONE).show(signal(Show.FAILED, "trust"))
    assert says(light, "trigger", "delay_on", "delay_off") == ("timer", "150", "150")


def test_with_a_light_for_each_only_one_shines(tmp_path: Path) -> None:
    red, green = led(tmp_path, "red"), led(tmp_path, "green")
    leds = Leds(tmp_path, {Role.BUSY: "red", Role.SAFE: "green", Role.FAILED: "red"})
    leds.show(signal(Show.COPYING))
    assert (says(red, "trigger"), says(green, "trigger", "brightness")) == (("timer",), ("none", "0"))
    leds.show(signal(Show.SAFE))
    assert (says(red, "trigger", "brightness"), says(green, "brightness")) == (("none", "0"), ("255",))
    leds.show(None)
    assert says(red, "brightness") == says(green, "brightness") == ("0",)


def test_a_change_that_fails_leaves_it_dark_and_is_tried_again(tmp_path: Path) -> None:
    light = led(tmp_path)
    leds = Leds(tmp_path, ONE)
    leds.show(signal(Show.SAFE))
    (light / "delay_on").unlink()
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            leds.show(signal(Show.FOUND))
        assert says(light, "brightness") == ("0",), "never lit while the stick is read"
    (light / "delay_on").touch()
    leds.show(signal(Show.FOUND))
    assert says(light, "trigger", "delay_on") == ("timer", "500")


def test_the_same_again_does_not_disturb_the_blinking(tmp_path: Path) -> None:
    light = led(tmp_path)
    leds = Leds(tmp_path, ONE)
    leds.show(signal(Show.FOUND))
    (light / "trigger").write_text("untouched")
    leds.show(signal(Show.COPYING))
    assert says(light, "trigger") == ("untouched",)


def test_a_light_that_went_away_is_not_made(tmp_path: Path) -> None:
    shutil.rmtree(led(tmp_path))
    with pytest.raises(FileNotFoundError):
        Leds(tmp_path, ONE).show(signal(Show.SAFE))
    assert list(tmp_path.iterdir()) == []
