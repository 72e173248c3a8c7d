"""Big letters for a console: five rows of five points each, drawn with half blocks, which every console font has."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

WIDTH: Final = 6
"""Columns of one letter, the gap behind it included."""
_FORMS: Final = """
A .###. #...# ##### #...# #...#    B ####. #...# ####. #...# ####.    C .#### #.... #.... #.... .####
D ####. #...# #...# #...# ####.    E ##### #.... ####. #.... #####    F ##### #.... ####. #.... #....
G .#### #.... #..## #...# .####    H #...# #...# ##### #...# #...#    I .###. ..#.. ..#.. ..#.. .###.
J ...## ....# ....# #...# .###.    K #...# #..#. ###.. #..#. #...#    L #.... #.... #.... #.... #####
M #...# ##.## #.#.# #...# #...#    N #...# ##..# #.#.# #..## #...#    O .###. #...# #...# #...# .###.
P ####. #...# ####. #.... #....    Q .###. #...# #.#.# #..#. .##.#    R ####. #...# ####. #..#. #...#
S .#### #.... .###. ....# ####.    T ##### ..#.. ..#.. ..#.. ..#..    U #...# #...# #...# #...# .###.
V #...# #...# #...# .#.#. ..#..    W #...# #...# #.#.# ##.## #...#    X #...# .#.#. ..#.. .#.#. #...#
Y #...# .#.#. ..#.. ..#.. ..#..    Z ##### ...#. ..#.. .#... #####    Ä #...# .###. #...# ##### #...#
Ö #...# .###. #...# #...# .###.    Ü #...# ..... #...# #...# .###.    0 .###. #..## #.#.# ##..# .###.
1 ..#.. .##.. ..#.. ..#.. .###.    2 ####. ....# .###. #.... #####    3 ####. ....# .###. ....# ####.
4 #..#. #..#. ##### ...#. ...#.    5 ##### #.... ####. ....# ####.    6 .###. #.... ####. #...# .###.
7 ##### ....# ...#. ..#.. ..#..    8 .###. #...# .###. #...# .###.    9 .###. #...# .#### ....# .###.
% ##..# ##.#. ..#.. .#.## #..##    / ....# ...#. ..#.. .#... #....
"""
_ROWS: Final = 5
_BLOCKS: Final = {(".", "."): " ", ("#", "."): "▀", (".", "#"): "▄", ("#", "#"): "█"}


def _read(text: str) -> Mapping[str, tuple[str, ...]]:
    words = iter(text.split())
    return MappingProxyType({letter: tuple(next(words) for _ in range(_ROWS)) for letter in words})


LETTERS: Final = _read(_FORMS)


_SPACE: Final = ("...",) * _ROWS


def drawn(word: str) -> tuple[str, ...] | None:
    """A word in three lines; None where a letter has no form. Small letters are drawn as large ones."""
    letters = [_SPACE if letter == " " else LETTERS.get(letter) for letter in word.upper()]
    if None in letters:
        return None
    rows = [".".join(letter[row] for letter in letters if letter) for row in range(_ROWS)]
    rows.append("." * len(rows[0]))
    return tuple("".join(_BLOCKS[pair] for pair in zip(rows[top], rows[top + 1], strict=True)) for top in (0, 2, 4))
