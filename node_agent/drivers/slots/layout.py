"""The slots of a Linux device as its configuration names them.

A part has a name of its own (for records and scripts), the device that sw-description calls it by, and the real block
device or file behind it. `selection` is what an unmodified SWUpdate would be told with `-e`: software set and mode.
"""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from update.errors import ConfigurationError
from update.identity import check_name


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class PartConfig:
    """One part. `required`: a bundle without an image for it is refused, since it would keep what an older release left."""

    name: str
    device: str
    path: Path
    required: bool = True


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class SlotConfig:
    """One slot: the bootloader's name for it, the selection `set,mode` of its images (or empty), and its parts."""

    name: str
    selection: str
    parts: tuple[PartConfig, ...]

    @property
    def software_set(self) -> str:
        """The first half of the selection."""
        return self.selection.partition(",")[0].strip()

    @property
    def mode(self) -> str:
        """The second half of the selection."""
        return self.selection.partition(",")[2].strip()

    def part(self, device: str) -> PartConfig | None:
        """The part that sw-description calls `device`."""
        return next((part for part in self.parts if part.device == device), None)


def check_layout(slots: Sequence[SlotConfig]) -> None:
    """`ConfigurationError` for slots that could not be told apart, or that share a part."""
    if len(slots) != 2:
        raise ConfigurationError(f"an A/B device has two slots, the configuration names {len(slots)}")
    paths: dict[Path, str] = {}
    for slot in slots:
        check_name(slot.name, "a slot's name")
        if not slot.parts or bool(slot.software_set) != bool(slot.mode):
            raise ConfigurationError(f"slot {slot.name} needs parts, and a selection 'set,mode' or none: got {slot.selection!r}")
        for part in slot.parts:
            _check_part(slot, part, paths)
    if slots[0].name == slots[1].name:
        raise ConfigurationError(f"both slots are called {slots[0].name}; name them as the bootloader does")


def _check_part(slot: SlotConfig, part: PartConfig, paths: dict[Path, str]) -> None:
    check_name(part.name, "a part's name")
    if [other.name for other in slot.parts].count(part.name) > 1 or slot.part(part.device) is not part or not part.device:
        raise ConfigurationError(f"slot {slot.name}: the name and the device of part {part.name} must be there once")
    path = part.path.resolve()
    if path in paths:
        raise ConfigurationError(
            f"{part.path} is part {part.name} of slot {slot.name} and of slot {paths[path]}; parts are not shared"
        )
    paths[path] = slot.name
