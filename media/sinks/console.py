"""A whole page of text on a terminal of the gateway (`/dev/tty1`): the same words as everywhere, large, in one colour each.

The page is drawn anew where something on it changed, by a few control sequences that every Linux console and terminal has
(ECMA-48). Whatever comes from outside, such as the label of a stick, is shown without its control characters: a stick never
speaks to the terminal.
"""

import os
import textwrap
from pathlib import Path
from typing import Final

from media.signals import Show, Signal
from media.sinks.letters import WIDTH, drawn
from media.words import Language, advice, big

_SIZE: Final = (80, 25)
_MIN_SIZE: Final = (20, 8)
_MESSAGE_LINES: Final = 4
_BUSY, _WELL, _BAD, _QUIET = "\x1b[0;30;43m", "\x1b[0;30;42m", "\x1b[0;1;37;41m", "\x1b[0m"
_CLEAR: Final = "\x1b[?25l\x1b[2J\x1b[H"
_COUNTED: Final = frozenset({Show.COPYING, Show.UPDATING})


class Console:
    """The page on `device`."""

    def __init__(self, device: Path, language: Language) -> None:
        self._device = device
        self._language = language
        self._shown = ""

    def show(self, signal: Signal | None) -> None:
        """Errors: `OSError`, also where the terminal takes nothing just now."""
        device = os.open(self._device, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            drawing = page(signal, self._language, *_size(device))
            if drawing == self._shown:
                return
            self._shown = ""
            rest = memoryview(drawing.encode(errors="replace"))
            while rest:
                rest = rest[os.write(device, rest) :]
            self._shown = drawing
        finally:
            os.close(device)


def page(signal: Signal | None, language: Language, columns: int, lines: int) -> str:
    """What is written to the terminal; without a signal an empty screen."""
    if signal is None:
        return _QUIET + _CLEAR
    body = [*_words(big(signal, language), columns), advice(signal, language), ""]
    if signal.show in _COUNTED and signal.total:
        body += [_bar(signal.percent, min(columns - 4, 60)), ""]
    body.append(plain(signal.label))
    body += textwrap.wrap(plain(signal.message), columns - 4)[:_MESSAGE_LINES]
    body = body[: lines - 1]
    top = max(1, (lines - len(body)) // 2)
    placed = [
        f"\x1b[{top + row};{max(1, (columns - len(text)) // 2 + 1)}H{text[:columns]}" for row, text in enumerate(body) if text
    ]
    return f"{_colour(signal)}{_CLEAR}{''.join(placed)}"


def plain(text: str) -> str:
    """On one line, without anything that a terminal would obey."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _words(text: str, columns: int) -> list[str]:
    """Large, as many of them on a line as fit; a word that cannot be drawn, or is too long, as it is."""
    found: list[str] = []
    for line in textwrap.wrap(plain(text), max(1, columns // WIDTH), break_long_words=False, break_on_hyphens=False):
        large = drawn(line) if len(line) * WIDTH <= columns else None
        found += [*(large or [line]), ""]
    return found


def _bar(percent: int, width: int) -> str:
    full = width * percent // 100
    return "█" * full + "░" * (width - full)


def _colour(signal: Signal) -> str:
    if signal.show is Show.FAILED:
        return _BAD
    return _WELL if signal.removable else _BUSY


def _size(device: int) -> tuple[int, int]:
    try:
        size = os.get_terminal_size(device)
    except OSError:
        return _SIZE
    if size.columns < _MIN_SIZE[0] or size.lines < _MIN_SIZE[1]:
        return _SIZE
    return size.columns, size.lines
