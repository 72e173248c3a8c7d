import asyncio
import hashlib
import os
import random
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from node_agent.bootloaders.bootloader import Bootloader
from node_agent.drivers.driver import Surroundings
from node_agent.drivers.linux import LinuxConfig, LinuxDriver
from node_agent.drivers.slots import writer as slot_writer
from tests.builders.bundles import DEMO, describe, image, signed, verified
from tests.builders.keys import make_pki
from tests.contract.boards import Board
from tests.contract.devices import (
    CAPACITY,
    ROOT_BYTES,
    URL,
    Device,
    FileChunks,
    Release,
    linux_config,
    linux_device,
    make_release,
    make_root,
    quiet,
    slot_path,
)
from tests.peers import need_tool
from update.bundle.verified import AnyBundle, VerifiedBundle
from update.chunks.zchunk import HeaderIndex, parse_header
from update.digest import digest_of
from update.durable import Disk, Kind, Operation
from update.errors import (
    ChunkError,
    CompressionError,
    ConfigurationError,
    DescriptionError,
    FieldrelayError,
    HandlerError,
    HardwareError,
    ReadBackError,
    SlotError,
    StoreError,
    UnreachableError,
)
from update.identity import Hardware
from update.publish.bundles import build_bundle, delta_url
from update.publish.images import zck_header
from update.publish.spec import load_spec
from update.trust.signers import FileSigner


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return linux_device(tmp_path)


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Release]:
    folder = tmp_path_factory.mktemp("releases")
    return {version: make_release(folder, version) for version in (2, 3)}


def _holds(device: Device, slot: str, release: Release) -> bool:
    root, kernel = (slot_path(device.folder, slot, part).read_bytes() for part in ("root", "kernel"))
    return root.startswith(release.root) and kernel.startswith(release.kernel)


def _bootloader(device: Device) -> Bootloader:
    assert isinstance(device.board, Board)
    return device.board.bootloader


def _again(
    device: Device, *, config: LinuxConfig | None = None, disk: Disk | None = None, bootloader: Bootloader | None = None
) -> LinuxDriver:
    """The driver as a restarted agent would build it."""
    surroundings = Surroundings(disk or Disk(), device.folder / "state", DEMO, bootloader or _bootloader(device))
    return LinuxDriver(config or linux_config(device.folder), surroundings)


def _header(release: Release) -> HeaderIndex:
    return parse_header(zck_header(release.chunks.files[URL]))


def _missing_bytes(new: HeaderIndex, old: HeaderIndex) -> int:
    """Stored bytes of what is in no chunk of the old image and is not zeros: the least that must travel."""
    lengths = {chunk.digest: chunk.length for chunk in new if chunk.digest != hashlib.sha256(bytes(chunk.size)).digest()}
    return sum(length for digest, length in lengths.items() if digest not in {chunk.digest for chunk in old})


async def _update(device: Device, release: Release) -> None:
    await device.driver.write(release.bundle, release.chunks, quiet)
    await device.driver.activate()
    device.board.power_on()
    await device.driver.confirm()


@pytest.mark.parametrize("compressed", ["", "zlib", "zstd"])
async def test_a_whole_image_is_written_and_nothing_else(device: Device, tmp_path: Path, compressed: str) -> None:
    release = make_release(tmp_path, 2, compressed=compressed, delta=False)
    running = device.content("a")
    written = await device.driver.write(release.bundle, release.chunks, quiet)
    assert _holds(device, "b", release)
    assert device.content("a") == running
    assert slot_path(tmp_path, "b", "root").read_bytes()[ROOT_BYTES:] == b"\xff" * (CAPACITY - ROOT_BYTES)
    assert written.image_bytes == len(release.root) + len(release.kernel)
    assert (written.downloaded_bytes, release.chunks.sent) == (0, 0)
    assert written.parts == {"/dev/kernel_b": digest_of(release.kernel), "/dev/root_b": digest_of(release.root)}


