"""SPEC.toml: what a bundle is to be made of, checked completely before anything is built.

    [bundle]
    name = "controller"
    version = "1.2"
    description = "Controller of the press line"     # optional
    repository = "plant"                             # stable repository name, the host in delta URLs
    hardware = { board = "demo", revisions = ["1.0"] }

    [[slots]]                                        # each is one selection (set, mode) of SWUpdate
    set = "stable"
    mode = "copy1"

    [[images]]
    name = "rootfs"
    file = "rootfs.ext4"                             # relative to SPEC.toml
    type = "delta"                                   # or "raw", or "rdiff_image" for devices that run `base` exactly
    base = "rootfs-1.1.ext4"                         # rdiff_image only: the image that it leads from
    devices = { "stable,copy1" = "/dev/fieldrelay/rootfs-a" }
    sources = { "stable,copy1" = "/dev/fieldrelay/rootfs-b" }    # delta: whose chunks are reused; rdiff_image: where base is
    max_ranges = 150                                 # delta only: byte ranges in one request
    compressed = "zstd"                              # raw only: "zstd", "zlib" or "none" (default)
    offset = 0                                       # raw only: bytes
    installed_directly = false                       # raw only: streamed to the device, hashed on the way
    verity = { root_hash = "4f…", hash_offset = 16777216 }       # an image with a dm-verity tree behind it
    version = "1.2"                                  # default: the bundle's
    install_if_different = false
    install_if_higher = false

    [[scripts]]
    file = "post.sh"
    type = "shellscript"
    data = ""                                        # handed to the script as an argument

    [[bootenv]]                                      # applied last: this is the switch
    name = "slot"
    values = { "stable,copy1" = "a" }                # or `value` for all slots

Every key of `devices`, `sources` and `values` is a slot, and every slot is there.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationInfo,
    model_validator,
)

from update.bundle.cpio import check_member_name
from update.bundle.description import RESERVED_NAMES
from update.bundle.entries import MAX_JSON_OFFSET_BYTES, MAX_TEXT, Compression, Handler
from update.bundle.reader import DESCRIPTION, SIGNATURE
from update.errors import ContainerError
from update.provided import check_values, named_after, read_toml

_SUFFIX = {Compression.NONE: "", Compression.ZLIB: ".gz", Compression.ZSTD: ".zst"}

_SECTOR_BYTES: Final = 512
_MAX_HASH_OFFSET: Final = 1 << 50
_VERITY_MAGIC: Final = b"verity\0\0"

_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True)

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9_-]{0,62}[A-Za-z0-9])?$")]
Version = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+~-]{0,63}$")]
Host = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")]
Text = Annotated[str, StringConstraints(max_length=MAX_TEXT, pattern=r"^[ -~]*$")]
Device = Annotated[str, StringConstraints(max_length=MAX_TEXT, pattern=r"^[!-~]+$")]
RootHash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Slot = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+,[A-Za-z0-9_-]+$")]


def _resolve(file: Path, info: ValidationInfo) -> Path:
    """Relative to the folder of SPEC.toml, and there."""
    resolved = named_after(file, info)
    if not resolved.is_file():
        raise ValueError(f"{resolved} is not a file")
    return resolved


def _one_of(*handlers: Handler) -> AfterValidator:
    def check(handler: Handler) -> Handler:
        if handler not in handlers:
            raise ValueError(f"{handler} is not possible here; use {' or '.join(handlers)}")
        return handler

    return AfterValidator(check)


ImageHandler = Annotated[Handler, Field(strict=False), _one_of(Handler.RAW, Handler.DELTA, Handler.RDIFF)]
ScriptHandler = Annotated[Handler, Field(strict=False), _one_of(Handler.SHELLSCRIPT)]
File = Annotated[Path, Field(strict=False), AfterValidator(_resolve)]


class HardwareSpec(BaseModel):
    """The board, and the revisions (literal, or `#RE:` and a pattern) that it may have."""

    model_config = _STRICT
    board: Name
    revisions: list[Annotated[Text, StringConstraints(min_length=1)]] = Field(min_length=1)


class HeadSpec(BaseModel):
    """The bundle as a whole."""

    model_config = _STRICT
    name: Name
    version: Version
    hardware: HardwareSpec
    repository: Host
    description: Text = ""

    @property
    def file_name(self) -> str:
        """The bundle's own name."""
        return f"{self.name}-{self.version}.swu"


class SlotSpec(BaseModel):
    """One selection."""

    model_config = _STRICT
    set: Name
    mode: Name

    @property
    def key(self) -> str:
        """As in `swupdate -e`."""
        return f"{self.set},{self.mode}"


class VeritySpec(BaseModel):
    """The dm-verity tree in the image, as `veritysetup format --hash-offset` printed its root; `hash_offset` in bytes."""

    model_config = _STRICT
    root_hash: RootHash
    hash_offset: int = Field(ge=_SECTOR_BYTES, le=_MAX_HASH_OFFSET, multiple_of=_SECTOR_BYTES)

    def problems(self, file: Path) -> Iterator[str]:
        """What cannot be meant: the tree's superblock must be where it is said to be (cryptsetup, on-disk format 1)."""
        try:
            with file.open("rb") as image:
                image.seek(self.hash_offset)
                found = image.read(len(_VERITY_MAGIC))
        except OSError as error:
            yield f"cannot read {file}: {error.strerror or error}"
            return
        if found != _VERITY_MAGIC:
            yield f"verity: no dm-verity superblock at byte {self.hash_offset} of {file.name}; give veritysetup's --hash-offset"


