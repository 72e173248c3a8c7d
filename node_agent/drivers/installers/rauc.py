"""A device whose slots RAUC writes, and whose bootloader RAUC's bootchooser drives: the agent decides, RAUC does.

The bundle was verified completely before it gets here, and RAUC verifies it again. What RAUC would refuse
(`update.bundle.rauc_rules`) is refused before it is asked; of a `plain` bundle, whose manifest cannot be read without
unpacking, RAUC alone judges, before the first byte as well.

| word | RAUC |
|---|---|
| `write` | `InstallBundle` under `activate-installed=false` (`rauc_slots.read_system` insists); raw slots are read back |
| `activate` | `Mark active` of the written slot: the bootchooser counts its starts and falls back by itself |
| `confirm` | `Mark good` of the booted slot |
| `revert` | `Mark bad` of the left one, and `Mark active` of the other where that alone does not make it primary |

RAUC does not know what a trial is; it knows which slot starts next. So the records (`slots.records`) remember what was
activated and not yet confirmed. A slot that somebody else had RAUC install into holds another content than its record says
(SHA-256 in RAUC's status file): then the record is forgotten.

Bootchoosers count every start, not only those of a trial, until somebody says `good`. The agent says it once per process of
every slot that is not on trial, which is why `rauc-mark-good.service` must not run: it would confirm a trial untested.
"""

import asyncio
import hashlib
from pathlib import Path
from typing import Annotated, Final, Protocol

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from node_agent.drivers.driver import (
    Capabilities,
    ChunkSource,
    Progress,
    Restart,
    SlotState,
    SlotStatus,
    Surroundings,
    Written,
    bundle_identity,
)
from node_agent.drivers.installers.rauc_bootchooser import RaucBootchooser, Service
from node_agent.drivers.installers.rauc_slots import RaucSlot, RaucState, read_system
from node_agent.drivers.slots.records import PartRecord, SlotRecord, SlotRecords
from node_agent.drivers.slots.restart import restart_by
from node_agent.drivers.slots.switch import SlotSwitch
from update.bundle.rauc_rules import judge_rauc
from update.bundle.verified import AnyBundle, VerifiedRaucBundle
from update.digest import Digest
from update.errors import HandlerError, MissingExtraError, ReadBackError, SlotError, UnsupportedError
from update.provided import read_provided

_AS_WRITTEN: Final = "raw"
"""The type of a slot whose device holds the image byte for byte; RAUC may resize a file system, or unpack into one."""
_BLOCK_BYTES = 1 << 20
_HUNDRED = 100

_Seconds = Annotated[float, Field(gt=0, le=86400)]


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class RaucConfig:
    """Where RAUC is configured and reached. An empty `restart` leaves it to the supervisor.

    `several_signers`: this RAUC takes bundles that several have signed (1.8 takes one signer only).
    """

    system_conf: Path = Path("/etc/rauc/system.conf")
    bus: str = ""
    restart: tuple[str, ...] = ()
    several_signers: bool = False
    answer_timeout_s: _Seconds = 30.0
    install_timeout_s: _Seconds = 3600.0


class Installer(Service, Protocol):
    """RAUC's service, installing: `rauc_bus.RaucBus`."""

    async def install(self, file: Path, percent: "_Percent", timeout_s: float) -> None:
        """Install `file` into the inactive slot."""
        ...


class _Percent(Protocol):
    def __call__(self, percent: int, /) -> None: ...


