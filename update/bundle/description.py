"""sw-description: what a bundle holds, for which hardware, and what is installed in one selection.

Each section X (images, scripts, bootenv, version, hardware-compatibility …) is looked up, first found wins, in

    software.<board>.<set>.<mode>.X    software.<set>.<mode>.X    software.<board>.X    software.X

where links may replace any path (`update.bundle.links`). A selection (set, mode), as in `swupdate -e stable,copy2`, is one
slot: its images are the slot's parts, each naming its device.

`parse` refuses what is malformed in any selection, and gives the hash of every member, so that a bundle can be verified
and relayed even if it holds, for other devices, what this release cannot install; `select` refuses that. Pure: no I/O.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, TypeVar

from update.bundle.entries import MAX_TEXT, BootVariable, Entry, EntryReader, check_text
from update.bundle.links import Node, Path, Tree
from update.bundle.syntax import Syntax, is_sequence, parse_document
from update.digest import Digest
from update.errors import DescriptionError, HardwareError, LimitError, UnsupportedError
from update.identity import Hardware, revision_matches

MAX_SELECTIONS: Final = 64
_MAX_GROUPS: Final = 2048
_ROOT: Final = "software"
_T = TypeVar("_T")
_CONTENT = ("images", "scripts", "files", "bootenv", "uboot", "partitions", "vars")
_UNSUPPORTED = ("files", "partitions", "vars", "embedded-script")
RESERVED_NAMES: Final = frozenset({*_CONTENT, *_UNSUPPORTED, "version", "description", "hardware-compatibility", "ref"})


@dataclass(frozen=True, slots=True, order=True)
class Choice:
    """One way to select: board, set and mode, each empty where the description does not distinguish it."""

    board: str = ""
    software_set: str = ""
    mode: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.board, self.software_set, self.mode) if part) or "(the only one)"

    @property
    def prefixes(self) -> tuple[Path, ...]:
        """Where its sections are looked up, in order."""
        both = bool(self.software_set and self.mode)
        paths = [(self.board, self.software_set, self.mode)] if both and self.board else []
        tails: list[tuple[str, ...]] = [*paths, *([(self.software_set, self.mode)] if both else [])]
        tails += [(self.board,)] if self.board else []
        return tuple((_ROOT, *tail) for tail in (*tails, ()))


@dataclass(frozen=True, slots=True)
class Selection:
    """What is installed for one choice, in order: images, then scripts, and the bootloader's variables last, as the switch."""

    choice: Choice
    version: str
    images: tuple[Entry, ...]
    scripts: tuple[Entry, ...]
    bootenv: tuple[BootVariable, ...]


@dataclass(frozen=True, slots=True)
class Description:
    """A whole description. `members` is every file that any part of it names, with the hash of its stored bytes."""

    version: str
    text: str
    members: Mapping[str, Digest]
    choices: tuple[Choice, ...]
    syntax: Syntax
    _tree: Tree = field(repr=False, compare=False)

    def select(self, hardware: Hardware, software_set: str = "", mode: str = "") -> Selection:
        """What `hardware` installs for (set, mode).

        Errors: `HardwareError` when the revision is not listed; `DescriptionError` when there is nothing to install;
        `UnsupportedError` when the selection needs what this release does not have.
        """
        choice = Choice(hardware.board, software_set, mode)
        reader = _SelectionReader(self._tree, self.syntax, choice)
        accepted = reader.revisions()
        if not any(revision_matches(hardware.revision, pattern) for pattern in accepted):
            raise HardwareError(f"the bundle is for revisions {', '.join(accepted)[:200] or '(none)'}; this device is {hardware}")
        selection = reader.selection()
        if not (selection.images or selection.scripts or selection.bootenv):
            known = ", ".join(str(each) for each in self.choices)
            raise DescriptionError(f"the bundle holds nothing to install for {choice}; it knows {known[:200] or 'nothing'}")
        return selection

    def content(self, choice: Choice) -> Selection:
        """What `choice` holds, for whoever relays or shows it; whether a device may install it, only `select` judges."""
        return _SelectionReader(self._tree, self.syntax, choice).selection()

    def hardware_of(self, choice: Choice) -> tuple[str, ...]:
        """The revisions, or patterns of them, that `choice` accepts."""
        return _SelectionReader(self._tree, self.syntax, choice).revisions()


def parse(data: bytes) -> Description:
    """Parse and judge a whole description. Errors: `DescriptionError`, `LimitError`, and `ContainerError` for file names."""
    document = parse_document(data)
    tree = Tree(document.root)
    top = tree.find((_ROOT,))
    if top is None or not isinstance(top.value, Mapping):
        raise DescriptionError(f"sw-description has no group {_ROOT!r}")
    choices = tuple(_choices(tree))
    reader = _SelectionReader(tree, document.syntax, Choice())
    description = Description(
        version=reader.version(),
        text=reader.remark(),
        members=MappingProxyType(_members(document.root, document.syntax)),
        choices=choices,
        syntax=document.syntax,
        _tree=tree,
    )
    for choice in choices:
        with suppress(UnsupportedError):
            _SelectionReader(tree, document.syntax, choice).selection()
    return description


