"""The page of text, on a real terminal."""

import fcntl
import os
import pty
import select
import struct
import termios
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.signals import Show, Signal
from media.sinks.console import Console, page, plain
from media.sinks.letters import LETTERS, drawn
from media.words import BIG, Language

COPYING = Signal(Show.COPYING, "UPDATE", removable=False, since=1, done=42, total=100)


@pytest.fixture
def terminal() -> Iterator[tuple[Path, int]]:
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 25, 80, 0, 0))
    mode = termios.tcgetattr(slave)
    mode[1] &= ~termios.OPOST
    termios.tcsetattr(slave, termios.TCSANOW, mode)
    try:
        yield Path(os.ttyname(slave)), master
    finally:
        os.close(master)
        os.close(slave)


def read(master: int, until: str) -> str:
    """What was written to the terminal, which takes a moment to arrive."""
    data = b""
    while not data.endswith(until.encode()):
        assert select.select([master], [], [], 60)[0], f"{until!r} does not come"
        data += os.read(master, 65536)
    return data.decode(errors="replace")


def fill(console: Console) -> None:
    for done in range(10_000):
        console.show(Signal(Show.COPYING, "x" * 70, removable=False, since=1, done=done, total=10_000))


def test_the_words_the_advice_and_a_bar_stand_on_the_terminal(terminal: tuple[Path, int]) -> None:
    device, master = terminal
    console = Console(device, Language.GERMAN)
    console.show(COPYING)
    seen = read(master, "HUPDATE")
    assert all(line in seen for line in drawn("KOPIERT") or ())
    assert "Stick nicht entfernen." in seen
    assert "█" * 25 + "░" in seen
    assert "UPDATE" in seen
    assert "\x1b[0;30;43m" in seen
    console.show(COPYING)
    console.show(None)
    assert read(master, "\x1b[2J\x1b[H") == "\x1b[0m\x1b[?25l\x1b[2J\x1b[H", "the same page is not drawn again"


def test_a_terminal_that_takes_nothing_fails_and_is_drawn_later(terminal: tuple[Path, int]) -> None:
    device, master = terminal
    console = Console(device, Language.ENGLISH)
    with pytest.raises(BlockingIOError):
        fill(console)
    shown = False
    while not shown:
        assert select.select([master], [], [], 60)[0]
        os.read(master, 65536)
        with suppress(BlockingIOError):
            console.show(COPYING)
            shown = True
    assert "Do not remove the stick." in read(master, "HUPDATE")


def test_a_label_does_not_speak_to_the_terminal() -> None:
    nasty = Signal(
        Show.FAILED, "\x1b]0;owned\x07\x9b2J\nUP\u202eDATE", removable=True, since=1, code="x\x1b[2J", message="a\x1bcb"
    )
    body = page(nasty, Language.ENGLISH, 80, 25).removeprefix("\x1b[0;1;37;41m\x1b[?25l\x1b[2J\x1b[H")
    assert body.count("\x1b") == body.count("\x1b[")
    assert not {"\x07", "\x9b", "\n", "\u202e"} & set(body)
    assert "\x1b[2J" not in body
    assert plain("a\x1bcb") == "a cb"


@given(
    st.builds(
        Signal, st.sampled_from(Show), st.text(max_size=300), st.booleans(), st.just(1), st.integers(0, 9), st.integers(0, 9)
    ),
    st.sampled_from(Language),
    st.integers(20, 300),
    st.integers(8, 100),
)
def test_every_signal_fits_every_screen(signal: Signal, language: Language, columns: int, lines: int) -> None:
    for piece in page(signal, language, columns, lines).split("\x1b[")[5:]:
        place, _, text = piece.partition("H")
        row, column = map(int, place.split(";"))
        assert 1 <= row <= lines
        assert column + len(text) - 1 <= columns


@pytest.mark.parametrize("language", Language)
def test_every_word_can_be_drawn_large(language: Language) -> None:
    for words in BIG[language].values():
        shown = words.format(percent=42, done=1, total=23, code="")
        assert all(drawn(word) for word in shown.split()), shown


def test_letters_have_one_form_each() -> None:
    assert {len(row) for form in LETTERS.values() for row in form} == {5}
    assert len(set(LETTERS.values())) == len(LETTERS) >= 26 + 10 + 5
    assert drawn("a-b") is None
