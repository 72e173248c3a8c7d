"""A delta and a whole bundle are one release only where what is signed in both shows it."""

import gzip
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.builders.bundles import Group, describe, image, script, signed, verified
from tests.builders.delta_bundle import delta_image
from update.bundle.alike import check_alike
from update.bundle.deltas import bodies
from update.bundle.verified import VerifiedBundle
from update.durable import Disk
from update.errors import UnsupportedError
from update.publish.images import write_zchunk, zck_header

URL = "http://cdn.example/image.zck"
CONTENT = random.Random(3).randbytes(300_000) + bytes(90_000)
OTHER = CONTENT[:200_000] + b"!" + CONTENT[200_001:]
PIECE_BYTES = 4 << 20
"""A multiple of what is read at once."""
SCRIPT = b"#!/bin/sh\n"


def zck_of(folder: Path, content: bytes) -> Path:
    (folder / "image").write_bytes(content)
    write_zchunk(folder / "image", folder / "image.zck", Disk())
    return folder / "image.zck"


def bundle(folder: Path, name: str, members: Mapping[str, bytes], images: Sequence[Group], **more: object) -> VerifiedBundle:
    described = describe(images=images, **{"version": "2.0", **more})  # type: ignore[arg-type]  # sections by their names
    return verified(signed(folder, described, members, name=name))


def delta(folder: Path, *, device: str = "/dev/a", **more: object) -> VerifiedBundle:
    zck = zck_of(folder, CONTENT)
    return bundle(folder, "d.swu", {"image-0.zck": zck_header(zck)}, [delta_image(zck, URL, device=device)], **more)


def whole(folder: Path, stored: bytes = CONTENT, **attributes: object) -> VerifiedBundle:
    more = attributes.pop("more", {})
    assert isinstance(more, dict)
    entry = image("rootfs.img", stored, **{"device": "/dev/a", **attributes})  # type: ignore[arg-type]  # attributes by name
    return bundle(folder, "w.swu", {"rootfs.img": stored}, [entry], **more)


def test_a_delta_and_a_whole_bundle_of_the_same_content_are_alike_whatever_their_names(tmp_path: Path) -> None:
    check_alike(delta(tmp_path), whole(tmp_path))
    check_alike(delta(tmp_path), whole(tmp_path, gzip.compress(CONTENT), compressed="zlib"))


@pytest.mark.parametrize(
    ("stored", "attributes"),
    [
        (OTHER, {}),
        (CONTENT + b"x", {}),
        (CONTENT[:-1], {}),
        (CONTENT, {"device": "/dev/other"}),
        (CONTENT, {"offset": 512}),
        (CONTENT, {"name": "root"}),
        (CONTENT, {"more": {"version": "2.1"}}),
        (CONTENT, {"more": {"hardware": ("1.0", "2.0")}}),
        (CONTENT, {"more": {"bootenv": [{"name": "slot", "value": "b"}]}}),
    ],
    ids=["content", "longer", "shorter", "device", "offset", "name", "version", "hardware", "variables"],
)
def test_any_difference_in_what_is_installed_is_told(tmp_path: Path, stored: bytes, attributes: dict[str, object]) -> None:
    with pytest.raises(UnsupportedError):
        check_alike(delta(tmp_path), whole(tmp_path, stored, **attributes))


def test_a_whole_image_that_goes_on_where_a_read_ends_is_told(tmp_path: Path) -> None:
    zck = zck_of(tmp_path, bytes(PIECE_BYTES))
    one = bundle(tmp_path, "d.swu", {"image-0.zck": zck_header(zck)}, [delta_image(zck, URL)])
    check_alike(one, whole(tmp_path, bytes(PIECE_BYTES)))
    with pytest.raises(UnsupportedError):
        check_alike(one, whole(tmp_path, bytes(PIECE_BYTES + 1)))


def test_what_is_no_delta_must_be_the_same_bytes(tmp_path: Path) -> None:
    zck = zck_of(tmp_path, CONTENT)
    for kernel, alike in ((b"kernel 1", True), (b"kernel 2", False)):
        entries = [delta_image(zck, URL), image("kernel", b"kernel 1", device="/dev/k")]
        one = bundle(tmp_path, "d.swu", {"image-0.zck": zck_header(zck), "kernel": b"kernel 1"}, entries)
        entries = [image("rootfs.img", CONTENT, device="/dev/a"), image("zImage", kernel, device="/dev/k")]
        other = bundle(tmp_path, "w.swu", {"rootfs.img": CONTENT, "zImage": kernel}, entries)
        if alike:
            check_alike(one, other)
            continue
        with pytest.raises(UnsupportedError):
            check_alike(one, other)


def test_scripts_are_compared_by_content(tmp_path: Path) -> None:
    zck = zck_of(tmp_path, CONTENT)
    members = {"image-0.zck": zck_header(zck), "a.sh": SCRIPT}
    one = bundle(tmp_path, "d.swu", members, [delta_image(zck, URL)], scripts=[script("a.sh", SCRIPT)])
    entry = image("rootfs.img", CONTENT, device="/dev/a")
    same = bundle(tmp_path, "w.swu", {"rootfs.img": CONTENT, "b.sh": SCRIPT}, [entry], scripts=[script("b.sh", SCRIPT)])
    check_alike(one, same)
    with pytest.raises(UnsupportedError):
        check_alike(one, whole(tmp_path))


def test_two_deltas_are_no_pair(tmp_path: Path) -> None:
    one = delta(tmp_path)
    with pytest.raises(UnsupportedError):
        check_alike(one, one)


def test_what_a_bundle_fetches_from_is_told_once(tmp_path: Path) -> None:
    zck = zck_of(tmp_path, CONTENT)
    (body,) = bodies(delta(tmp_path))
    assert (body.header.length, body.length) == (len(zck_header(zck)), zck.stat().st_size)
    assert bodies(whole(tmp_path)) == ()
