"""What a hawkBit deployment asks for: which bundle, and on which terms; pure.

- A bundle is what a node can verify as a whole. A deployment with none among its artifacts, or with several, is refused: the
  order and the fate of several are nowhere signed. Two `.swu` may be one release in two forms, a delta and a whole bundle; what
  is signed in them decides (`north.joining`), and neither their names nor the modules that they are in.
- Other artifacts may be what a delta fetches from (`bodies`).
- The server does not say when a maintenance window opens, only that it is closed now: `windows.UNTIL_TOLD`. Without a window,
  a deployment that may be downloaded and not installed is download-only.
- It is joined by SHA-256 and length, never by name or URL: the same artifact has another URL for each target.
"""

from dataclasses import dataclass

from gateway.database.records import Handling, Terms
from gateway.fleet.catalogue import BUNDLE_SUFFIXES
from gateway.fleet.windows import UNTIL_TOLD
from update.digest import Digest, parse_digest
from update.errors import MetadataError, ProtocolError, UnsupportedError
from update.trust.verified import check_target_path
from update.wire import ddi

_WHOLE_AND_DELTA = 2
_JOINED_SUFFIX = ".swu"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file besides the bundles: `href` is where this target may fetch it."""

    name: str
    sha256: Digest
    length: int
    href: str

    @property
    def looks_chunked(self) -> bool:
        """A hint and no more."""
        return self.name.endswith(".zck")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A bundle of a deployment: `href` is where this target may fetch it."""

    name: str
    version: str
    sha256: Digest
    length: int
    href: str


def terms_of(body: ddi.DeploymentBody) -> Terms:
    """On which terms a deployment may run now."""
    handling = Handling.SOFT if body.download is ddi.Handling.ATTEMPT else Handling.FORCED
    if body.update is not ddi.Handling.SKIP:
        return Terms(handling)
    if body.maintenance_window is ddi.Window.UNAVAILABLE:
        return Terms(handling, opens=UNTIL_TOLD)
    return Terms(Handling.DOWNLOAD_ONLY)


def wanted_of(body: ddi.DeploymentBody) -> tuple[Wanted, ...]:
    """The bundle of a deployment, or two `.swu` that may be one release.

    Errors: `UnsupportedError` for none or several, `ProtocolError` for an incomplete one.
    """
    found = [(chunk, each) for chunk in body.chunks for each in chunk.artifacts if each.filename.endswith(BUNDLE_SUFFIXES)]
    contents = {each.hashes.sha256 for _, each in found if each.filename.endswith(_JOINED_SUFFIX)}
    if len(found) != 1 and not len(found) == len(contents) == _WHOLE_AND_DELTA:
        names = ", ".join(each.filename for chunk in body.chunks for each in chunk.artifacts)
        raise UnsupportedError(
            f"a deployment needs exactly one bundle ({', '.join(BUNDLE_SUFFIXES)}), or a delta and a whole .swu of one release; "
            f"this one has {len(found)}: {names[:200] or 'none'}"
        )
    return tuple(_wanted(chunk, file) for chunk, file in found)


def artifacts_of(body: ddi.DeploymentBody) -> tuple[Artifact, ...]:
    """Everything else in a deployment that is known by its SHA-256 and can be fetched."""
    others = (each for chunk in body.chunks for each in chunk.artifacts if not each.filename.endswith(BUNDLE_SUFFIXES))
    return tuple(
        Artifact(each.filename, parse_digest(each.hashes.sha256.lower()), each.size, link.href)
        for each in others
        if each.hashes.sha256 is not None and (link := each.links.download or each.links.download_http) is not None
    )


def _wanted(chunk: ddi.Chunk, file: ddi.Artifact) -> Wanted:
    link = file.links.download or file.links.download_http
    if file.hashes.sha256 is None or link is None:
        raise ProtocolError(f"artifact {file.filename[:80]} has no SHA-256 or no link; a newer hawkBit gives both")
    try:
        name = check_target_path(file.filename)
    except MetadataError as error:
        raise ProtocolError(f"an artifact's name is refused: {error}") from error
    return Wanted(name, chunk.version, parse_digest(file.hashes.sha256.lower()), file.size, link.href)
