"""Manifests, correctly signed, by the real `rauc`: what it refuses to read we refuse, or name as fit for later releases only."""

from pathlib import Path

import pytest

from tests.builders.rauc import SALT, bundle, manifest, payload, written
from tests.interop.rauc_tool import RaucTool
from update.bundle.rauc_manifest import parse_manifest
from update.errors import FieldrelayError

pytestmark = pytest.mark.interop

DATA = payload(3)
DIGEST = "ab" * 32
IMAGE = f"[image.rootfs]\nfilename=rootfs.img\nsha256={DIGEST}\nsize=8192\n"
HOOKS = "[hooks]\nfilename=hook.sh\n"


def signed_text(*changes: tuple[str, str], more: str = "") -> bytes:
    text = manifest(DATA, more=IMAGE).decode() + more
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text.encode()


GOOD = {
    "as it is": signed_text(),
    "no image": signed_text((IMAGE, "")),
    "no size": signed_text(("size=8192\n", "")),
    "a hook": signed_text(("size=8192\n", "size=8192\nhooks=pre-install;install\n"), more=HOOKS),
    "a hook for all": signed_text(more=f"{HOOKS}hooks=install-check;\n"),
    "a handler": signed_text(more="[handler]\nfilename=handler.sh\nargs=--fast\n"),
    "a variant with a dot": signed_text(("image.rootfs", "image.rootfs.a.b")),
    "a block index": signed_text(more="adaptive=block-hash-index\n"),
    "capital digits": signed_text((DIGEST, DIGEST.upper())),
    "blanks": signed_text(("compatible=", "compatible =   ")),
    "an escape": signed_text(("1.2.0", "1\\s2")),
    "other ends of lines": signed_text(("\n", "\r\n")),
    "a comment": b"# first\n" + signed_text(),
    "no version": signed_text(("version=1.2.0\n", "")),
}
ODD = {
    "a group of tomorrow": signed_text(more="[future]\nx=1\n"),
    "a key of tomorrow": signed_text(("version=", "future=1\nversion=")),
    "a key of an image": signed_text(more="future=1\n"),
    "two images for one class": signed_text(more=IMAGE),
    "a key twice": signed_text(("version=1.2.0", "version=1\nversion=2")),
    "no digest": signed_text((f"sha256={DIGEST}\n", "")),
    "no file": signed_text(("filename=rootfs.img\n", "")),
    "a hook without a file": signed_text(more="hooks=install\n"),
    "an unknown hook": signed_text(more=f"hooks=dance\n{HOOKS}"),
    "an unknown hook for all": signed_text(more=f"{HOOKS}hooks=dance\n"),
    "another folder": signed_text(("rootfs.img", "../rootfs.img")),
    "a whole path": signed_text(("rootfs.img", "/rootfs.img")),
    "no class": signed_text(("image.rootfs", "image")),
    "a size that is none": signed_text(("8192", "x")),
    "a negative size": signed_text(("size=8192", "size=-1")),
    "no compatible": signed_text(("press-controller", "")),
    "an unknown escape": signed_text(("1.2.0", "1\\q2")),
    "a key for verity": signed_text(("format=verity", f"format=verity\ncrypt-key={DIGEST}")),
    "crypt without a key": signed_text(("format=verity", "format=crypt")),
    "plain": signed_text(("format=verity", "format=plain")),
    "no root": signed_text(("verity-hash=", "verity-hush=")),
    "a short salt": signed_text((SALT.hex(), SALT.hex()[:32])),
    "an odd size of the tree": signed_text(("verity-size=4096", "verity-size=4095")),
}


@pytest.mark.parametrize("name", [*GOOD, *ODD])
def test_no_manifest_is_accepted_that_rauc_refuses(tmp_path: Path, name: str) -> None:
    tool = RaucTool(tmp_path)
    text = GOOD.get(name) or ODD[name]
    try:
        found = parse_manifest(text)
        fit = not found.unknown
    except FieldrelayError:
        fit = False
    verdict = tool.reads(written(tmp_path, bundle(DATA, text=text)))
    assert fit is (name in GOOD)
    assert verdict.good or not fit, verdict.said
