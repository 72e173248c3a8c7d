"""Bundles with an rdiff: what is in them leads from the base to the image, and the description says from where."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from node_agent.drivers.slots.layout import PartConfig, SlotConfig
from node_agent.drivers.slots.plan import plan_slot
from tests.builders.bundles import DEMO, verified
from tests.builders.keys import make_pki
from tests.update.chunks.edits import edited, read_of
from update.bundle.entries import Compression, Handler
from update.bundle.reader import open_payload
from update.chunks.rdiff import apply_delta
from update.durable import Disk
from update.errors import ConfigurationError, StoreError, UnsupportedError
from update.publish.bundles import BuiltBundle, build_bundle
from update.publish.rdiffs import write_rdiff
from update.publish.spec import load_spec
from update.trust.signers import FileSigner

BASE = random.Random(3).randbytes(400_000) + bytes(100_000)
NEW = edited(BASE, 3, 6)
SPEC = """
[bundle]
name = "controller"
version = "1.1"
repository = "plant"
hardware = { board = "demo", revisions = ["1.0"] }
[[slots]]
set = "stable"
mode = "copy1"
[[images]]
name = "rootfs"
file = "new.img"
type = "rdiff_image"
base = "base.img"
devices = { "stable,copy1" = "/dev/a" }
sources = { "stable,copy1" = "/dev/b" }
"""


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., BuiltBundle]:
    (tmp_path / "base.img").write_bytes(BASE)
    (tmp_path / "new.img").write_bytes(NEW)

    def build(spec: str = SPEC) -> BuiltBundle:
        (tmp_path / "SPEC.toml").write_text(spec)
        pki = make_pki()
        signer = FileSigner(pki.signers[0].certificate, pki.signers[0].key)
        return build_bundle(load_spec(tmp_path / "SPEC.toml"), tmp_path / "out", [signer], Disk())

    return build


def test_the_member_leads_from_the_base_to_the_image(build: Callable[..., BuiltBundle]) -> None:
    built = build()
    bundle = verified(built.file)
    (entry,) = bundle.description.select(DEMO, "stable", "copy1").images
    assert (entry.type, entry.base, entry.device) == (Handler.RDIFF, "/dev/b", "/dev/a")
    assert entry.compressed is Compression.ZSTD
    assert bundle.members[entry.filename].size < 20_000
    out: list[bytes] = []
    with open_payload(bundle, entry, max_bytes=len(NEW)) as delta:
        apply_delta(delta, read_of(BASE), len(BASE), out.append, size=len(NEW))
    assert b"".join(out) == NEW


def test_an_agent_refuses_an_rdiff_by_name(build: Callable[..., BuiltBundle], tmp_path: Path) -> None:
    bundle = verified(build().file)
    a, b = (SlotConfig(name, "", (PartConfig("rootfs", f"/dev/{name}", tmp_path / name),)) for name in "ab")
    with pytest.raises(UnsupportedError, match="order the release whole"):
        plan_slot(bundle, bundle.description.select(DEMO, "stable", "copy1"), a, b, verity_tool="")


@pytest.mark.parametrize(
    ("line", "instead", "words"),
    [
        ('base = "base.img"\n', "", "base is for an rdiff_image"),
        ('type = "rdiff_image"', 'type = "delta"', "base is for an rdiff_image"),
        ('type = "rdiff_image"', 'type = "raw"', "base is for an rdiff_image"),
        ('"/dev/b"', '"/dev/a"', "devices and sources are both /dev/a"),
        ('sources = { "stable,copy1" = "/dev/b" }\n', "", "sources"),
        ('base = "base.img"', 'base = "gone.img"', "is not a file"),
        ('base = "base.img"', 'base = "base.img"\ncompressed = "zstd"', "neither compressed"),
    ],
)
def test_what_an_rdiff_cannot_be_is_refused(build: Callable[..., BuiltBundle], line: str, instead: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        build(SPEC.replace(line, instead))


def test_a_base_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"x")
    with pytest.raises(StoreError, match="gone"):
        write_rdiff(tmp_path / "gone", tmp_path / "new", tmp_path / "out")
