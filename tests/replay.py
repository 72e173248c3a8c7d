"""Crash replay: every state in which a power cut may leave a disk, rebuilt from what `update.durable` announced.

How to use it (see tests/update/test_durable.py for each form)::

    recorder = Recorder(root)                  # root: an existing folder; what is in it now counts as durable
    disk = Disk(recorder)
    disk.write_file(root / "value", b"old")
    recorder.mark()                            # from here on "old" is promised: a crash must not lose it
    disk.write_file(root / "value", b"new")
    recorder.mark()
    assert_old_or_new(recorder.trace(), read, [None, b"old", b"new"], into=tmp_path / "crash")

`assert_old_or_new` crashes after every prefix of the operations, in every state that the file-system model allows, and
calls `read(folder)` on each. With m marks passed `read` must return `values[m]`, or `values[m + 1]` if the next step had
begun. `assert_every_crash` is the general form: it takes any check. `needless_syncs` drops every sync in turn and lists
those whose loss no check notices: the proof that the test would see a missing fsync. A process that is killed while the
machine runs on is simulated with `recorder.kill_at(n)`, which raises `Killed` before the n-th operation from now; build
new objects on the same recorder afterwards, as a restarted process does.

The model (POSIX as fsync(2) and rename(2) promise it, no journal's kindness assumed):

- Names and inodes are separate. A folder's entries are durable after a sync of that folder, content after a sync of the
  file; neither implies the other.
- Each unsynced name change is lost or kept on its own. A rename is atomic within a folder; between two folders a crash
  may also leave both names, and after the sync of one of them only that half is certain.
- Each unsynced write is lost, kept, cut in the middle, kept only in its second half, or kept as length without data.
- A folder whose own name is lost takes everything in it along.

States are enumerated completely where they are few and sampled with a fixed seed, extremes included, where they are
many (`limit` for each prefix).
"""

import itertools
import math
import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from update.durable import Kind, Operation

T = TypeVar("T")
Names = tuple[str, ...]
Tree = tuple[tuple[Names, int | None], ...]
Contents = tuple[tuple[int, bytes], ...]
_SYNCS = frozenset({Kind.SYNC, Kind.SYNC_FOLDER})
_ROOT = 0
_MAX_CONTENTS = 48


class Killed(BaseException):
    """The process dies here; a `BaseException`, so that no handler of the code under test takes it for an error."""


@dataclass(frozen=True, slots=True)
class Step:
    """One recorded operation with paths relative to the recorder's root; the data is a copy."""

    kind: Kind
    names: Names
    offset: int = 0
    data: bytes = b""
    target: Names = ()

    def __str__(self) -> str:
        text = f"{self.kind} {'/'.join(self.names) or '.'}"
        return f"{text} -> {'/'.join(self.target)}" if self.target else text


@dataclass(frozen=True, slots=True)
class Trace:
    """What happened: the durable start (`None` is a folder), the steps, and how many steps each mark stands behind."""

    start: tuple[tuple[Names, bytes | None], ...]
    steps: tuple[Step, ...]
    marks: tuple[int, ...] = ()

    def syncs(self) -> list[int]:
        """Indices of the steps that are syncs."""
        return [index for index, step in enumerate(self.steps) if step.kind in _SYNCS]

    def without(self, index: int) -> "Trace":
        """The same trace with one step never executed."""
        marks = tuple(mark - (index < mark) for mark in self.marks)
        return replace(self, steps=self.steps[:index] + self.steps[index + 1 :], marks=marks)


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


@dataclass(slots=True)
class _File:
    """Content on disk, and the changes that no sync has confirmed."""

    durable: bytes = b""
    pending: list[Step] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Entry:
    """One name in one folder comes to mean an inode, or nothing."""

    folder: int
    name: str
    inode: int | None


Entries = dict[str, int]


