"""What the driver makes of what `swupdate-client` says: told by clients that are small programs of the test's."""

import sys
from pathlib import Path

import pytest

from node_agent.drivers.driver import SlotState, Surroundings
from node_agent.drivers.installers import swupdate
from node_agent.drivers.installers.swupdate import SwupdateConfig, SwupdateDriver
from node_agent.drivers.slots.installed import read_back
from node_agent.drivers.slots.layout import PartConfig, SlotConfig
from node_agent.drivers.slots.plan import plan_slot
from tests.builders import rauc
from tests.builders.bundles import DEMO, describe, image, signed, verified
from tests.contract.boards import Board, simulated_board
from tests.contract.devices import linux_device, make_release, quiet, slot_path
from tests.node_agent.doubles import NoChunks
from update.bundle.rauc_reader import verify_rauc_bundle
from update.bundle.verified import VerifiedBundle
from update.durable import Disk
from update.errors import ConfigurationError, HandlerError, ReadBackError, SlotError, UnsupportedError

DATA = bytes(range(256)) * 400
# What every client does: note its arguments, read the bundle. `write(data)` is the installation.
_CLIENT = f"""#!{sys.executable}
import os, sys, time
from pathlib import Path
here = Path({{folder!r}})
with (here / "asked").open("a") as file:
    file.write(" ".join(sys.argv[1:]) + " " + os.environ.get("TMPDIR", "") + "\\n")
bundle = sys.stdin.buffer.read()
runs = len((here / "asked").read_text().splitlines())
def write(data):
    with (here / "b.img").open("r+b") as slot:
        slot.write(data)
DATA = bytes(range(256)) * 400
"""


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swupdate, "_PAUSE_S", 0.0)


class Site:
    """One device, one bundle for it, and a client."""

    def __init__(self, folder: Path, says: str, timeout_s: float = 60.0) -> None:
        for slot in "ab":
            (folder / f"{slot}.img").write_bytes(b"\xff" * 200_000)
        client = folder / "client"
        client.write_text(_CLIENT.format(folder=str(folder)) + says)
        client.chmod(0o755)
        self.folder = folder
        self.board: Board = simulated_board(folder)
        self.board.power_on()
        config = SwupdateConfig(slots(folder), str(client), folder, install_timeout_s=timeout_s)
        self.driver = SwupdateDriver(config, Surroundings(Disk(), folder / "state", DEMO, self.board.bootloader))

    def bundle(self, device: str = "") -> VerifiedBundle:
        modes = {
            f"copy{number}": {"images": [image("root.img", DATA, device=device or str(self.folder / f"{slot}.img"), type="raw")]}
            for number, slot in ((1, "a"), (2, "b"))
        }
        return verified(signed(self.folder, describe(version="2.0", stable=modes), {"root.img": DATA}))

    @property
    def asked(self) -> list[str]:
        file = self.folder / "asked"
        return file.read_text().splitlines() if file.exists() else []


def slots(folder: Path) -> tuple[SlotConfig, ...]:
    return tuple(
        SlotConfig(slot, f"stable,copy{number}", (PartConfig("root", str(folder / f"{slot}.img"), folder / f"{slot}.img"),))
        for number, slot in ((1, "a"), (2, "b"))
    )


async def test_the_selection_of_the_inactive_slot_is_asked_for_at_the_configured_sockets(tmp_path: Path) -> None:
    site, seen = Site(tmp_path, "write(DATA)"), []
    bundle = site.bundle()
    written = await site.driver.write(bundle, NoChunks(), lambda done, total: seen.append((done, total)))
    assert site.asked == [f"-v -e stable,copy2 {tmp_path}"]
    assert (written.slot, written.image_bytes) == ("b", len(DATA))
    assert (seen, seen[-1]) == (sorted(seen), (bundle.file.stat().st_size,) * 2)
    await site.driver.write(bundle, NoChunks(), quiet)
    assert len(site.asked) == 1


async def test_an_end_without_a_word_is_no_verdict(tmp_path: Path) -> None:
    site = Site(tmp_path, "write(DATA if runs == 3 else b'x')\nsys.exit(runs < 3)")
    await site.driver.write(site.bundle(), NoChunks(), quiet)
    assert len(site.asked) == 3


async def test_silence_for_ever_is_an_error_that_says_what_to_look_at(tmp_path: Path) -> None:
    site = Site(tmp_path, "sys.exit(1)")
    with pytest.raises(HandlerError, match=r"stable,copy2 \(-q\)"):
        await site.driver.write(site.bundle(), NoChunks(), quiet)
    assert len(site.asked) == 5
    assert (await site.driver.slots())[1].state is SlotState.EMPTY


