"""What the driver makes of RAUC's words, without RAUC: its configuration, its answers, and its bootchooser as a bootloader."""

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node_agent.bootloaders.none import NoBootloader
from node_agent.drivers.driver import SlotState, Surroundings
from node_agent.drivers.installers.rauc import RaucConfig, RaucDriver
from node_agent.drivers.installers.rauc_bootchooser import RaucBootchooser
from node_agent.drivers.installers.rauc_slots import RaucState, read_state, read_system
from node_agent.drivers.slots.records import SlotRecord, SlotRecords
from tests.builders import rauc
from tests.builders.bundles import DEMO, describe, signed, verified
from tests.node_agent.doubles import NoChunks
from update.bundle.rauc_layout import RaucFormat
from update.bundle.rauc_reader import verify_rauc_bundle
from update.bundle.verified import VerifiedRaucBundle
from update.digest import digest_of
from update.durable import Disk
from update.errors import (
    BootloaderError,
    ConfigurationError,
    HandlerError,
    HardwareError,
    MissingExtraError,
    ReadBackError,
    SlotError,
    UnsupportedError,
)

CONF = f"[system]\ncompatible={rauc.COMPATIBLE}\nbootloader=uboot\nactivate-installed=false\n"
IMAGE = b"\x5a" * 8192
PROPERTIES = {"Compatible": rauc.COMPATIBLE, "Variant": ""}
TOLD = {"status": "ok", "sha256": digest_of(IMAGE), "size": len(IMAGE)}


def state(*, primary: str = "rootfs.0", booted: str = "a", b: dict[str, object] | None = None) -> RaucState:
    slots = [
        (f"rootfs.{number}", {"class": "rootfs", "bootname": name, "state": "booted" if name == booted else "inactive"})
        for number, name in enumerate("ab")
    ]
    slots[1][1].update(b or {})  # type: ignore[arg-type]  # RAUC's values are of any type
    return read_state(slots, primary, PROPERTIES)


@dataclass
class Rauc:
    """A service that does what `Mark` and `InstallBundle` are for, or what a test makes of it."""

    state: RaucState
    said: list[tuple[str, str]] = field(default_factory=list)
    installs: Callable[["Rauc"], None] = lambda _self: None
    percents: tuple[int, ...] = (0, 40, 20, 100)

    async def look(self) -> RaucState:
        return self.state

    async def mark(self, state: str, slot: str) -> None:
        self.said.append((state, slot))
        if state == "active":
            self.state = replace(self.state, primary=slot)

    async def install(self, file: Path, percent: Callable[[int], None], timeout_s: float) -> None:
        assert timeout_s > 0
        for each in self.percents:
            percent(each)
        self.said.append(("install", file.suffix))
        self.installs(self)


def driver(folder: Path, service: Rauc, conf: str = CONF) -> RaucDriver:
    (folder / "system.conf").write_text(conf)
    made = RaucDriver(RaucConfig(folder / "system.conf"), Surroundings(Disk(), folder / "state", DEMO, NoBootloader()))
    made._service = service
    return made


def raucb(folder: Path, **manifest: str) -> VerifiedRaucBundle:
    data = rauc.payload(4)
    more = f"\n[image.rootfs]\nfilename=rootfs.img\nsha256={digest_of(IMAGE)}\nsize={len(IMAGE)}\n"
    text = rauc.manifest(data, more=more, **manifest)  # type: ignore[arg-type]  # only its texts are given
    return verify_rauc_bundle(rauc.written(folder, rauc.bundle(data, text=text)), rauc.policy())


def filled(folder: Path, content: bytes = IMAGE, more: dict[str, object] | None = None) -> Callable[[Rauc], None]:
    """An installation after which slot b holds `content`, and RAUC says `TOLD` and `more` of it."""

    def install(service: Rauc) -> None:
        (folder / "b.img").write_bytes(content)
        told = {**TOLD, "type": "raw", "device": str(folder / "b.img"), "bundle.version": "1.2.0", **(more or {})}
        service.state = replace(state(b=told), primary=service.state.primary)

    return install


