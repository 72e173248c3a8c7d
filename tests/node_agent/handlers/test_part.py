import asyncio
import hashlib
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_agent.handlers.part import BATCH_BYTES, BLOCK_BYTES, Part, Piece, check, in_batches, runs
from update.durable import Disk, Kind, Operation
from update.errors import ReadBackError, SlotError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "part.img"
    path.write_bytes(bytes(range(256)) * 40)
    return path


def _piece(number: int, offset: int, size: int, data: bytes, target: int | None = None) -> Piece:
    return Piece(number, offset, size, hashlib.sha256(data).digest(), offset if target is None else target)


def test_nothing_is_written_beyond_the_end(path: Path) -> None:
    before = path.read_bytes()
    with Disk().open_device(path) as file:
        part = Part("root", file)
        with pytest.raises(SlotError, match=r"root holds 10240 bytes, the image needs 10241"):
            part.write(10_239, b"ab")
    assert path.read_bytes() == before


def test_what_is_read_back_is_compared_piece_by_piece(path: Path) -> None:
    content = path.read_bytes()
    pieces = [_piece(number, number * 100, 100, content[number * 100 : number * 100 + 100]) for number in range(5)]
    with Disk().open_device(path) as file:
        part = Part("root", file)
        assert sum(part.read_back(pieces)) == 500
        part.write(321, b"\0")
        with pytest.raises(ReadBackError, match="100 bytes at 300"):
            list(part.read_back(pieces))


def test_a_part_that_ends_too_early_does_not_read_back(path: Path) -> None:
    with Disk().open_device(path) as file, pytest.raises(ReadBackError):
        list(Part("root", file).read_back([_piece(0, 10_000, 500, b"x" * 500)]))


def test_settling_syncs(path: Path) -> None:
    seen: list[Operation] = []
    with Disk(seen.append).open_device(path) as file:
        Part("root", file).settle()
    assert [operation.kind for operation in seen] == [Kind.SYNC]


@given(st.lists(st.tuples(st.integers(0, 3 * BLOCK_BYTES), st.booleans(), st.booleans()), max_size=12))
def test_runs_are_adjacent_bounded_and_lose_nothing(shape: list[tuple[int, bool, bool]]) -> None:
    pieces: list[Piece] = []
    offset = target = 0
    for number, (size, jumps, moves) in enumerate(shape):
        offset += 17 * jumps
        target += 17 * jumps + 5 * moves
        pieces.append(Piece(number, offset, size, b"", target))
        offset, target = offset + size, target + size
    found = list(runs(pieces))
    assert [piece for run in found for piece in run] == pieces
    for run in found:
        assert len(run) == 1 or sum(piece.size for piece in run) <= BLOCK_BYTES
        for left, right in pairwise(run):
            assert (left.offset + left.size, left.target + left.size) == (right.offset, right.target)


def test_a_run_says_which_of_its_pieces_are_right() -> None:
    data = b"aaabbbccc"
    run = [_piece(0, 0, 3, b"aaa"), _piece(1, 3, 3, b"xxx"), _piece(2, 6, 3, b"ccc")]
    assert check(lambda offset, size: data[offset : offset + size], run).good == [True, False, True]
    assert check(lambda offset, size: data[offset : offset + size - 5], run).good == [True, False, False]


async def test_work_is_done_in_bounded_batches_off_the_event_loop() -> None:
    threads: set[int] = set()

    def work() -> Iterator[int]:
        for _ in range(5):
            threads.add(threading.get_ident())
            yield BATCH_BYTES // 2

    seen: list[int] = []
    await in_batches(work(), seen.append)
    assert seen == [BATCH_BYTES, BATCH_BYTES, BATCH_BYTES // 2]
    assert threading.get_ident() not in threads


async def test_an_error_of_the_work_arrives() -> None:
    def work() -> Iterator[int]:
        yield 1
        raise SlotError("no")

    with pytest.raises(SlotError):
        await in_batches(work(), lambda _done: None)


async def test_a_cancelled_batch_ends_before_the_caller_goes_on() -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> Iterator[int]:
        begun.set()
        go_on.wait(10)
        ended.set()
        yield 1

    task = asyncio.create_task(in_batches(work(), lambda _done: None))
    await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
