"""Building: a SPEC becomes a bundle that verifies, selects and says where its chunks are."""

import random
from pathlib import Path

import pytest

from tests.builders.bundles import DEMO, verified
from tests.builders.keys import make_pki
from update.bundle.deltas import chunk_index, deltas
from update.bundle.description import Choice
from update.bundle.entries import BootVariable, Compression
from update.bundle.reader import SIZE_PROPERTY, open_payload
from update.digest import digest_file, digest_of
from update.durable import Disk
from update.errors import DescriptionError, StoreError, UsageError
from update.identity import Hardware
from update.publish.bundles import BuiltBundle, build_bundle
from update.publish.difference import diff_bundles, diff_headers
from update.publish.spec import load_spec
from update.trust.signers import FileSigner

SPEC = """
[bundle]
name = "controller"
version = "{version}"
description = "for the press line"
repository = "plant"
hardware = {{ board = "demo", revisions = ["1.0", "#RE:^2[.]"] }}

[[slots]]
set = "stable"
mode = "copy1"
[[slots]]
set = "stable"
mode = "copy2"

[[images]]
name = "rootfs"
file = "rootfs.img"
type = "delta"
max_ranges = 20
devices = {{ "stable,copy1" = "/dev/a", "stable,copy2" = "/dev/b" }}
sources = {{ "stable,copy1" = "/dev/b", "stable,copy2" = "/dev/a" }}

[[images]]
name = "kernel"
file = "kernel.img"
type = "raw"
compressed = "zstd"
devices = {{ "stable,copy1" = "/dev/ka", "stable,copy2" = "/dev/kb" }}

[[images]]
name = "dtb"
file = "dtb.img"
type = "raw"
compressed = "zlib"
offset = 4096
devices = {{ "stable,copy1" = "/dev/ka", "stable,copy2" = "/dev/kb" }}

[[images]]
name = "plain"
file = "dtb.img"
type = "raw"
version = "7"
install_if_different = true
installed_directly = true
devices = {{ "stable,copy1" = "/dev/pa", "stable,copy2" = "/dev/pb" }}

[[scripts]]
file = "post.sh"
type = "shellscript"
data = "argument"

[[bootenv]]
name = "slot"
values = {{ "stable,copy1" = "a", "stable,copy2" = "b" }}
[[bootenv]]
name = "tries"
value = "3"
"""


