"""Programs that are fed: everything they read, however they end. (Time limits and output: `test_hooks`, `test_health`.)"""

import hashlib
import sys
from collections.abc import Iterator

import pytest

from node_agent.programs import run_program
from update.errors import StoreError

BLOCKS = [bytes([number]) * 300_000 for number in range(7)]


async def fed(code: str, feed: Iterator[bytes] | None) -> tuple[int | None, str]:
    ended = await run_program([sys.executable, "-c", code], timeout_s=60, environment={}, feed=feed)
    return ended.status, ended.output


async def test_a_program_reads_what_it_is_fed_to_the_end() -> None:
    code = "import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())"
    assert await fed(code, iter(BLOCKS)) == (0, hashlib.sha256(b"".join(BLOCKS)).hexdigest())


async def test_without_food_it_reads_nothing() -> None:
    assert await fed("import sys; print(len(sys.stdin.buffer.read()))", None) == (0, "0")


async def test_a_program_that_does_not_read_on_is_no_error_of_its_own() -> None:
    assert await fed("import sys; print('enough'); sys.exit(3)", iter(BLOCKS)) == (3, "enough")


async def test_what_the_feed_raises_is_raised_and_the_program_ended() -> None:
    def failing() -> Iterator[bytes]:
        yield BLOCKS[0]
        raise StoreError("the medium is gone")

    with pytest.raises(StoreError, match="gone"):
        await fed("import sys, time; sys.stdin.buffer.read(300_000); time.sleep(600)", failing())


async def test_a_program_that_ignores_being_asked_ends_at_its_deadline() -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    ended = await run_program([sys.executable, "-c", code], timeout_s=0.5, environment={})
    assert ended.status is None