async def test_a_delta_fetches_only_what_is_nowhere_at_hand(device: Device, releases: dict[int, Release], tmp_path: Path) -> None:
    release = replace(releases[2], chunks=FileChunks(releases[2].chunks.files))
    factory = _header(make_release(tmp_path, 1))
    written = await device.driver.write(release.bundle, release.chunks, quiet)
    assert _holds(device, "b", release)
    assert written.downloaded_bytes == release.chunks.sent == _missing_bytes(_header(release), factory) > 0
    assert written.zero_bytes > 100_000
    assert written.reused_bytes > ROOT_BYTES // 2
    assert written.parts["/dev/root_b"] == digest_of(_header(release).raw)
    assert release.chunks.asked == sorted(release.chunks.asked)


async def test_the_next_delta_needs_no_chunking_because_the_header_was_kept(
    device: Device, releases: dict[int, Release], monkeypatch: pytest.MonkeyPatch
) -> None:
    await _update(device, releases[2])
    monkeypatch.setattr(slot_writer, "index_image", _must_not_be_called)
    chunks = FileChunks(releases[3].chunks.files)
    await _again(device).write(releases[3].bundle, chunks, quiet)
    assert _holds(device, "a", releases[3])
    assert chunks.sent == _missing_bytes(_header(releases[3]), _header(releases[2]))


def _must_not_be_called(*_arguments: object) -> None:
    raise AssertionError


async def test_a_header_that_does_not_describe_the_slot_any_more_is_not_used(
    device: Device, releases: dict[int, Release]
) -> None:
    await _update(device, releases[2])
    for header in (device.folder / "state/slots/headers").glob("b-*"):
        header.write_bytes(_header(releases[3]).raw)
    chunks = FileChunks(releases[3].chunks.files)
    await device.driver.write(releases[3].bundle, chunks, quiet)
    assert _holds(device, "a", releases[3])
    assert chunks.sent == _missing_bytes(_header(releases[3]), _header(releases[2]))


async def test_a_damaged_header_costs_only_time(device: Device, releases: dict[int, Release]) -> None:
    await _update(device, releases[2])
    for header in (device.folder / "state/slots/headers").glob("b-*"):
        header.write_bytes(header.read_bytes()[:-7])
    await device.driver.write(releases[3].bundle, FileChunks(releases[3].chunks.files), quiet)
    assert _holds(device, "a", releases[3])


async def test_a_rotten_chunk_of_the_old_slot_is_fetched_instead(device: Device, releases: dict[int, Release]) -> None:
    await _update(device, releases[2])
    slot_path(device.folder, "b", "root").write_bytes(_flipped(slot_path(device.folder, "b", "root").read_bytes(), 600_000))
    chunks = FileChunks(releases[3].chunks.files)
    await device.driver.write(releases[3].bundle, chunks, quiet)
    assert _holds(device, "a", releases[3])
    assert chunks.sent > _missing_bytes(_header(releases[3]), _header(releases[2]))


async def test_a_slot_that_somebody_else_wrote_costs_bytes_and_nothing_else(device: Device, releases: dict[int, Release]) -> None:
    await _update(device, releases[2])
    slot_path(device.folder, "b", "root").write_bytes(random.Random(9).randbytes(CAPACITY))
    await device.driver.write(releases[3].bundle, FileChunks(releases[3].chunks.files), quiet)
    assert _holds(device, "a", releases[3])


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


