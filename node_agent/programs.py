"""Run one program with a time limit and bounded output: health checks and hooks, which others write, and installers.

A program is a list of arguments, never a shell's line. It gets its own process group, so that what it started ends with
it; it gets no terminal; and of what it prints only the end is kept, because that is where the reason stands.
"""

import asyncio
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

KEPT_BYTES = 2048
_BLOCK_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended; `status` is None when its time ran out or it could not be started, `output` its last bytes."""

    status: int | None
    output: str

    @property
    def succeeded(self) -> bool:
        """Whether it ended by itself with status 0."""
        return self.status == 0

    def describe(self) -> str:
        """What went wrong, for a message."""
        how = "did not end by itself" if self.status is None else f"ended with status {self.status}"
        return f"{how}: {self.output}" if self.output else how


async def run_program(
    arguments: Sequence[str], *, timeout_s: float, environment: Mapping[str, str], feed: Iterator[bytes] | None = None
) -> Ended:
    """Run to the end or to `timeout_s`; never raises for what the program does. `environment` is added to this process's.

    `feed` is what it reads: blocks through a pipe, which ends with this process, however that ends. What `feed` raises is raised.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            stdin=asyncio.subprocess.DEVNULL if feed is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return Ended(None, f"cannot start {arguments[0]!r}: {error}")
    tail = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.gather(_drain(process.stdout, tail), _feed(process, feed))
            await process.wait()
    except TimeoutError:
        return Ended(None, f"stopped after {timeout_s:g} s; {_text(tail)}".rstrip("; "))
    finally:
        await _end_group(process)
    return Ended(process.returncode, _text(tail))


@dataclass(frozen=True, slots=True)
class Answered:
    """How a program that was asked ended; `answer` is all that it wrote to standard output, None where that was too long.

    `status` is None when its time ran out or it could not be started; `complaint` is the end of its standard error, or says that.
    """

    status: int | None
    answer: bytes | None
    complaint: str


async def ask_program(arguments: Sequence[str], question: bytes, *, timeout_s: float, max_bytes: int) -> Answered:
    """Run a program that reads `question` and answers with at most `max_bytes`; never raises for what the program does.

    One that writes more is ended at once: nothing of it is kept.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return Answered(None, b"", f"cannot start {arguments[0]!r}: {error}")
    tail, answer = bytearray(), bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            whole, *_ = await asyncio.gather(
                _collect(process, answer, max_bytes), _drain(process.stderr, tail), _feed(process, iter((question,)))
            )
            await process.wait()
    except TimeoutError:
        return Answered(None, bytes(answer), f"stopped after {timeout_s:g} s; {_text(tail)}".rstrip("; "))
    finally:
        await _end_group(process)
    return Answered(process.returncode, bytes(answer) if whole else None, _text(tail))


async def _collect(process: asyncio.subprocess.Process, answer: bytearray, max_bytes: int) -> bool:
    """Everything that it writes; False for one that writes too much, which is ended."""
    if process.stdout is None:
        return True
    whole = True
    while block := await process.stdout.read(_BLOCK_BYTES):  # to the end: nobody hears of the end of a program that is not read
        if whole:
            answer.extend(block)
        if whole and len(answer) > max_bytes:
            whole = False
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
    return whole


async def _drain(output: asyncio.StreamReader | None, tail: bytearray) -> None:
    """Read until the program closes its output; keep the last `KEPT_BYTES`."""
    if output is None:
        return
    while block := await output.read(_BLOCK_BYTES):
        tail.extend(block)
        del tail[:-KEPT_BYTES]


async def _feed(process: asyncio.subprocess.Process, feed: Iterator[bytes] | None) -> None:
    """Hand over everything, or as much as the program reads."""
    if process.stdin is None or feed is None:
        return
    with suppress(BrokenPipeError, ConnectionResetError):
        while block := await asyncio.to_thread(next, feed, b""):
            process.stdin.write(block)
            await process.stdin.drain()
    process.stdin.close()


async def _end_group(process: asyncio.subprocess.Process) -> None:
    """End the program and whatever it left behind in its own process group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _text(tail: bytearray) -> str:
    return tail.decode("utf-8", "replace").strip()