class Model:
    """A file system of which each part is either durable or not."""

    def __init__(self, start: Sequence[tuple[Names, bytes | None]]) -> None:
        self.files: dict[int, _File] = {}
        self.durable: dict[int, Entries] = {_ROOT: {}}
        self.live: dict[int, Entries] = {_ROOT: {}}
        self.pending: list[tuple[_Entry, ...]] = []
        self._next = _ROOT + 1
        for names, content in start:
            folder, name = self._place(names)
            inode = self._folder() if content is None else self._file(content)
            self.durable[folder][name] = self.live[folder][name] = inode

    def apply(self, step: Step) -> None:
        """Execute one step; `ValueError` for one that the real disk would refuse too."""
        match step.kind:
            case Kind.CREATE:
                self._create(step)
            case Kind.WRITE | Kind.TRUNCATE:
                self.files[self._inode(step.names)].pending.append(step)
            case Kind.SYNC:
                file = self.files[self._inode(step.names)]
                file.durable, file.pending = _content(file.durable, file.pending), []
            case Kind.RENAME:
                source, target = self._place(step.names), self._place(step.target)
                self._change(_Entry(*target, self._inode(step.names)), _Entry(*source, None))
            case Kind.REMOVE:
                self._inode(step.names)
                self._change(_Entry(*self._place(step.names), None))
            case Kind.MAKE_FOLDER:
                self._change(_Entry(*self._place(step.names), self._folder()))
            case Kind.SYNC_FOLDER:
                self._sync_folder(self._inode(step.names))

    def _create(self, step: Step) -> None:
        folder, name = self._place(step.names)
        existing = self.live[folder].get(name)
        if existing is None:
            self._change(_Entry(folder, name, self._file(b"")))
        else:
            self.files[existing].pending.append(replace(step, kind=Kind.TRUNCATE))

    def _sync_folder(self, folder: int) -> None:
        remaining = []
        for change in self.pending:
            _enter(self.durable, [entry for entry in change if entry.folder == folder])
            if rest := tuple(entry for entry in change if entry.folder != folder):
                remaining.append(rest)
        self.pending = remaining

    def _change(self, *entries: _Entry) -> None:
        self.pending.append(entries)
        _enter(self.live, entries)

    def _file(self, content: bytes) -> int:
        inode, self._next = self._next, self._next + 1
        self.files[inode] = _File(content)
        return inode

    def _folder(self) -> int:
        inode, self._next = self._next, self._next + 1
        self.durable[inode], self.live[inode] = {}, {}
        return inode

    def _inode(self, names: Names) -> int:
        inode = _ROOT
        for name in names:
            if name not in self.live.get(inode, {}):
                raise ValueError(f"no such name: {'/'.join(names)}")
            inode = self.live[inode][name]
        return inode

    def _place(self, names: Names) -> tuple[int, str]:
        return self._inode(names[:-1]), names[-1]


def _enter(folders: dict[int, Entries], entries: Sequence[_Entry]) -> None:
    for entry in entries:
        if entry.inode is None:
            folders[entry.folder].pop(entry.name, None)
        else:
            folders[entry.folder][entry.name] = entry.inode


def _content(durable: bytes, changes: Sequence[Step]) -> bytes:
    content = bytearray(durable)
    for change in changes:
        content.extend(bytes(max(0, change.offset - len(content))))
        if change.kind is Kind.WRITE:
            content[change.offset : change.offset + len(change.data)] = change.data
        else:
            del content[change.offset :]
    return bytes(content)


def _fates(step: Step) -> list[Step | None]:
    """What may have become of one unsynced change: `None` for lost first, whole last."""
    if step.kind is not Kind.WRITE or not step.data:
        return [None, step]
    half = len(step.data) // 2
    length_only = replace(step, offset=step.offset + len(step.data), data=b"")
    torn = [replace(step, data=step.data[:half]), replace(step, offset=step.offset + half, data=step.data[half:])]
    return [None, length_only, *(torn if half else []), step]