async def test_an_interrupted_download_goes_on_where_it_stopped(
    device: Device, releases: dict[int, Release], tmp_path: Path
) -> None:
    factory = _header(make_release(tmp_path, 1))
    least = _missing_bytes(_header(releases[3]), factory)
    broken = FileChunks(releases[3].chunks.files, piece=5000, fail_after=least // 2)
    with pytest.raises(UnreachableError):
        await device.driver.write(releases[3].bundle, broken, quiet)
    assert (await device.driver.slots())[1].state.value == "empty"
    with pytest.raises(SlotError):
        await device.driver.activate()
    rest = FileChunks(releases[3].chunks.files)
    written = await _again(device).write(releases[3].bundle, rest, quiet)
    assert _holds(device, "b", releases[3])
    assert written.downloaded_bytes == rest.sent < least


async def test_writing_what_is_in_place_fetches_and_writes_nothing(device: Device, releases: dict[int, Release]) -> None:
    await device.driver.write(releases[2].bundle, releases[2].chunks, quiet)
    writes: list[Operation] = []
    chunks = FileChunks(releases[2].chunks.files)
    await _again(device, disk=Disk(writes.append)).write(releases[2].bundle, chunks, quiet)
    slots = {slot_path(device.folder, "b", part) for part in ("root", "kernel")}
    assert not [operation for operation in writes if operation.kind is Kind.WRITE and operation.path in slots]
    assert chunks.asked == []


async def test_what_the_older_release_left_in_place_is_not_written_again(device: Device, releases: dict[int, Release]) -> None:
    await _update(device, releases[2])
    await _update(device, releases[3])
    writes: list[Operation] = []
    await _again(device, disk=Disk(writes.append)).write(releases[2].bundle, FileChunks(releases[2].chunks.files), quiet)
    assert _holds(device, "b", releases[2])
    root = slot_path(device.folder, "b", "root")
    assert not [operation for operation in writes if operation.kind is Kind.WRITE and operation.path == root]


async def test_a_damaged_chunk_from_the_wire_is_refused(device: Device, releases: dict[int, Release]) -> None:
    with pytest.raises(ChunkError):
        await device.driver.write(releases[2].bundle, FileChunks(releases[2].chunks.files, damage=True), quiet)
    assert (await device.driver.slots())[1].state.value == "empty"
    await device.driver.write(releases[2].bundle, FileChunks(releases[2].chunks.files), quiet)
    assert _holds(device, "b", releases[2])


def _bundle(folder: Path, *images: dict[str, object], members: dict[str, bytes], **more: object) -> VerifiedBundle:
    """A bundle whose selection copy2 (slot b) has `images`."""
    selection = {"images": list(images), **more}
    return verified(signed(folder, describe(stable={"copy2": selection, "copy1": selection}), members))


_KERNEL = b"kernel" * 1000


async def _refused(device: Device, bundle: AnyBundle, error: type[FieldrelayError], **files: Path) -> None:
    """Refused before the first byte, and before the record changed."""
    before = {slot: device.content(slot) for slot in ("a", "b")}
    chunks = FileChunks(files)
    with pytest.raises(error):
        await device.driver.write(bundle, chunks, quiet)
    assert {slot: device.content(slot) for slot in ("a", "b")} == before
    assert not list((device.folder / "state").rglob("slot-b.json"))
    assert chunks.asked == []


@pytest.mark.parametrize("target", ["/dev/root_a", "/dev/kernel_a", "/dev/sda", "/dev/root_b/../root_a", "/dev/root_bb"])
async def test_an_image_for_any_other_device_is_refused(device: Device, target: str) -> None:
    images = [image("k", _KERNEL, device="/dev/kernel_b"), image("r", _KERNEL, device=target)]
    await _refused(device, _bundle(device.folder, *images, members={"k": _KERNEL, "r": _KERNEL}), SlotError)


async def test_a_bundle_that_leaves_a_part_as_it_was_is_refused(device: Device) -> None:
    only_kernel = image("k", _KERNEL, device="/dev/kernel_b")
    await _refused(device, _bundle(device.folder, only_kernel, members={"k": _KERNEL}), SlotError)


async def test_a_part_that_is_not_required_may_be_left_as_it_was(device: Device) -> None:
    bundle = _bundle(device.folder, image("k", _KERNEL, device="/dev/kernel_b"), members={"k": _KERNEL})
    driver = _again(device, config=linux_config(device.folder, required=False))
    root = slot_path(device.folder, "b", "root").read_bytes()
    await driver.write(bundle, FileChunks({}), quiet)
    assert slot_path(device.folder, "b", "root").read_bytes() == root
    assert slot_path(device.folder, "b", "kernel").read_bytes().startswith(_KERNEL)


async def test_two_images_for_one_part_are_refused(device: Device) -> None:
    images = [image("k", _KERNEL, device="/dev/kernel_b"), image("r", _KERNEL, device="/dev/root_b")]
    again = image("k", _KERNEL, device="/dev/kernel_b", offset=8192)
    await _refused(device, _bundle(device.folder, *images, again, members={"k": _KERNEL, "r": _KERNEL}), SlotError)


@pytest.mark.parametrize("compressed", ["", "zlib", "zstd"])
async def test_an_image_larger_than_its_part_is_refused_before_the_first_byte(device: Device, compressed: str) -> None:
    release = make_release(device.folder, 2, compressed=compressed, delta=False, root=bytes(CAPACITY + 1))
    await _refused(device, release.bundle, SlotError)


async def test_a_delta_larger_than_its_part_is_refused_before_the_first_byte(device: Device) -> None:
    release = make_release(device.folder, 2, root=bytes(CAPACITY + 1))
    await _refused(device, release.bundle, SlotError)


async def test_an_image_at_an_offset_must_end_within_its_part(device: Device) -> None:
    kernel = image("k", _KERNEL, device="/dev/kernel_b")
    late = image("r", _KERNEL, device="/dev/root_b", offset=CAPACITY - len(_KERNEL) + 1)
    members = {"k": _KERNEL, "r": _KERNEL}
    await _refused(device, _bundle(device.folder, kernel, late, members=members), SlotError)
    fits = image("r", _KERNEL, device="/dev/root_b", offset=CAPACITY - len(_KERNEL))
    await device.driver.write(_bundle(device.folder, kernel, fits, members=members), FileChunks({}), quiet)
    assert slot_path(device.folder, "b", "root").read_bytes() == b"\xff" * (CAPACITY - len(_KERNEL)) + _KERNEL


async def test_an_image_that_unpacks_to_more_than_it_said_never_leaves_its_part(device: Device) -> None:
    """Three gigabytes that announce nothing: a zstd frame without content size."""
    packer = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(3000)) + packer.flush()
    images = [image("k", _KERNEL, device="/dev/kernel_b"), image("r", bomb, device="/dev/root_b", compressed="zstd")]
    bundle = _bundle(device.folder, *images, members={"k": _KERNEL, "r": bomb})
    with pytest.raises(CompressionError):
        await device.driver.write(bundle, FileChunks({}), quiet)
    assert slot_path(device.folder, "b", "root").stat().st_size == CAPACITY
    assert (await device.driver.slots())[1].state.value == "empty"


