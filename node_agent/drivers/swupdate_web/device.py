"""A device with a stock SWUpdate and its webserver, as a `Driver`: what its six words mean where only uploads are possible.

| word | what happens |
|---|---|
| `write` | the verified bundle is copied to the archive here; the device hears nothing |
| `activate` | it is uploaded; SWUpdate verifies and installs it, and sets its boot variables last, in one write |
| `restart` | SWUpdate runs its post-update command; the driver waits until the device has come back |
| `confirm` | the integrator's command, if there is one; the device confirms itself otherwise |
| `revert` | the bundle before is uploaded once more, from the archive |

1. SWUpdate commits what it installs. So `write` may not reach the device, or nothing would be left for `activate`.
2. What runs is told by the device (`probe`): the version says which of the two bundles it is, so a bundle of the version that
   runs is refused. A device that runs neither was changed by hand: what it runs is then taken as it is. One that has started
   since the trial was opened (another boot id), and runs what it ran before, has given the trial up.
3. Without `keep_previous`, or before the second update, there is nothing to go back to but what the device does by itself
   (`falls_back`): `revert` is refused.
4. SWUpdate's webserver runs the post-update command by itself after every upload, unless its configuration says
   `run-postupdate = false`. A device that is left so restarts when it is activated (`restarts_itself`); `restart` only waits.
5. From the first byte of an upload on, its trial is open: the device may start it. When nobody can tell whether it was installed
   (`ledger.unsure`), the next word installs again: what is tried, or what is returned to.
"""

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field
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
    need_swu,
)
from node_agent.drivers.slots.records import PartRecord, SlotRecord, SlotRecords
from node_agent.drivers.slots.switch import SlotSwitch
from node_agent.drivers.swupdate_web.archive import Archive
from node_agent.drivers.swupdate_web.ledger import SLOTS, Ledger, other
from node_agent.drivers.swupdate_web.probe import Probe, Seen
from node_agent.drivers.swupdate_web.webserver import Patience, WebServer
from node_agent.programs import run_program
from update.bundle.verified import AnyBundle, VerifiedBundle
from update.digest import Digest
from update.errors import ConfigurationError, HandlerError, SlotError, UnreachableError
from update.provided import Url

_PART = "bundle"


def _checked_pattern(text: str) -> str:
    try:
        groups = re.compile(text).groups
    except re.error as error:
        raise ValueError(f"this is no regular expression: {error}") from error
    if text and groups != 1:
        raise ValueError(f"a pattern has one group (...): what is looked for; this one has {groups}")
    return text


_Pattern = Annotated[str, Field(max_length=1000), AfterValidator(_checked_pattern)]
_Seconds = Annotated[float, Field(gt=0, le=86400)]


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class SwupdateWebConfig:
    """The device. Its version is asked of `probe_url`, or printed by `probe_command`: one of them."""

    url: Url
    probe_url: str = ""
    probe_command: tuple[str, ...] = ()
    version_pattern: _Pattern = r"(\S+)"
    boot_id_pattern: _Pattern = ""
    selection: str = ""
    confirm_command: tuple[str, ...] = ()
    keep_previous: bool = True
    falls_back: bool = False
    restarts_itself: bool = False
    connect_timeout_s: _Seconds = 10.0
    install_timeout_s: _Seconds = 1800.0
    silence_timeout_s: _Seconds = 300.0
    restart_timeout_s: _Seconds = 300.0
    probe_interval_s: _Seconds = 1.0


