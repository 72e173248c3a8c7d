"""Signed bundles whose images travel as chunks of a `.zck` at any URL, as a device maker may have named it."""

from collections.abc import Sequence
from pathlib import Path

from tests.builders.bundles import describe, image, signed, verified
from tests.builders.keys import Identity
from update.bundle.verified import VerifiedBundle
from update.digest import digest_file
from update.publish.images import zck_header
from update.trust.verified import TargetCustom, TargetInfo


def delta_image(zck: Path, url: str, *, number: int = 0, max_ranges: int = 150, device: str = "/dev/a") -> dict[str, object]:
    """One image entry; the member is the header of `zck`."""
    properties = {"url": url, "source": "/dev/b", "chain": "raw", "max-ranges": str(max_ranges)}
    return image(f"image-{number}.zck", zck_header(zck), device=device, type="delta", properties=properties)


def delta_bundle(folder: Path, zck: Path, *urls: str, by: Sequence[Identity] = (), name: str = "delta.swu") -> Path:
    """A bundle with one image for each of `urls`, all of the same `.zck`."""
    images = [delta_image(zck, url, number=number) for number, url in enumerate(urls)]
    members = {f"image-{number}.zck": zck_header(zck) for number in range(len(urls))}
    return signed(folder, describe(images=images), members, *by, name=name)


def verified_delta(folder: Path, zck: Path, *urls: str) -> VerifiedBundle:
    """The same, verified."""
    return verified(delta_bundle(folder, zck, *urls))


def bundle_info(bundle: Path, repository: str = "plant", path: str = "os/delta.swu", *, counter: int = 1) -> TargetInfo:
    """As verified metadata would list the bundle."""
    sha256, length = digest_file(bundle)
    return TargetInfo(repository, path, length, sha256, TargetCustom(release_counter=counter), "targets")