async def test_a_delta_from_anything_but_the_running_slot_is_refused(device: Device) -> None:
    release = make_release(device.folder, 2)
    header = zck_header(release.chunks.files[URL])
    images = [
        image("k", _KERNEL, device="/dev/kernel_b"),
        image("r", header, device="/dev/root_b", type="delta", properties={"url": URL, "source": "/dev/root_b"}),
    ]
    await _refused(device, _bundle(device.folder, *images, members={"k": _KERNEL, "r": header}), SlotError)


async def test_a_delta_whose_member_is_no_header_is_refused(device: Device) -> None:
    images = [
        image("k", _KERNEL, device="/dev/kernel_b"),
        image("r", _KERNEL, device="/dev/root_b", type="delta", properties={"url": URL, "source": "/dev/root_a"}),
    ]
    await _refused(device, _bundle(device.folder, *images, members={"k": _KERNEL, "r": _KERNEL}), ChunkError)


async def test_a_bundle_for_other_hardware_or_without_this_selection_is_refused(
    device: Device, releases: dict[int, Release]
) -> None:
    surroundings = Surroundings(Disk(), device.folder / "state", Hardware("demo", "9"), _bootloader(device))
    with pytest.raises(HardwareError):
        await LinuxDriver(linux_config(device.folder), surroundings).write(releases[2].bundle, FileChunks({}), quiet)
    other = verified(signed(device.folder, describe(stable={"copy3": {"images": [image("k", _KERNEL)]}}), {"k": _KERNEL}))
    await _refused(device, other, DescriptionError)


@pytest.mark.parametrize("link", [os.link, os.symlink])
async def test_a_path_that_turns_out_to_be_the_running_slot_is_never_written(
    device: Device, releases: dict[int, Release], link: Callable[[Path, Path], None]
) -> None:
    slot_path(device.folder, "b", "kernel").unlink()
    link(slot_path(device.folder, "a", "root"), slot_path(device.folder, "b", "kernel"))
    running = device.content("a")
    with pytest.raises(SlotError, match="never written"):
        await device.driver.write(releases[2].bundle, FileChunks({}), quiet)
    assert device.content("a") == running


