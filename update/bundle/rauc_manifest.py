"""The manifest of a RAUC bundle: what it is, for which devices, and its images (RAUC manual, "Manifest"). Pure.

`parse_manifest` reads the signed text of a `verity` or `crypt` bundle, in which `[bundle]` pins the hash tree; a manifest
that lacks that, or is not for one of these formats, is refused, as RAUC refuses it. RAUC also refuses every key and group that
it does not know, and each release knows more of them: those beyond RAUC 1.16 are accepted here and named in `unknown`.

The key of a `crypt` payload is checked for its form and not kept: nobody here decrypts a payload.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from update.bundle.key_file import KeyFile, parse_key_file, split_list, unescape
from update.bundle.rauc_layout import BLOCK_BYTES, RaucFormat
from update.digest import Digest
from update.errors import DescriptionError

MAX_TEXT_CHARACTERS: Final = 1024
MAX_SIZE_BYTES: Final = (1 << 63) - 1
_HEX32 = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,19}", re.ASCII)
_FILE_NAME = re.compile(r"[^/\x00-\x1f\x7f]{1,255}")
_CLASS = re.compile(r"[A-Za-z0-9_-]{1,80}(/[A-Za-z0-9_.-]{1,80})?", re.ASCII)
_KNOWN = {
    "update": frozenset({"compatible", "version", "description", "build", "min-rauc-version"}),
    "bundle": frozenset({"format", "verity-hash", "verity-salt", "verity-size", "crypt-key"}),
    "hooks": frozenset({"filename", "hooks"}),
    "handler": frozenset({"filename", "args"}),
    "image": frozenset({"filename", "type", "sha256", "size", "hooks", "adaptive", "convert", "converted"}),
}
_FREE = frozenset({"meta", "rollout"})
_IMAGE_HOOKS = frozenset({"pre-install", "install", "post-install"})
_BUNDLE_HOOKS = frozenset({"install-check"})


@dataclass(frozen=True, slots=True)
class RaucImage:
    """One image. `sha256` and `size` (bytes) are of the file inside the payload; both absent if a hook makes the image.

    `slot_class` is the class of slots it is for, or the repository of an `artifact`; an empty `variant` is the general one.
    """

    slot_class: str
    variant: str = ""
    artifact: str = ""
    filename: str = ""
    type: str = ""
    sha256: Digest | None = None
    size: int | None = None
    hooks: tuple[str, ...] = ()
    adaptive: tuple[str, ...] = ()
    convert: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VerityPin:
    """What the manifest pins: `root` of the tree, `salt` (32 bytes), and the size of the tree in the file."""

    root: Digest
    salt: bytes
    tree_bytes: int


@dataclass(frozen=True, slots=True)
class RaucManifest:
    """A whole manifest; empty texts stand for absent keys.

    `unknown` names what only a later RAUC may take: groups as `[group]`, keys as `key in [group]`.
    """

    compatible: str
    format: RaucFormat
    verity: VerityPin
    images: tuple[RaucImage, ...]
    version: str = ""
    description: str = ""
    build: str = ""
    min_rauc_version: str = ""
    hook_file: str = ""
    hooks: tuple[str, ...] = ()
    handler: str = ""
    handler_args: str = ""
    meta: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: MappingProxyType({}))
    unknown: tuple[str, ...] = ()


def parse_manifest(data: bytes) -> RaucManifest:
    """Read the text that was signed. Errors: `DescriptionError`, `LimitError`."""
    groups = parse_key_file(data, "the manifest")
    update, bundle, hooks, handler = (_Group(groups, name) for name in ("update", "bundle", "hooks", "handler"))
    compatible = update.text("compatible")
    if not compatible:
        raise DescriptionError("the manifest names no 'compatible' in [update]")
    format_, pin = _pinned(bundle)
    return RaucManifest(
        compatible=compatible,
        format=format_,
        verity=pin,
        images=_images(groups, hook_file=hooks.file_name("filename")),
        version=update.text("version"),
        description=update.text("description", printable=False),
        build=update.text("build"),
        min_rauc_version=update.text("min-rauc-version"),
        hook_file=hooks.file_name("filename"),
        hooks=hooks.choices("hooks", _BUNDLE_HOOKS),
        handler=handler.file_name("filename"),
        handler_args=handler.text("args"),
        meta=MappingProxyType(dict(_meta(groups))),
        unknown=tuple(_unknown(groups)),
    )


class _Group:
    """One group's values by their kind; a group that is not there has none."""

    def __init__(self, groups: KeyFile, name: str) -> None:
        self._values = groups.get(name, {})
        self._name = name

    def refusal(self, what: str) -> DescriptionError:
        return DescriptionError(f"[{self._name}] of the manifest {what}")

    def text(self, key: str, *, printable: bool = True) -> str:
        value = unescape(self._values.get(key, ""), f"{key} in [{self._name}] of the manifest")
        if len(value) > MAX_TEXT_CHARACTERS:
            raise self.refusal(f"has {key} of {len(value)} characters; at most {MAX_TEXT_CHARACTERS} are read")
        if printable and not value.isprintable():
            raise self.refusal(f"has {key} = {value[:80]!r}, which is not printable")
        return value if printable else " ".join("".join(c if c.isprintable() else " " for c in value).split())

    def items(self, key: str) -> tuple[str, ...]:
        return split_list(self.text(key))

    def choices(self, key: str, known: frozenset[str]) -> tuple[str, ...]:
        found = self.items(key)
        if unknown := [item for item in found if item not in known]:
            raise self.refusal(f"has {key} {unknown[0][:80]!r}; RAUC knows {', '.join(sorted(known))}")
        return found

    def file_name(self, key: str) -> str:
        name = self.text(key)
        if name and (not _FILE_NAME.fullmatch(name) or name in {".", ".."}):
            raise self.refusal(f"names the file {name[:80]!r}, which must be in the bundle's own folder")
        return name

    def number(self, key: str) -> int | None:
        text = self.text(key)
        if not text:
            return None
        if not _NUMBER.fullmatch(text) or int(text) > MAX_SIZE_BYTES:
            raise self.refusal(f"has {key} = {text[:80]!r}, which must be a number of bytes")
        return int(text)

    def digest(self, key: str) -> Digest | None:
        text = self.text(key)
        if not text:
            return None
        if not _HEX32.fullmatch(text):
            raise self.refusal(f"has {key} = {text[:80]!r}, which must be 64 hexadecimal digits")
        return Digest(text.lower())


