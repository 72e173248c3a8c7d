"""ELF files for a processor: whole, or refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.simulators.cpu import ARM, make_firmware
from update.bundle.elf_image import check_elf
from update.errors import DeviceImageError

GOOD = make_firmware("1.0", size=400)


def test_a_whole_file_for_the_machine_is_taken() -> None:
    check_elf(GOOD)
    check_elf(GOOD, machine=ARM)


def test_a_file_for_another_machine_is_refused() -> None:
    with pytest.raises(DeviceImageError, match="of kind 62"):
        check_elf(GOOD, machine=62)


@given(length=st.integers(0, len(GOOD) - 1))
@settings(max_examples=60)
def test_no_beginning_of_a_file_is_taken(length: int) -> None:
    with pytest.raises(DeviceImageError):
        check_elf(GOOD[:length])


@given(place=st.integers(0, 83), value=st.integers(0, 255))
@settings(max_examples=100)
def test_a_damaged_head_is_taken_or_refused_by_name(place: int, value: int) -> None:
    data = bytearray(GOOD)
    data[place] = value
    try:
        check_elf(bytes(data))
    except DeviceImageError:
        return


@given(data=st.binary(max_size=300))
@settings(max_examples=100)
def test_anything_else_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(DeviceImageError):
        check_elf(data)
