"""What each kind of client is shown of its actions; pure.

- A node has one link at a time: to let go of an action, to agree to one, or to install one (hawkBit, `DataConversionHelper`).
- SWUpdate is not shown what it may not install now: it answers `skip` by reporting a success (`fleet.windows`). It is shown
  an open action until the end: without the link it does not send its result after its restart.
- RAUC's updater and Zephyr have closed an action for themselves once they have installed: shown again, they would install
  again. What they run is found out another way.
- Every client gets one chunk with one artifact (RAUC's updater takes no more). SWUpdate and RAUC compare SHA-1 or MD5, and get
  their artifact below their own resource, where their token is good; our agent gets its by the repository's own path.
- Zephyr's client reads no other `part` than hawkBit's old name of an application, and looks for `download-http` also where it
  speaks TLS; of that link it takes the path only.
- `?c=` changes whenever the document behind a link does.
"""

import zlib
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from gateway.database.records import Action, ActionState, ClientKind, Digests, Node, Release
from gateway.fleet.windows import Allowed, allowed, is_hidden_from
from update.trust.verified import TargetCustom, TargetInfo
from update.wire import ddi
from update.wire.assignment import Assignment, Commit, Lost

BASE: Final = "/DEFAULT/controller/v1/{node}"
_INSTALLED_IS_OVER = frozenset({ClientKind.RAUC, ClientKind.ZEPHYR})
_PART_OF_ZEPHYR = "bApp"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node addressed us: scheme and host, and the node's own resource there."""

    origin: str
    node: str

    @property
    def base(self) -> str:
        """The node's resource."""
        return self.origin + BASE.format(node=self.node)

    def link(self, path: str) -> ddi.Link:
        """A resource below the node's."""
        return ddi.Link(href=f"{self.base}/{path}")


@dataclass(frozen=True, slots=True)
class Shown:
    """An action as one client gets it: in the form of `release`, at `place`, with `sums` where it compares SHA-1 or MD5."""

    action: Action
    release: Release
    kind: ClientKind
    place: Place
    sums: Digests | None = None


def is_shown(kind: ClientKind, action: Action, may: Allowed) -> bool:
    """Whether a client of this kind may know of an open action now."""
    over = kind in _INSTALLED_IS_OVER and action.installed is not None
    return not over and not is_hidden_from(kind, may)


def links(place: Place, node: Node, action: Action | None, release: Release | None, now: datetime) -> dict[str, ddi.Link]:
    """The links of the root: `release` is the form in which the node gets what `action` wants, None where it cannot now."""
    found = {} if action is None else _action_link(place, node, action, release, now)
    if node.attributes_wanted:
        found["config_data"] = place.link("configData")
    return found


def deployment(shown: Shown, now: datetime) -> ddi.DeploymentBody:
    """What is wanted, and what may be done about it now."""
    may = allowed(shown.action.terms, now)
    return ddi.DeploymentBody(download=may.download, update=may.update, maintenance_window=may.window, chunks=(_chunk(shown),))


def artifact(shown: Shown) -> ddi.Artifact:
    """The bundle below the node's own resource."""
    target, sums = target_of(shown.release), shown.sums
    path = f"softwaremodules/{shown.action.id}/artifacts/{target.base_name}"
    file, md5 = shown.place.link(path), shown.place.link(f"{path}.MD5SUM")
    links = ddi.ArtifactLinks(download=file, md5sum=md5)
    if shown.kind is ClientKind.ZEPHYR or not shown.place.origin.startswith("https:"):
        links = ddi.ArtifactLinks(download_http=file, md5sum_http=md5)
    return ddi.Artifact(
        filename=target.base_name,
        hashes=ddi.Hashes(sha256=shown.release.sha256, sha1=sums.sha1 if sums else None, md5=sums.md5 if sums else None),
        size=shown.release.length,
        links=links,
    )


def target_of(release: Release) -> TargetInfo:
    """The content of a release, as the store and the relay know it."""
    return TargetInfo(release.repository, release.path, release.length, release.sha256, TargetCustom(version=release.version), "")


def needs_sums(kind: ClientKind) -> bool:
    """Whether clients of this kind compare SHA-1 or MD5."""
    return kind is not ClientKind.AGENT


def _action_link(place: Place, node: Node, action: Action, release: Release | None, now: datetime) -> dict[str, ddi.Link]:
    may = allowed(action.terms, now)
    if action.state is ActionState.CANCELLING:
        return {"cancel_action": place.link(f"cancelAction/{action.id}")}
    if release is None or (action.state is ActionState.OPEN and not is_shown(node.kind, action, may)):
        return {}
    words = (action.id, action.fence, action.commit, action.hold, release.sha256, may.download, may.update, may.window)
    changes = zlib.crc32(" ".join(map(str, words)).encode()) & ddi.MAX_ACTION_ID
    if action.state is ActionState.WAITING:
        return {"confirmation_base": place.link(f"confirmationBase/{action.id}?c={changes}")}
    return {"deployment_base": place.link(f"deploymentBase/{action.id}?c={changes}")}


def _chunk(shown: Shown) -> ddi.Chunk:
    action, release, target = shown.action, shown.release, target_of(shown.release)
    file, metadata = artifact(shown), None
    if shown.kind is ClientKind.AGENT:
        hold_s, lost = (0, Lost.REVERT) if action.hold is None else (action.hold.hold_s, Lost(action.hold.lost))
        own = Assignment(
            release.repository,
            release.path,
            release.sha256,
            action.id,
            action.fence,
            Commit(action.commit),
            hold_s=hold_s,
            lost=lost,
        )
        by_repository = ddi.Link(href=f"{shown.place.origin}/repositories/{release.repository}/{target.wire_path}")
        file = file.model_copy(update={"links": ddi.ArtifactLinks(download=by_repository)})
        metadata = own.metadata()
    part = _PART_OF_ZEPHYR if shown.kind is ClientKind.ZEPHYR else "os"
    return ddi.Chunk(part=part, version=release.version, name=target.base_name, artifacts=(file,), metadata=metadata)
