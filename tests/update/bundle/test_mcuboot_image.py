"""What is read out of the image of a microcontroller, and what is refused."""

import contextlib
import hashlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.mcuboot import HEADER_SIZE, area, make_image
from update.bundle.mcuboot_image import ImageVersion, parse_image
from update.errors import BundleError, DeviceImageError, HashMismatchError, LimitError, UnsupportedError

BODY = bytes(range(256)) * 8
GOOD = make_image("1.2.3+4", BODY, counter=7)


def test_an_image_says_its_version_hash_and_counter() -> None:
    image = parse_image(GOOD)
    assert (image.version, image.security_counter) == (ImageVersion(1, 2, 3, 4), 7)
    assert image.image_hash == hashlib.sha256(image.signed).digest()
    assert parse_image(make_image("1.0.0", BODY)).security_counter is None


@pytest.mark.parametrize(("text", "shown"), [("1.2.3.4", "1.2.3+4"), ("1.2.3+4", "1.2.3+4"), ("1.2.3", "1.2.3"), ("2", "2.0.0")])
def test_versions_are_the_same_however_they_are_written(text: str, shown: str) -> None:
    assert str(ImageVersion.parse(text)) == shown


@pytest.mark.parametrize("text", ["", "1.2.3.4.5", "1.x", "-1.0", "1.2.99999999999", "1..2"])
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(DeviceImageError):
        ImageVersion.parse(text)


@given(st.tuples(*[st.integers(0, 255)] * 4))
def test_versions_survive_being_written(numbers: tuple[int, int, int, int]) -> None:
    version = ImageVersion(*numbers)
    assert ImageVersion.parse(str(version)) == version


def test_an_image_that_is_cut_anywhere_is_refused() -> None:
    for length in [*range(40), *range(HEADER_SIZE, len(GOOD), 97), *range(len(GOOD) - 60, len(GOOD))]:
        with pytest.raises(BundleError):
            parse_image(GOOD[:length])


def test_a_flipped_bit_anywhere_is_refused_or_outside_of_what_is_covered() -> None:
    """Behind the hash TLV there is nothing, so every byte is covered by it or breaks the structure."""
    for place in [*range(HEADER_SIZE), *range(HEADER_SIZE, len(GOOD), 61), *range(len(GOOD) - 60, len(GOOD))]:
        damaged = bytearray(GOOD)
        damaged[place] ^= 0x04
        with pytest.raises(BundleError):
            parse_image(bytes(damaged))


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (make_image("1.0.0", BODY, magic=0x96F3B83C), DeviceImageError),
        (make_image("1.0.0", BODY, flags=0x4), UnsupportedError),
        (make_image("1.0.0", BODY, flags=0x400), UnsupportedError),
        (make_image("1.0.0", BODY, flags=0x10), DeviceImageError),
        (make_image("1.0.0", BODY, image_hash=bytes(32)), HashMismatchError),
        (make_image("1.0.0", BODY, tlvs=[(0x10, bytes(32))]), DeviceImageError),
        (make_image("1.0.0", BODY, tlvs=[(0x99, b"")] * 64), LimitError),
        (make_image("1.0.0", BODY, header_size=HEADER_SIZE) + bytes(16), DeviceImageError),
        (GOOD[:32] + area(0x6907, []), DeviceImageError),
    ],
)
def test_wrong_images_are_refused_by_name(data: bytes, error: type[BundleError]) -> None:
    with pytest.raises(error):
        parse_image(data)


def test_an_image_larger_than_its_slot_is_refused_before_it_is_read() -> None:
    with pytest.raises(LimitError):
        parse_image(GOOD, max_bytes=len(GOOD) - 1)
    assert parse_image(GOOD, max_bytes=len(GOOD)).version == ImageVersion(1, 2, 3, 4)


def test_a_counter_that_nothing_signs_does_not_count() -> None:
    assert parse_image(make_image("1.0.0", BODY, tlvs=[(0x50, b"\x09\0\0\0")])).security_counter is None


@settings(max_examples=100)
@given(st.data())
def test_any_bytes_are_an_image_or_a_named_refusal(data: st.DataObject) -> None:
    content = bytearray(GOOD)
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(0, len(content))) :]
    with contextlib.suppress(BundleError):
        parse_image(bytes(content) + data.draw(st.binary(max_size=40)))


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF))
def test_sizes_that_lie_are_refused(header_size: int, protected: int, size: int) -> None:
    content = bytearray(GOOD)
    if (header_size, protected, size) == struct.unpack_from("<HHI", content, 8):
        return
    struct.pack_into("<HHI", content, 8, header_size, protected, size)
    with pytest.raises(BundleError):
        parse_image(bytes(content))