class RaucDriver:
    """`Driver` for one device with RAUC. An interrupted write begins anew: RAUC does not resume."""

    capabilities = Capabilities(stage=True, trial=True, hold=True, revert=True, resume=False, needs_power_cycle=False)

    def __init__(self, config: RaucConfig, surroundings: Surroundings) -> None:
        """`ConfigurationError` for a system.conf that does not fit, `MissingExtraError` without dbus-fast."""
        self._config = config
        self._system = read_system(read_provided(config.system_conf), str(config.system_conf))
        self._records = SlotRecords(surroundings.disk, surroundings.state / "slots")
        self._service = _service(config)
        self._start_is_kept = False

    async def slots(self) -> tuple[SlotStatus, ...]:
        """Both slots as they are now."""
        return await asyncio.to_thread(self._switch(await self._look()).slots)

    async def write(self, bundle: AnyBundle, _chunks: ChunkSource, progress: Progress) -> Written:
        """Judge the bundle for this device, have RAUC install it into the inactive slot, read back."""
        if not isinstance(bundle, VerifiedRaucBundle):
            raise UnsupportedError(f"{bundle.file.name} is no RAUC bundle, and RAUC installs this node; publish a .raucb for it")
        state = await self._look()
        self._judge(bundle, state)
        slot = await asyncio.to_thread(self._switch(state).inactive)
        identity = bundle_identity(bundle)
        record = await asyncio.to_thread(self._records.read, slot)
        if (record.state, record.bundle) != (SlotState.PENDING, identity):
            await asyncio.to_thread(self._records.write, slot, SlotRecord(writing=identity))
            await self._service.install(bundle.file, _Scaled(progress, bundle.payload_bytes), self._config.install_timeout_s)
            state = await self._look()
            await self._refuse_switched(state)
        parts = await asyncio.to_thread(self._read_back, bundle, state, slot)
        record = SlotRecord(SlotState.PENDING, _version(bundle, state.called(slot)), identity, parts=parts)
        await asyncio.to_thread(self._records.write, slot, record)
        progress(bundle.payload_bytes, bundle.payload_bytes)
        digests = {name: part.digest for name, part in parts.items()}
        return Written(slot, sum(part.size for part in parts.values()), 0, 0, 0, digests)

    async def activate(self) -> None:
        """Have the bootchooser try the written slot."""
        await asyncio.to_thread(self._switch(await self._look()).activate)

    async def restart(self) -> Restart:
        """Run the restart command, or leave it to the supervisor."""
        return await restart_by(self._config.restart)

    async def confirm(self) -> None:
        """Keep the running slot."""
        await asyncio.to_thread(self._switch(await self._look()).confirm)

    async def revert(self) -> None:
        """Return to the previous slot."""
        await asyncio.to_thread(self._switch(await self._look()).revert)

    async def _look(self) -> RaucState:
        """RAUC's slots, after forgetting records of what is not in them any more."""
        state = await self._service.look()
        await asyncio.to_thread(self._forget_replaced, state)
        if not self._start_is_kept:
            await self._keep_start(state.booted())
            self._start_is_kept = True
        return state

    async def _keep_start(self, booted: RaucSlot) -> None:
        """Once per process: a start that is no trial went well, or the bootchooser would count it against the slot."""
        record = await asyncio.to_thread(self._records.read, booted.bootname)
        if not (record.activated or record.state is SlotState.BAD):
            await self._service.mark("good", booted.name)

    def _switch(self, state: RaucState) -> SlotSwitch:
        names = [slot.bootname for slot in state.pair()]
        return SlotSwitch(names, RaucBootchooser(self._service, self._records), self._records)

    def _forget_replaced(self, state: RaucState) -> None:
        for slot in state.pair():
            record = self._records.read(slot.bootname)
            found = {each.name: each.content for each in state.group(slot.bootname, self._system)}
            if any(found.get(name) != (part.digest, part.size) for name, part in record.parts.items()):
                self._records.write(slot.bootname, SlotRecord(version=slot.version or None))

    def _judge(self, bundle: VerifiedRaucBundle, state: RaucState) -> None:
        if bundle.manifest is not None:
            node = state.node(self._system, several_signers=self._config.several_signers)
            judge_rauc(bundle.manifest, node, signers=len(bundle.signers))

    async def _refuse_switched(self, state: RaucState) -> None:
        """RAUC runs under another system.conf than the one that was read: take its switch back."""
        booted = state.booted()
        if state.primary != booted.name:
            await self._service.mark("active", booted.name)
            raise SlotError(
                f"rauc made {state.primary} the next one when it had written it; restart its service, so that it reads "
                f"{self._config.system_conf} (activate-installed=false)"
            )

    def _read_back(self, bundle: VerifiedRaucBundle, state: RaucState, slot: str) -> dict[str, PartRecord]:
        """What RAUC says that it wrote, compared with the signed manifest and with what raw devices hold."""
        group = state.group(slot, self._system)
        written = {each.name: PartRecord(each.content[1], each.content[0]) for each in group if each.content is not None}
        wanted = _wanted(bundle, state)
        for each in group:
            part = written.get(each.name)
            if (digest := wanted.get(each.slot_class)) is not None and (part is None or part.digest != digest):
                raise ReadBackError(f"rauc's status says of {each.name} {part and part.digest}, the bundle's image is {digest}")
            if part is not None and each.type == _AS_WRITTEN:
                _compare(each, part)
        if not written:
            raise HandlerError(f"rauc names no content of {slot} after installing; give it a statusfile in system.conf")
        return written


class _Scaled:
    """RAUC's percents as bytes of the payload; they never fall."""

    def __init__(self, progress: Progress, total_bytes: int) -> None:
        self._progress = progress
        self._total_bytes = total_bytes
        self._highest = 0

    def __call__(self, percent: int, /) -> None:
        self._highest = max(self._highest, min(percent, _HUNDRED))
        self._progress(self._total_bytes * self._highest // _HUNDRED, self._total_bytes)


def _service(config: RaucConfig) -> Installer:
    try:
        from node_agent.drivers.installers.rauc_bus import RaucBus  # noqa: PLC0415 - an optional library, as permitted
    except ImportError as error:
        raise MissingExtraError("the driver rauc needs dbus-fast; install fieldrelay[dbus] on this node") from error
    return RaucBus(config.bus, config.answer_timeout_s, config.install_timeout_s)


def _wanted(bundle: VerifiedRaucBundle, state: RaucState) -> dict[str, Digest]:
    """The digest of each slot class's image, as far as the manifest names one for this device."""
    if bundle.manifest is None:
        return {}
    images = [image for image in bundle.manifest.images if not image.artifact and image.variant in {"", state.variant}]
    ordered = sorted(images, key=lambda image: image.variant)  # the variant's own one counts, where there are both
    return {image.slot_class: image.sha256 for image in ordered if image.sha256 is not None}


def _version(bundle: VerifiedRaucBundle, slot: RaucSlot) -> str | None:
    return (bundle.manifest.version if bundle.manifest else slot.version) or None


def _compare(slot: RaucSlot, part: PartRecord) -> None:
    state, left = hashlib.sha256(), part.size
    try:
        with Path(slot.device).open("rb") as device:
            while left and (block := device.read(min(_BLOCK_BYTES, left))):
                state.update(block)
                left -= len(block)
    except OSError as error:
        raise ReadBackError(f"cannot read {slot.device} of {slot.name} back: {error.strerror or error}") from error
    if (found := state.hexdigest()) != part.digest:
        raise ReadBackError(f"{slot.name}: rauc wrote sha256 {part.digest}, {slot.device} holds {found}; the medium is failing")
