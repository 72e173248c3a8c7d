"""Release plans and devices for tests, in few words."""

from collections.abc import Mapping

from gateway.fleet.plan_members import Offer
from gateway.fleet.schedule import Device, Revert
from update.digest import digest_of
from update.identity import Hardware
from update.plans.plan import Accept, Limit, PlanBundle, PlanMember, ReleasePlan, Requirement, Selector
from update.plans.ranges import parse_condition

BOARD = "board:1"


def member(
    name: str, version: str | None, *nodes: str, group: int | None = None, accepts: frozenset[Accept] = frozenset(Accept)
) -> PlanMember:
    """A member that `nodes` play (without any: every node of that role); None: it is only watched."""
    selector = Selector(nodes=nodes) if nodes else Selector(attributes={"role": name})
    return PlanMember(name, selector, None if version is None else pinned(name, version), group, accepts)


def pinned(name: str, version: str) -> PlanBundle:
    path = f"os/{name}-{version}.swu"
    return PlanBundle(path, digest_of(path.encode()), version)


def required(need: str, given: str | None = None, per: str = "") -> Requirement:
    return Requirement(parse_condition(need), None if given is None else parse_condition(given), per)


def plan(*members: PlanMember, requirements: tuple[Requirement, ...] = (), limits: tuple[Limit, ...] = ()) -> ReleasePlan:
    return ReleasePlan("line", "7", members, requirements, limits)


def offers(wanted: ReleasePlan) -> Mapping[str, Offer]:
    """A repository that lists every bundle of the plan, for one board."""
    bundles = [each.bundle for each in wanted.members if each.bundle is not None]
    return {each.path: Offer(each.sha256, each.version, (BOARD,), frozenset({each.sha256})) for each in bundles}


def device(
    name: str, version: str, *, role: str = "", hold: bool = True, revert: Revert = Revert.SWITCH, **attributes: str
) -> Device:
    told = {"role": role or name.partition("-")[0], **attributes}
    return Device(name, Hardware.parse(BOARD), version, attributes=told, hold=hold, revert=revert)