class SwupdateWebDriver:
    """`Driver` for one device behind its own SWUpdate."""

    def __init__(self, config: SwupdateWebConfig, surroundings: Surroundings) -> None:
        """`ConfigurationError` unless there is one way to know the version."""
        if bool(config.probe_url) == bool(config.probe_command):
            raise ConfigurationError("driver.swupdate-web: name probe_url or probe_command: how the device's version is known")
        folder = surroundings.state / "swupdate-web"
        surroundings.disk.make_folder(folder)
        self.capabilities = Capabilities(
            stage=True,
            trial=config.falls_back,
            hold=config.keep_previous,
            revert=config.keep_previous or config.falls_back,
            resume=False,
            needs_power_cycle=False,
        )
        self._config = config
        self._hardware = surroundings.hardware
        self._ledger = Ledger(surroundings.disk, folder / "ledger.json")
        self._archive = Archive(surroundings.disk, folder)
        self._records = SlotRecords(surroundings.disk, folder)
        self._switch = SlotSwitch(SLOTS, self._ledger, self._records)
        patience = Patience(config.connect_timeout_s, config.install_timeout_s, config.silence_timeout_s)
        self._server = WebServer(config.url, patience)
        patterns = (config.version_pattern, config.boot_id_pattern)
        self._probe = Probe(config.probe_url, config.probe_command, *patterns, config.connect_timeout_s)

    async def slots(self) -> tuple[SlotStatus, ...]:
        """What the device says it runs, and what is known of the other. `UnreachableError` where it does not answer."""
        seen = await self._probe.look()
        return await asyncio.to_thread(self._seen, seen)

    async def write(self, bundle: AnyBundle, _chunks: ChunkSource, progress: Progress) -> Written:
        """Keep the bundle here, ready to be uploaded."""
        swu = need_swu(bundle)
        seen = await self._probe.look()
        return await asyncio.to_thread(self._keep, swu, seen, progress)

    async def activate(self) -> None:
        """Have the device install what was written."""
        known = self._ledger.known()
        if known.trial is None or known.unsure:
            before, slot = await self._probe.look(), other(known.running)
            status = next(each for each in await self.slots() if each.name == slot)
            if status.state is SlotState.PENDING and not status.booted:
                await self._try(slot, before)
        await asyncio.to_thread(self._switch.activate)

    async def restart(self) -> Restart:
        """Restart the device, and wait until it has come back. Errors: `HandlerError`, `UnreachableError`."""
        known = self._ledger.known()
        if known.unsure and known.trial == other(known.running):
            await self.activate()
        expected, before = self._records.read(known.primary).version, Seen("")
        if not self._config.restarts_itself:
            before = await self._probe.look()
            if before.version != expected:  # else somebody was faster
                await self._server.restart()
        seen = await self._await_return(before, expected or "")
        await asyncio.to_thread(self._seen, seen, restarted=True)
        return Restart.DONE

    async def confirm(self) -> None:
        """Keep what runs; what ran before stays only as far as it can be given again."""
        running = next(each for each in await self.slots() if each.booted)
        if running.trial and self._config.confirm_command:
            ended = await run_program(self._config.confirm_command, timeout_s=self._config.connect_timeout_s, environment={})
            if not ended.succeeded:
                raise HandlerError(f"the confirm command {self._config.confirm_command[0]} {ended.describe()}")
        await asyncio.to_thread(self._confirm, running.name)

    async def revert(self) -> None:
        """Give the device again what it ran before."""
        await self.slots()
        known = self._ledger.known()
        back = other(known.trial or known.running)
        leaves = known.trial is not None or known.primary != known.running or self._can_return(back)
        if leaves and (known.starts != back or known.unsure) and not await self._leaves_to_device(back):
            await self._install(back, partial(self._note, unsure=True))
        await asyncio.to_thread(self._switch.revert)

    async def _leaves_to_device(self, back: str) -> bool:
        """Whether it is for the device's own bootloader to go back, because nothing was kept to give it (rule 3)."""
        return self._config.falls_back and not await asyncio.to_thread(self._is_kept, back)

    def _can_return(self, slot: str) -> bool:
        return self._records.read(slot).state is SlotState.CONFIRMED

    async def _try(self, slot: str, before: Seen) -> None:
        """Upload what is tried: as soon as the device may have it, the trial is open."""

        def begin() -> None:
            self._ledger.note(unsure=True, boot_id=before.boot_id)
            self._switch.activate()

        def end() -> None:
            self._ledger.note(trial=None, primary=other(slot))
            self._records.write(slot, replace(self._records.read(slot), activated=False))

        try:
            await self._install(slot, begin)
        except HandlerError:
            await asyncio.to_thread(end)
            raise

    async def _install(self, slot: str, begin: Callable[[], None]) -> None:
        """Upload the bundle of a slot (rule 5); `begin` is called, in a thread, before the first byte goes."""
        file = await asyncio.to_thread(self._archive.require, slot, self._digest(slot))
        try:
            await self._server.install(file, lambda: asyncio.to_thread(begin))
        except HandlerError:
            await asyncio.to_thread(self._note, unsure=False)  # the device says so: nothing was switched
            raise
        await asyncio.to_thread(self._note, starts=slot, unsure=False)

    def _note(self, **changes: object) -> None:
        self._ledger.note(**changes)

    async def _await_return(self, before: Seen, expected: str) -> Seen:
        """What the device runs after its restart: the expected version, another boot, or an answer after a silence.

        One that restarted before anybody looked may be back already with what it ran before: it has its time then (rule 4).
        """
        until, silent = time.monotonic() + self._config.restart_timeout_s, False
        while True:
            over = time.monotonic() > until
            try:
                seen = await self._probe.look()
            except (HandlerError, UnreachableError) as error:
                if over:
                    raise HandlerError(
                        f"the device has not come back {self._config.restart_timeout_s:g} s after: {error}"
                    ) from error
                silent = True
            else:
                rebooted = before.boot_id != seen.boot_id if before.boot_id and seen.boot_id else silent
                if seen.version == expected or rebooted or (over and self._config.restarts_itself):
                    return seen
                if over:
                    raise HandlerError(
                        f"the device was told to restart and still runs {seen.version} {self._config.restart_timeout_s:g} s "
                        "after, without having been away; does its SWUpdate have a post-update command?"
                    )
            await asyncio.sleep(self._config.probe_interval_s)

    def _seen(self, seen: Seen, *, restarted: bool = False) -> tuple[SlotStatus, ...]:
        """Note what the device runs (rule 2)."""
        known = self._ledger.known()
        running, waiting = self._records.read(known.running), self._records.read(other(known.running))
        if waiting.version == seen.version and waiting.state is not SlotState.EMPTY and running.version != seen.version:
            if waiting.state is SlotState.PENDING and known.trial is None:
                self._switch.activate()  # it restarted before its installation was noted here
            self._ledger.saw(other(known.running))
        else:
            if running.version != seen.version:
                self._archive.drop(known.running)
                self._records.write(known.running, SlotRecord(SlotState.CONFIRMED, seen.version))
            due = known.trial == other(known.running) and not known.unsure
            if restarted or (due and known.boot_id and seen.boot_id not in {"", known.boot_id}):
                self._ledger.saw(known.running)
        return self._switch.slots()

    def _keep(self, bundle: VerifiedBundle, seen: Seen, progress: Progress) -> Written:
        self._seen(seen)
        slot, version, identity = self._switch.inactive(), bundle.description.version, bundle_identity(bundle)
        software_set, _, mode = self._config.selection.partition(",")
        bundle.description.select(self._hardware, software_set, mode)
        if version in {"", seen.version}:
            raise SlotError(
                f"the bundle's version is {version or 'empty'}, and the device runs {seen.version}: by its version alone nobody "
                "could tell which of the two runs afterwards; give the bundle another version"
            )
        record, size = self._records.read(slot), bundle.file.stat().st_size
        if record.state is SlotState.PENDING and record.bundle == identity and self._is_kept(slot):
            progress(size, size)
            return Written(slot, size, 0, size, 0)
        self._records.write(slot, SlotRecord(writing=identity))
        digest, size = self._archive.keep(slot, bundle.file, progress)
        parts = {_PART: PartRecord(size, digest)}
        self._records.write(slot, SlotRecord(SlotState.PENDING, version, identity, parts=parts))
        return Written(slot, size, 0, 0, 0)

    def _confirm(self, slot: str) -> None:
        self._switch.confirm()
        if not self._config.keep_previous:
            self._archive.drop(other(slot))
        if not self._is_kept(other(slot)) and self._can_return(other(slot)):
            self._records.write(other(slot), SlotRecord())  # there is no way back to it

    def _digest(self, slot: str) -> Digest | None:
        part = self._records.read(slot).parts.get(_PART)
        return None if part is None else part.digest

    def _is_kept(self, slot: str) -> bool:
        digest = self._digest(slot)
        return digest is not None and self._archive.holds(slot, digest)