class ImageSpec(BaseModel):
    """One part of every slot."""

    model_config = _STRICT
    name: Name
    file: File
    type: ImageHandler
    devices: dict[Slot, Device]
    sources: dict[Slot, Device] = Field(default_factory=dict)
    base: File | None = None
    max_ranges: int = Field(150, ge=1, le=1000)
    compressed: Annotated[Compression, Field(strict=False)] = Compression.NONE
    offset: int = Field(0, ge=0, le=MAX_JSON_OFFSET_BYTES)
    installed_directly: bool = False
    verity: VeritySpec | None = None
    version: Version | None = None
    install_if_different: bool = False
    install_if_higher: bool = False

    @property
    def member(self) -> str:
        """The name in the archive."""
        match self.type:
            case Handler.DELTA:
                return f"{self.name}.zck.header"
            case Handler.RDIFF:
                return f"{self.name}.rdiff.zst"
            case _:
                return f"{self.name}.img{_SUFFIX[self.compressed]}"

    def problems(self, slots: set[str]) -> Iterator[str]:
        """What cannot be meant."""
        yield from _coverage("devices", self.devices, slots)
        if self.verity is not None:
            yield from self.verity.problems(self.file)
            if self.offset:
                yield "an image with a dm-verity tree begins where its part begins: offset must be 0"
        if self.type is Handler.RAW and self.sources:
            yield "sources are for a delta only"
        if (self.base is None) == (self.type is Handler.RDIFF):
            yield "base is for an rdiff_image, which needs it"
        if self.type is not Handler.RAW:
            yield from self._problems_of_delta(slots)

    def _problems_of_delta(self, slots: set[str]) -> Iterator[str]:
        yield from _coverage("sources", self.sources, slots)
        if self.compressed is not Compression.NONE or self.offset or self.installed_directly:
            yield "a delta is neither compressed nor at an offset nor installed directly"
        yield from (
            f"devices and sources are both {self.devices[slot]} for {slot!r}"
            for slot in sorted(slots)
            if slot in self.devices and self.devices[slot] == self.sources.get(slot)
        )


class ScriptSpec(BaseModel):
    """A script that runs before and after the images are written."""

    model_config = _STRICT
    file: File
    type: ScriptHandler
    data: Text = ""

    @property
    def member(self) -> str:
        """The name in the archive."""
        return self.file.name


class VariableSpec(BaseModel):
    """A variable of the bootloader: one value for all slots, or one for each."""

    model_config = _STRICT
    name: Annotated[str, StringConstraints(pattern=r"^[!-<>-~]{1,255}$")]
    value: Text | None = None
    values: dict[Slot, Text] = Field(default_factory=dict)

    def value_for(self, slot: str) -> str:
        """The value in `slot`."""
        return self.values[slot] if self.value is None else self.value

    def problems(self, slots: set[str]) -> Iterator[str]:
        """What cannot be meant."""
        if self.value is None:
            yield from _coverage("values", self.values, slots)
        elif self.values:
            yield "value and values exclude each other"


class BundleSpec(BaseModel):
    """The whole of SPEC.toml; file names are resolved."""

    model_config = _STRICT
    bundle: HeadSpec
    slots: list[SlotSpec] = Field(min_length=1)
    images: list[ImageSpec] = Field(default_factory=list)
    scripts: list[ScriptSpec] = Field(default_factory=list)
    bootenv: list[VariableSpec] = Field(default_factory=list)

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = list(self._problems())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _problems(self) -> Iterator[str]:
        slots = {slot.key for slot in self.slots}
        if not (self.images or self.scripts or self.bootenv):
            yield "nothing to install: give images, scripts or bootenv"
        yield from _twice("slots", (slot.key for slot in self.slots))
        yield from _twice("images", (image.name for image in self.images))
        yield from _twice("bootenv", (variable.name for variable in self.bootenv))
        members = [image.member for image in self.images] + [script.member for script in self.scripts]
        yield from _twice("files in the bundle", members)
        for name in {self.bundle.hardware.board, *(slot.set for slot in self.slots), *(slot.mode for slot in self.slots)}:
            if name in RESERVED_NAMES:
                yield f"{name!r} names a section of sw-description and can be no board, set or mode"
        for number, image in enumerate(self.images):
            yield from (f"images[{number}] ({image.name}): {problem}" for problem in image.problems(slots))
        for number, variable in enumerate(self.bootenv):
            yield from (f"bootenv[{number}] ({variable.name}): {problem}" for problem in variable.problems(slots))
        for number, script in enumerate(self.scripts):
            yield from (f"scripts[{number}]: {problem}" for problem in _name_problems(script.member))


_SPEC = TypeAdapter(BundleSpec)


def load_spec(path: Path) -> BundleSpec:
    """Read and check SPEC.toml; `ConfigurationError` with every mistake, each by its key."""
    return check_values(_SPEC, read_toml(path), path)


def _coverage(key: str, given: Iterable[str], slots: set[str]) -> Iterator[str]:
    names = set(given)
    yield from (f"{key} lacks the slot {slot!r}" for slot in sorted(slots - names))
    yield from (f"{key} names {slot!r}, which is no slot" for slot in sorted(names - slots))


def _twice(what: str, names: Iterable[str]) -> Iterator[str]:
    yield from (f"{what}: {name!r} is there {count} times" for name, count in Counter(names).items() if count > 1)


def _name_problems(member: str) -> Iterator[str]:
    if member in {DESCRIPTION, SIGNATURE}:
        yield f"a script cannot be named {member!r}"
    try:
        check_member_name(member)
    except ContainerError as error:
        yield str(error)
