"""SPEC.toml: every mistake is named by its key, at once, before anything is built."""

from pathlib import Path

import pytest

from update.errors import ConfigurationError
from update.publish.spec import load_spec

GOOD = """
[bundle]
name = "controller"
version = "1.0"
repository = "plant"
hardware = { board = "demo", revisions = ["1.0"] }
[[slots]]
set = "stable"
mode = "copy1"
[[images]]
name = "rootfs"
file = "rootfs.img"
type = "raw"
devices = { "stable,copy1" = "/dev/a" }
"""
DELTA = GOOD.replace('"raw"', '"delta"') + 'sources = { "stable,copy1" = "/dev/b" }\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rootfs.img").write_bytes(b"image")
    (tmp_path / "post.sh").write_bytes(b"#!/bin/sh\n")
    return tmp_path


def refused(folder: Path, text: str) -> str:
    (folder / "SPEC.toml").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_spec(folder / "SPEC.toml")
    return str(caught.value)


@pytest.mark.parametrize("text", [GOOD, DELTA])
def test_a_good_spec_is_read_and_its_files_are_found(folder: Path, text: str) -> None:
    (folder / "SPEC.toml").write_text(text)
    assert load_spec(folder / "SPEC.toml").images[0].file == folder / "rootfs.img"


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('version = "1.0"', 'version = "1/0"', "bundle.version"),
        ('version = "1.0"', "version = 1.0", "bundle.version"),
        ('version = "1.0"\n', "", "bundle.version"),
        ('name = "controller"', 'name = "../x"', "bundle.name"),
        ('"plant"', '"Plant_1"', "bundle.repository"),
        ('["1.0"]', "[]", "bundle.hardware.revisions"),
        ('["1.0"]', '["1.0"], extra = 1', "bundle.hardware.extra"),
        ("[[slots]]", "[[slotz]]", "slotz"),
        ('mode = "copy1"', 'mode = "copy 1"', "slots[0].mode"),
        ('mode = "copy1"', 'mode = "images"', "names a section"),
        ('"rootfs.img"', '"absent.img"', "images[0].file"),
        ('"rootfs.img"', '"."', "images[0].file"),
        ('type = "raw"', 'type = "ubivol"', "images[0].type"),
        ('type = "raw"', 'type = "raw"\ncompressed = "xz"', "images[0].compressed"),
        ('type = "raw"', 'type = "raw"\noffset = "4K"', "images[0].offset"),
        ('type = "raw"', 'type = "raw"\noffset = -1', "images[0].offset"),
        ('type = "raw"', 'type = "raw"\noffset = 4294967296', "images[0].offset"),
        ('type = "raw"', 'type = "raw"\nmax_ranges = 0', "images[0].max_ranges"),
        ('type = "raw"', 'type = "raw"\ninstalled_directly = "yes"', "images[0].installed_directly"),
        ('"stable,copy1" = "/dev/a"', '"stable" = "/dev/a"', "images[0].devices"),
        ('"stable,copy1" = "/dev/a"', '"stable,copy2" = "/dev/a"', "devices lacks the slot 'stable,copy1'"),
        ('"stable,copy1" = "/dev/a"', '"stable,copy1" = ""', "images[0].devices"),
        ('type = "raw"', 'type = "raw"\nsources = { "stable,copy1" = "/dev/b" }', "sources are for a delta only"),
        ('type = "raw"', 'type = "delta"', "sources lacks the slot"),
        ('[[slots]]\nset = "stable"\nmode = "copy1"', "", "slots"),
    ],
)
def test_a_mistake_is_named_by_its_key(folder: Path, old: str, new: str, named: str) -> None:
    assert old in GOOD
    assert named in refused(folder, GOOD.replace(old, new, 1))


ROOT_HASH = "4f" * 32


@pytest.mark.parametrize("text", [GOOD, DELTA])
def test_an_image_with_a_hash_tree_is_taken(folder: Path, text: str) -> None:
    (folder / "rootfs.img").write_bytes(bytes(4096) + b"verity\0\0" + bytes(4088))
    (folder / "SPEC.toml").write_text(f'{text}verity = {{ root_hash = "{ROOT_HASH}", hash_offset = 4096 }}\n')
    verity = load_spec(folder / "SPEC.toml").images[0].verity
    assert verity is not None
    assert (verity.root_hash, verity.hash_offset) == (ROOT_HASH, 4096)


