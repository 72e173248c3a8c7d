"""The demo's yardstick, computed a second time from what the real zck_read_header prints; and the judgement built on it."""

import hashlib
import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.demo.figures import (
    CONFIRMED,
    ROLLED_BACK,
    Figures,
    NodeFigures,
    StickFigures,
    problems,
    stick_problems,
    union_bytes,
    write_json,
)
from gateway.demo.images import VERSIONS, DemoImage, build_images
from tests.peers import need_tool
from update.chunks.zchunk import parse_header
from update.durable import Disk
from update.publish.images import write_zchunk, zck_header


def quiet(_step: str) -> None:
    """Report nothing."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DemoImage]:
    folder = tmp_path_factory.mktemp("images")
    return {image.version: image for image in build_images(folder, seed=1, cap_bytes=8 << 20, progress=quiet)}


def test_the_images_are_reproducible_and_differ_by_version(images: dict[str, DemoImage], tmp_path: Path) -> None:
    again = {
        image.version: image.path.read_bytes() for image in build_images(tmp_path, seed=1, cap_bytes=8 << 20, progress=quiet)
    }
    assert again == {version: image.path.read_bytes() for version, image in images.items()}
    assert len(set(again.values())) == len(VERSIONS)


def printed_chunks(zck: Path) -> tuple[int, list[tuple[str, int, int]]]:
    """Header size, and (uncompressed digest, stored size, size) of every chunk, as the real tool prints them."""
    text = subprocess.run([need_tool("zck_read_header"), "-c", zck], check=True, capture_output=True, text=True).stdout
    lines = text.splitlines()
    header = next(int(line.split(":")[1]) for line in lines if line.startswith("Header size"))
    rows = [line.split() for line in lines]
    chunks = [row for row in rows if len(row) == 6 and len(row[1]) == len(row[2]) == 64]
    return header, [(row[2], int(row[4]), int(row[5])) for row in chunks if int(row[0]) > 0]


@pytest.mark.interop
def test_the_union_is_what_the_real_tool_says(images: dict[str, DemoImage], tmp_path: Path) -> None:
    zcks = {version: tmp_path / f"{version}.zck" for version in images}
    for version, image in images.items():
        write_zchunk(image.path, zcks[version], Disk())
    header, new = printed_chunks(zcks["1.2"])
    assert new
    needed: dict[str, int] = {}
    for version in ("1.0", "1.1"):
        held = {digest for digest, _, _ in printed_chunks(zcks[version])[1]}
        missing = [(digest, stored, size) for digest, stored, size in new if digest not in held]
        needed |= {digest: stored for digest, stored, size in missing if digest != hashlib.sha256(bytes(size)).hexdigest()}
    indexes = {version: parse_header(zck_header(path)) for version, path in zcks.items()}
    assert union_bytes(indexes["1.2"], [indexes["1.0"], indexes["1.1"], indexes["1.0"]]) == header + sum(needed.values())


GOOD = Figures(
    image_bytes=1000,
    zck_bytes=500,
    upstream_bytes=150,
    metadata_bytes=40,
    repeated_bytes=9,
    union_bytes=100,
    late_bytes=0,
    bootloader="uboot",
    nodes=(
        NodeFigures("node-1", "1.0", "1.2", CONFIRMED, 80, 900, "b", "new"),
        NodeFigures("node-2", "1.0", "1.2", ROLLED_BACK, 80, 900, "a", "old"),
    ),
    seconds=1.0,
)
IMAGES = {"1.0": "old", "1.2": "new"}


def test_a_run_in_which_all_is_true_has_no_problems() -> None:
    assert problems(GOOD, GOOD.nodes, IMAGES) == []


@pytest.mark.parametrize(
    "bad",
    [
        replace(GOOD, upstream_bytes=152),
        replace(GOOD, late_bytes=1),
        replace(GOOD, nodes=(GOOD.nodes[0], replace(GOOD.nodes[1], result=CONFIRMED))),
        replace(GOOD, nodes=(replace(GOOD.nodes[0], slot_sha256="old"), GOOD.nodes[1])),
        replace(GOOD, nodes=(replace(GOOD.nodes[0], slot="a"), GOOD.nodes[1])),
    ],
)
def test_whatever_is_not_as_promised_is_named(bad: Figures) -> None:
    assert len(problems(bad, GOOD.nodes, IMAGES)) >= 1


def test_a_release_that_came_by_hand_must_be_in_every_slot() -> None:
    stick = StickFigures("1.3", "safe", 10, 0.1, ("node-1", "node-2"), ("new", "new"))
    assert stick_problems(stick, "new") == []
    assert "node-2: its slot hashes to old" in stick_problems(replace(stick, slots_sha256=("new", "old")), "new")[0]
    assert "ended as failed" in stick_problems(replace(stick, stage="failed"), "new")[0]


def test_the_published_form_has_the_promised_keys(tmp_path: Path) -> None:
    write_json(GOOD, tmp_path / "build" / "demo.json")
    values = json.loads((tmp_path / "build" / "demo.json").read_text())
    keys = {"image_bytes", "zck_bytes", "upstream_bytes", "metadata_bytes", "repeated_bytes", "union_bytes"}
    assert set(values) == {*keys, "bootloader", "nodes", "seconds", "stick", "line"}
    node_keys = {"id", "from", "to", "result", "downloaded_bytes", "reused_bytes", "slot", "slot_sha256"}
    assert all(set(node) == node_keys for node in values["nodes"])
