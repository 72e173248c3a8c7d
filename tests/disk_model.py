"""A file system of which each part is either durable or not: what `tests.replay` crashes.

The model (POSIX as fsync(2) and rename(2) promise it, no journal's kindness assumed):

- Names and inodes are separate. A folder's entries are durable after a sync of that folder, content after a sync of the
  file; neither implies the other.
- Each unsynced name change is lost or kept on its own. A rename is atomic within a folder; between two folders a crash
  may also leave both names, and after the sync of one of them only that half is certain.
- Each unsynced write is lost, kept, cut in the middle, kept only in its second half, or kept as length without data.
- A folder whose own name is lost takes everything in it along.
"""

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from update.durable import Kind

T = TypeVar("T")
Names = tuple[str, ...]
Tree = tuple[tuple[Names, int | None], ...]
Contents = tuple[tuple[int, bytes], ...]
Entries = dict[str, int]
_SYNCS = frozenset({Kind.SYNC, Kind.SYNC_FOLDER})
ROOT = 0
_MAX_CONTENTS = 48


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


class Model:
    """A file system of which each part is either durable or not."""

    def __init__(self, start: Sequence[tuple[Names, bytes | None]]) -> None:
        self.files: dict[int, _File] = {}
        self.durable: dict[int, Entries] = {ROOT: {}}
        self.live: dict[int, Entries] = {ROOT: {}}
        self.pending: list[tuple[_Entry, ...]] = []
        self._next = ROOT + 1
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
        inode = ROOT
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
    for fates in combinations([_fates(step) for step in file.pending], _MAX_CONTENTS, random.Random(len(file.pending))):
        found[_content(file.durable, [fate for fate in fates if fate is not None])] = None
    found.pop(newest, None)
    return [*found, newest]


def _name_fates(change: tuple[_Entry, ...]) -> list[tuple[_Entry, ...]]:
    """What may have become of one unsynced name change: lost, both names kept (between two folders only), done."""
    between_folders = len({entry.folder for entry in change}) > 1
    return [(), *([change[:1]] if between_folders else []), change]


def combinations(choices: Sequence[Sequence[T]], limit: int, seeded: random.Random) -> Iterator[tuple[T, ...]]:
    """Every combination where they are at most `limit`, else a seeded sample with both extremes."""
    if math.prod(len(choice) for choice in choices) <= limit:
        yield from itertools.product(*choices)
        return
    yield tuple(choice[0] for choice in choices)
    yield tuple(choice[-1] for choice in choices)
    for _ in range(limit - 2):
        yield tuple(seeded.choice(choice) for choice in choices)


def disks(model: Model, limit: int, seeded: random.Random) -> Iterator[tuple[Tree, Contents]]:
    """Every distinct pair of what is reachable by which name, and what it holds."""
    inodes = list(model.files)
    changes = [_name_fates(change) for change in model.pending]
    contents = [_contents(model.files[inode]) for inode in inodes]
    whole = math.prod(map(len, changes)) * math.prod(map(len, contents))
    name_limit, content_limit = (limit, limit) if whole <= limit else (max(2, math.isqrt(limit)),) * 2
    for fates in combinations(changes, name_limit, seeded):
        folders = {inode: dict(entries) for inode, entries in model.durable.items()}
        for fate in fates:
            _enter(folders, fate)
        names = tuple(_walk(model, folders, ROOT, ()))
        kept = sorted({inode for _, inode in names if inode is not None})
        for chosen in combinations([contents[inodes.index(inode)] for inode in kept], content_limit, seeded):
            yield names, tuple(zip(kept, chosen, strict=True))


def _walk(model: Model, folders: dict[int, Entries], folder: int, above: Names) -> Iterator[tuple[Names, int | None]]:
    for name, inode in sorted(folders[folder].items()):
        if inode in model.files:
            yield (*above, name), inode
        else:
            yield (*above, name), None
            yield from _walk(model, folders, inode, (*above, name))