def _pinned(bundle: _Group) -> tuple[RaucFormat, VerityPin]:
    name = bundle.text("format") or RaucFormat.PLAIN
    if name not in {RaucFormat.VERITY, RaucFormat.CRYPT}:
        raise bundle.refusal(f"says format {name[:40]!r}; a manifest inside the signature is for verity or crypt")
    root, salt, tree_bytes = bundle.digest("verity-hash"), bundle.digest("verity-salt"), bundle.number("verity-size")
    if root is None or salt is None or tree_bytes is None:
        raise bundle.refusal("lacks verity-hash, verity-salt or verity-size; build it again")
    if tree_bytes == 0 or tree_bytes % BLOCK_BYTES:
        raise bundle.refusal(f"has verity-size = {tree_bytes}, which must be a multiple of {BLOCK_BYTES} above 0")
    key = bundle.digest("crypt-key")
    if (key is not None) != (name == RaucFormat.CRYPT):
        raise bundle.refusal(f"{'holds' if key else 'lacks'} a crypt-key and says format {name}")
    return RaucFormat(name), VerityPin(root, bytes.fromhex(salt), tree_bytes)


def _images(groups: KeyFile, *, hook_file: str) -> tuple[RaucImage, ...]:
    images = tuple(_image(_Group(groups, name), name) for name in groups if name.partition(".")[0] == "image")
    if not hook_file and (hooked := [image for image in images if image.hooks]):
        raise DescriptionError(f"image {hooked[0].slot_class} of the manifest has hooks, and [hooks] names no file of them")
    return images


def _image(group: _Group, name: str) -> RaucImage:
    _, _, rest = name.partition(".")
    whole, dot, variant = rest.partition(".") if "/" not in rest else (rest, "", "")
    if not _CLASS.fullmatch(whole) or (dot and not variant):
        raise group.refusal("is no image.<class>, image.<class>.<variant> or image.<repository>/<artifact>")
    slot_class, _, artifact = whole.partition("/")
    image = RaucImage(
        slot_class=slot_class,
        variant=variant,
        artifact=artifact,
        filename=group.file_name("filename"),
        type=group.text("type"),
        sha256=group.digest("sha256"),
        size=group.number("size"),
        hooks=group.choices("hooks", _IMAGE_HOOKS),
        adaptive=group.items("adaptive"),
        convert=group.items("convert"),
    )
    if image.filename and image.sha256 is None:
        raise group.refusal(f"gives no sha256 of {image.filename!r}; build it again")
    if not image.filename and "install" not in image.hooks and image.type != "emptyfs":
        raise group.refusal("names no file, and no hook that would make one")
    return image


def _unknown(groups: KeyFile) -> Iterator[str]:
    for name, values in groups.items():
        kind = name.partition(".")[0] if name.startswith(("image.", "meta.")) else name
        if kind in _FREE:
            continue
        if kind not in _KNOWN:
            yield f"[{name}]"
        else:
            yield from (f"{key} in [{name}]" for key in values if key not in _KNOWN[kind])


def _meta(groups: KeyFile) -> list[tuple[str, Mapping[str, str]]]:
    found: list[tuple[str, Mapping[str, str]]] = []
    for name, values in groups.items():
        kind, _, label = name.partition(".")
        if kind == "meta":
            group = _Group(groups, name)
            found.append((label, MappingProxyType({key: group.text(key, printable=False) for key in values})))
    return found
