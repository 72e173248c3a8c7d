"""Would a RAUC node install this bundle? RAUC's own rules as a pure judgement, so that none is offered what it will refuse.

In this order, each with its own refusal (RAUC manual, "Compatibility Check", "Variants", "system.conf"):

1. `compatible` of the manifest and of the node are the same text: `HardwareError`
2. the node's `bundle-formats` admit the format, and its RAUC takes several signers if there are several (1.8 verifies all of
   them and then takes one only, later releases take more), and is not older than `min-rauc-version`, where both are known:
   `UnsupportedError`
3. with a `min-bundle-version`, the bundle states a semantic version that is not below it: `RollbackError`; this is RAUC's only
   protection against going back
4. for every slot class the bundle has an image of the node's variant, or a general one; the variant's is preferred:
   `HardwareError`

Semantic versions are those of semver 2.0.0; build metadata does not count. RAUC reads missing minor and patch numbers as 0.

A RAUC node as `Hardware` (TUF's hwIds are `board:revision`): the board is `compatible`, the revision is the variant, `-` without
one.
"""

import re
from dataclasses import dataclass
from typing import Final

from update.bundle.rauc_layout import RaucFormat
from update.bundle.rauc_manifest import RaucImage, RaucManifest
from update.errors import DescriptionError, HardwareError, RollbackError, UnsupportedError
from update.identity import Hardware

NO_VARIANT: Final = "-"
ANY_REVISION: Final = "#RE:"
"""A pattern of hwIds that every revision matches."""
_SEMVER = re.compile(
    r"(\d{1,18})(?:\.(\d{1,18}))?(?:\.(\d{1,18}))?(?:-([0-9A-Za-z.-]{1,200}))?(?:\+[0-9A-Za-z.-]{1,200})?", re.ASCII
)
_FIT_FOR_HARDWARE_IDS = re.compile(r"[\x20-\x39\x3b-\x7e]{1,200}", re.ASCII)

_Order = tuple[int, int, int, tuple[tuple[int, int, str], ...]]


@dataclass(frozen=True, slots=True)
class RaucNode:
    """What a node's system.conf says; empty texts for what it does not."""

    compatible: str
    variant: str = ""
    min_bundle_version: str = ""
    formats: frozenset[RaucFormat] = frozenset(RaucFormat)
    several_signers: bool = False
    rauc_version: str = ""

    @property
    def hardware(self) -> Hardware:
        """The node as board and revision."""
        return Hardware(self.compatible, self.variant or NO_VARIANT)


def judge_rauc(manifest: RaucManifest, node: RaucNode, *, signers: int = 1) -> tuple[RaucImage, ...]:
    """The images that `node` would install of a bundle with so many `signers`, or the module's first refusal."""
    if manifest.compatible != node.compatible:
        raise HardwareError(f"the bundle is for {manifest.compatible!r}, this node is {node.compatible!r}")
    if manifest.format not in node.formats:
        raise UnsupportedError(f"the bundle is {manifest.format}, the node accepts {', '.join(sorted(node.formats)) or 'none'}")
    if signers > 1 and not node.several_signers:
        raise UnsupportedError(f"the bundle has {signers} signers, the node's RAUC takes one; resign it, or update RAUC first")
    if manifest.min_rauc_version and node.rauc_version and compare_semantic(node.rauc_version, manifest.min_rauc_version) < 0:
        raise UnsupportedError(f"the bundle needs RAUC {manifest.min_rauc_version}, the node has {node.rauc_version}")
    if node.min_bundle_version:
        _judge_version(manifest.version, node.min_bundle_version)
    artifacts = tuple(image for image in manifest.images if image.artifact)
    classes = dict.fromkeys(image.slot_class for image in manifest.images if not image.artifact)
    return tuple(_image_for(manifest, slot_class, node.variant) for slot_class in classes) + artifacts


def hardware_ids(manifest: RaucManifest) -> tuple[str, ...]:
    """The hwIds to publish a bundle with: its compatible, with any variant or only with those it has all images for.

    `DescriptionError` for a compatible that hwIds cannot hold.
    """
    if not _FIT_FOR_HARDWARE_IDS.fullmatch(manifest.compatible):
        raise DescriptionError(
            f"compatible {manifest.compatible!r} holds ':' or other than printable ASCII characters; name the hardware yourself"
        )
    by_class = {image.slot_class: set[str]() for image in manifest.images if not image.artifact}
    for image in manifest.images:
        if not image.artifact:
            by_class[image.slot_class].add(image.variant)
    special = [variants for variants in by_class.values() if "" not in variants]
    if not special:
        return (f"{manifest.compatible}:{ANY_REVISION}",)
    return tuple(f"{manifest.compatible}:{variant}" for variant in sorted(set.intersection(*special)))


def compare_semantic(left: str, right: str) -> int:
    """-1, 0 or 1 as `left` is before, equal to or after `right`; `DescriptionError` for what is no semantic version."""
    mine, other = _order(left), _order(right)
    return (mine > other) - (mine < other)


def _judge_version(version: str, least: str) -> None:
    if not version:
        raise RollbackError(f"the bundle states no version, the node demands at least {least}")
    if compare_semantic(version, least) < 0:
        raise RollbackError(f"the bundle has version {version}, the node demands at least {least}")


def _image_for(manifest: RaucManifest, slot_class: str, variant: str) -> RaucImage:
    candidates = {image.variant: image for image in manifest.images if image.slot_class == slot_class and not image.artifact}
    found = candidates.get(variant) or candidates.get("")
    if found is None:
        known = ", ".join(sorted(candidates))
        raise HardwareError(
            f"the bundle has images for {slot_class} of the variants {known}, this node is {variant or 'of none'}"
        )
    return found


def _order(text: str) -> _Order:
    found = _SEMVER.fullmatch(text)
    if found is None:
        raise DescriptionError(f"{text[:80]!r} is no semantic version (1.2.3-rc.1)")
    # A pre-release is before its release: the release counts as one identifier that is after all others.
    identifiers = tuple(_identifier(part) for part in found[4].split(".")) if found[4] else ((2, 0, ""),)
    return int(found[1]), int(found[2] or 0), int(found[3] or 0), identifiers


def _identifier(part: str) -> tuple[int, int, str]:
    """Numbers come before texts (semver 2.0.0, section 11)."""
    return (0, int(part), "") if part.isdecimal() else (1, 0, part)
