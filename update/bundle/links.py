"""Where things stand in a description: the path of a section, and the `ref` links that replace one path by another.

SWUpdate's rules (its manual, "Using links"):

- a link is the only meaning of a group that holds `ref`; any value may be one, and any entry of a list;
- it starts with `#`; `.` is the level that holds the group with the `ref`, `..` the one above, `/` separates;
  a link that begins with a name starts at the root of the document;
- a link to a link is followed; a ring is broken after a few steps.

SWUpdate takes a link that leads nowhere for an absent section and looks on; here it is refused, since nobody means it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from update.bundle.syntax import is_sequence
from update.errors import DescriptionError, LimitError

MAX_LINKS: Final = 8
MAX_PATH: Final = 16
MAX_ENTRIES: Final = 1024

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """A value of the document and the path where it really stands, links followed."""

    path: Path
    value: object

    @property
    def where(self) -> str:
        """The path for messages."""
        return ".".join(self.path)


@dataclass(frozen=True, slots=True)
class Tree:
    """A document that links can be followed in. Errors: `DescriptionError`, and `LimitError` for lists that multiply."""

    root: Mapping[str, object]

    def find(self, path: Path) -> Node | None:
        """The node at `path`, or where the links from there lead; None where nothing is."""
        for step in range(MAX_LINKS + 1):
            value = self._plain(path)
            link = value.get("ref") if isinstance(value, Mapping) else None
            if value is None and step:
                raise DescriptionError(f"a link in sw-description leads to {'.'.join(path)}, where nothing is")
            if link is None:
                return None if value is None else Node(path, value)
            path = follow(path, link)
        raise DescriptionError(
            f"links in sw-description lead in a ring, or over more than {MAX_LINKS} steps, at {'.'.join(path)}"
        )

    def field(self, prefixes: Iterable[Path], name: str) -> Node | None:
        """The first `name` under any of `prefixes`, links of both followed."""
        for prefix in prefixes:
            parent = self.find(prefix)
            found = self.find((*parent.path, name)) if parent else None
            if found:
                return found
        return None

    def entries(self, node: Node) -> list[tuple[str, Mapping[str, object]]]:
        """The groups of a list with where each stands, lists that its links name inserted in their place."""
        found: list[tuple[str, Mapping[str, object]]] = []
        self._collect(node, found, budget=[MAX_ENTRIES], depth=MAX_LINKS)
        return found

    def _collect(self, node: Node, found: list[tuple[str, Mapping[str, object]]], *, budget: list[int], depth: int) -> None:
        for number, entry in enumerate(_sequence(node)):
            budget[0] -= 1
            if budget[0] < 0 or depth < 0:
                raise LimitError(f"{node.where} in sw-description has, with its links, more than {MAX_ENTRIES} entries")
            where = f"{node.where}[{number}]"
            if not isinstance(entry, Mapping):
                raise DescriptionError(f"{where} in sw-description must be a group of settings, not {type(entry).__name__}")
            if "ref" not in entry:
                found.append((where, entry))
                continue
            linked = self.find(follow(node.path, entry["ref"]))
            if linked is None:
                raise DescriptionError(f"the link at {where} in sw-description leads to nothing")
            self._collect(linked, found, budget=budget, depth=depth - 1)

    def _plain(self, path: Path) -> object:
        value: object = self.root
        for name in path:
            if not isinstance(value, Mapping) or name not in value:
                return None
            value = value[name]
        return value


def follow(path: Path, link: object) -> Path:
    """The path that `link` names when it stands at `path`."""
    if not isinstance(link, str) or not link.startswith("#") or len(link) < 3:
        raise DescriptionError(
            f"the link at {'.'.join(path)} in sw-description must be a text that starts with '#': {str(link)[:80]!r}"
        )
    names = list(path[:-1])
    for number, part in enumerate(part for part in link[1:].split("/") if part):
        if part == "..":
            if not names:
                raise DescriptionError(f"the link {link[:80]!r} at {'.'.join(path)} in sw-description leaves the document")
            names.pop()
        elif part != ".":
            names = [*names, part] if number else [part]
    if not names or len(names) > MAX_PATH:
        raise DescriptionError(f"the link {link[:80]!r} at {'.'.join(path)} in sw-description has {len(names)} levels")
    return tuple(names)


def _sequence(node: Node) -> Sequence[object]:
    value = node.value
    if not is_sequence(value) or not isinstance(value, Sequence):
        raise DescriptionError(f"{node.where} in sw-description must be a list, not {type(value).__name__}")
    return value
