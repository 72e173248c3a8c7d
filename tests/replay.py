"""Crash replay: every state in which a power cut may leave a disk, rebuilt from what `update.durable` announced.

How to use it (see tests/update/test_durable.py for each form)::

    recorder = Recorder(root)                  # root: an existing folder; what is in it now counts as durable
    disk = Disk(recorder)
    disk.write_file(root / "value", b"old")
    recorder.mark()                            # from here on "old" is promised: a crash must not lose it
    disk.write_file(root / "value", b"new")
    recorder.mark()
    assert_old_or_new(recorder.trace(), read, [None, b"old", b"new"])

`assert_old_or_new` crashes after every prefix of the operations, in every state that the file-system model allows, and
calls `read(folder)` on each. With m marks passed `read` must return `values[m]`, or `values[m + 1]` if the next step had
begun. `assert_every_crash` is the general form: it takes any check. `needless_syncs` drops every sync in turn and lists
those whose loss no check notices: the proof that the test would see a missing fsync. A process that is killed while the
machine runs on is simulated with `recorder.kill_at(n)`, which raises `Killed` before the n-th operation from now; build
new objects on the same recorder afterwards, as a restarted process does.

What a file system may lose is in `tests.disk_model`. Its states are enumerated completely where they are few, and sampled
with a fixed seed, extremes included, where they are many (`limit` for each prefix).
"""

import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar
from unittest.mock import patch

from tests.disk_model import Contents, Model, Step, Trace, Tree, disks
from update.durable import Kind, Operation

__all__ = [
    "Check",
    "CrashState",
    "Killed",
    "Recorder",
    "Step",
    "Trace",
    "assert_every_crash",
    "assert_old_or_new",
    "crash_states",
    "needless_syncs",
]

T = TypeVar("T")
_MEMORY = Path("/dev/shm")  # noqa: S108 - a new private folder is made in it


class Killed(BaseException):
    """The process dies here; a `BaseException`, so that no handler of the code under test takes it for an error."""


class Recorder:
    """An observer for `Disk` that keeps everything below `root`; it counts what is there now as durable."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._start = tuple(
            (path.relative_to(root).parts, None if path.is_dir() else path.read_bytes()) for path in sorted(root.rglob("*"))
        )
        self._steps: list[Step] = []
        self._marks: list[int] = []
        self._until_kill = -1

    def __call__(self, operation: Operation) -> None:
        if not operation.path.is_relative_to(self.root):
            if operation.kind is Kind.SYNC_FOLDER:
                return  # the name of the root itself is taken for durable
            raise ValueError(f"{operation.kind} outside the recorded folder {self.root}: {operation.path}")
        if self._until_kill == 0:
            self._until_kill = -1
            raise Killed
        self._until_kill -= self._until_kill > 0
        target = operation.target.relative_to(self.root).parts if operation.target is not None else ()
        names = operation.path.relative_to(self.root).parts
        self._steps.append(Step(operation.kind, names, operation.offset, bytes(operation.data), target))

    def __len__(self) -> int:
        return len(self._steps)

    def mark(self) -> None:
        """All that was done so far is promised to survive: the next entry of `values` holds."""
        self._marks.append(len(self._steps))

    def kill_at(self, count: int) -> None:
        """Raise `Killed` before the operation that follows `count` more."""
        self._until_kill = count

    def trace(self) -> Trace:
        """Everything recorded so far."""
        return Trace(self._start, tuple(self._steps), tuple(self._marks))


@dataclass(frozen=True, slots=True)
class CrashState:
    """One disk after a power cut: names to inodes (`None` is a folder), inodes to content, and how far the program was."""

    done: int
    marks: int
    busy: bool
    names: Tree
    contents: Contents

    def materialise(self, folder: Path) -> None:
        """Build it below an existing, empty folder; two names of one inode become hard links."""
        first: dict[int, Path] = {}
        contents = dict(self.contents)
        for names, inode in self.names:
            path = folder.joinpath(*names)
            if inode is None:
                path.mkdir()
            elif inode in first:
                os.link(first[inode], path)
            else:
                path.write_bytes(contents[inode])
                first[inode] = path

    def describe(self, trace: Trace) -> str:
        """For messages: where the power went, and what was left."""
        contents = dict(self.contents)
        last = str(trace.steps[self.done - 1]) if self.done else "the start"
        left = [f"{'/'.join(names)}={'folder' if inode is None else contents[inode][:60]!r}" for names, inode in self.names]
        return f"power cut after operation {self.done} ({last}), {self.marks} marks passed, left: {', '.join(left) or 'nothing'}"


def crash_states(trace: Trace, *, limit: int = 200, seed: int = 0) -> Iterator[CrashState]:
    """Each distinct state in which a power cut after any prefix of the trace may leave the disk."""
    model = Model(trace.start)
    seen: set[CrashState] = set()
    for done in range(len(trace.steps) + 1):
        if done:
            model.apply(trace.steps[done - 1])
        marks = sum(mark <= done for mark in trace.marks)
        busy = done > max((mark for mark in trace.marks if mark <= done), default=0)
        for names, contents in disks(model, limit, random.Random(seed + done)):
            state = CrashState(0, marks, busy, names, contents)
            if state not in seen:
                seen.add(state)
                yield replace(state, done=done)


Check = Callable[[Path, CrashState], None]


def assert_every_crash(trace: Trace, check: Check, *, into: Path | None = None, limit: int = 200, seed: int = 0) -> int:
    """Run `check(folder, state)` on every crash state, each in a fresh folder; how many there were.

    The folders are made below `into`, by default in memory where the machine has such a place. Whatever the check raises
    becomes an `AssertionError` that says where the power went and what was left.
    """
    count = 0
    if into is not None:
        into.mkdir(parents=True, exist_ok=True)
    place = into or (_MEMORY if os.access(_MEMORY, os.W_OK) else None)
    # the model says what is durable: waiting for the real disk would only cost time
    with TemporaryDirectory(dir=place) as base, patch("os.fsync"):
        for count, state in enumerate(crash_states(trace, limit=limit, seed=seed), 1):
            folder = Path(base) / f"crash-{count}"
            folder.mkdir()
            state.materialise(folder)
            try:
                check(folder, state)
            except Exception as error:  # every error of the reader is a finding
                raise AssertionError(f"{state.describe(trace)}: {type(error).__name__}: {error}") from error
            finally:
                shutil.rmtree(folder)
    return count


def assert_old_or_new(
    trace: Trace, read: Callable[[Path], T], values: Sequence[T], *, into: Path | None = None, limit: int = 200, seed: int = 0
) -> int:
    """After a crash `read` finds `values[m]` for the m marks passed, or `values[m + 1]` where the next step had begun."""

    def check(folder: Path, state: CrashState) -> None:
        allowed = values[state.marks : state.marks + 1 + state.busy]
        found = read(folder)
        assert found in allowed, f"read {found!r}, allowed {allowed!r}"

    return assert_every_crash(trace, check, into=into, limit=limit, seed=seed)


def needless_syncs(trace: Trace, verify: Callable[[Trace], object], *, after: int = 0) -> list[str]:
    """The syncs without which `verify(trace)` still passes: [] proves that deleting any one fsync makes the test fail.

    `after` leaves out the first steps, e.g. up to a mark behind which the part in question begins.
    """
    verify(trace)
    needless = []
    for index in trace.syncs():
        if index < after:
            continue
        try:
            verify(trace.without(index))
        except AssertionError:
            continue
        needless.append(f"{index}: {trace.steps[index]}")
    return needless
