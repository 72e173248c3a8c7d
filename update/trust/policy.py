"""May this release run here, now? A pure judgement of values; the signatures were checked before.

In this order, each with its own refusal:

1. provenance: the proof is at least what the node demands (TUF is more than CMS alone): `ProvenanceError`
2. hardware: the release names the board and revision: `HardwareError`
3. security counter: never below the floor, whoever asks: `RollbackError`
4. release counter: newer than every confirmed release, unless an operator returns to an older one and says why: `RollbackError`
5. freshness: with stale metadata nothing installs by itself; an operator may accept it, with a reason, within the grace that the
   node's policy grants (none by default): `ExpiredError`

An operator's overrides come back in the judgement, for the audit. What is already verified and staged is not judged again.
"""

from dataclasses import dataclass
from datetime import timedelta

from update.errors import ExpiredError, HardwareError, ProvenanceError, RollbackError
from update.identity import Hardware
from update.trust.floor_values import FloorValues
from update.trust.verified import Provenance, TargetCustom

_STRENGTH = {Provenance.CMS: 0, Provenance.TUF: 1}


@dataclass(frozen=True, slots=True)
class NodePolicy:
    """What a node demands. `stale_grace`: how long after expiry an operator may still accept stale metadata."""

    minimum_provenance: Provenance = Provenance.TUF
    stale_grace: timedelta = timedelta()


@dataclass(frozen=True, slots=True)
class Freshness:
    """Roles of the repository that are past their expiry, and for how long the oldest is (`Refreshed.stale`, `.stale_for`)."""

    stale: tuple[str, ...] = ()
    stale_for: timedelta = timedelta()


@dataclass(frozen=True, slots=True)
class OperatorWish:
    """What an authenticated operator asked for, each with a reason; empty reasons override nothing (automatic installs)."""

    return_reason: str = ""
    stale_reason: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Permission: `overrides` are for the audit (what was overridden and the operator's reason), `warnings` for the page."""

    warnings: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()


def judge(
    target: TargetCustom,
    provenance: Provenance,
    *,
    hardware: Hardware,
    floor: FloorValues,
    policy: NodePolicy,
    freshness: Freshness = Freshness(),
    wish: OperatorWish = OperatorWish(),
) -> Judgement:
    """Return a `Judgement`, or raise the first refusal in the order of the module's docstring."""
    if _STRENGTH[provenance] < _STRENGTH[policy.minimum_provenance]:
        raise ProvenanceError(
            f"the release is proved by {provenance.value} only, this node demands {policy.minimum_provenance.value}; "
            "publish it in a repository, or lower the node's minimum"
        )
    if not hardware.accepts(target.hw_ids):
        raise HardwareError(f"the release is for {', '.join(target.hw_ids) or 'no hardware at all'}, this device is {hardware}")
    if target.security_counter < floor.security_counter:
        raise RollbackError(
            f"security counter {target.security_counter} is below the floor {floor.security_counter}; nothing below it is ever "
            "accepted: publish a release with a higher one"
        )
    order, age = _judge_order(target, floor, wish), _judge_freshness(freshness, policy, wish)
    return Judgement(order.warnings + age.warnings, order.overrides + age.overrides)


def _judge_order(target: TargetCustom, floor: FloorValues, wish: OperatorWish) -> Judgement:
    offered, confirmed, reason = target.release_counter, floor.release_counter, wish.return_reason.strip()
    if offered > confirmed:
        return Judgement()
    if offered == confirmed == 0:
        return Judgement(warnings=("the release carries no release counter: its order cannot be judged",))
    if not reason:
        raise RollbackError(
            f"release counter {offered} is not above {confirmed}, which was confirmed here; "
            "an operator may return to the release with a reason"
        )
    return Judgement(overrides=(f"return from release counter {confirmed} to {offered}: {reason}",))


def _judge_freshness(freshness: Freshness, policy: NodePolicy, wish: OperatorWish) -> Judgement:
    if not freshness.stale:
        return Judgement()
    state = f"{' and '.join(freshness.stale)} expired {_hours(freshness.stale_for)} ago"
    reason = wish.stale_reason.strip()
    if not reason:
        raise ExpiredError(f"{state}: nothing installs by itself until newer metadata comes; bring it by network or stick")
    if freshness.stale_for > policy.stale_grace:
        raise ExpiredError(f"{state}, the policy's grace is {_hours(policy.stale_grace)}: not even an operator may accept it")
    return Judgement(overrides=(f"{state}, accepted: {reason}",))


def _hours(duration: timedelta) -> str:
    return f"{duration / timedelta(hours=1):.1f} h"
