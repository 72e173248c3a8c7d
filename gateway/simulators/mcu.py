"""A microcontroller with MCUboot that speaks SMP, and misbehaves on demand.

The part without a wire: what two places of flash hold, what MCUboot does with them at a start (MCUboot `docs/design.md`, "Image
swapping"), and how Zephyr's server answers (Zephyr, "SMP protocol", groups 0 and 1). `mcu_server` puts it on UDP or a pty. The
suite `tests/contract/test_microcontrollers.py` holds it against the real firmware.

- A start with an image that is marked: swap if its hash fits (else it is erased), and keep it only where it was marked for good.
  The next start of an image that nobody confirmed swaps back.
- A swap that a power cut interrupts (`McuFaults.swap_cuts`) is finished by the next start, as if it had come later.
- An upload that was begun is kept in RAM: gone with every start.
"""

import hashlib
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from threading import RLock
from typing import Final

from update.bundle.mcuboot_image import HEADER_BYTES, parse_image
from update.errors import BundleError

_MAGIC: Final = 0x96F3B83D
_NO_HASH, _IN_TRIAL, _BAD_MAGIC, _NO_ROOM, _ACTIVE_FOR_TEST = 8, 9, 23, 30, 33
_INVALID: Final = 3
_IMAGE_GROUP: Final = 1
_NOT_SUPPORTED: Final = 8


class Mark(StrEnum):
    """What is to become of the image in place 1 at the next start."""

    NONE = "none"
    TEST = "test"
    KEEP = "keep"


@dataclass(slots=True)
class McuFaults:
    """How the device misbehaves; changed while it runs."""

    silent_versions: tuple[str, ...] = ()  # images that come up and never answer
    silent: bool = False  # nothing is answered
    lost_requests: tuple[int, ...] = ()  # numbers of requests, counted from the first, that never arrived
    lost_answers: tuple[int, ...] = ()  # numbers of requests that were carried out, and whose answer is lost
    late_answers: tuple[int, ...] = ()  # numbers of requests whose answer comes `late_s` later
    late_s: float = 0.5
    damaged_answers: tuple[int, ...] = ()  # numbers of requests whose answer is garbage
    restart_at: tuple[int, ...] = ()  # numbers of requests at which the power is cut
    recovery: bool = False  # serial recovery: images without flags, as MCUboot itself lists them
    keeps_running: bool = False  # a restart is granted, and does not come
    answer_after_s: float = 0.0  # a slow line
    lost_share: float = 0.0  # of the requests, so many in one never arrive; always the same ones
    swap_cuts: int = 0  # so many of the next swaps lose the power in the middle; the device is off until its next start


class Refusal(Exception):  # noqa: N818 - an answer of the device, which is no error of this program
    """The device says no: `code` of `group`."""

    def __init__(self, code: int, group: int = _IMAGE_GROUP) -> None:
        super().__init__(f"group {group}, rc {code}")
        self.code, self.group = code, group


@dataclass(frozen=True, slots=True)
class Flash:
    """All that outlasts a power cut: two places, and what MCUboot has noted."""

    places: tuple[bytes, bytes]
    mark: Mark = Mark.NONE
    swapped: bool = False
    image_ok: bool = True


@dataclass(slots=True)
class _Upload:
    """An upload that was begun, in RAM."""

    sha256: bytes
    size: int
    received: bytearray = field(default_factory=bytearray)


def _nothing() -> None:
    """Nobody looks at it."""