async def test_a_named_error_ends_the_write_at_once_whatever_the_status_says(tmp_path: Path) -> None:
    site = Site(tmp_path, "write(DATA)\nprint('Status: 4 message: ERROR : HASH mismatch')")
    with pytest.raises(HandlerError, match="HASH mismatch"):
        await site.driver.write(site.bundle(), NoChunks(), quiet)
    assert len(site.asked) == 1


async def test_a_success_is_not_believed_where_the_slot_holds_something_else(tmp_path: Path) -> None:
    site = Site(tmp_path, "write(DATA[:-1] + b'x')")
    with pytest.raises(ReadBackError, match=r"differs from root\.img"):
        await site.driver.write(site.bundle(), NoChunks(), quiet)
    assert (await site.driver.slots())[1].state is SlotState.EMPTY


async def test_a_client_that_never_ends_is_ended(tmp_path: Path) -> None:
    site = Site(tmp_path, "time.sleep(600)", timeout_s=2.0)
    with pytest.raises(HandlerError, match="stopped after 2 s"):
        await site.driver.write(site.bundle(), NoChunks(), quiet)
    assert len(site.asked) == 1


async def test_a_client_that_is_not_there_is_named(tmp_path: Path) -> None:
    site = Site(tmp_path, "")
    (tmp_path / "client").unlink()
    with pytest.raises(HandlerError, match="cannot start"):
        await site.driver.write(site.bundle(), NoChunks(), quiet)


async def test_a_daemon_that_switches_by_itself_is_switched_back(tmp_path: Path) -> None:
    says = """write(DATA)
environment = here / "environment"
lines = environment.read_text().replace("bootslot=a", "bootslot=b").replace("available=0", "available=1")
environment.write_text(lines)
"""
    site = Site(tmp_path, says)
    with pytest.raises(SlotError, match="-B none"):
        await site.driver.write(site.bundle(), NoChunks(), quiet)
    assert site.board.power_on() == "a"
    assert (await site.driver.slots())[1].state is SlotState.EMPTY


async def test_an_image_for_the_running_slot_is_refused_before_swupdate_hears_of_it(tmp_path: Path) -> None:
    site = Site(tmp_path, "write(DATA)")
    with pytest.raises(SlotError, match="no part of the inactive slot"):
        await site.driver.write(site.bundle(str(tmp_path / "a.img")), NoChunks(), quiet)
    bundle = verify_rauc_bundle(rauc.written(tmp_path, rauc.bundle(rauc.payload(4))), rauc.policy())
    with pytest.raises(UnsupportedError, match="RAUC bundle"):
        await site.driver.write(bundle, NoChunks(), quiet)
    assert site.asked == []


@pytest.mark.parametrize("selections", [("", ""), ("stable,copy1", "stable,copy1")])
def test_slots_that_swupdate_could_not_tell_apart_are_refused(tmp_path: Path, selections: tuple[str, str]) -> None:
    board = simulated_board(tmp_path)
    made = tuple(
        SlotConfig(slot.name, selection, slot.parts) for slot, selection in zip(slots(tmp_path), selections, strict=True)
    )
    with pytest.raises(ConfigurationError, match="its own 'set,mode'"):
        SwupdateDriver(SwupdateConfig(made), Surroundings(Disk(), tmp_path, DEMO, board.bootloader))


async def test_deltas_are_read_back_by_the_digests_of_their_chunks(tmp_path: Path) -> None:
    device, release = linux_device(tmp_path), make_release(tmp_path, 2)
    await device.driver.write(release.bundle, release.chunks, quiet)
    assert isinstance(release.bundle, VerifiedBundle)
    layout = tuple(
        SlotConfig(
            slot,
            f"stable,{mode}",
            tuple(PartConfig(p, f"/dev/{p}_{slot}", slot_path(tmp_path, slot, p)) for p in ("kernel", "root")),
        )
        for slot, mode in (("a", "copy1"), ("b", "copy2"))
    )
    selection = release.bundle.description.select(DEMO, "stable", "copy2")
    plan = plan_slot(release.bundle, selection, layout[1], layout[0], verity_tool="")
    assert set(read_back(release.bundle, plan, Disk())) == {"kernel", "root"}
    with slot_path(tmp_path, "b", "root").open("r+b") as file:
        file.seek(500_000)
        file.write(b"torn")
    with pytest.raises(ReadBackError, match="part root"):
        read_back(release.bundle, plan, Disk())
