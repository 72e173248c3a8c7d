"""Slow, obvious models that the product's code is compared with, and inputs that reach its corners."""

import random
from collections import deque
from functools import cache

from update.chunks.rolling import PureSearch, hash_window, roll
from update.chunks.table import TABLE

MASK = 0x7FFF


def rotate(value: int, bits: int) -> int:
    bits %= 32
    return (value << bits | value >> (32 - bits)) & 0xFFFFFFFF


def plain_hash(window: bytes) -> int:
    """The definition: XOR of rotated table entries."""
    value = 0
    for age, byte in enumerate(reversed(window)):
        value ^= rotate(TABLE[byte], age)
    return value


def plain_candidates(data: bytes) -> list[int]:
    return [at for at in range(47, len(data)) if not plain_hash(data[at - 47 : at + 1]) & MASK]


def reference_cuts(data: bytes) -> list[int]:
    """The state machine of libzck, byte by byte, the byte after a refused match fed twice."""
    cuts, start, at = [], 0, 0
    window: deque[int] = deque(maxlen=48)
    value = 0
    while at < len(data):
        byte = data[at]
        if len(window) < 48:
            window.append(byte)
            value ^= rotate(TABLE[byte], 48 - len(window))
            result = value if len(window) == 48 else 1
        else:
            value = rotate(value, 1) ^ rotate(TABLE[window[0]], 48) ^ TABLE[byte]
            window.append(byte)
            result = value
        if result & MASK and at - start < 131072:
            at += 1
        elif at - start >= 8192:
            cuts.append(at)
            start, value = at, 0
            window.clear()
    if len(data) > start:
        cuts.append(len(data))
    return cuts


@cache
def matching_windows() -> tuple[bytes, ...]:
    """Windows of 48 bytes that match."""
    data = random.Random(48).randbytes(1 << 20)
    return tuple(data[at - 47 : at + 1] for at in PureSearch().find(data))


@cache
def twice_matching() -> tuple[bytes, ...]:
    """Such windows with bytes behind them, so that the impure window after the refused match matches again."""
    dice = random.Random(49)
    return tuple(_extended(window, dice) for window in matching_windows()[:4])


def _extended(window: bytes, dice: random.Random) -> bytes:
    while True:
        suffix = dice.randbytes(4)
        value, held = hash_window(window), window
        for byte in window[-1:] + suffix:
            value = roll(value, held[0], byte)
            held = held[1:] + bytes([byte])
        if not value & MASK:
            return window + suffix


def material(kind: str, size: int, seed: int) -> bytes:
    """`size` bytes of one kind; the kinds are what makes chunkers differ."""
    dice = random.Random(f"{kind} {seed}")
    match kind:
        case "random":
            return dice.randbytes(size)
        case "constant":
            return dice.randbytes(1) * size
        case "zeros":
            return bytes(size)
        case "periodic":
            pattern = dice.randbytes(dice.randrange(2, 100))
            return (pattern * (size // len(pattern) + 1))[:size]
        case "letters":
            return bytes(dice.choices(b"ab", k=size))
        case "planted":
            parts, length = [], 0
            while length < size:
                pool = dice.choice([matching_windows(), twice_matching()])
                parts += [dice.choice(pool), dice.randbytes(dice.choice([0, 1, 30, 46, 47, 48, 300, 5000, 8192]))]
                length += len(parts[-1]) + len(parts[-2])
            return b"".join(parts)[:size]
        case _:
            raise ValueError(kind)


KINDS = ("random", "constant", "zeros", "periodic", "letters", "planted")