async def test_a_bundle_is_installed_read_back_and_remembered(tmp_path: Path) -> None:
    service, seen = Rauc(state(), installs=filled(tmp_path)), []
    made, bundle = driver(tmp_path, service), raucb(tmp_path)
    written = await made.write(bundle, NoChunks(), lambda done, total: seen.append((done, total)))
    assert (written.slot, written.image_bytes, written.parts) == ("b", len(IMAGE), {"rootfs.1": digest_of(IMAGE)})
    assert service.said == [("good", "rootfs.0"), ("install", ".raucb")]
    assert (seen, seen[-1]) == (sorted(seen), (bundle.payload_bytes, bundle.payload_bytes))
    (_, b) = await made.slots()
    assert (b.state, b.version, b.bundle, b.trial) == (SlotState.PENDING, "1.2.0", bundle.digest, False)


async def test_what_is_in_the_slot_already_is_not_installed_again(tmp_path: Path) -> None:
    service = Rauc(state(), installs=filled(tmp_path))
    made, bundle = driver(tmp_path, service), raucb(tmp_path)
    for _ in range(2):
        await made.write(bundle, NoChunks(), lambda _done, _total: None)
    assert [word for word, _ in service.said].count("install") == 1


async def test_a_slot_that_reads_back_otherwise_is_not_complete(tmp_path: Path) -> None:
    made = driver(tmp_path, Rauc(state(), installs=filled(tmp_path, IMAGE[:-1] + b"\0")))
    with pytest.raises(ReadBackError, match="holds"):
        await made.write(raucb(tmp_path), NoChunks(), lambda _done, _total: None)
    assert (await made.slots())[1].state is SlotState.EMPTY


async def test_a_status_that_names_another_image_than_the_manifest_is_not_believed(tmp_path: Path) -> None:
    content = b"other"
    told: dict[str, object] = {"sha256": digest_of(content), "size": len(content)}
    made = driver(tmp_path, Rauc(state(), installs=filled(tmp_path, content, told)))
    with pytest.raises(ReadBackError, match="the bundle's image is"):
        await made.write(raucb(tmp_path), NoChunks(), lambda _done, _total: None)


async def test_without_a_status_file_nothing_proves_a_write(tmp_path: Path) -> None:
    made = driver(tmp_path, Rauc(state(), installs=filled(tmp_path, more={"status": "pending"})))
    with pytest.raises((HandlerError, ReadBackError)):
        await made.write(raucb(tmp_path), NoChunks(), lambda _done, _total: None)
    assert (await made.slots())[1].state is SlotState.EMPTY


async def test_a_service_that_switches_by_itself_is_switched_back(tmp_path: Path) -> None:
    def install(service: Rauc) -> None:
        filled(tmp_path)(service)
        service.state = replace(service.state, primary="rootfs.1")

    service = Rauc(state(), installs=install)
    with pytest.raises(SlotError, match="activate-installed=false"):
        await driver(tmp_path, service).write(raucb(tmp_path), NoChunks(), lambda _done, _total: None)
    assert (service.state.primary, service.said[-1]) == ("rootfs.0", ("active", "rootfs.0"))


@pytest.mark.parametrize(
    ("conf", "manifest", "error"),
    [
        (CONF, {"compatible": "other"}, HardwareError),
        (CONF + "bundle-formats=-verity\n", {}, UnsupportedError),
        (CONF + "bundle-formats=plain crypt\n", {}, UnsupportedError),
    ],
)
async def test_what_rauc_would_refuse_is_refused_before_it_is_asked(
    tmp_path: Path, conf: str, manifest: dict[str, str], error: type[Exception]
) -> None:
    service = Rauc(state())
    with pytest.raises(error):
        await driver(tmp_path, service, conf).write(raucb(tmp_path, **manifest), NoChunks(), lambda _done, _total: None)
    assert "install" not in dict(service.said)


