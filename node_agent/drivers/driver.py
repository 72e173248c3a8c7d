"""What an update needs of any device, in six words: slots, write, activate, restart, confirm, revert.

The rules every driver keeps (the contract suite in `tests/contract` pins them):

1. `write` touches only the inactive slot, refuses what does not fit before the first byte, reads back what it wrote,
   and never commits: after it, or after a power loss in the middle of it, the device starts what it ran before.
2. `write` is idempotent and resumes: what is already in place is neither fetched nor written again. It is refused
   while a trial is open, because the inactive slot is then the only way back.
3. `activate` makes the next start a trial of what was written completely; one atomic write.
4. `confirm` ends the trial well, `revert` ends it otherwise; both may be called again after a power loss.
5. The caller never calls two of them at once; a second process is kept out by the agent's lock.

A slot is a *group of parts* (kernel image and root file system), written separately, activated once.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

from node_agent.bootloaders.bootloader import Bootloader
from update.bundle.verified import AnyBundle, VerifiedBundle
from update.chunks.pair import PatchOffer
from update.digest import Digest
from update.durable import Disk
from update.errors import UnsupportedError
from update.identity import Hardware

RESTART_STATUS: Final = 100
"""Exit status of an agent whose driver answered `Restart.BY_EXIT`: its supervisor restarts the device."""

Progress = Callable[[int, int], None]
"""Called with (image bytes in place so far, image bytes in all); cheap, and never raises."""


class SlotState(StrEnum):
    """What may be done with a slot."""

    ACTIVE = "active"  # it runs, and no trial is open: a restart comes back to it
    PENDING = "pending"  # written completely, not confirmed: not yet activated, or on trial (and then perhaps running)
    CONFIRMED = "confirmed"  # it ran well, and does not run now: the device can return to it
    BAD = "bad"  # its trial failed, or it was left by `revert`
    EMPTY = "empty"  # nothing complete is in it: never written, or a write was interrupted


@dataclass(frozen=True, slots=True)
class SlotStatus:
    """One slot as the device and the driver's records tell it; version and bundle are None where nobody recorded them.

    `trial` tells the two kinds of PENDING apart: an activated slot is on trial (it starts next, or runs now), a slot that
    was only written is not.
    """

    name: str
    state: SlotState
    version: str | None
    bundle: Digest | None
    booted: bool
    trial: bool = False


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a device can do; a plan that needs more is refused in advance."""

    stage: bool  # it can be written while the old version runs
    trial: bool  # a new version is on trial until confirmed
    hold: bool  # the trial may last until a decision arrives from outside
    revert: bool  # it returns to the previous version, by itself or on demand
    resume: bool  # an interrupted write goes on where it stopped
    needs_power_cycle: bool  # only a power cycle starts the new version
    reflash: bool = False  # it has one slot: `revert` writes the image before it again, from the copy that is kept here

    @property
    def way_back(self) -> str:
        """How it returns to what it ran, in words for people."""
        if not self.revert:
            return "none"
        return "by re-flashing" if self.reflash else "by switching"


@dataclass(frozen=True, slots=True)
class Written:
    """What a write did. Counts are bytes of the image, except `downloaded_bytes`, which came off the wire.

    `parts` maps each part's device, as sw-description names it, to the digest that pins its content: sha256 of the plain
    image for a raw one, of the zchunk header for a delta.
    """

    slot: str
    image_bytes: int
    downloaded_bytes: int  # compressed bytes received from the chunk source
    reused_bytes: int  # taken from the old slot, or in place already
    zero_bytes: int  # null chunks, written without download
    parts: Mapping[str, Digest] = field(default_factory=dict)


def bundle_identity(bundle: AnyBundle) -> Digest:
    """What `SlotStatus.bundle` says of a slot that holds `bundle`: the target's SHA-256 where TUF named the file.

    Without TUF there is no digest that is known before the file is read; then it is that of the description or manifest,
    which survives a new signature.
    """
    return bundle.digest if bundle.target is None else bundle.target.sha256


def need_swu(bundle: AnyBundle) -> VerifiedBundle:
    """`bundle` for a driver that takes `.swu` only; `UnsupportedError` for a RAUC bundle."""
    if not isinstance(bundle, VerifiedBundle):
        raise UnsupportedError(f"{bundle.file.name} is a RAUC bundle, and this node's driver installs .swu; use the driver rauc")
    return bundle


class Restart(StrEnum):
    """How a restart comes about."""

    BY_EXIT = "by-exit"  # the agent must now end with RESTART_STATUS
    COMMANDED = "commanded"  # the machine is going down: the agent ends in order and starts nothing new
    DONE = "done"  # the device restarted while the agent stayed up (devices that the gateway looks after)


class ChunkSource(Protocol):
    """Where a driver gets the bytes of a remote `.zck`."""

    def read_ranges(self, url: str, ranges: Sequence[tuple[int, int]]) -> AsyncIterator[tuple[int, bytes]]:
        """Yield (offset in the `.zck`, bytes) covering every (start, length) of `ranges`, ascending and without overlap.

        Pieces may have any size and need not respect the ranges' borders. Errors: `WireError`. Verification is the caller's.
        """
        ...

    async def find_patch(self, url: str, base: Digest) -> PatchOffer | None:
        """The pair patch to the image of `url` from the one whose zchunk header has SHA-256 `base`; None if none is offered.

        May wait a while for one that is being made. Errors: `WireError`.
        """
        ...

    def read_patch(self, url: str, base: Digest, offer: PatchOffer) -> AsyncGenerator[bytes, None]:
        """Its bytes, in order. Errors: `WireError`. They prove nothing: verification is the caller's."""
        ...

    @property
    def patch_memory_bytes(self) -> int:
        """How much memory the application of a patch may take."""
        ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every driver is built from beside its own configuration; `state` is the node's folder outside the slots."""

    disk: Disk
    state: Path
    hardware: Hardware
    bootloader: Bootloader


class Driver(Protocol):
    """One device with two slots."""

    @property
    def capabilities(self) -> Capabilities:
        """What this device can do; constant."""
        ...

    async def slots(self) -> tuple[SlotStatus, ...]:
        """Every slot, in the order of the configuration. Errors: `BootloaderError`, `StoreError`."""
        ...

    async def write(self, bundle: AnyBundle, chunks: ChunkSource, progress: Progress) -> Written:
        """Bring the inactive slot to the bundle's content (rules 1 and 2).

        Errors: `SlotError`, `ReadBackError`, `HandlerError`, `BootloaderError`, any `BundleError` (`UnsupportedError` for the
        other kind of bundle), `WireError` of the chunks.
        """
        ...

    async def activate(self) -> None:
        """Make the next start a trial of the written slot; again is no error. Errors: `SlotError`, `BootloaderError`."""
        ...

    async def restart(self) -> Restart:
        """Restart the device, or say how it will come about. Errors: `DeviceError`."""
        ...

    async def confirm(self) -> None:
        """Keep the running slot for good; again is no error.

        Errors: `SlotError` if it is not what was activated, `BootloaderError`.
        """
        ...

    async def revert(self) -> None:
        """Make the previous slot primary again; the caller restarts if the left one runs. Again is no error.

        Errors: `SlotError` if there is nothing complete to return to, `BootloaderError`.
        """
        ...
