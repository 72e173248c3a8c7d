"""Lights of the gateway, by the kernel's LED class (`/sys/class/leds`).

What a light says, on one light or on one each:

    dark            nothing is there
    slow blinking   busy: do NOT pull the stick out
    lit             the stick may be pulled out; a short wink every two seconds: nodes are being updated
    fast flashes    failed: as many flashes as the first digit of the exit status says, a pause, again
                    (1 use, 2 trust, 3 bundle, 4 device, 5 store, 6 network, 7 medium); the stick may be pulled out

All blinking is the kernel's (triggers `timer` and `pattern`), so a program that dies in the middle leaves a light that blinks,
never one that says "safe". For the same reason a light goes dark before it changes: a change that fails leaves it dark. A kernel
without the trigger `pattern` flashes without counting.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from media.signals import Show, Signal
from media.sinks.families import count_of

BUSY_MS: Final = (500, 500)
WINK_MS: Final = (1900, 100)
FLASH_MS: Final = (150, 150)
PAUSE_MS: Final = 1500


class Role(StrEnum):
    """What a light is for."""

    BUSY = "busy"
    SAFE = "safe"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class _Light:
    role: Role
    flashes: int = 0
    winks: bool = False


class Leds:
    """The lights of `names` below `root`; one name may have several roles."""

    def __init__(self, root: Path, names: Mapping[Role, str]) -> None:
        self._root = root
        self._names = {role: name for role, name in names.items() if name}
        self._shown: _Light | None = None
        self._known = False

    def show(self, signal: Signal | None) -> None:
        """Errors: `OSError` of a light that is not there, or whose kernel cannot blink."""
        wanted = None if signal is None else _light(signal)
        if self._known and wanted == self._shown:
            return
        self._known = False
        for name in sorted(set(self._names.values())):
            led = self._root / name
            _write(led / "trigger", "none")
            _write(led / "brightness", "0")
        if wanted is not None and (named := self._names.get(wanted.role)):
            _shine(self._root / named, wanted)
        self._shown, self._known = wanted, True


def _light(signal: Signal) -> _Light:
    if not signal.removable:
        return _Light(Role.BUSY)
    if signal.show is Show.FAILED:
        return _Light(Role.FAILED, flashes=count_of(signal.code))
    return _Light(Role.SAFE, winks=signal.show is Show.UPDATING)


def _shine(led: Path, light: _Light) -> None:
    if light.role is Role.FAILED:
        _flash(led, light.flashes)
    elif light.role is Role.BUSY:
        _blink(led, *BUSY_MS)
    elif light.winks:
        _blink(led, *WINK_MS)
    else:
        _write(led / "brightness", _brightest(led))


def _blink(led: Path, on_ms: int, off_ms: int) -> None:
    _write(led / "trigger", "timer")
    _write(led / "delay_on", str(on_ms))
    _write(led / "delay_off", str(off_ms))


def _flash(led: Path, count: int) -> None:
    """Pairs of brightness and milliseconds; one of 0 ms is a step, without it the light would fade."""
    full, (on_ms, off_ms) = _brightest(led), FLASH_MS
    flashes = [f"{full} {on_ms} {full} 0 0 {off_ms} 0 0"] * count
    try:
        _write(led / "trigger", "pattern")
        _write(led / "pattern", " ".join([*flashes, f"0 {PAUSE_MS} 0 0"]))
    except OSError:  # this kernel has no such trigger
        _blink(led, *FLASH_MS)


def _brightest(led: Path) -> str:
    return (led / "max_brightness").read_text().strip()


def _write(attribute: Path, value: str) -> None:
    """At once, as sysfs wants it, and never creating: a light that went away is an error."""
    file = os.open(attribute, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    try:
        os.write(file, value.encode("ascii"))
    finally:
        os.close(file)