@pytest.mark.parametrize("compressed", ["", "zstd", "delta"])
async def test_content_that_changes_behind_our_back_is_found_when_read_back(tmp_path: Path, compressed: str) -> None:
    root = slot_path(tmp_path, "b", "root")

    def damage(operation: Operation) -> None:
        if operation.kind is Kind.SYNC and operation.path == root:
            with root.open("r+b") as file:
                file.seek(ROOT_BYTES - 1)
                last = file.read(1)
                file.seek(ROOT_BYTES - 1)
                file.write(bytes([last[0] ^ 0x80]))

    device = linux_device(tmp_path, Disk(damage))
    release = make_release(tmp_path, 2, compressed=compressed.removeprefix("delta"), delta=compressed == "delta")
    with pytest.raises(ReadBackError):
        await device.driver.write(release.bundle, release.chunks, quiet)
    assert (await device.driver.slots())[1].state.value == "empty"
    await _again(device).write(release.bundle, release.chunks, quiet)
    assert _holds(device, "b", release)


async def test_a_cancelled_write_leaves_nobody_writing_and_is_taken_up_again(
    device: Device, releases: dict[int, Release]
) -> None:
    reached = asyncio.Event()
    task = asyncio.create_task(
        device.driver.write(releases[3].bundle, FileChunks(releases[3].chunks.files), lambda _done, _total: reached.set())
    )
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await device.driver.slots())[1].state.value == "empty"
    await device.driver.write(releases[3].bundle, FileChunks(releases[3].chunks.files), quiet)
    assert _holds(device, "b", releases[3])


_NOTES = b"""#!/bin/sh
echo "$1 $FIELDRELAY_SLOT $(stat -c %a "$(dirname "$0")") $(head -c 4 "$FIELDRELAY_PART_KERNEL" | od -An -tx1)" >> NOTES
"""


async def test_scripts_run_before_and_after_the_images(device: Device) -> None:
    notes = device.folder / "notes"
    release = make_release(device.folder, 2, scripts={"note.sh": _NOTES.replace(b"NOTES", str(notes).encode())})
    (device.folder / "state/slots/scripts/script-killed/more").mkdir(parents=True)
    await device.driver.write(release.bundle, release.chunks, quiet)
    written = release.kernel[:4].hex(" ")
    assert notes.read_text().splitlines() == ["preinst b 700  ff ff ff ff", f"postinst b 700  {written}"]
    assert list((device.folder / "state/slots/scripts").iterdir()) == []


@pytest.mark.parametrize(("phase", "is_written"), [("preinst", False), ("postinst", True)])
async def test_a_script_that_fails_stops_the_update(device: Device, phase: str, is_written: bool) -> None:
    script = f'#!/bin/sh\n[ "$1" = {phase} ] && {{ echo no such sensor; exit 3; }}\nexit 0\n'.encode()
    release = make_release(device.folder, 2, scripts={"check.sh": script})
    with pytest.raises(HandlerError, match=r"check\.sh.*status 3.*no such sensor"):
        await device.driver.write(release.bundle, release.chunks, quiet)
    assert _holds(device, "b", release) is is_written
    assert (await device.driver.slots())[1].state.value == "empty"
    with pytest.raises(SlotError):
        await device.driver.activate()


async def test_a_script_that_hangs_is_ended(device: Device) -> None:
    release = make_release(device.folder, 2, scripts={"hang.sh": b"#!/bin/sh\nsleep 600\n"})
    config = replace(linux_config(device.folder), script_timeout_s=0.3)
    with pytest.raises(HandlerError, match="stopped after"):
        await _again(device, config=config).write(release.bundle, release.chunks, quiet)


VERITY_SPEC = """
[bundle]
name = "controller"
version = "2.0"
repository = "repository.example"
hardware = {{ board = "{board}", revisions = ["{revision}"] }}
[[slots]]
set = "stable"
mode = "copy1"
[[slots]]
set = "stable"
mode = "copy2"
[[images]]
name = "root"
file = "verity.img"
type = "{kind}"
devices = {{ "stable,copy1" = "/dev/root_a", "stable,copy2" = "/dev/root_b" }}
verity = {{ root_hash = "{root_hash}", hash_offset = {offset} }}
{more}
"""
MORE = {
    "raw": "",
    "raw, compressed": 'compressed = "zstd"',
    "delta": 'sources = { "stable,copy1" = "/dev/root_b", "stable,copy2" = "/dev/root_a" }',
}