@dataclass(slots=True)
class Mcu:
    """One device. `places` are what flash holds; `moment` is called around each request. Safe to call from several threads."""

    places: list[bytes]
    slot_bytes: int = 0x1A000
    buffer_bytes: int = 2048
    faults: McuFaults = field(default_factory=McuFaults)
    mark: Mark = Mark.NONE
    swapped: bool = False
    image_ok: bool = True
    requests: int = 0
    starts: int = 0
    is_off: bool = False
    moment: Callable[[], None] = _nothing
    _upload: _Upload | None = None
    _lock: RLock = field(default_factory=RLock)

    def start(self) -> None:
        """Power, or a reset."""
        with self._lock:
            self.starts += 1
            self._upload = None
            self.is_off = self.mark is not Mark.NONE and self.faults.swap_cuts > 0
            if self.is_off:
                self.faults.swap_cuts -= 1
            elif self.mark is not Mark.NONE:
                self._swap_in()
            elif self.swapped and not self.image_ok:
                self.places.reverse()
                self.swapped, self.image_ok = False, True

    def version(self) -> str:
        """Of the image that runs, as Zephyr writes it."""
        return _version(self.places[0])

    def is_silent(self) -> bool:
        """Whether nothing is answered now."""
        return self.is_off or self.faults.silent or self.version() in self.faults.silent_versions

    def flash(self) -> Flash:
        """What a power cut would leave now."""
        with self._lock:
            return Flash((self.places[0], self.places[1]), self.mark, self.swapped, self.image_ok)

    def _swap_in(self) -> None:
        keep, self.mark = self.mark is Mark.KEEP, Mark.NONE
        try:
            parse_image(self.places[1])
        except BundleError:
            self.places[1], self.image_ok = b"", True
            return
        self.places.reverse()
        self.swapped, self.image_ok = True, keep

    # What Zephyr's server does, by (group, command, whether it is a write).

    def answer(self, group: int, command: int, *, write: bool, body: Mapping[str, object]) -> dict[str, object]:
        """The answer to one request. `Refusal` for what the device says no to."""
        with self._lock:
            if (group, command, write) == (0, 5, True):
                return {}  # the start is the server's, once the answer is on its way
            known: Mapping[tuple[int, int, bool], Callable[[], dict[str, object]]] = {
                (0, 0, True): lambda: {"r": body.get("d", "")},
                (0, 6, False): lambda: {"buf_size": self.buffer_bytes, "buf_count": 4},
                (1, 0, False): self._states,
                (1, 0, True): lambda: self._set_state(body),
                (1, 1, True): lambda: self._receive(body),
                (1, 5, True): self._erase,
            }
            if (group, command, write) not in known:
                raise Refusal(_NOT_SUPPORTED, 0)
            return known[group, command, write]()

    def _states(self) -> dict[str, object]:
        if self.faults.recovery:
            return {"images": [{"slot": 0, "version": self.version(), "hash": _hash(self.places[0])}]}
        on_trial = self.swapped and not self.image_ok
        images = [self._state(0, active=True, confirmed=not on_trial)]
        if self._lists_other():
            marked = self.mark is not Mark.NONE
            images.append(self._state(1, pending=marked, permanent=self.mark is Mark.KEEP, confirmed=on_trial))
        return {"images": images, "splitStatus": 0}

    def _lists_other(self) -> bool:
        """What was swapped out stays in flash, but once the new image is confirmed it is not listed."""
        return bool(self.places[1]) and (not self.swapped or not self.image_ok) and _is_whole(self.places[1])

    def _state(self, place: int, **flags: bool) -> dict[str, object]:
        known = {"pending": False, "confirmed": False, "active": False, "permanent": False, **flags}
        data = self.places[place]
        return {"slot": place, "version": _version(data), "hash": _hash(data), "bootable": True, **known}

    def _set_state(self, body: Mapping[str, object]) -> dict[str, object]:
        wanted, confirm = body.get("hash"), body.get("confirm", False)
        if wanted is None or wanted == _hash(self.places[0]):
            if not confirm:
                raise Refusal(_ACTIVE_FOR_TEST)
            self.image_ok = True
            return self._states()
        if not self._lists_other() or wanted != _hash(self.places[1]):
            raise Refusal(_NO_HASH)
        if self.swapped and not self.image_ok:
            raise Refusal(_IN_TRIAL)
        self.mark, self.swapped = (Mark.KEEP if confirm else Mark.TEST), False
        return self._states()

    def _receive(self, body: Mapping[str, object]) -> dict[str, object]:
        offset, data = body.get("off"), body.get("data")
        if not isinstance(offset, int) or not isinstance(data, bytes):
            raise Refusal(_INVALID, 0)
        if offset == 0:
            self._begin(body, data)
        upload = self._upload
        if upload is None:
            raise Refusal(_INVALID, 0)
        if offset != len(upload.received):
            return {"off": len(upload.received)}
        upload.received += data[: upload.size - len(upload.received)]
        self.places[1] = bytes(upload.received)
        if len(upload.received) < upload.size:
            return {"off": len(upload.received)}
        self._upload = None
        return {"off": upload.size, "match": hashlib.sha256(upload.received).digest() == upload.sha256}

    def _begin(self, body: Mapping[str, object], data: bytes) -> None:
        if self.swapped and not self.image_ok:
            raise Refusal(_IN_TRIAL)
        size, sha256 = body.get("len"), body.get("sha", b"")
        if not isinstance(size, int) or not isinstance(sha256, bytes):
            raise Refusal(_INVALID, 0)
        if size > self.slot_bytes:
            raise Refusal(_NO_ROOM)
        if len(data) < HEADER_BYTES or struct.unpack_from("<I", data)[0] != _MAGIC:
            raise Refusal(_BAD_MAGIC)
        known = self._upload
        if known is not None and sha256 and (known.sha256, known.size) == (sha256, size):
            return
        self._upload, self.mark, self.swapped = _Upload(sha256, size), Mark.NONE, False
        self.places[1] = b""

    def _erase(self) -> dict[str, object]:
        if self.swapped and not self.image_ok:
            raise Refusal(_IN_TRIAL)
        self.places[1], self.mark, self._upload = b"", Mark.NONE, None
        return {}


def _is_whole(data: bytes) -> bool:
    try:
        parse_image(data)
    except BundleError:
        return False
    return True


def _version(data: bytes) -> str:
    major, minor, revision, build = struct.unpack_from("<BBHI", data.ljust(HEADER_BYTES, b"\0"), 20)
    return f"{major}.{minor}.{revision}" + (f".{build}" if build else "")


def _hash(data: bytes) -> bytes:
    try:
        return parse_image(data).image_hash
    except BundleError:
        return b""
