"""Which media are taken."""

from dataclasses import replace

import pytest

from media.config import AllowSection, PolicySection, Unknown
from media.policy import Device, Taken, rule
from update.errors import MediumRefusedError

STICK = Device(
    "sda1", "/dev/sda1", bus="usb", vendor="0951:1666", serial="42", label="UPDATE", filesystem="vfat", port="1-1.2",
    interfaces=("08",), size_bytes=1 << 30, removable=True,
)  # fmt: skip
NOBODY = AllowSection(serial="nobody")


@pytest.mark.parametrize(
    ("section", "fits"),
    [
        (AllowSection(), True),
        (AllowSection(vendor="0951:*", serial="4?", label="UP*", port="1-1*"), True),
        (AllowSection(vendor="dead:*"), False),
        (AllowSection(serial="43"), False),
        (AllowSection(label="update"), False),
        (AllowSection(port="2-*"), False),
        (AllowSection(bus="mmc"), False),
    ],
)
def test_all_patterns_of_a_section_must_fit(section: AllowSection, fits: bool) -> None:
    ruling = rule(STICK, PolicySection(), (NOBODY, section))
    assert (ruling.taken, ruling.allow) == ((Taken.IMPORT, section) if fits else (Taken.SHOW, None))


@pytest.mark.parametrize("unknown", Unknown)
def test_what_is_not_named_is_treated_as_configured(unknown: Unknown) -> None:
    assert rule(STICK, PolicySection(unknown=unknown), (NOBODY,)).taken == Taken(str(unknown))


@pytest.mark.parametrize(
    ("device", "told"),
    [
        (replace(STICK, filesystem="ntfs"), "ntfs"),
        (replace(STICK, filesystem=""), "no file system"),
        (replace(STICK, interfaces=("03", "08")), "class 03"),
        (replace(STICK, size_bytes=5 << 40), str(5 << 40)),
    ],
)
def test_what_is_refused_says_why(device: Device, told: str) -> None:
    with pytest.raises(MediumRefusedError, match=told):
        rule(device, PolicySection(), (AllowSection(),))


def test_a_stick_that_types_is_taken_where_the_site_insists() -> None:
    keyboard = replace(STICK, interfaces=("03", "08"))
    assert rule(keyboard, PolicySection(only_storage=False), (AllowSection(),)).taken is Taken.IMPORT


def test_the_machines_own_disks_are_ignored_in_silence_unless_their_bus_is_named() -> None:
    own = replace(STICK, bus="virtio", removable=False, filesystem="swap")
    assert rule(own, PolicySection(unknown=Unknown.IMPORT), (AllowSection(),)).taken is Taken.IGNORE
    assert rule(replace(own, filesystem="ext4"), PolicySection(), (AllowSection(bus="virtio"),)).taken is Taken.IMPORT


def test_an_encrypted_stick_is_for_the_mounter_to_judge() -> None:
    assert rule(replace(STICK, filesystem="crypto_LUKS"), PolicySection(), (AllowSection(),)).taken is Taken.IMPORT
