"""Which nodes of a site play the members of a release plan, and whether each of them can: pure decisions.

1. One node plays one member. A member that fewer nodes play than it needs (`least`) has the plan refused: a controller that
   is away must not be forgotten.
2. A device runs its release already if its SHA-256 is that of a bundle which brings it; where it told no SHA-256, its version
   decides. Nothing is asked of such a device but that it is well before the decision.
3. What a device cannot do is accepted by name or has the plan refused. In serial recovery nothing is left to go back to, so
   accepting `serial-recovery` accepts that too.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gateway.database.records import SITE
from gateway.fleet.schedule import Device, Finding, Obstacle, Revert, ScheduledDevice
from update.digest import Digest
from update.plans.plan import Accept, PlanBundle, PlanMember, ReleasePlan

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Offer:
    """What the repository lists under a bundle's path: the hardware it is for, and every bundle that brings the same release."""

    sha256: Digest
    version: str
    hw_ids: tuple[str, ...]
    digests: frozenset[Digest]


@dataclass(frozen=True, slots=True)
class Player:
    """A node in its part. `moves`: it has to be changed; `version` is what it runs, `then` what it will run."""

    device: Device
    member: PlanMember
    moves: bool
    version: str
    then: str

    @property
    def id(self) -> str:
        """The node's name."""
        return self.device.id

    @property
    def revert(self) -> Revert:
        """How it goes back, for all that is known now (rule 3)."""
        return Revert.NONE if self.device.serial_recovery else self.device.revert

    @property
    def late(self) -> int:
        """How late it wants to go: 2 what cannot go back, 1 what does not wait for the decision, 0 everything else."""
        return 2 if self.revert is Revert.NONE else 0 if self.device.hold else 1

    def scheduled(self, interlocks: tuple[str, ...]) -> ScheduledDevice:
        """Its place in the schedule; `interlocks` are those of the whole plan."""
        return ScheduledDevice(
            id=self.id,
            member=self.member.name,
            version=self.device.version,
            sha256=self.device.sha256,
            bundle=self.member.bundle,
            accepts=self.member.accepts,
            interlocks=tuple(dict.fromkeys((*interlocks, *self.member.interlocks))),
            hold=self.device.hold,
            revert=self.revert,
        )


def cast_members(
    plan: ReleasePlan, devices: Sequence[Device], offers: Mapping[str, Offer]
) -> tuple[tuple[Player, ...], tuple[Finding, ...]]:
    """Who plays what, by name, and what is wrong with that (rule 1). `offers` by the bundles' paths."""
    players: list[Player] = []
    findings: list[Finding] = []
    taken: dict[str, str] = {}
    for member in plan.members:
        chosen = [each for each in devices if member.selector.admits(each.id, each.hardware, each.attributes)]
        findings += _too_few(member, chosen)
        for device in chosen:
            other = taken.setdefault(device.id, member.name)
            if other == member.name:
                players.append(_player(member, device, offers))
            else:
                findings.append(_two_parts(device, other, member.name))
    return tuple(sorted(players, key=lambda each: each.id)), tuple(findings)


def judge_players(
    plan: ReleasePlan, players: Sequence[Player], offers: Mapping[str, Offer], interlocks: Collection[str] | None
) -> Iterator[Finding]:
    """What speaks against single members and devices. `interlocks` are those that the site has; None: not asked."""
    for member in plan.members:
        if member.bundle is not None:
            yield from _wrong_bundle(member.bundle, member.name, offers.get(member.bundle.path))
    if interlocks is not None:
        yield from _unknown_interlocks(plan, interlocks)
    for player in players:
        if player.moves and player.member.bundle is not None:
            yield from _cannot_take(player, offers.get(player.member.bundle.path))
            yield from _cannot_do(player)


def named(ids: Collection[str]) -> str:
    """Some devices for a message, however many they are."""
    shown = sorted(ids)
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more


