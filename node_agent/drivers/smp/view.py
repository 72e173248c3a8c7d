"""What a microcontroller with MCUboot says of its images, made sense of (MCUboot `docs/design.md`; Zephyr, "Image management").

MCUboot has two places, numbered 0 and 1, and swaps the images between them. Of what `image state` says:

- The running image is `active`. Not `confirmed` means that it is on trial: the next start, of whatever cause, takes it back.
- The other image is listed while it can run. `pending` means that the next start tries it, `permanent` that it keeps it.
- After a confirmation the previous image is not listed any more: over SMP there is no way back to it.
- An application always has one active image. A list without one comes from MCUboot's serial recovery, which writes the only image
  and knows no trial. An active image in place 1 comes from a build without swap, which erases where another one reverts.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from update.errors import BootloaderError


@dataclass(frozen=True, slots=True)
class ImageSeen:
    """One image as the device lists it; `image_hash` is of its hash TLV, empty where the device says none."""

    place: int
    version: str
    image_hash: bytes
    pending: bool = False
    confirmed: bool = False
    active: bool = False
    permanent: bool = False


@dataclass(frozen=True, slots=True)
class DeviceView:
    """What runs, and what lies beside it."""

    running: ImageSeen
    other: ImageSeen | None

    @property
    def on_trial(self) -> bool:
        """Whether the running image goes with the next start."""
        return not self.running.confirmed

    @property
    def pending(self) -> bool:
        """Whether the next start brings the other image."""
        return self.other is not None and self.other.pending

    def holds(self, image_hash: bytes) -> bool:
        """Whether the other image is that one."""
        return self.other is not None and self.other.image_hash == image_hash


def make_view(images: Iterable[ImageSeen]) -> DeviceView:
    """`BootloaderError` for a device that cannot take an update back, or that lists what makes no sense."""
    listed = tuple(images)
    active = [image for image in listed if image.active]
    if not active:
        raise BootloaderError(
            "the device is in serial recovery, where an upload replaces its only image and cannot be reverted; "
            "end the recovery (restart it), or repair it by hand"
        )
    if len(active) > 1 or active[0].place != 0 or not active[0].image_hash:
        places = ", ".join(str(image.place) for image in active)
        raise BootloaderError(f"the device runs from place {places}: only MCUboot in a swap mode is supported, which runs from 0")
    others = [image for image in listed if image.place == 1]
    if len(others) > 1:
        raise BootloaderError("the device lists several images in place 1; name the image number that is to be updated")
    return DeviceView(active[0], others[0] if others else None)
