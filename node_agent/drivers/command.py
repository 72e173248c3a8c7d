"""A device that an external program knows: six questions in JSON, each answered in JSON (`docs/reference/driver-command.md`).

The program is started anew for every word, without a shell, in a process group of its own that ends with it or with its time. It
reads one JSON object from standard input, and writes one to standard output; what it says on standard error is for people.

    {"contract": 1, "word": "activate", "address": "...", "settings": {...}, "device": "drive",
     "image": {"path": "/...", "size": 4096, "sha256": "...", "version": "2.0"}}
    {"result": "ok"}    {"result": "failed", "reason": "..."}

1. `stage`, `activate`, `confirm`, `revert` are told what to do, and may be told again. `probe` tells `state` (`running`,
   `starting`, `stopped`, `failed`, `silent`), and `version` or `sha256` of what runs, where the device can say it. `read` copies
   what runs.
2. An answer that is none (a status other than 0, no JSON, too long, too late) is `ProgramError`, and decides nothing about the
   device. Only `probe` may fail: then the device is silent.
3. `slots = 1`: `activate` writes over what runs, and the way back is to write the image before again (`revert` is never asked).
   `slots = 2`: the device itself holds what it ran, `stage` writes beside it, and `revert` returns. Such a device must say what
   it runs: `revert` is asked until it does not run what was tried, and never after that.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from node_agent.drivers.driver import Capabilities, Surroundings
from node_agent.drivers.shelf.arrival import Patience
from node_agent.drivers.shelf.device import Habits, ShelfDevice
from node_agent.drivers.shelf.images import KeptImage, Shelf
from node_agent.drivers.shelf.machine import Life, Seen
from node_agent.programs import ask_program
from update.digest import Digest
from update.errors import DeviceImageError, HandlerError, ProgramError

CONTRACT: Final = 1
MAX_ANSWER_BYTES: Final = 64 << 10
_Seconds = Annotated[float, Field(gt=0, le=86400)]
_Text = Annotated[str, Field(max_length=1000)]
_LIVES: Final = {
    "running": Life.RUNNING,
    "starting": Life.SILENT,
    "stopped": Life.STOPPED,
    "failed": Life.FAILED,
    "silent": Life.SILENT,
}


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class CommandConfig:
    """The program, the device behind it, and how long each word may take."""

    program: Annotated[tuple[_Text, ...], Field(min_length=1, max_length=100)]
    address: _Text = ""
    settings: Mapping[_Text, _Text] = Field(default_factory=dict)
    slots: Literal[1, 2] = 1
    names: tuple[str, str] = ("a", "b")
    selection: str = ""
    device: str = "device"
    slot_bytes: Annotated[int, Field(ge=1, le=4 << 30)] = 64 << 20
    archive: Path | None = None
    installed: Path | None = None
    reads: bool = False
    accept_no_way_back: bool = False
    needs_power_cycle: bool = False
    stage_timeout_s: _Seconds = 600.0
    activate_timeout_s: _Seconds = 600.0
    probe_timeout_s: _Seconds = 30.0
    confirm_timeout_s: _Seconds = 60.0
    revert_timeout_s: _Seconds = 600.0
    read_timeout_s: _Seconds = 600.0
    start_timeout_s: _Seconds = 120.0
    watch_s: Annotated[float, Field(ge=0, le=3600)] = 5.0
    poll_interval_s: _Seconds = 1.0


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="ignore"))
class _Answer:
    """What a program may say; other members are its own business."""

    result: Literal["ok", "failed", "unsuitable"]
    reason: Annotated[str, Field(max_length=4096)] = ""
    state: Literal["running", "starting", "stopped", "failed", "silent"] = "silent"
    version: Annotated[str, Field(max_length=255)] | None = None
    sha256: Annotated[Digest, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


_ANSWER = TypeAdapter(_Answer)


class CommandMachine:
    """`Machine` for one device behind a program."""

    def __init__(self, config: CommandConfig) -> None:
        self._config = config

    async def look(self) -> Seen:
        """Ask `probe`."""
        try:
            answer = await self._ask("probe", self._config.probe_timeout_s)
        except (ProgramError, HandlerError) as error:
            return Seen(Life.SILENT, reason=str(error))
        return Seen(_LIVES[answer.state], answer.sha256, answer.version or None, answer.reason)

    async def stage(self, image: KeptImage, progress: Callable[[int], None]) -> None:
        """Ask `stage`: judge the image, and bring it to the second slot if there is one."""
        if self._config.slots == 2:
            seen = await self.look()
            if seen.image is None and seen.version is None:
                raise ProgramError(
                    f"{self._config.program[0]} probe tells neither version nor sha256: a device with two slots must"
                )
        await self._ask("stage", self._config.stage_timeout_s, image)
        progress(image.size)

    async def start(self, image: KeptImage) -> None:
        """Ask `activate`."""
        await self._ask("activate", self._config.activate_timeout_s, image)

    async def go_back(self, image: KeptImage | None) -> None:
        """Ask `activate` for the image before where there is one slot, `revert` where there are two."""
        if self._config.slots == 1:
            await self._ask("activate", self._config.activate_timeout_s, image)
        else:
            await self._ask("revert", self._config.revert_timeout_s)

    async def confirm(self, image: KeptImage) -> None:
        """Ask `confirm`."""
        await self._ask("confirm", self._config.confirm_timeout_s, image)

    async def prefer(self, image: KeptImage) -> None:
        """Nothing that a program is told: what a start of the device brings is its own."""

    async def read_back(self, target: Path, max_bytes: int) -> bool:
        """Ask `read`, where the program can."""
        if not self._config.reads:
            return False
        await self._ask("read", self._config.read_timeout_s, target=target, max_bytes=max_bytes)
        size = await asyncio.to_thread(_size, target)
        if size is None or not 0 < size <= max_bytes:
            found = "no file" if size is None else f"{size} bytes"
            raise ProgramError(
                f"{self._config.program[0]} was to copy what runs to {target} (1 to {max_bytes} bytes), and left {found}"
            )
        return True

    async def _ask(self, word: str, timeout_s: float, image: KeptImage | None = None, **more: object) -> _Answer:
        question = json.dumps(self._question(word, image, **more)).encode() + b"\n"
        name = f"{self._config.program[0]} {word}"
        answered = await ask_program(self._config.program, question, timeout_s=timeout_s, max_bytes=MAX_ANSWER_BYTES)
        if answered.answer is None:
            raise ProgramError(f"{name} wrote more than {MAX_ANSWER_BYTES} bytes of answer, and was ended")
        if answered.status != 0:
            how = "did not end by itself" if answered.status is None else f"ended with status {answered.status}"
            raise ProgramError(f"{name} {how}: {answered.complaint or 'it said nothing on standard error'}")
        answer = _read(name, answered.answer)
        if answer.result == "unsuitable":
            raise DeviceImageError(f"{name} refuses the image: {answer.reason or 'it gives no reason'}")
        if answer.result == "failed":
            raise HandlerError(f"{name} failed: {answer.reason or answered.complaint or 'it gives no reason'}")
        return answer

    def _question(self, word: str, image: KeptImage | None, **more: object) -> Mapping[str, object]:
        config = self._config
        known = {"contract": CONTRACT, "word": word, "address": config.address, "settings": dict(config.settings)}
        told = {"device": config.device, **{key: str(value) if isinstance(value, Path) else value for key, value in more.items()}}
        if image is None:
            return {**known, **told}
        about = {"path": str(image.path), "size": image.size, "sha256": image.digest, "version": image.version}
        return {**known, **told, "image": about}


def _read(name: str, answer: bytes) -> _Answer:
    try:
        return _ANSWER.validate_python(json.loads(answer))
    except (ValueError, RecursionError) as error:
        shown = answer[:200].decode("utf-8", "backslashreplace")
        why = "; ".join(each["msg"] for each in error.errors()) if isinstance(error, ValidationError) else "it is no JSON"
        raise ProgramError(f"{name} answered {shown!r}, which is no answer of the contract: {why[:300]}") from error


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def create(config: CommandConfig, surroundings: Surroundings) -> ShelfDevice:
    """The driver. Errors: `ConfigurationError`."""
    single = config.slots == 1
    capabilities = Capabilities(
        stage=not single,
        trial=True,
        hold=True,
        revert=not config.accept_no_way_back or not single,
        resume=False,
        needs_power_cycle=config.needs_power_cycle,
        reflash=single,
    )
    patience = Patience(config.start_timeout_s, config.watch_s, config.poll_interval_s)
    habits = Habits(
        config.names,
        config.device,
        config.selection,
        config.slot_bytes,
        capabilities,
        patience,
        installed=config.installed,
        own_way_back=not single,
        accept_no_way_back=config.accept_no_way_back,
    )
    shelf = Shelf(surroundings.disk, config.archive or surroundings.state / "images")
    return ShelfDevice(CommandMachine(config), habits, shelf, surroundings)
