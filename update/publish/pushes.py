"""What is pushed to a gateway: the files of a published repository, or a single bundle.

Of a repository go the roots (a gateway may know an old one only), what the timestamp leads to, and the targets that it lists. The
folder is the publisher's own: it is read, and judged by the gateway.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from update.digest import Digest, digest_of
from update.errors import StateError, UsageError
from update.publish.published import read_current

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class PushedFile:
    """A file and the path that it is pushed as; `sha256` of what need not be sent where it is known."""

    path: str
    file: Path
    length: int
    sha256: Digest | None


def files_of(source: Path) -> tuple[PushedFile, ...]:
    """What a folder with a repository, or a bundle, is pushed as; metadata first.

    Errors: `StateError` for a repository that was not published or lacks a target, `CorruptError`, `MetadataError`, `UsageError`.
    """
    if source.is_file():
        return (PushedFile(quote(source.name, safe=""), source, source.stat().st_size, None),)
    if not (source / "metadata").is_dir():
        raise UsageError(f"{source} is neither a bundle nor a folder with a published repository (metadata/, targets/)")
    return (*_metadata(source), *_targets(source))


def label_of(files: Sequence[PushedFile]) -> str:
    """The same for the same files, so that a push that was cut off is found again."""
    lines = [f"{each.path} {each.length} {each.sha256 or _sha256(each.file)}\n" for each in sorted(files, key=_path)]
    return digest_of("".join(lines).encode())


def _metadata(source: Path) -> Iterator[PushedFile]:
    folder = source / "metadata"
    current = read_current(folder)
    if current.timestamp is None or current.snapshot is None:
        raise StateError(f"{source} is not published yet: `fieldrelay repo publish {source}`")
    roots = sorted(file.name for file in folder.glob("[0-9]*.root.json"))
    targets = [f"{trusted.version}.{quote(role, safe='')}.json" for role, trusted in current.targets.items()]
    for name in (*roots, *targets, f"{current.snapshot.version}.snapshot.json", "timestamp.json"):
        file = folder / name
        yield PushedFile(f"metadata/{name}", file, file.stat().st_size, None)


def _targets(source: Path) -> Iterator[PushedFile]:
    current = read_current(source / "metadata")
    prefixed = current.root is None or bool(current.root.signed.consistent_snapshot)
    found: dict[str, PushedFile] = {}
    for trusted in current.targets.values():
        for path, target in trusted.signed.targets.items():
            folder, slash, name = path.rpartition("/")
            sha256 = Digest(target.hashes["sha256"])
            wire = f"targets/{folder}{slash}{sha256}.{name}" if prefixed else f"targets/{path}"
            file = source / wire
            if not file.is_file() or file.stat().st_size != target.length:
                raise StateError(f"{file} is missing, or has not the {target.length} bytes that are listed: add {path} again")
            found[wire] = PushedFile(wire, file, target.length, sha256)
    yield from found.values()


def _path(each: PushedFile) -> str:
    return each.path


def _sha256(file: Path) -> Digest:
    with file.open("rb") as opened:
        return Digest(hashlib.file_digest(opened, "sha256").hexdigest())