async def test_a_swu_bundle_is_not_for_rauc(tmp_path: Path) -> None:
    bundle = verified(signed(tmp_path, describe(scripts=[]), {}))
    with pytest.raises(UnsupportedError, match="no RAUC bundle"):
        await driver(tmp_path, Rauc(state())).write(bundle, NoChunks(), lambda _done, _total: None)


async def test_a_slot_that_somebody_else_installed_into_is_no_longer_what_the_record_says(tmp_path: Path) -> None:
    service = Rauc(state(), installs=filled(tmp_path))
    made = driver(tmp_path, service)
    await made.write(raucb(tmp_path), NoChunks(), lambda _done, _total: None)
    filled(tmp_path, more={"sha256": "0" * 64, "bundle.version": "9.9"})(service)
    (_, b) = await made.slots()
    assert (b.state, b.version, b.bundle) == (SlotState.EMPTY, "9.9", None)
    with pytest.raises(SlotError):
        await made.activate()


@pytest.mark.parametrize(
    ("record", "kept"),
    [
        (SlotRecord(), True),
        (SlotRecord(SlotState.CONFIRMED, "1"), True),
        (SlotRecord(SlotState.PENDING, "1", activated=True), False),
        (SlotRecord(SlotState.BAD, "1"), False),
    ],
)
async def test_a_start_is_kept_once_unless_it_is_a_trial_or_was_left(tmp_path: Path, record: SlotRecord, kept: bool) -> None:
    service = Rauc(state(booted="b", primary="rootfs.1"))
    SlotRecords(Disk(), tmp_path / "state/slots").write("b", record)
    made = driver(tmp_path, service)
    for _ in range(2):
        await made.slots()
    assert service.said == ([("good", "rootfs.1")] if kept else [])


ACTIVATED = SlotRecord(SlotState.PENDING, "2", activated=True)


@pytest.mark.parametrize(
    ("now", "records", "expected"),
    [
        (state(), {}, (None, None)),
        (state(primary="rootfs.1"), {}, ("b", None)),
        (state(primary="rootfs.1"), {"b": ACTIVATED}, ("b", None)),
        (state(), {"b": ACTIVATED}, (None, "b")),
        (
            state(b={"installed.timestamp": "2026-11-20T02", "activated.timestamp": "2026-11-20T01"}),
            {"b": ACTIVATED},
            (None, None),
        ),
        (
            state(b={"installed.timestamp": "2026-11-20T01", "activated.timestamp": "2026-11-20T02"}),
            {"b": ACTIVATED},
            (None, "b"),
        ),
        (state(booted="b", primary="rootfs.1"), {"b": ACTIVATED}, ("b", None)),
        (state(booted="b", primary="rootfs.0"), {"b": ACTIVATED}, ("b", None)),  # the last start that the bootloader grants
        (state(booted="b", primary="rootfs.0"), {"b": SlotRecord(SlotState.BAD)}, (None, None)),
    ],
)
def test_trials_and_failures_are_told_from_what_starts_next_and_from_the_records(
    tmp_path: Path, now: RaucState, records: dict[str, SlotRecord], expected: tuple[str | None, str | None]
) -> None:
    kept = SlotRecords(Disk(), tmp_path)
    for slot, record in records.items():
        kept.write(slot, record)
    bootchooser = RaucBootchooser(Rauc(now), kept)
    assert (bootchooser.trial(), bootchooser.failed()) == expected


def test_a_slot_is_left_for_the_other_one_even_where_bad_alone_does_not_switch(tmp_path: Path) -> None:
    service = Rauc(state(booted="b", primary="rootfs.1"))
    RaucBootchooser(service, SlotRecords(Disk(), tmp_path)).mark_bad("b")
    assert service.said == [("bad", "rootfs.1"), ("active", "rootfs.0")]