def content(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def rootfs(version: str) -> bytes:
    old = content(1, 400_000) + bytes(300_000) + content(2, 300_000)
    return old if version == "1.0" else old[:500] + b"edited" + old[506:]


def build(folder: Path, version: str = "1.0") -> BuiltBundle:
    folder.mkdir(exist_ok=True)
    (folder / "rootfs.img").write_bytes(rootfs(version))
    (folder / "kernel.img").write_bytes(content(3, 50_000) + bytes(50_000))
    (folder / "dtb.img").write_bytes(content(4, 3_000) * 3)
    (folder / "post.sh").write_text("#!/bin/sh\nexit 0\n")
    (folder / "SPEC.toml").write_text(SPEC.format(version=version))
    signer = make_pki().signers[0]
    return build_bundle(load_spec(folder / "SPEC.toml"), folder / "out", [FileSigner(signer.certificate, signer.key)], Disk())


def test_a_spec_becomes_a_bundle_that_is_proved(tmp_path: Path) -> None:
    built = build(tmp_path)
    assert built.file == tmp_path / "out" / "controller-1.0.swu"
    assert (built.sha256, built.length) == digest_file(built.file)
    bundle = verified(built.file)
    assert bundle.digest == digest_of(built.description)
    assert (bundle.description.version, bundle.description.text) == ("1.0", "for the press line")
    assert list(bundle.members) == ["post.sh", "rootfs.zck.header", "kernel.img.zst", "dtb.img.gz", "plain.img"]
    assert bundle.description.choices == (Choice("demo", "stable", "copy1"), Choice("demo", "stable", "copy2"))


def test_a_hash_tree_is_signed_beside_what_else_an_image_says(tmp_path: Path) -> None:
    build(tmp_path)
    for name in ("rootfs.img", "kernel.img"):
        with (tmp_path / name).open("r+b") as file:
            file.seek(8192)
            file.write(b"verity\0\0")
    text = SPEC.format(version="1.0")
    for name, root_hash in (("rootfs", "ab" * 32), ("kernel", "cd" * 32)):
        image = f'file = "{name}.img"\n'
        text = text.replace(image, f'{image}verity = {{ root_hash = "{root_hash}", hash_offset = 8192 }}\n')
    (tmp_path / "SPEC.toml").write_text(text)
    signer = make_pki().signers[0]
    built = build_bundle(load_spec(tmp_path / "SPEC.toml"), tmp_path, [FileSigner(signer.certificate, signer.key)], Disk())
    for mode in ("copy1", "copy2"):
        images = {entry.name: entry.properties for entry in verified(built.file).description.select(DEMO, "stable", mode).images}
        tree = ("verity-root-hash", "verity-hash-offset")
        assert [images["rootfs"].get(key) for key in (*tree, "chain")] == ["ab" * 32, "8192", "raw"]
        assert [images["kernel"].get(key) for key in (*tree, SIZE_PROPERTY)] == ["cd" * 32, "8192", "100000"]
        assert [images["dtb"].get(key) for key in tree] == [None, None]


def test_each_slot_gets_its_own_devices_and_values(tmp_path: Path) -> None:
    description = verified(build(tmp_path).file).description
    second = description.select(DEMO, "stable", "copy2")
    assert [entry.device for entry in second.images] == ["/dev/b", "/dev/kb", "/dev/kb", "/dev/pb"]
    assert second.bootenv == (BootVariable("slot", "b"), BootVariable("tries", "3"))
    assert [(entry.filename, entry.data) for entry in second.scripts] == [("post.sh", "argument")]
    delta = second.images[0].delta
    assert delta is not None
    assert (delta.source, delta.max_ranges) == ("/dev/a", 20)
    plain = second.images[3]
    assert (plain.version, plain.install_if_different, plain.installed_directly) == ("7", True, True)
    assert (second.images[1].version, second.images[2].offset) == ("1.0", 4096)


def test_another_board_finds_nothing(tmp_path: Path) -> None:
    description = verified(build(tmp_path).file).description
    assert description.select(Hardware("demo", "2.9"), "stable", "copy1").images
    with pytest.raises(DescriptionError):
        description.select(Hardware("other", "1.0"), "stable", "copy1")


def test_compressed_images_come_out_as_they_went_in(tmp_path: Path) -> None:
    bundle = verified(build(tmp_path).file)
    _, kernel, dtb, plain = bundle.description.select(DEMO, "stable", "copy1").images
    for entry, name in [(kernel, "kernel.img"), (dtb, "dtb.img"), (plain, "dtb.img")]:
        with open_payload(bundle, entry, max_bytes=1 << 20) as payload:
            assert b"".join(iter(lambda: payload.read(4096), b"")) == (tmp_path / name).read_bytes()
    assert (kernel.compressed, dtb.compressed, plain.compressed) == (Compression.ZSTD, Compression.ZLIB, Compression.NONE)


def test_a_delta_names_the_file_that_a_repository_serves(tmp_path: Path) -> None:
    built = build(tmp_path)
    (delta,) = built.deltas
    assert delta.file == tmp_path / "out" / "rootfs-1.0.zck"
    assert (delta.sha256, delta.length) == digest_file(delta.file)
    bundle = verified(built.file)
    (found,) = deltas(bundle)
    assert found.url == f"http://plant/targets/{delta.sha256}.rootfs-1.0.zck"
    assert found.image == "rootfs"
    assert found.index.sha256 == delta.header.sha256
    header = delta.file.read_bytes()[: delta.header.length]
    assert found.index.header.raw == header
    assert bundle.members["rootfs.zck.header"].size == delta.header.length
    entry = bundle.description.select(DEMO, "stable", "copy2").images[0]
    assert chunk_index(bundle, entry).header.raw == header


def test_the_same_input_gives_the_same_bytes_up_to_the_signature(tmp_path: Path) -> None:
    first, second = build(tmp_path / "first"), build(tmp_path / "second")
    assert first.description == second.description
    assert [delta.sha256 for delta in first.deltas] == [delta.sha256 for delta in second.deltas]


def test_nothing_but_the_results_is_left(tmp_path: Path) -> None:
    build(tmp_path)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["controller-1.0.swu", "rootfs-1.0.zck"]


def test_a_file_that_vanished_is_named_and_no_bundle_appears(tmp_path: Path) -> None:
    build(tmp_path)
    spec = load_spec(tmp_path / "SPEC.toml")
    (tmp_path / "dtb.img").unlink()
    signer = make_pki().signers[0]
    with pytest.raises(StoreError):
        build_bundle(spec, tmp_path / "new", [FileSigner(signer.certificate, signer.key)], Disk())
    assert not list((tmp_path / "new").glob("*.swu"))
    with pytest.raises(UsageError):
        build_bundle(spec, tmp_path / "new", [], Disk())


def test_progress_reaches_the_end_of_every_file(tmp_path: Path) -> None:
    build(tmp_path)
    calls: dict[str, tuple[int, int]] = {}
    signer = make_pki().signers[0]
    spec = load_spec(tmp_path / "SPEC.toml")

    def note(what: str, done: int, total: int) -> None:
        assert done >= calls.get(what, (0, 0))[0]
        calls[what] = (done, total)

    build_bundle(spec, tmp_path / "out", [FileSigner(signer.certificate, signer.key)], Disk(), progress=note)
    assert set(calls) == {"rootfs-1.0.zck", "kernel.img", "dtb.img", "controller-1.0.swu"}
    assert all(done == total for done, total in calls.values())


def test_what_travels_is_what_changed(tmp_path: Path) -> None:
    old, new = (
        {each.image: each.index.header for each in deltas(verified(build(tmp_path / version, version).file))}
        for version in ("1.0", "1.1")
    )
    (travel,) = diff_bundles(old, new)
    assert travel.chunks == travel.ranges == 1
    assert 0 < travel.fetch_bytes < travel.total_bytes
    assert travel.share == travel.fetch_bytes / travel.total_bytes
    assert diff_headers("rootfs", new["rootfs"], new["rootfs"]).fetch_bytes == 0
    fresh = diff_headers("rootfs", None, new["rootfs"])
    assert travel.chunks < fresh.chunks < fresh.total_chunks  # chunks of zeros never travel
