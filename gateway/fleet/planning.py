"""Release plans of this site's repositories, judged by what is known of its nodes now.

1. A plan is a signed target `*.plan.json`; its file is at hand, since it is mirrored with the metadata, and was verified.
2. An agent says what its device can: hold a trial, go back by switching, or by writing the old image again; one that has not
   said yet is taken for one that can. Any other client holds nothing: it goes back by an order of what it ran before, where that
   is a bundle of a repository here whose security counter is not below the new one's (the floor).
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from gateway.database.engine import Database
from gateway.database.queries import nodes
from gateway.database.records import ClientKind, Node, Release
from gateway.fleet.catalogue import BUNDLE_SUFFIXES, Catalogue, siblings
from gateway.fleet.nodes import release_of
from gateway.fleet.plan import make_schedule
from gateway.fleet.plan_members import Offer
from gateway.fleet.releases import Planned
from gateway.fleet.schedule import Device, Revert
from update.errors import AmbiguousError, NotFoundError, UnknownTargetError
from update.plans.document import MAX_PLAN_BYTES, PLAN_SUFFIX, parse_plan
from update.plans.plan import ReleasePlan
from update.trust.verified import TargetInfo
from update.wire.attributes import Ability, read_facts

Listed = Mapping[str, TargetInfo]


class SitePlanner:
    """Judges plans. `find` gives the verified file of a target, and may take its time; `interlocks` are those of the site."""

    def __init__(
        self,
        database: Database,
        catalogue: Catalogue,
        find: Callable[[TargetInfo], Path | None],
        interlocks: Collection[str] = (),
    ) -> None:
        self._database = database
        self._catalogue = catalogue
        self._find = find
        self._interlocks = interlocks

    async def plan(self, release: str, repository: str = "") -> Planned:
        """The plan of that path, name or version, and what comes of it here.

        Errors: `UnknownTargetError`, `AmbiguousError`, `NotFoundError` (not mirrored yet), `PlanError`, `LimitError`.
        """
        target = find_plan(self._catalogue, release, repository)
        plan = await asyncio.to_thread(self._read, target)
        listed = {info.path: info for info in self._catalogue.targets(target.repository) if _is_bundle(info)}
        known = self._known()
        async with self._database.reading() as transaction:
            everyone = await nodes.everyone(transaction)
        schedule = make_schedule(
            plan,
            [_device(node, plan, listed, known.get(node.running.sha256)) for node in everyone],
            {path: _offer(info, listed) for path, info in listed.items()},
            self._interlocks,
        )
        return Planned(
            plan=plan,
            repository=target.repository,
            schedule=schedule,
            releases={path: release_of(info) for path, info in listed.items()},
            previous=_previous(everyone, known),
        )

    def _read(self, target: TargetInfo) -> ReleasePlan:
        file = self._find(target)
        if file is None:
            raise NotFoundError(
                f"release plan {target.path} is not stored yet; see `fieldrelay gateway status`, or refresh {target.repository}"
            )
        with file.open("rb") as opened:
            return parse_plan(opened.read(MAX_PLAN_BYTES + 1), target.path)

    def _known(self) -> Mapping[str, TargetInfo]:
        """Every bundle that any repository lists, by SHA-256."""
        everything = (info for name in self._catalogue.repositories() for info in self._catalogue.targets(name))
        return {info.sha256: info for info in everything if _is_bundle(info)}


def find_plan(catalogue: Catalogue, release: str, repository: str = "") -> TargetInfo:
    """The one plan whose path, name (`NAME-VERSION`) or version is `release`. Errors: `UnknownTargetError`, `AmbiguousError`."""
    known = catalogue.repositories()
    if repository and repository not in known:
        raise UnknownTargetError(f"no repository {repository!r}; configured: {', '.join(known) or 'none'}")
    everything = [info for name in known if repository in {"", name} for info in catalogue.targets(name)]
    plans = [info for info in everything if info.path.endswith(PLAN_SUFFIX)]
    found = [info for info in plans if info.path == release]
    found = found or [info for info in plans if release in {info.base_name.removesuffix(PLAN_SUFFIX), info.custom.version}]
    if not found:
        names = ", ".join(sorted(f"{info.repository}/{info.path}" for info in plans)) or "none (has the mirror been refreshed?)"
        raise UnknownTargetError(f"no release plan is called {release!r}; there are: {names}")
    if len(found) > 1:
        names = ", ".join(f"{info.repository}/{info.path}" for info in found)
        raise AmbiguousError(f"several release plans are called {release!r}: {names}; name one by its path and repository")
    return found[0]


def _is_bundle(info: TargetInfo) -> bool:
    return info.path.endswith(BUNDLE_SUFFIXES)


def _offer(info: TargetInfo, listed: Listed) -> Offer:
    digests = frozenset(each.sha256 for each in siblings(info, listed.values()))
    return Offer(info.sha256, info.custom.version, info.custom.hw_ids, digests)


def _device(node: Node, plan: ReleasePlan, listed: Listed, runs: TargetInfo | None) -> Device:
    if node.kind is ClientKind.AGENT:
        hold, revert = _said(node)
    else:
        returns = runs is not None and runs.custom.security_counter >= _floor(node, plan, listed)
        hold, revert = False, Revert.SWITCH if returns else Revert.NONE
    return Device(
        id=node.id,
        hardware=node.hardware,
        version=node.running.version,
        sha256=node.running.sha256,
        attributes=node.attributes,
        hold=hold,
        revert=revert,
        assigner=node.assigner,
    )


def _said(node: Node) -> tuple[bool, Revert]:
    """Whether an agent's device can hold a trial, and how it goes back."""
    can = read_facts(node.attributes).can
    if can is None:
        return True, Revert.SWITCH
    if Ability.REVERT not in can:
        return Ability.HOLD in can, Revert.NONE
    return Ability.HOLD in can, Revert.RE_FLASH if Ability.REFLASH in can else Revert.SWITCH


def _floor(node: Node, plan: ReleasePlan, listed: Listed) -> int:
    """The security counter below which a node takes nothing any more, once it has run what the plan wants of it."""
    wanted = [
        listed[member.bundle.path].custom.security_counter
        for member in plan.members
        if member.bundle is not None
        and member.bundle.path in listed
        and member.selector.admits(node.id, node.hardware, node.attributes)
    ]
    return max(wanted, default=0)


def _previous(everyone: Collection[Node], known: Mapping[str, TargetInfo]) -> Mapping[str, Release]:
    runs = {node.id: known.get(node.running.sha256) for node in everyone}
    return {node: release_of(info) for node, info in runs.items() if info is not None}
