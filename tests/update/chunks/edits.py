"""Pairs of images as updates make them: parts kept, moved, changed, removed, new ones between."""

import random

from hypothesis import strategies as st

from update.chunks.chunker import Read


def read_of(data: bytes) -> Read:
    return lambda offset, size: data[offset : offset + size]


def edited(old: bytes, seed: int, edits: int, *, longest: int = 5000) -> bytes:
    """`old` with some places overwritten, cut out, repeated or filled."""
    dice, new = random.Random(seed), bytearray(old)
    for _ in range(edits):
        at, length = dice.randrange(len(new) + 1), dice.randrange(1, longest)
        match dice.randrange(4):
            case 0:
                new[at:at] = dice.randbytes(length)
            case 1:
                del new[at : at + length]
            case 2:
                new[at : at + length] = dice.randbytes(min(length, 40))
            case _:
                begin = dice.randrange(len(new) + 1)
                new[at:at] = new[begin : begin + length]
    return bytes(new)


@st.composite
def pairs(draw: st.DrawFn, longest: int = 6000) -> tuple[bytes, bytes]:
    """An old and a new file; pieces of few kinds, so that blocks repeat."""
    pieces = draw(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=4))
    join = st.lists(st.tuples(st.sampled_from(pieces), st.integers(1, 60)), max_size=12)
    old, new = (b"".join(piece * count for piece, count in draw(join))[:longest] for _ in range(2))
    shared = draw(st.binary(max_size=200)) * draw(st.integers(0, 6))
    return old + shared, new[: len(new) // 2] + shared + new[len(new) // 2 :]
