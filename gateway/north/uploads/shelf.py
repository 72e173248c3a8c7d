"""Pushes that are not finished, on disk: sessions, their files, and how much of each has come for certain.

    <session>.json                  who pushes, what for, until when; in the end what became of it
    <session>.<upload>.json         the path and length of one file
    <session>.<upload>.part         its bytes; `.synced`: how many of them are on disk (`update.store.staging`)

Names are random and the gateway's own: what a pusher calls a file is a label in a record. Everything is limited before anything
is allocated. After a crash everything is as it was last told; what no record names is removed.
"""

import asyncio
import logging
import re
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gateway.north.uploads.headers import components
from gateway.sections.pushers import PusherSection
from update.durable import Disk
from update.errors import (
    CorruptError,
    FormatVersionError,
    GoneError,
    NoSpaceError,
    NotFoundError,
    StateError,
    TooLargeError,
)
from update.store.journal import Journal, JsonValue
from update.store.staging import Staged
from update.wire.push_messages import MAX_FILES, VERDICT, Verdict

_LOG = logging.getLogger(__name__)
MAX_SESSIONS: Final = 16
"""Of one pusher, finished ones aside."""
_MAX_REMEMBERED: Final = 256
_NAME: Final = re.compile(r"([0-9a-f]{32})(?:\.([0-9a-f]{32}))?\.(json|part|synced)", re.ASCII)


@dataclass(slots=True, eq=False)
class Upload:
    """One file of a session; `offset` bytes of it are on disk for certain."""

    id: str
    path: str
    length: int
    offset: int = 0
    busy: bool = False
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.names = components(self.path)


@dataclass(slots=True, eq=False)
class Push:
    """One session. `expires_s` is in seconds since 1970."""

    id: str
    pusher: str
    repository: str
    expires_s: float
    label: str = ""
    files: dict[str, Upload] = field(default_factory=dict)
    verdict: Verdict | None = None
    finishing: "asyncio.Task[Verdict] | None" = None

    @property
    def is_open(self) -> bool:
        """Whether files may still come."""
        return self.verdict is None and self.finishing is None

    def held_bytes(self) -> int:
        """What its files take, or are going to."""
        return sum(upload.length for upload in self.files.values())


@dataclass(frozen=True, slots=True)
class Limits:
    """`reserve_bytes` of the disk stay free in any case."""

    expire_s: int
    max_file_bytes: int
    reserve_bytes: int


