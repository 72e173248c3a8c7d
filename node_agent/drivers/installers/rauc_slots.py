"""What RAUC says of itself, as values: `system.conf`, and the answers of its service (RAUC manual, "D-Bus API"). Pure.

A *pair* is the two slots of the booted slot's class that have a `bootname`; the agent calls them by that. A slot's *group* is
itself and whatever names it as `parent`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from update.bundle.key_file import parse_key_file
from update.bundle.rauc_layout import RaucFormat
from update.bundle.rauc_rules import RaucNode
from update.digest import Digest
from update.errors import BootloaderError, BundleError, ConfigurationError

_Text = Annotated[str, Field(max_length=4096)]
_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_WITH_TRIALS: Final = frozenset({"barebox", "grub", "uboot", "efi", "custom"})
_OFF: Final = frozenset({"false", "0"})


@dataclass(frozen=True, slots=True)
class RaucSystem:
    """What is read of system.conf; `parents` maps a slot to the one that it belongs to."""

    min_bundle_version: str
    formats: frozenset[RaucFormat]
    parents: Mapping[str, str]


@checked(frozen=True, slots=True, config=ConfigDict(extra="ignore"))
class RaucSlot:
    """One slot; empty texts and None for what RAUC does not say. Times as RAUC writes them: they compare as texts."""

    name: _Text
    slot_class: Annotated[_Text, Field(alias="class")] = ""
    device: _Text = ""
    type: _Text = ""
    bootname: _Text = ""
    state: _Text = ""
    status: _Text = ""
    sha256: _Text = ""
    size: Annotated[int, Field(ge=0)] | None = None
    version: Annotated[_Text, Field(alias="bundle.version")] = ""
    installed: Annotated[_Text, Field(alias="installed.timestamp")] = ""
    activated: Annotated[_Text, Field(alias="activated.timestamp")] = ""

    @property
    def content(self) -> tuple[Digest, int] | None:
        """SHA-256 and size of the image that RAUC wrote last and completely."""
        if self.status != "ok" or self.size is None or not _DIGEST.fullmatch(self.sha256):
            return None
        return Digest(self.sha256), self.size


@checked(frozen=True, slots=True, config=ConfigDict(extra="ignore"))
class _Identity:
    compatible: Annotated[_Text, Field(alias="Compatible")]
    variant: Annotated[_Text, Field(alias="Variant")] = ""


@dataclass(frozen=True, slots=True)
class RaucState:
    """One look at the service. `primary` is RAUC's name of the slot that starts next."""

    compatible: str
    variant: str
    primary: str
    slots: tuple[RaucSlot, ...]

    def pair(self) -> tuple[RaucSlot, RaucSlot]:
        """Both slots that can start, by name. `BootloaderError` if there are not two."""
        booted = self.booted()
        found = [slot for slot in self.slots if slot.slot_class == booted.slot_class and slot.bootname]
        if len(found) != 2:
            raise BootloaderError(
                f"rauc has {len(found)} slots of class {booted.slot_class} with a bootname; an A/B device has two"
            )
        return found[0], found[1]

    def booted(self) -> RaucSlot:
        """The slot that runs. `BootloaderError` if RAUC does not know it."""
        for slot in self.slots:
            if slot.state == "booted" and slot.bootname:
                return slot
        raise BootloaderError("rauc does not know which slot is booted; see rauc.slot= on the kernel's command line")

    def called(self, bootname: str) -> RaucSlot:
        """The slot of the pair with this bootname."""
        for slot in self.pair():
            if slot.bootname == bootname:
                return slot
        raise BootloaderError(f"rauc knows no slot with the bootname {bootname!r} that could start")

    def group(self, bootname: str, system: RaucSystem) -> tuple[RaucSlot, ...]:
        """The slot called `bootname`, and what belongs to it."""
        root = self.called(bootname)
        return root, *(slot for slot in self.slots if system.parents.get(slot.name) == root.name)

    def node(self, system: RaucSystem, *, several_signers: bool) -> RaucNode:
        """This device for the rules of `update.bundle.rauc_rules`."""
        return RaucNode(self.compatible, self.variant, system.min_bundle_version, system.formats, several_signers)


_SLOTS = TypeAdapter(list[tuple[_Text, dict[str, object]]])
_SLOT = TypeAdapter(RaucSlot)
_IDENTITY = TypeAdapter(_Identity)


def read_state(slots: object, primary: object, properties: object) -> RaucState:
    """The answers of GetSlotStatus, GetPrimary and GetAll. `BootloaderError` for what no RAUC answers."""
    try:
        found = [_SLOT.validate_python({**values, "name": name}) for name, values in _SLOTS.validate_python(slots)]
        identity = _IDENTITY.validate_python(properties)
    except ValidationError as error:
        raise BootloaderError(f"rauc answers what cannot be read: {str(error.errors(include_input=False)[0])[:500]}") from error
    ordered = tuple(sorted(found, key=lambda slot: slot.name))
    return RaucState(identity.compatible, identity.variant, str(primary), ordered)


def read_system(data: bytes, where: str) -> RaucSystem:
    """What a system.conf says, if an update can be driven under it; `ConfigurationError` says what it needs.

    - `activate-installed=false`: else writing a slot would also switch to it, and a power cut between the two of them would
      start a version that nobody asked to start.
    - a `bootloader` that counts starts: `noop` has no way back.
    """
    try:
        groups = parse_key_file(data, where)
    except BundleError as error:
        raise ConfigurationError(f"{error}") from error
    system = groups.get("system", {})
    if (activates := system.get("activate-installed", "true").strip()) not in _OFF:
        raise ConfigurationError(
            f"{where}: activate-installed is {activates}; set activate-installed=false in [system], "
            "since the agent switches slots itself, once its hooks agree"
        )
    if (bootloader := system.get("bootloader", "").strip()) not in _WITH_TRIALS:
        raise ConfigurationError(f"{where}: bootloader is {bootloader!r}; a trial needs one of {', '.join(sorted(_WITH_TRIALS))}")
    parents = {name.removeprefix("slot."): keys.get("parent", "").strip() for name, keys in groups.items() if _is_slot(name)}
    return RaucSystem(system.get("min-bundle-version", "").strip(), _formats(system.get("bundle-formats", ""), where), parents)


def _is_slot(group: str) -> bool:
    return group.startswith("slot.") and group.count(".") == 2


def _formats(text: str, where: str) -> frozenset[RaucFormat]:
    """`bundle-formats`: a list, or changes (`-plain`, `+crypt`) to all of them."""
    words = text.replace(";", " ").split()
    try:
        chosen = {RaucFormat(word) for word in words if word[0] not in "+-"}
        added = {RaucFormat(word[1:]) for word in words if word[0] == "+"}
        removed = {RaucFormat(word[1:]) for word in words if word[0] == "-"}
    except ValueError as error:
        raise ConfigurationError(f"{where}: bundle-formats = {text[:80]!r} names a format that is not known") from error
    return frozenset(((chosen or set(RaucFormat)) | added) - removed)