def _player(member: PlanMember, device: Device, offers: Mapping[str, Offer]) -> Player:
    if member.bundle is None:
        return Player(device, member, moves=False, version=device.version, then=device.version)
    offer = offers.get(member.bundle.path)
    same = {member.bundle.sha256} | (offer.digests if offer is not None else set())
    runs = device.sha256 in same if device.sha256 else device.version == member.bundle.version
    version = member.bundle.version if runs else device.version
    return Player(device, member, moves=not runs, version=version, then=member.bundle.version)


def _too_few(member: PlanMember, chosen: Sequence[Device]) -> Iterator[Finding]:
    absent = [name for name in member.selector.nodes if name not in {each.id for each in chosen}]
    if len(chosen) >= member.least:
        return
    why = f"; not found or not fitting: {named(absent)}" if absent else ""
    message = f"member {member.name} needs at least {member.least} device(s), {len(chosen)} are here{why}"
    yield Finding(Obstacle.SELECTION, f"{message}; see `fieldrelay gateway nodes`", tuple(each.id for each in chosen))


def _two_parts(device: Device, one: str, other: str) -> Finding:
    message = f"node {device.id} is selected by the members {one} and {other}; a node plays one part: make the selectors distinct"
    return Finding(Obstacle.SELECTION, message, (device.id,))


def _wrong_bundle(bundle: PlanBundle, member: str, offer: Offer | None) -> Iterator[Finding]:
    what = f"member {member} gets {bundle.path} with SHA-256 {bundle.sha256[:16]}…"
    if offer is None:
        message = f"{what}, which the repository does not list or could not fetch; refresh it, or publish the plan anew"
        yield Finding(Obstacle.BUNDLE, message)
    elif offer.sha256 != bundle.sha256:
        message = f"{what}, the repository lists it with {offer.sha256[:16]}…; publish the plan anew for that bundle"
        yield Finding(Obstacle.BUNDLE, message)
    elif offer.version != bundle.version:
        message = (
            f"{what} as version {bundle.version}, the repository lists it as {offer.version or 'none'}; publish the plan anew"
        )
        yield Finding(Obstacle.BUNDLE, message)


def _unknown_interlocks(plan: ReleasePlan, interlocks: Collection[str]) -> Iterator[Finding]:
    wanted = {*plan.interlocks, *(name for member in plan.members for name in member.interlocks)}
    for name in sorted(wanted - set(interlocks)):
        known = ", ".join(sorted(interlocks)) or "none"
        yield Finding(Obstacle.INTERLOCK, f"the plan needs the interlock {name}; configured here: {known}")


def _cannot_take(player: Player, offer: Offer | None) -> Iterator[Finding]:
    device, hw_ids = player.device, () if offer is None else offer.hw_ids
    if device.hardware is None:
        message = f"node {device.id} has not said what hardware it is; wait for its next contact"
        yield Finding(Obstacle.UNKNOWN, message, (device.id,))
    elif offer is not None and not device.hardware.accepts(hw_ids):
        message = f"node {device.id} is {device.hardware}; the bundle of member {player.member.name} is for {', '.join(hw_ids)}"
        yield Finding(Obstacle.HARDWARE, message, (device.id,))
    if device.assigner != SITE:
        hand_over = f"`fieldrelay gateway node {device.id} --assigner {SITE}`"
        message = f"node {device.id} takes its orders from {device.assigner}; hand it over with {hand_over}"
        yield Finding(Obstacle.ASSIGNER, message, (device.id,))


def _cannot_do(player: Player) -> Iterator[Finding]:
    device, accepts = player.device, player.member.accepts
    if device.serial_recovery:
        lacks = [(Accept.SERIAL_RECOVERY, "is in serial recovery: nothing is left that it could go back to")]
    elif device.revert is Revert.NONE:
        lacks = [(Accept.NO_REVERT, "cannot go back to its previous version")]
    elif device.revert is Revert.RE_FLASH:
        lacks = [(Accept.RE_FLASH, "goes back only by writing the previous image again")]
    else:
        lacks = []
    if not device.hold:
        lacks.append((Accept.NO_HOLD, "makes a new version permanent before the common decision"))
    for accept, words in lacks:
        if accept not in accepts:
            message = f"node {device.id} {words}; the plan must accept {accept} for member {player.member.name}, or leave it out"
            yield Finding(Obstacle.CAPABILITY, message, (device.id,))
