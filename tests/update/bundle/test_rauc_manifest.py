"""RAUC's manifest: all that it says, and what cannot be meant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.rauc import manifest, payload, tree_of
from update.bundle.rauc_layout import RaucFormat
from update.bundle.rauc_manifest import RaucImage, parse_manifest
from update.errors import DescriptionError, LimitError

DATA = payload(3)
FULL = f"""
[update]
compatible=FooCorp Super BarBazzer
version=2026.11-1
description=first\\nsecond; \\\\third
build=20261120
min-rauc-version=1.12

[bundle]
format=crypt
verity-hash={"01" * 32}
verity-salt={"AB" * 32}
verity-size=8192
crypt-key={"cd" * 32}

[hooks]
filename=hook.sh
hooks=install-check;

[handler]
filename=custom.sh
args=--fast

[image.rootfs]
filename=rootfs.ext4
type=ext4
sha256={"EF" * 32}
size=4711
hooks=pre-install;post-install;
adaptive=block-hash-index;
convert=tar-extract

[image.rootfs.variant.one]
filename=other.ext4
sha256={"23" * 32}

[image.appfs]
hooks=install

[image.datafs]
type=emptyfs

[image.store/model.bin]
filename=model.bin
sha256={"45" * 32}

[meta.release]
notes=see the page
[future]
whatever=1
"""


def test_everything_that_rauc_writes_is_read() -> None:
    found = parse_manifest(FULL.encode())
    assert (found.compatible, found.version, found.build) == ("FooCorp Super BarBazzer", "2026.11-1", "20261120")
    assert (found.description, found.min_rauc_version) == ("first second; \\third", "1.12")
    assert (found.format, found.verity.root, found.verity.tree_bytes) == (RaucFormat.CRYPT, "01" * 32, 8192)
    assert found.verity.salt == b"\xab" * 32
    assert (found.hook_file, found.hooks, found.handler, found.handler_args) == (
        "hook.sh",
        ("install-check",),
        "custom.sh",
        "--fast",
    )
    assert {label: dict(values) for label, values in found.meta.items()} == {"release": {"notes": "see the page"}}
    general, variant, made, empty, artifact = found.images
    assert general == RaucImage(
        "rootfs",
        filename="rootfs.ext4",
        type="ext4",
        sha256=general.sha256,
        size=4711,
        hooks=("pre-install", "post-install"),
        adaptive=("block-hash-index",),
        convert=("tar-extract",),
    )
    assert general.sha256 == "ef" * 32
    assert (variant.slot_class, variant.variant, variant.size) == ("rootfs", "variant.one", None)
    assert (made.filename, made.hooks, empty.type) == ("", ("install",), "emptyfs")
    assert (artifact.slot_class, artifact.artifact, artifact.variant) == ("store", "model.bin", "")


def test_what_only_a_later_rauc_may_take_is_named() -> None:
    found = parse_manifest(FULL.replace("[handler]", "[handler]\nspeed=9").encode())
    assert sorted(found.unknown) == ["[future]", "speed in [handler]"]
    assert parse_manifest(manifest(DATA)).unknown == ()


def test_nobody_keeps_the_key_of_the_payload() -> None:
    assert "cd" * 8 not in repr(parse_manifest(FULL.encode()))


def test_a_verity_manifest_pins_its_tree() -> None:
    root, tree = tree_of(DATA)
    found = parse_manifest(manifest(DATA))
    assert (found.format, found.verity.root, found.verity.tree_bytes) == (RaucFormat.VERITY, root, len(tree))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("compatible=FooCorp Super BarBazzer", "", "compatible"),
        ("compatible=FooCorp Super BarBazzer", "compatible=a\\nb", "not printable"),
        ("version=2026.11-1", f"version={'1' * 2000}", "at most"),
        ("format=crypt", "format=plain", "format 'plain'"),
        ("format=crypt", "", "format 'plain'"),
        ("format=crypt", "format=squash", "format 'squash'"),
        ("format=crypt", "format=verity", "crypt-key"),
        (f"crypt-key={'cd' * 32}", "", "crypt-key"),
        (f"crypt-key={'cd' * 32}", "crypt-key=12", "64 hexadecimal"),
        (f"verity-hash={'01' * 32}", "", "lacks"),
        (f"verity-hash={'01' * 32}", "verity-hash=0", "64 hexadecimal"),
        (f"verity-salt={'AB' * 32}", "verity-salt=", "lacks"),
        ("verity-size=8192", "verity-size=0", "multiple"),
        ("verity-size=8192", "verity-size=8191", "multiple"),
        ("verity-size=8192", "verity-size=-4096", "number"),
        ("verity-size=8192", f"verity-size={2**63}", "number"),
        ("verity-size=8192", "verity-size=\u0664096", "number"),
        ("filename=rootfs.ext4", "filename=../rootfs.ext4", "own folder"),
        ("filename=rootfs.ext4", "filename=..", "own folder"),
        ("filename=hook.sh", "filename=/bin/sh", "own folder"),
        ("filename=hook.sh", "", "hooks"),
        ("hooks=install\n", "hooks=explode\n", "explode"),
        ("hooks=install-check;", "hooks=install;", "install-check"),
        ("[image.appfs]\nhooks=install", "[image.appfs]", "names no file"),
        (f"sha256={'45' * 32}", "", "no sha256"),
        (f"sha256={'45' * 32}", "sha256=45", "64 hexadecimal"),
        ("size=4711", "size=many", "number"),
        ("[image.datafs]", "[image]", "image.<class>"),
        ("[image.datafs]", "[image.data fs]", "image.<class>"),
        ("[image.datafs]", "[image.datafs.]", "image.<class>"),
        ("[image.datafs]", "[image.store/]", "image.<class>"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(old: str, new: str, reason: str) -> None:
    assert FULL.count(old) == 1
    with pytest.raises(DescriptionError, match=reason):
        parse_manifest(FULL.replace(old, new).encode())


@given(st.data())
def test_a_changed_manifest_is_read_or_refused_by_name(data: st.DataObject) -> None:
    text = bytearray(FULL.encode())
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    try:
        parse_manifest(bytes(text))
    except (DescriptionError, LimitError):
        return
