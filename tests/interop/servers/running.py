"""A server of somebody else as a child process: started, waited for, and ended by whoever started it."""

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

_START_PATIENCE_S = 240.0  # what starts in ten seconds may need minutes on a machine that is busy with other tests
_END_PATIENCE_S = 30.0
_LOOK_EVERY_S = 0.1
_LAST_CHARACTERS = 4000

_Answer = TypeVar("_Answer")


@contextmanager
def running(command: Sequence[str | Path], folder: Path, look: Callable[[str], _Answer | None]) -> Iterator[_Answer]:
    """Run `command` in `folder` while the context lasts; yields what `look` finds in its log once it is ready."""
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield _ready(process, log, look)
        finally:
            _end(process)


def _ready(process: "subprocess.Popen[bytes]", log: Path, look: Callable[[str], _Answer | None]) -> _Answer:
    deadline = time.monotonic() + _START_PATIENCE_S
    while True:
        ended, late = process.poll(), time.monotonic() > deadline
        said = log.read_text(errors="replace")
        if (answer := look(said)) is not None:
            return answer
        last = said[-_LAST_CHARACTERS:]
        assert ended is None, f"the server ended with {ended} before it was ready:\n{last}"
        assert not late, f"the server was not ready after {_START_PATIENCE_S} s:\n{last}"
        time.sleep(_LOOK_EVERY_S)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ask, then insist: no server outlives its context."""
    process.terminate()
    try:
        process.wait(_END_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