class _SelectionReader:
    """Reads the sections of one choice."""

    def __init__(self, tree: Tree, syntax: Syntax, choice: Choice) -> None:
        self._tree = tree
        self._syntax = syntax
        self._choice = choice
        self._prefixes = choice.prefixes

    def selection(self) -> Selection:
        for name in _UNSUPPORTED:
            found = self._find(name)
            if found is not None and found.value:
                raise UnsupportedError(f"{found.where} in sw-description: {name!r} is not supported")
        return Selection(
            choice=self._choice,
            version=self.version(),
            images=tuple(self._entries("images", EntryReader.image)),
            scripts=tuple(self._entries("scripts", EntryReader.script)),
            bootenv=self._bootenv(),
        )

    def version(self) -> str:
        version = self.text("version")
        if not version:
            raise DescriptionError("sw-description has no version under 'software'")
        return version

    def text(self, name: str) -> str:
        found = self._find(name)
        if found is None:
            return ""
        if not isinstance(found.value, str):
            raise DescriptionError(f"{found.where} in sw-description must be a text")
        return check_text(found.value, f"{found.where} in sw-description", MAX_TEXT)

    def remark(self) -> str:
        """The description for people, as one line: it decides nothing, so it is shortened rather than refused."""
        found = self._find("description")
        words = " ".join(found.value.split()) if found and isinstance(found.value, str) else ""
        return "".join(character for character in words if character.isprintable())[:MAX_TEXT]

    def revisions(self) -> tuple[str, ...]:
        found = self._find("hardware-compatibility")
        if found is None:
            raise DescriptionError(f"sw-description has no hardware-compatibility for {self._choice}; SWUpdate demands one")
        if not is_sequence(found.value) or not isinstance(found.value, list | tuple):
            raise DescriptionError(f"{found.where} in sw-description must be a list of texts")
        for revision in found.value:
            if not isinstance(revision, str) or not revision:
                raise DescriptionError(f"{found.where} in sw-description must hold texts only")
            check_text(revision, f"{found.where} in sw-description", MAX_TEXT)
        return tuple(found.value)

    def _find(self, name: str) -> Node | None:
        return self._tree.field(self._prefixes, name)

    def _entries(self, name: str, read: Callable[[EntryReader], _T]) -> Iterator[_T]:
        found = self._find(name)
        for where, group in self._tree.entries(found) if found else []:
            yield read(EntryReader(where, group, self._syntax))

    def _bootenv(self) -> tuple[BootVariable, ...]:
        section = "bootenv" if self._find("bootenv") else "uboot"
        variables = tuple(self._entries(section, EntryReader.variable))
        names = [variable.name for variable in variables]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DescriptionError(f"{section} in sw-description sets {twice!r} twice for {self._choice}")
        return variables


def _choices(tree: Tree) -> Iterator[Choice]:
    """Every selection that holds something: the whole, boards, sets with modes, and boards with both."""
    found = 0
    for number, (choice, path) in enumerate(_candidates(tree)):
        if number >= _MAX_GROUPS:
            raise LimitError(f"sw-description holds more than {_MAX_GROUPS} groups that could be selected")
        node = tree.find(path)
        if node and any(tree.find((*node.path, name)) for name in _CONTENT):
            found += 1
            if found > MAX_SELECTIONS:
                raise LimitError(f"sw-description distinguishes more than {MAX_SELECTIONS} selections")
            yield choice


def _candidates(tree: Tree) -> Iterator[tuple[Choice, Path]]:
    yield Choice(), (_ROOT,)
    for first in _groups(tree, (_ROOT,)):
        yield Choice(board=first), (_ROOT, first)
        for second in _groups(tree, (_ROOT, first)):
            yield Choice("", first, second), (_ROOT, first, second)
            for third in _groups(tree, (_ROOT, first, second)):
                yield Choice(first, second, third), (_ROOT, first, second, third)


def _groups(tree: Tree, path: Path) -> Iterable[str]:
    """Names of the groups at `path` that are no sections; links to groups count."""
    node = tree.find(path)
    if node is None or not isinstance(node.value, Mapping):
        return []
    return [name for name, value in node.value.items() if name not in RESERVED_NAMES and isinstance(value, Mapping)]


def _members(value: object, syntax: Syntax, where: str = _ROOT) -> dict[str, Digest]:
    """Every file named anywhere, with its hash: in sections of other releases too, since nothing unlisted may be delivered."""
    members: dict[str, Digest] = {}
    if isinstance(value, Mapping):
        children = [(f"{where}.{name}", child) for name, child in value.items()]
        if "filename" in value:
            reader = EntryReader(where, value, syntax)
            members[reader.filename()] = reader.sha256()
    else:
        children = (
            [(f"{where}[{number}]", child) for number, child in enumerate(value)] if isinstance(value, list | tuple) else []
        )
    for path, child in children:
        for name, digest in _members(child, syntax, path).items():
            if members.setdefault(name, digest) != digest:
                raise DescriptionError(f"{path} in sw-description gives {name!r} the sha256 {digest}, elsewhere {members[name]}")
    return members
