"""Which names of an ecosystem last for ever, and what proves the content behind them. Decides over text only.

- *Lasting*: the name itself says what the content is, so it is fetched once and never asked for again.
- *Changing*: refs, indexes, summaries, tags. Asked for again when the route's `revalidate_s` is over.
- Everything else is not part of the ecosystem's layout and is refused: a route is no open proxy.

| kind | lasting | proof |
|---|---|---|
| ostree | `objects/ab/<62 hex>.{commit,dirtree,dirmeta,filez}` | sha256 of the object (of a `filez`: unpacked) |
| casync | `*.castr/<4 hex>/<64 hex>.cacnk` | SHA-512/256 or SHA-256 of the unpacked chunk |
| oci | blobs and manifests by digest | the digest |
| mender | names that match the route's `lasting` patterns | none here: the artifact's own, checked by the device |
| immutable | every name | none |

Changing are: of ostree config, summary, refs, deltas and commitmeta; of casync `*.caidx`, `*.caibx`, `*.catar`; of oci
manifests by tag and `tags/list`; of mender all other names.

Static deltas of OSTree may be made anew under the same name, so they count as changing. Without a proof only the length is
checked (against what the upstream announced).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import assert_never
from urllib.parse import quote, unquote_to_bytes

from gateway.sections.routes import RouteKind
from update.errors import NotFoundError, ProtocolError

MAX_PATH_BYTES = 1024

_OSTREE_OBJECT = re.compile(r"objects/([0-9a-f]{2})/([0-9a-f]{62})\.(commit|dirtree|dirmeta|filez)", re.ASCII)
_OSTREE_CHANGING = re.compile(
    r"config|summary(\.sig|\.idx(\.sig)?)?|delta-stats"
    r"|(summaries|refs|deltas|delta-indexes|extensions)/.+"
    r"|objects/[0-9a-f]{2}/[0-9a-f]{62}\.(commitmeta|sig|sizes2?)",
    re.ASCII,
)
_CASYNC_CHUNK = re.compile(r"(?:[^/]+/)*[^/]+\.castr/([0-9a-f]{4})/([0-9a-f]{64})\.cacnk", re.ASCII)
_CASYNC_CHANGING = re.compile(r".+\.(caidx|caibx|catar)")
_OCI_NAME = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_OCI = re.compile(
    rf"{_OCI_NAME}(?:/{_OCI_NAME})*/(?:(?:blobs|manifests)/(?:sha256:(?P<sha256>[0-9a-f]{{64}})|sha512:(?P<sha512>[0-9a-f]{{128}}))"
    r"|manifests/(?P<tag>\w[\w.-]{0,127})|tags/list)",
    re.ASCII,
)


class Check(StrEnum):
    """How content is compared with the digest in its name."""

    SHA256 = "sha256"
    SHA512 = "sha512"
    CASYNC_CHUNK = "casync chunk"
    OSTREE_FILE = "ostree file"


@dataclass(frozen=True, slots=True)
class Proof:
    """The check and the digest (lower-case hexadecimal) that must come out of it."""

    check: Check
    digest: str


@dataclass(frozen=True, slots=True)
class Rule:
    """What holds for one name."""

    lasting: bool
    proof: Proof | None = None


CHANGING = Rule(lasting=False)


def plain_path(raw: str) -> str:
    """The path below a route's prefix, percent-decoded once; `ProtocolError` for one that is not plain.

    Plain: no empty, `.` or `..` part, no control character, no backslash, UTF-8, at most `MAX_PATH_BYTES`.
    """
    data = unquote_to_bytes(raw)
    if not data or len(data) > MAX_PATH_BYTES:
        raise ProtocolError(f"a path has 1 to {MAX_PATH_BYTES} bytes, this one {len(data)}")
    try:
        path = data.decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(f"a path is UTF-8: {raw[:120]!r}") from error
    parts = path.split("/")
    if not all(parts) or not {".", ".."}.isdisjoint(parts) or "\\" in path or not path.isprintable():
        raise ProtocolError(f"not a plain path: {raw[:120]!r}")
    return path


def quoted(path: str) -> str:
    """A plain path as it stands in a URL."""
    return quote(path, safe="/!$&'()*+,;=:@~")


def rule_of(kind: RouteKind, path: str, lasting: Sequence[str] = ()) -> Rule:
    """The rule for a plain path; `lasting` are the patterns of a Mender route. `NotFoundError`: not part of the layout."""
    match kind:
        case RouteKind.OSTREE:
            rule = _ostree(path)
        case RouteKind.CASYNC:
            rule = _casync(path)
        case RouteKind.OCI:
            rule = _oci(path)
        case RouteKind.MENDER:
            rule = Rule(lasting=any(fnmatchcase(path, pattern) for pattern in lasting))
        case RouteKind.IMMUTABLE:
            rule = Rule(lasting=True)
        case _:
            assert_never(kind)
    if rule is None:
        raise NotFoundError(f"{path[:200]} is no name of the kind {kind.value}")
    return rule


def _ostree(path: str) -> Rule | None:
    if found := _OSTREE_OBJECT.fullmatch(path):
        check = Check.OSTREE_FILE if found[3] == "filez" else Check.SHA256
        return Rule(lasting=True, proof=Proof(check, found[1] + found[2]))
    return CHANGING if _OSTREE_CHANGING.fullmatch(path) else None


def _casync(path: str) -> Rule | None:
    if found := _CASYNC_CHUNK.fullmatch(path):
        return Rule(lasting=True, proof=Proof(Check.CASYNC_CHUNK, found[2])) if found[2].startswith(found[1]) else None
    return CHANGING if _CASYNC_CHANGING.fullmatch(path) else None


def _oci(path: str) -> Rule | None:
    found = _OCI.fullmatch(path)
    if found is None:
        return None
    for check in (Check.SHA256, Check.SHA512):
        if digest := found[check.value]:
            return Rule(lasting=True, proof=Proof(check, digest))
    return CHANGING
