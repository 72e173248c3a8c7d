"""What the requirements, groups and limits of a release plan mean for the devices of one site: edges and refusals; pure.

While a line is updated it runs a mix of old and new. A requirement speaks of two devices, n of `need` and g of `given`, and
each of their four mixes either keeps it or not. It is broken where g is in its range and n is not:

1. old-old must keep it now, and new-new at the end, or the plan is refused.
2. If old n and new g break it, n goes before g. If new n and old g break it, g goes before n.
3. Both of rule 2 for one requirement would need old-old to break it, so they are refused by rule 1. For two requirements
   they make a cycle: no order exists, since two devices cannot change in the same moment.
4. A device that does not change has the same version in all mixes, so rule 1 decides about it.

Devices of which a requirement says the same (in or out of the range, old and new) are taken together: one edge between two
sets stands for all pairs, so 500 devices cost as little as their number and not its square.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise, product

from gateway.fleet.plan_members import Player, named
from gateway.fleet.schedule import DeviceLimit, Edge, EdgeKind, Finding, Obstacle
from update.plans.plan import Limit, ReleasePlan, Requirement
from update.plans.ranges import Condition

_Sides = Mapping[tuple[bool, bool], Sequence[Player]]
"""Players by whether their old and their new version lie in a range."""


def requirement_edges(plan: ReleasePlan, players: Sequence[Player]) -> tuple[tuple[Edge, ...], tuple[Finding, ...]]:
    """What the requirements demand of the order, and which of them no order can keep."""
    edges: list[Edge] = []
    findings: list[Finding] = []
    for requirement in plan.requirements:
        concerned = [each for each in players if each.member.name in _members(requirement)]
        unknown = [*_versionless(requirement, concerned), *_valueless(requirement.per, str(requirement), concerned)]
        findings += unknown
        if unknown:
            continue
        for value, together in _by_value(requirement.per, concerned).items():
            words = f"{requirement} ({requirement.per} = {value})" if requirement.per else str(requirement)
            judged = tuple(_judge(requirement, together, words))
            edges += [each for each in judged if isinstance(each, Edge)]
            findings += [each for each in judged if isinstance(each, Finding)]
    return tuple(edges), tuple(findings)


def group_edges(players: Sequence[Player]) -> Iterator[Edge]:
    """Groups that the plan names, in ascending order."""
    groups: dict[int, list[str]] = defaultdict(list)
    for player in players:
        if player.moves and player.member.group is not None:
            groups[player.member.group].append(player.id)
    for earlier, later in pairwise(sorted(groups)):
        yield Edge(tuple(groups[earlier]), tuple(groups[later]), EdgeKind.GROUP, f"group {earlier} before group {later}")


def device_limits(plan: ReleasePlan, players: Sequence[Player]) -> tuple[tuple[DeviceLimit, ...], tuple[Finding, ...]]:
    """The limits, counted on the devices that are here, and which of them let nothing change at all."""
    limits: list[DeviceLimit] = []
    findings: list[Finding] = []
    for limit in plan.limits:
        concerned = [each for each in players if each.member.name in limit.members]
        unknown = list(_valueless(limit.per, str(limit), concerned))
        findings += unknown
        for value, together in {} if unknown else _by_value(limit.per, concerned).items():
            made = _counted(limit, together, f"{limit} ({limit.per} = {value})" if limit.per else str(limit))
            if made.at_most > 0:
                limits.append(made)
            elif any(each.moves for each in together):
                findings.append(_nothing_may_change(made))
    return tuple(limits), tuple(findings)


def _members(requirement: Requirement) -> set[str]:
    return {requirement.need.member} | ({requirement.given.member} if requirement.given is not None else set())


def _versionless(requirement: Requirement, concerned: Iterable[Player]) -> Iterator[Finding]:
    if silent := tuple(each.id for each in concerned if not each.version):
        message = (
            f"{named(silent)} did not say what runs there, and {str(requirement)!r} needs to know; wait for the next contact"
        )
        yield Finding(Obstacle.UNKNOWN, message, silent, str(requirement))


def _valueless(per: str, words: str, concerned: Iterable[Player]) -> Iterator[Finding]:
    if per and (lacking := tuple(each.id for each in concerned if per not in each.device.attributes)):
        message = f"{named(lacking)} told no attribute {per!r}, by which {words!r} is counted; have the nodes tell it"
        yield Finding(Obstacle.UNKNOWN, message, lacking, words)


def _by_value(per: str, concerned: Iterable[Player]) -> dict[str, list[Player]]:
    found: dict[str, list[Player]] = defaultdict(list)
    for each in concerned:
        found[each.device.attributes[per] if per else ""].append(each)
    return found


def _judge(requirement: Requirement, players: Sequence[Player], words: str) -> Iterator[Edge | Finding]:
    need = _sides(requirement.need, players)
    if requirement.given is None:
        for (old, new), needed in need.items():
            if not (old and new):
                yield _broken(words, needed, (), now=not old)
        return
    for ((need_old, need_new), needed), ((given_old, given_new), giving) in product(
        need.items(), _sides(requirement.given, players).items()
    ):
        if given_old and not need_old:
            yield _broken(words, needed, giving, now=True)
        elif given_new and not need_new:
            yield _broken(words, needed, giving, now=False)
        elif given_new and not need_old:
            yield _edge(needed, giving, words)
        elif given_old and not need_new:
            yield _edge(giving, needed, words)


def _sides(condition: Condition, players: Iterable[Player]) -> _Sides:
    known: dict[str, bool] = {}
    sides: dict[tuple[bool, bool], list[Player]] = defaultdict(list)
    for player in players:
        if player.member.name == condition.member:
            for version in (player.version, player.then):
                if version not in known:
                    known[version] = condition.range.admits(version)
            sides[known[player.version], known[player.then]].append(player)
    return sides


def _edge(before: Sequence[Player], after: Sequence[Player], words: str) -> Edge:
    """Neither side holds a device that does not change: its old and new sides are the same, which rule 1 took."""
    return Edge(tuple(each.id for each in before), tuple(each.id for each in after), EdgeKind.REQUIREMENT, words)


def _broken(words: str, needed: Sequence[Player], giving: Sequence[Player], *, now: bool) -> Finding:
    devices = tuple(each.id for each in (*needed, *giving))
    sides = [f"{named([each.id for each in side])} at {_versions(side, now=now)}" for side in (needed, giving) if side]
    if now:
        message = f"{words!r} does not hold now: {' beside '.join(sides)}; bring them together by orders of their own first"
    else:
        message = f"{words!r} would not hold at the end: {' beside '.join(sides)}; plan for bundles that fit, or correct it"
    return Finding(Obstacle.REQUIREMENT, message, devices, words)


def _versions(players: Sequence[Player], *, now: bool) -> str:
    return named({each.version if now else each.then for each in players})


def _counted(limit: Limit, players: Sequence[Player], words: str) -> DeviceLimit:
    at_most = len(players) - limit.keep_up if limit.keep_up is not None else limit.at_most or 0
    return DeviceLimit(tuple(each.id for each in players), at_most, words)


def _nothing_may_change(limit: DeviceLimit) -> Finding:
    message = (
        f"{limit.reason!r} lets none of its {len(limit.devices)} device(s) change: {named(limit.devices)}; more must be here"
    )
    return Finding(Obstacle.LIMIT, message, limit.devices)