def _contents(file: _File) -> list[bytes]:
    """Contents that a crash may leave of one file, each once: the durable one first, the newest last."""
    found: dict[bytes, None] = {file.durable: None}
    newest = _content(file.durable, file.pending)
    for fates in _combinations([_fates(step) for step in file.pending], _MAX_CONTENTS, random.Random(len(file.pending))):
        found[_content(file.durable, [fate for fate in fates if fate is not None])] = None
    found.pop(newest, None)
    return [*found, newest]


def _name_fates(change: tuple[_Entry, ...]) -> list[tuple[_Entry, ...]]:
    """What may have become of one unsynced name change: lost, both names kept (between two folders only), done."""
    between_folders = len({entry.folder for entry in change}) > 1
    return [(), *([change[:1]] if between_folders else []), change]


def _combinations(choices: Sequence[Sequence[T]], limit: int, seeded: random.Random) -> Iterator[tuple[T, ...]]:
    """Every combination where they are at most `limit`, else a seeded sample with both extremes."""
    if math.prod(len(choice) for choice in choices) <= limit:
        yield from itertools.product(*choices)
        return
    yield tuple(choice[0] for choice in choices)
    yield tuple(choice[-1] for choice in choices)
    for _ in range(limit - 2):
        yield tuple(seeded.choice(choice) for choice in choices)


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
        for names, contents in _disks(model, limit, random.Random(seed + done)):
            state = CrashState(0, marks, busy, names, contents)
            if state not in seen:
                seen.add(state)
                yield replace(state, done=done)


def _disks(model: Model, limit: int, seeded: random.Random) -> Iterator[tuple[Tree, Contents]]:
    """Every distinct pair of what is reachable by which name, and what it holds."""
    inodes = list(model.files)
    changes = [_name_fates(change) for change in model.pending]
    contents = [_contents(model.files[inode]) for inode in inodes]
    whole = math.prod(map(len, changes)) * math.prod(map(len, contents))
    name_limit, content_limit = (limit, limit) if whole <= limit else (max(2, math.isqrt(limit)),) * 2
    for fates in _combinations(changes, name_limit, seeded):
        folders = {inode: dict(entries) for inode, entries in model.durable.items()}
        for fate in fates:
            _enter(folders, fate)
        names = tuple(_walk(model, folders, _ROOT, ()))
        kept = sorted({inode for _, inode in names if inode is not None})
        for chosen in _combinations([contents[inodes.index(inode)] for inode in kept], content_limit, seeded):
            yield names, tuple(zip(kept, chosen, strict=True))


def _walk(model: Model, folders: dict[int, Entries], folder: int, above: Names) -> Iterator[tuple[Names, int | None]]:
    for name, inode in sorted(folders[folder].items()):
        if inode in model.files:
            yield (*above, name), inode
        else:
            yield (*above, name), None
            yield from _walk(model, folders, inode, (*above, name))


Check = Callable[[Path, CrashState], None]


def assert_every_crash(trace: Trace, check: Check, *, into: Path, limit: int = 200, seed: int = 0) -> int:
    """Run `check(folder, state)` on every crash state, each in a fresh folder below `into`; how many there were.

    Whatever it raises becomes an `AssertionError` that says where the power went and what was left.
    """
    count = 0
    for count, state in enumerate(crash_states(trace, limit=limit, seed=seed), 1):
        folder = into / f"crash-{count}"
        folder.mkdir(parents=True)
        state.materialise(folder)
        try:
            check(folder, state)
        except Exception as error:  # every error of the reader is a finding
            raise AssertionError(f"{state.describe(trace)}: {type(error).__name__}: {error}") from error
        finally:
            shutil.rmtree(folder)
    return count


def assert_old_or_new(
    trace: Trace, read: Callable[[Path], T], values: Sequence[T], *, into: Path, limit: int = 200, seed: int = 0
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
