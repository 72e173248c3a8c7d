"""Whether a node would take a RAUC bundle: asked before it is ordered, and again before the node first hears of it.

1. RAUC's own rules (`update.bundle.rauc_rules`) are applied to the manifest of the verified bundle, as far as the node is known:
   what nobody has said of it refuses nothing, for the node's RAUC judges again.
2. Known is what the node says in its attributes (`rauc.compatible`, `rauc.variant`, `rauc.min-bundle-version`, `rauc.version`,
   `rauc.signers`), or in the headers of its RAUC (`gateway.fleet.sightings`).
3. What is refused at the order is told whoever ordered it. What turns out later, from what the node has said meanwhile, ends the
   action as refused before the node is told of it.

`.swu` are judged by their hardware (`catalogue`), and by SWUpdate. A plain bundle says nothing that can be read here.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol

from gateway.database.records import Action, Node, Release
from update.bundle.rauc_manifest import RaucManifest
from update.bundle.rauc_rules import RaucNode, compare_semantic, judge_rauc
from update.errors import BundleError, DescriptionError, StoreError, TrustError
from update.identity import Hardware

COMPATIBLE: Final = "rauc.compatible"
VARIANT: Final = "rauc.variant"
MIN_VERSION: Final = "rauc.min-bundle-version"
RAUC_VERSION: Final = "rauc.version"
SIGNERS: Final = "rauc.signers"
"""`one`, or `several`: whether this RAUC takes bundles with more than one signer."""
SUFFIX: Final = ".raucb"

_MAX_CHARACTERS = 80
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RaucContent:
    """What was proved of a bundle and decides who takes it."""

    manifest: RaucManifest
    signers: int


class Manifests(Protocol):
    """Who can look into bundles."""

    async def of(self, release: Release) -> RaucContent | None:
        """What is in a bundle; None where it is not at hand, or cannot be looked into. Errors: `TrustError`, `BundleError`."""
        ...


class Offering(Protocol):
    """Who chooses in which form a node gets a release."""

    async def offered(self, node: Node, action: Action) -> Release | None:
        """The bundle to offer; None: nothing now."""
        ...


class Refusing(Protocol):
    """Who books that a node cannot take what was ordered."""

    async def refuse(self, action: Action, code: str, message: str) -> None:
        """End an action that the node was not told of."""
        ...


class Fitness:
    """Judges nodes and bundles together."""

    def __init__(self, manifests: Manifests) -> None:
        self._manifests = manifests

    async def contents(self, releases: Iterable[Release]) -> dict[str, RaucContent]:
        """What is in those of `releases` that are RAUC bundles and at hand, by SHA-256. Errors: `TrustError`, `BundleError`."""
        found = {release.sha256: await self._manifests.of(release) for release in releases if release.path.endswith(SUFFIX)}
        return {sha256: content for sha256, content in found.items() if content is not None}

    async def judge(self, node: Node, release: Release) -> None:
        """Refuse by name what the node would not take. Errors: `HardwareError`, `UnsupportedError`, `RollbackError`."""
        judge_node(node, (await self.contents([release])).get(release.sha256))


class _NothingToLookInto:
    """No bundle can be looked into."""

    async def of(self, release: Release) -> RaucContent | None:  # noqa: ARG002 - the same for all
        return None


UNJUDGED: Final = Fitness(_NothingToLookInto())
"""For a site without RAUC bundles."""


class OfferedIfFit:
    """Chooses as `offering` does, and ends what the node would not take."""

    def __init__(self, offering: Offering, fitness: Fitness, refusing: Refusing) -> None:
        self._offering = offering
        self._fitness = fitness
        self._refusing = refusing

    async def offered(self, node: Node, action: Action) -> Release | None:
        """The bundle to offer; None: nothing now."""
        release = await self._offering.offered(node, action)
        if release is None or action.offered is not None:
            return release
        try:
            await self._fitness.judge(node, release)
        except StoreError as error:
            _LOG.warning("cannot look into %s for node %s: %s (%s)", release.path, node.id, error, error.code)
        except (TrustError, BundleError) as error:
            _LOG.warning("node %s is not offered %s: %s (%s)", node.id, release.path, error, error.code)
            await self._refusing.refuse(action, error.code, str(error))
            return None
        return release


def judge_node(node: Node, content: RaucContent | None) -> None:
    """Refuse what is in a bundle for what is known of a node (rule 1). Errors: those of `judge_rauc`, naming the node."""
    if content is None:
        return
    manifest, attributes = content.manifest, node.attributes
    known = RaucNode(
        compatible=attributes.get(COMPATIBLE, manifest.compatible),
        variant=attributes.get(VARIANT, ""),
        min_bundle_version=_semantic(attributes.get(MIN_VERSION, "")),
        rauc_version=_semantic(attributes.get(RAUC_VERSION, "")),
        several_signers=attributes.get(SIGNERS) != "one",
    )
    shown = manifest if VARIANT in attributes else replace(manifest, images=())
    try:
        judge_rauc(shown, known, signers=content.signers)
    except (TrustError, BundleError) as error:
        raise type(error)(f"node {node.id}: {error}") from error


def hardware_of(attributes: Mapping[str, str]) -> Hardware | None:
    """The hardware that a RAUC node is by its attributes; None where they do not say, or hwIds cannot hold it."""
    compatible = attributes.get(COMPATIBLE, "")
    if not compatible or ":" in compatible or len(compatible) > _MAX_CHARACTERS:
        return None
    return RaucNode(compatible, attributes.get(VARIANT, "")[:_MAX_CHARACTERS]).hardware


def _semantic(version: str) -> str:
    """A version that can be compared; what cannot is not known."""
    try:
        compare_semantic(version, "0")
    except DescriptionError:
        return ""
    return version