async def _with_hash_tree(image: Path) -> str:
    """Append the tree to `image` with the real tool; its root hash."""
    arguments = [need_tool("veritysetup"), "format", f"--hash-offset={ROOT_BYTES}", "--salt=" + "ab" * 32, str(image), str(image)]
    text = (await asyncio.to_thread(subprocess.run, arguments, check=True, capture_output=True, text=True, timeout=60)).stdout
    found = re.search(r"Root hash:\s+([0-9a-f]{64})", text)
    assert found is not None
    return found[1]


@pytest.mark.interop
@pytest.mark.parametrize("kind", MORE)
async def test_what_the_builder_says_of_a_hash_tree_is_checked_by_the_real_veritysetup(device: Device, kind: str) -> None:
    plain = device.folder / "verity.img"
    plain.write_bytes(make_root(2))
    right = await _with_hash_tree(plain)
    config = replace(linux_config(device.folder, required=False), verity_tool=need_tool("veritysetup"))
    signer = make_pki().signers[0]
    spec = device.folder / "SPEC.toml"
    for root_hash in (right, "0" * 64):
        about = {"board": DEMO.board, "revision": DEMO.revision, "kind": kind.partition(",")[0], "more": MORE[kind]}
        spec.write_text(VERITY_SPEC.format(root_hash=root_hash, offset=ROOT_BYTES, **about))
        built = build_bundle(load_spec(spec), device.folder / root_hash, [FileSigner(signer.certificate, signer.key)], Disk())
        deltas = {delta_url("repository.example", each.sha256, each.file.name): each.file for each in built.deltas}
        writing = _again(device, config=config).write(verified(built.file), FileChunks(deltas), quiet)
        if root_hash == right:
            await writing
            assert slot_path(device.folder, "b", "root").read_bytes().startswith(plain.read_bytes())
        else:
            with pytest.raises(ReadBackError, match="verity"):
                await writing


@pytest.mark.parametrize(
    "properties",
    [
        {"verity-root-hash": "0" * 64},
        {"verity-hash-offset": "4096"},
        {"verity-root-hash": "x" * 64, "verity-hash-offset": "4096"},
        {"verity-root-hash": "0" * 64, "verity-hash-offset": "-1"},
        {"verity-root-hash": "0" * 64, "verity-hash-offset": "4096"},  # and the tool is not installed
    ],
)
async def test_a_tree_that_cannot_be_checked_is_refused_before_the_first_byte(device: Device, properties: dict[str, str]) -> None:
    release = make_release(device.folder, 2, delta=False, properties=properties)
    driver = _again(device, config=replace(linux_config(device.folder), verity_tool="/nonexistent/veritysetup"))
    await _refused(replace(device, driver=driver), release.bundle, HandlerError)


async def test_the_restart_command_is_run(device: Device) -> None:
    ran = device.folder / "ran"
    config = replace(linux_config(device.folder), restart=(str(shutil.which("touch")), str(ran)))
    assert (await _again(device, config=config).restart()).value == "commanded"
    assert ran.exists()
    broken = replace(config, restart=("/nonexistent/reboot",))
    with pytest.raises(HandlerError):
        await _again(device, config=broken).restart()


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, Path.exists])
async def test_a_part_that_is_no_file_or_device_is_refused(
    device: Device, releases: dict[int, Release], make: Callable[[Path], object]
) -> None:
    path = slot_path(device.folder, "b", "kernel")
    path.unlink()
    make(path)
    with pytest.raises((SlotError, StoreError)):
        await device.driver.write(releases[2].bundle, FileChunks({}), quiet)
    assert (await device.driver.slots())[1].state.value == "empty"


def test_slots_that_share_a_part_or_cannot_be_told_apart_are_refused(device: Device) -> None:
    good = linux_config(device.folder).slots
    shared = replace(good[1], parts=(replace(good[1].parts[0], path=good[0].parts[1].path), good[1].parts[1]))
    twice = replace(good[1], parts=(good[1].parts[0], replace(good[1].parts[0], path=Path("/other"))))
    broken = [
        (good[0],),
        (good[0], replace(good[1], name="a")),
        (good[0], shared),
        (good[0], twice),
        (good[0], replace(good[1], parts=())),
        (good[0], replace(good[1], selection="stable")),
        (good[0], replace(good[1], name="../b")),
    ]
    for slots in broken:
        with pytest.raises(ConfigurationError):
            _again(device, config=LinuxConfig(slots))
