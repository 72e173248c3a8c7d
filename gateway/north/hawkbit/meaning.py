"""What a hawkBit deployment asks for: which one bundle, and on which terms; pure.

- A bundle is what a node can verify as a whole. A deployment with none among its artifacts, or with several, is refused: the
  order and the fate of several are nowhere signed.
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


@dataclass(frozen=True, slots=True)
class Wanted:
    """The one bundle of a deployment: `href` is where this target may fetch it."""

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


def wanted_of(body: ddi.DeploymentBody) -> Wanted:
    """The bundle of a deployment. Errors: `UnsupportedError` for none or several, `ProtocolError` for an incomplete one."""
    found = [(chunk, each) for chunk in body.chunks for each in chunk.artifacts if each.filename.endswith(BUNDLE_SUFFIXES)]
    if len(found) != 1:
        names = ", ".join(each.filename for chunk in body.chunks for each in chunk.artifacts)
        raise UnsupportedError(
            f"a deployment needs exactly one bundle ({', '.join(BUNDLE_SUFFIXES)}); this one has "
            f"{len(found)}: {names[:200] or 'none'}"
        )
    chunk, file = found[0]
    link = file.links.download or file.links.download_http
    if file.hashes.sha256 is None or link is None:
        raise ProtocolError(f"artifact {file.filename[:80]} has no SHA-256 or no link; a newer hawkBit gives both")
    try:
        name = check_target_path(file.filename)
    except MetadataError as error:
        raise ProtocolError(f"an artifact's name is refused: {error}") from error
    return Wanted(name, chunk.version, parse_digest(file.hashes.sha256.lower()), file.size, link.href)