@pytest.mark.parametrize(
    ("verity", "named"),
    [
        ("{}", "images[0].verity.root_hash"),
        (f'{{ root_hash = "{ROOT_HASH}" }}', "images[0].verity.hash_offset"),
        ("{ hash_offset = 4096 }", "images[0].verity.root_hash"),
        (f'{{ root_hash = "{ROOT_HASH[1:]}", hash_offset = 4096 }}', "images[0].verity.root_hash"),
        (f'{{ root_hash = "{ROOT_HASH.upper()}", hash_offset = 4096 }}', "images[0].verity.root_hash"),
        (f'{{ root_hash = "{ROOT_HASH}", hash_offset = "4096" }}', "images[0].verity.hash_offset"),
        (f'{{ root_hash = "{ROOT_HASH}", hash_offset = 0 }}', "images[0].verity.hash_offset"),
        (f'{{ root_hash = "{ROOT_HASH}", hash_offset = -4096 }}', "images[0].verity.hash_offset"),
        (f'{{ root_hash = "{ROOT_HASH}", hash_offset = 4097 }}', "images[0].verity.hash_offset"),
        (f'{{ root_hash = "{ROOT_HASH}", hash_offset = {1 << 60} }}', "images[0].verity.hash_offset"),
        (f'{{ root_hash = "{ROOT_HASH}", hash_offset = 512 }}', "no dm-verity superblock at byte 512 of rootfs.img"),
        (f'{{ root_hash = "{ROOT_HASH}", hash_offset = 1048576 }}', "no dm-verity superblock"),
        (f'{{ root_hash = "{ROOT_HASH}", hash_offset = 4096 }}\noffset = 512', "offset must be 0"),
    ],
)
def test_a_hash_tree_that_is_not_there_is_refused(folder: Path, verity: str, named: str) -> None:
    (folder / "rootfs.img").write_bytes(bytes(4096) + b"verity\0\0" + bytes(4088))
    assert named in refused(folder, f"{GOOD}verity = {verity}\n")


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ('compressed = "zstd"', "neither compressed"),
        ("offset = 512", "neither compressed"),
        ("installed_directly = true", "neither compressed"),
    ],
)
def test_what_a_delta_cannot_be_is_refused(folder: Path, more: str, named: str) -> None:
    assert named in refused(folder, DELTA + more)


def test_a_delta_from_itself_is_refused(folder: Path) -> None:
    assert "devices and sources are both" in refused(folder, DELTA.replace("/dev/b", "/dev/a"))


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ('[[slots]]\nset = "stable"\nmode = "copy1"', "slots: 'stable,copy1' is there 2 times"),
        (
            '[[images]]\nname = "rootfs"\nfile = "rootfs.img"\ntype = "raw"\ndevices = { "stable,copy1" = "/dev/c" }',
            "'rootfs' is there 2",
        ),
        ('[[scripts]]\nfile = "post.sh"\ntype = "lua"', "scripts[0].type"),
        ('[[scripts]]\nfile = "post.sh"\ntype = "shellscript"\n' * 2, "'post.sh' is there 2 times"),
        ('[[bootenv]]\nname = "a=b"\nvalue = "1"', "bootenv[0].name"),
        ('[[bootenv]]\nname = "a"', "values lacks the slot"),
        ('[[bootenv]]\nname = "a"\nvalue = "1"\nvalues = { "stable,copy1" = "2" }', "exclude each other"),
        ('[[bootenv]]\nname = "a"\nvalue = "1"\n' * 2, "'a' is there 2 times"),
        ('[[bootenv]]\nname = "a"\nvalue = "' + "x" * 256 + '"', "bootenv[0].value"),
    ],
)
def test_a_mistake_in_what_is_added_is_named(folder: Path, more: str, named: str) -> None:
    assert named in refused(folder, GOOD + more)


@pytest.mark.parametrize("name", ["sw-description", "-rf", "a..b"])
def test_a_script_whose_name_no_archive_may_hold_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"x")
    assert "scripts[0]" in refused(folder, f'{GOOD}[[scripts]]\nfile = "{name}"\ntype = "shellscript"')


def test_all_mistakes_are_named_at_once(folder: Path) -> None:
    text = refused(folder, GOOD.replace("stable", "sta ble").replace("rootfs.img", "absent"))
    assert "slots[0].set" in text
    assert "images[0].file" in text


@pytest.mark.parametrize("text", ["[", "a = " + "[" * 10_000, "a = \xff", "a = 1\n" * 200_000, "a = 1\na = 2", ""])
def test_what_is_no_spec_is_refused(folder: Path, text: str) -> None:
    (folder / "SPEC.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigurationError):
        load_spec(folder / "SPEC.toml")
    with pytest.raises(ConfigurationError):
        load_spec(folder / "absent.toml")


def test_nothing_to_install_is_refused(folder: Path) -> None:
    assert "nothing to install" in refused(folder, GOOD[: GOOD.index("[[images]]")])
