"""Entries: what the real swupdate would misread, cut or drop without a word is refused with the reason."""

import pytest

from tests.builders.bundles import DEMO, describe, image
from update.bundle.description import Description, parse
from update.bundle.entries import Compression, Handler
from update.errors import ContainerError, DescriptionError

DATA = b"image"
URL = "http://plant/targets/" + "0" * 64 + ".rootfs.zck"


def one_image(**attributes: object) -> Description:
    entry = image("img", DATA) | {key.replace("_", "-"): value for key, value in attributes.items()}
    return parse(describe(images=[entry]))


@pytest.mark.parametrize(
    "attributes",
    [
        {"offset": "4K"},  # SWUpdate would write at 19,252
        {"offset": "4096"},
        {"offset": -1},
        {"offset": True},
        {"offset": 1.5},
        {"offset": 10**400},
        {"offset": 1 << 31},  # read as a 32-bit number
        {"compressed": "xz"},
        {"compressed": "true"},
        {"compressed": 1},
        {"installed-directly": "true"},
        {"install-if-different": 1},
        {"install-if-different": True},
        {"install-if-higher": True, "name": "x"},
        {"device": ""},
        {"device": 7},
        {"device": "/dev/a\n"},
        {"version": 1.2},
        {"name": "n" * 256},
        {"properties": {"max-ranges": 3}},  # SWUpdate would drop it silently
        {"properties": {"flag": True}},
        {"properties": {"nested": {"a": "b"}}},
        {"properties": {"list": ["a", 1]}},
        {"properties": ["a"]},
        {"sha256": ""},
        {"sha256": "0" * 63},
        {"sha256": None},
        {"filename": 7},
        {"filename": ""},
    ],
)
def test_what_swupdate_would_misread_is_refused(attributes: dict[str, object]) -> None:
    with pytest.raises(DescriptionError):
        parse(describe(images=[image("img", DATA) | attributes]))


@pytest.mark.parametrize("name", ["../x", "a/b", "-x", "a\x00b"])
def test_a_file_name_that_no_archive_may_hold_is_refused(name: str) -> None:
    with pytest.raises((ContainerError, DescriptionError)):
        parse(describe(images=[image(name, DATA)]))


def test_one_file_with_two_hashes_is_refused() -> None:
    with pytest.raises(DescriptionError):
        parse(describe(images=[image("img", DATA), image("img", b"other")]))


def test_one_file_for_several_entries_is_fine() -> None:
    entries = [image("img", DATA, device="/dev/a"), image("img", DATA, device="/dev/b", offset=4096)]
    assert len(parse(describe(images=entries)).select(DEMO).images) == 2


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"url": URL},
        {"source": "/dev/b"},
        {"url": "file:///x", "source": "/dev/b"},
        {"url": "http://plant", "source": "/dev/b"},
        {"url": URL + " x", "source": "/dev/b"},
        {"url": [URL, URL], "source": "/dev/b"},
        {"url": URL, "source": "/dev/b", "max-ranges": "0"},
        {"url": URL, "source": "/dev/b", "max-ranges": "many"},
        {"url": URL, "source": "/dev/b", "zckloglevel": "loud"},
    ],
)
def test_an_incomplete_delta_is_refused(properties: dict[str, object]) -> None:
    with pytest.raises(DescriptionError):
        one_image(type="delta", properties=properties)


@pytest.mark.parametrize("attributes", [{"installed_directly": True}, {"compressed": "zstd"}, {"offset": 512}])
def test_a_delta_cannot_be_streamed_compressed_or_moved(attributes: dict[str, object]) -> None:
    with pytest.raises(DescriptionError):
        one_image(type="delta", properties={"url": URL, "source": "/dev/b"}, **attributes)


@pytest.mark.parametrize("bootenv", [[{"name": "a"}], [{"name": "a=b", "value": ""}], [{"name": "", "value": ""}]])
def test_a_variable_needs_a_name_and_a_value(bootenv: list[dict[str, object]]) -> None:
    with pytest.raises(DescriptionError):
        parse(describe(bootenv=bootenv))


def test_a_variable_set_twice_is_refused() -> None:
    with pytest.raises(DescriptionError):
        parse(describe(bootenv=[{"name": "a", "value": "1"}, {"name": "a", "value": "2"}]))


def test_the_old_spelling_of_zlib_is_read() -> None:
    assert one_image(compressed=True).select(DEMO).images[0].compressed is Compression.ZLIB


@pytest.mark.parametrize("base", ["/dev/b", ["/dev/b"]])
def test_an_rdiff_names_the_device_that_it_leads_from(base: object) -> None:
    entry = image("x.rdiff", DATA, device="/dev/a", type="rdiff_image", compressed="zstd", properties={"rdiffbase": base})
    (read,) = parse(describe(images=[entry])).select(DEMO).images
    assert (read.type, read.base, read.device) == (Handler.RDIFF, "/dev/b", "/dev/a")


@pytest.mark.parametrize(
    ("properties", "more"),
    [
        ({}, {}),
        ({"rdiffbase": ""}, {}),
        ({"rdiffbase": ["/dev/b", "/dev/c"]}, {}),
        ({"rdiffbase": "/dev/a"}, {}),
        ({"rdiffbase": "/dev/b"}, {"offset": 4096}),
    ],
)
def test_an_rdiff_that_cannot_be_installed_as_it_says_is_refused(properties: dict[str, object], more: dict[str, object]) -> None:
    entry = image("x.rdiff", DATA, device="/dev/a", type="rdiff_image", properties=properties) | more
    with pytest.raises(DescriptionError):
        parse(describe(images=[entry]))
