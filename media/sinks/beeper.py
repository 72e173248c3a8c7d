"""A beeper: short melodies that differ without being seen. What it beeps through is either an event device or a terminal.

An event device (`/dev/input/by-path/platform-pcspkr-event-spkr`) takes tones as events of type EV_SND (linux/input.h); a terminal
rings its bell once for each tone. A melody is played once, when the state changes, never while it lasts:

    one short             found
    two, rising           the stick may be pulled out
    three, rising         done
    long and low          failed: as many as the light flashes (`media.sinks.families`)
"""

import logging
import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, Protocol

from media.signals import Show, Signal
from media.sinks.families import count_of

_LOG = logging.getLogger(__name__)

_EVENT: Final = struct.Struct("llHHi")
"""struct input_event: a time that is ignored here, type, code, value."""
_EV_SND: Final = 0x12
_SND_TONE: Final = 0x02
_BELL: Final = b"\a"
_REMOVABLE: Final = frozenset({Show.SAFE, Show.NOTHING_NEW, Show.IGNORED})


class Timer(Protocol):
    """A call that is to come."""

    def cancel(self) -> None:
        """Not any more."""
        ...


Later = Callable[[float, Callable[[], None]], Timer]
"""Calls something after so many seconds, as the event loop's `call_later`."""


@dataclass(frozen=True, slots=True)
class Tone:
    """A tone, or with 0 Hz a pause."""

    hz: int
    ms: int


_PAUSE: Final = Tone(0, 80)
FOUND: Final = (Tone(880, 80),)
REMOVABLE: Final = (Tone(880, 120), _PAUSE, Tone(1320, 180))
DONE: Final = (Tone(880, 100), _PAUSE, Tone(1100, 100), _PAUSE, Tone(1320, 250))
_LOW: Final = Tone(220, 400)


class Beeper:
    """Beeps through `device`; what it begins with is not beeped where it is an end: a restart is no news."""

    def __init__(self, device: Path, later: Later) -> None:
        self._device = device
        self._later = later
        self._last: tuple[Show | None, str] | None = None
        self._timer: Timer | None = None
        self._sounding = False

    def show(self, signal: Signal | None) -> None:
        """Errors: `OSError` where the device is away."""
        now = (None, "") if signal is None else (signal.show, signal.code)
        if now == self._last:
            return
        first, self._last = self._last is None, now
        self._hush()
        if signal is not None and not (first and signal.removable):
            self._play(melody(signal))

    def _play(self, tones: Sequence[Tone]) -> None:
        if tones:
            self._sound(tones[0].hz)
            self._timer = self._later(tones[0].ms / 1000, lambda: self._next(tones[1:]))

    def _next(self, tones: Sequence[Tone]) -> None:
        try:
            self._hush()
            self._play(tones)
        except OSError as error:
            _LOG.warning("the beeper %s is gone in the middle of a melody: %s", self._device, error)

    def _hush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._sounding:
            self._sound(0)

    def _sound(self, hz: int) -> None:
        """From now on."""
        self._sounding = hz > 0
        device = os.open(self._device, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            if not os.isatty(device):
                os.write(device, _EVENT.pack(0, 0, _EV_SND, _SND_TONE, hz))
            elif hz:
                os.write(device, _BELL)
        finally:
            os.close(device)


def melody(signal: Signal) -> tuple[Tone, ...]:
    """What is beeped when this begins; empty for what lasts only shortly."""
    match signal.show:
        case Show.FOUND:
            return FOUND
        case Show.DONE:
            return DONE
        case Show.FAILED:
            lows = [_LOW] * count_of(signal.code)
            return (lows[0], *(tone for _, low in pairwise(lows) for tone in (_PAUSE, low)))
        case show if show in _REMOVABLE:
            return REMOVABLE
        case _:
            return ()