def test_only_a_running_slot_is_marked_good_and_nobody_sets_variables(tmp_path: Path) -> None:
    bootchooser = RaucBootchooser(Rauc(state()), SlotRecords(Disk(), tmp_path))
    with pytest.raises(BootloaderError, match="only a running slot"):
        bootchooser.mark_good("b")
    with pytest.raises(BootloaderError, match="no boot variables"):
        bootchooser.try_once("b", {"release": "2"})
    with pytest.raises(BootloaderError, match="'c'"):
        bootchooser.try_once("c", {})


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        ("[system]\nbootloader=uboot\n", "activate-installed"),
        ("[system]\nbootloader=uboot\nactivate-installed=true\n", "activate-installed"),
        ("[system]\nbootloader=noop\nactivate-installed=false\n", "noop"),
        ("[system]\nactivate-installed=false\n", "bootloader"),
        (CONF + "bundle-formats=tar\n", "tar"),
        ("bootloader=uboot\n", "line 1"),
    ],
)
def test_a_system_conf_that_no_trial_can_be_held_under_is_refused(conf: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        read_system(conf.encode(), "/etc/rauc/system.conf")


def test_a_system_conf_says_formats_parents_and_the_least_version() -> None:
    text = f"{CONF}bundle-formats=verity\nmin-bundle-version=1.2\n[slot.appfs.1]\nparent=rootfs.1\n[slot.rootfs.1]\nbootname=b\n"
    system = read_system(text.encode(), "system.conf")
    assert (set(system.formats), system.min_bundle_version) == ({RaucFormat.VERITY}, "1.2")
    assert system.parents["appfs.1"] == "rootfs.1"
    assert read_system(f"{CONF}bundle-formats=-plain\n".encode(), "x").formats == {RaucFormat.VERITY, RaucFormat.CRYPT}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["class", "size", "bootname", "Compatible"]), inner)
    ),
    max_leaves=9,
)


@settings(max_examples=100, deadline=None)
@given(_JSON, _JSON, _JSON)
def test_whatever_a_service_answers_is_read_or_refused_by_name(slots: object, primary: object, properties: object) -> None:
    with suppress(BootloaderError):
        read_state(slots, primary, properties).pair()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: f"{CONF}{text}".encode()))
def test_whatever_a_system_conf_holds_is_read_or_refused_by_name(data: bytes) -> None:
    with suppress(ConfigurationError):
        read_system(data, "system.conf")


def test_devices_without_two_slots_or_a_booted_one_are_refused() -> None:
    alone = [("rootfs.0", {"class": "rootfs", "bootname": "a", "state": "booted"})]
    with pytest.raises(BootloaderError, match="1 slots"):
        read_state(alone, "rootfs.0", PROPERTIES).pair()
    with pytest.raises(BootloaderError, match="which slot is booted"):
        state(booted="c").booted()


def test_without_dbus_fast_the_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "system.conf").write_text(CONF)
    monkeypatch.setitem(sys.modules, "node_agent.drivers.installers.rauc_bus", None)
    with pytest.raises(MissingExtraError, match=r"fieldrelay\[dbus\]"):
        RaucDriver(RaucConfig(tmp_path / "system.conf"), Surroundings(Disk(), tmp_path, DEMO, NoBootloader()))


async def test_a_bus_that_is_not_there_is_a_bootloader_that_cannot_be_asked(tmp_path: Path) -> None:
    (tmp_path / "system.conf").write_text(CONF)
    config = RaucConfig(tmp_path / "system.conf", f"unix:path={tmp_path / 'nothing'}")
    made = RaucDriver(config, Surroundings(Disk(), tmp_path / "state", DEMO, NoBootloader()))
    with pytest.raises(BootloaderError, match="cannot be reached"):
        await made.slots()
    with pytest.raises(BootloaderError):
        await asyncio.to_thread(NoBootloader().booted)