class Shelf:
    """All sessions, in `folder`. `now_s` gives seconds since 1970. Used on one event loop. Errors also: `StoreError`."""

    def __init__(self, disk: Disk, folder: Path, limits: Limits, now_s: Callable[[], float]) -> None:
        self.limits = limits
        self._disk = disk
        self._folder = folder
        self._now_s = now_s
        self._pushes: dict[str, Push] = {}

    async def load(self) -> None:
        """Take up what is on disk."""
        self._pushes = await asyncio.to_thread(self._load)

    async def begin(self, pusher: PusherSection, repository: str, label: str = "") -> Push:
        """A new session, or the open one of the same repository and label. Errors: `StateError` if too many are open."""
        own = [push for push in self._pushes.values() if push.pusher == pusher.name]
        for push in own:
            if label and push.verdict is None and (push.label, push.repository) == (label, repository):
                return self.find(pusher, push.id)
        if sum(1 for push in own if push.verdict is None) >= MAX_SESSIONS:
            raise StateError(f"{pusher.name} has {MAX_SESSIONS} sessions open: finish or delete one of them")
        if len(own) >= _MAX_REMEMBERED:
            await self.remove(min((push for push in own if push.verdict is not None), key=lambda push: push.expires_s))
        push = Push(secrets.token_hex(16), pusher.name, repository, self._now_s() + self.limits.expire_s, label)
        self._pushes[push.id] = push
        try:
            await asyncio.to_thread(self._write, push)
        except BaseException:  # also when cancelled: what was not written must not be known
            del self._pushes[push.id]
            raise
        return push

    def find(self, pusher: PusherSection, session: str) -> Push:
        """A session of this pusher. Errors: `NotFoundError` for any other, `GoneError` for one whose time is over."""
        push = self._pushes.get(session)
        if push is None or push.pusher != pusher.name:
            raise NotFoundError(f"{pusher.name} has no session {session[:40]!r}; one that is not finished in time is removed")
        if push.expires_s <= self._now_s():
            raise GoneError(f"session {push.id} was not finished in time (push.expire_s): begin another one")
        return push

    def find_upload(self, pusher: PusherSection, upload: str) -> tuple[Push, Upload]:
        """A file of an open session. Errors: those of `find`."""
        for push in self._pushes.values():
            if push.pusher == pusher.name and (found := push.files.get(upload)) is not None:
                return self.find(pusher, push.id), found
        raise NotFoundError(f"{pusher.name} has no upload {upload[:40]!r}")

    async def add(self, pusher: PusherSection, push: Push, path: str, length: int) -> Upload:
        """Expect another file. Errors: `ProtocolError` (the path), `StateError`, `TooLargeError`, `NoSpaceError`."""
        self._check_add(pusher, push, path, length)
        upload = Upload(secrets.token_hex(16), path, length)
        push.files[upload.id] = upload
        try:
            await asyncio.to_thread(lambda: self._record(push, upload).write({"path": path, "length": length}))
        except BaseException:  # also when cancelled: what was not written must not be known
            del push.files[upload.id]
            raise
        return upload

    def open(self, push: Push, upload: Upload) -> Staged:
        """Its bytes, cut back to what is certain."""
        name = f"{push.id}.{upload.id}"
        return Staged(self._disk, self._folder / f"{name}.part", self._folder / f"{name}.synced", length=upload.length)

    def part(self, push: Push, upload: Upload) -> Path:
        """The file with its bytes; it may be missing while there are none."""
        return self._folder / f"{push.id}.{upload.id}.part"

    async def drop(self, push: Push, upload: Upload) -> None:
        """Forget one file."""
        await asyncio.to_thread(self._drop, push, upload)
        push.files.pop(upload.id, None)

    async def end(self, push: Push, verdict: Verdict) -> None:
        """What became of a session; its files go."""
        push.verdict = verdict
        await asyncio.to_thread(self._write, push)
        for upload in list(push.files.values()):
            await self.drop(push, upload)

    async def remove(self, push: Push) -> None:
        """Forget a session."""
        self._pushes.pop(push.id, None)
        for upload in list(push.files.values()):
            await self.drop(push, upload)
        await asyncio.to_thread(self._disk.remove, self._folder / f"{push.id}.json")

    async def sweep(self) -> None:
        """Remove what was not finished in time, unless it is being worked at."""
        for push in list(self._pushes.values()):
            busy = push.finishing is not None and not push.finishing.done()
            if push.expires_s <= self._now_s() and not busy and not any(upload.busy for upload in push.files.values()):
                _LOG.log(
                    logging.DEBUG if push.verdict else logging.WARNING, "push %s of %s is over its time", push.id, push.pusher
                )
                await self.remove(push)

    def _check_add(self, pusher: PusherSection, push: Push, path: str, length: int) -> None:
        names = components(path)
        if not push.is_open:
            raise StateError(f"session {push.id} is being finished: begin another one for what came later")
        if any(other.names == names for other in push.files.values()):
            raise StateError(f"{path} is in this session already: go on with that upload, or delete it")
        if len(push.files) >= MAX_FILES:
            raise TooLargeError(f"a session has at most {MAX_FILES} files")
        if length > self.limits.max_file_bytes:
            raise TooLargeError(f"{path} has {length} bytes, push.max_file_bytes is {self.limits.max_file_bytes}")
        held = sum(each.held_bytes() for each in self._pushes.values() if each.pusher == pusher.name)
        if held + length > pusher.quota_bytes:
            raise TooLargeError(
                f"{path} has {length} bytes; {held} of the {pusher.quota_bytes} that {pusher.name} may hold "
                "(push.pusher.quota_bytes) are taken by sessions that are not finished"
            )
        coming = sum(each.length - each.offset for push in self._pushes.values() for each in push.files.values())
        free = shutil.disk_usage(self._folder).free - self.limits.reserve_bytes
        if coming + length > free:
            raise NoSpaceError(
                f"{path} has {length} bytes; {max(0, free)} are free beside the reserve (store.reserve_bytes), and {coming} of "
                "them are expected by other uploads"
            )

    def _write(self, push: Push) -> None:
        body: dict[str, JsonValue] = {
            "pusher": push.pusher,
            "repository": push.repository,
            "label": push.label,
            "expires_s": push.expires_s,
            "verdict": None if push.verdict is None else VERDICT.dump_json(push.verdict).decode(),
        }
        Journal(self._disk, self._folder / f"{push.id}.json").write(body)

    def _record(self, push: Push, upload: Upload) -> Journal:
        return Journal(self._disk, self._folder / f"{push.id}.{upload.id}.json")

    def _drop(self, push: Push, upload: Upload) -> None:
        self._record(push, upload).clear()
        with self.open(push, upload) as staged:
            staged.discard()

    def _load(self) -> dict[str, Push]:
        self._disk.make_folder(self._folder, mode=0o700)
        names = {match: path for path in sorted(self._folder.iterdir()) if (match := _NAME.fullmatch(path.name))}
        pushes: dict[str, Push] = {}
        for match, path in names.items():
            if match[2] is None and (push := self._read(match[1], path)) is not None:
                pushes[push.id] = push
        for match, path in names.items():
            push = pushes.get(match[1])
            if push is not None and push.verdict is None and match[2] and match[3] == "json":
                self._take_up(push, match[2], path)
        for match, path in names.items():
            push = pushes.get(match[1])
            if push is None or (match[2] and match[2] not in push.files):
                self._disk.remove(path)
        return pushes

    def _read(self, session: str, path: Path) -> Push | None:
        body = _read(self._disk, path)
        match body:
            case {"pusher": str(pusher), "repository": str(repository), "expires_s": float() | int() as expires_s, **rest}:
                verdict = rest.get("verdict")
                told = VERDICT.validate_json(verdict) if isinstance(verdict, str) else None
                return Push(session, pusher, repository, expires_s, str(rest.get("label", "")), verdict=told)
        return None

    def _take_up(self, push: Push, upload: str, path: Path) -> None:
        match _read(self._disk, path):
            case {"path": str(label), "length": int(length)}:
                found = Upload(upload, label, length)
                with self.open(push, found) as staged:
                    found.offset = staged.size()
                push.files[upload] = found


def _read(disk: Disk, path: Path) -> Mapping[str, JsonValue]:
    """What a record says; nothing where it is damaged, and then it is as if it had never been."""
    try:
        return Journal(disk, path).read() or {}
    except (CorruptError, FormatVersionError) as error:
        _LOG.warning("a push is lost: %s (%s)", error, error.code)
        return {}
