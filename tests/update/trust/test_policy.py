"""Whether a release may run here: each reason against it, in order, and what an operator may override."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from update.errors import ExpiredError, HardwareError, ProvenanceError, RollbackError
from update.identity import Hardware
from update.trust.floor_values import FloorValues
from update.trust.policy import Freshness, Judgement, NodePolicy, OperatorWish, judge
from update.trust.verified import Provenance, TargetCustom

HARDWARE = Hardware("imx8", "2.1")
RELEASE = TargetCustom(hw_ids=("other:1", "imx8:#RE:^2[.]"), version="1.1", release_counter=11, security_counter=3)
FLOOR = FloorValues(release_counter=10, security_counter=3)
DEFAULT = NodePolicy()
FRESH = Freshness()
AUTOMATIC = OperatorWish()
STALE = Freshness(("timestamp",), timedelta(hours=30))


def judged(
    target: TargetCustom = RELEASE,
    provenance: Provenance = Provenance.TUF,
    *,
    hardware: Hardware = HARDWARE,
    floor: FloorValues = FLOOR,
    policy: NodePolicy = DEFAULT,
    freshness: Freshness = FRESH,
    wish: OperatorWish = AUTOMATIC,
) -> Judgement:
    return judge(target, provenance, hardware=hardware, floor=floor, policy=policy, freshness=freshness, wish=wish)


def release(release_counter: int, security_counter: int = 3) -> TargetCustom:
    return TargetCustom(hw_ids=RELEASE.hw_ids, release_counter=release_counter, security_counter=security_counter)


def test_a_newer_release_for_this_hardware_is_admitted_without_remarks() -> None:
    assert judged() == Judgement()


def test_a_weaker_proof_than_demanded_is_refused() -> None:
    with pytest.raises(ProvenanceError) as caught:
        judged(provenance=Provenance.CMS)
    assert caught.value.code == "trust.provenance"
    assert judged(provenance=Provenance.CMS, policy=NodePolicy(Provenance.CMS)) == Judgement()
    assert judged(policy=NodePolicy(Provenance.CMS)) == Judgement()


@pytest.mark.parametrize("hw_ids", [(), ("imx8:3.0",), ("imx9:2.1",), ("imx8:#RE:^3",)])
def test_a_release_for_other_hardware_is_refused(hw_ids: tuple[str, ...]) -> None:
    with pytest.raises(HardwareError) as caught:
        judged(TargetCustom(hw_ids=hw_ids, release_counter=99, security_counter=99))
    assert "imx8:2.1" in str(caught.value)


@pytest.mark.parametrize("wish", [OperatorWish(), OperatorWish("we must", "we must")])
def test_nothing_below_the_security_floor_is_ever_accepted(wish: OperatorWish) -> None:
    with pytest.raises(RollbackError) as caught:
        judged(release(99, security_counter=2), wish=wish, policy=NodePolicy(stale_grace=timedelta(days=9)))
    assert "2 is below the floor 3" in str(caught.value)


@pytest.mark.parametrize("counter", [0, 9, 10])
def test_an_older_or_equal_release_needs_an_operator_with_a_reason(counter: int) -> None:
    for wish in (OperatorWish(), OperatorWish(return_reason="  "), OperatorWish(stale_reason="another reason")):
        with pytest.raises(RollbackError):
            judged(release(counter), wish=wish)
    admitted = judged(release(counter), wish=OperatorWish(return_reason="line 3 needs the old driver"))
    assert admitted.overrides == (f"return from release counter 10 to {counter}: line 3 needs the old driver",)


def test_releases_without_any_counter_are_admitted_with_a_warning() -> None:
    (warning,) = judged(release(0), floor=FloorValues()).warnings
    assert "no release counter" in warning


def test_stale_metadata_installs_nothing_by_itself() -> None:
    with pytest.raises(ExpiredError) as caught:
        judged(freshness=STALE, policy=NodePolicy(stale_grace=timedelta(days=9)))
    assert "timestamp expired 30.0 h ago" in str(caught.value)


def test_an_operator_may_accept_stale_metadata_within_the_grace_only() -> None:
    wish = OperatorWish(stale_reason="the line is down")
    for grace in (timedelta(), timedelta(hours=29)):
        with pytest.raises(ExpiredError):
            judged(freshness=STALE, wish=wish, policy=NodePolicy(stale_grace=grace))
    admitted = judged(freshness=STALE, wish=wish, policy=NodePolicy(stale_grace=timedelta(hours=30)))
    assert admitted.overrides == ("timestamp expired 30.0 h ago, accepted: the line is down",)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.booleans())
@settings(max_examples=100, deadline=None)
def test_whatever_is_admitted_automatically_never_goes_back(
    offered: int, security: int, floor: int, floor_security: int, wished: bool
) -> None:
    wish = OperatorWish(return_reason="a reason") if wished else OperatorWish()
    values = FloorValues(release_counter=floor, security_counter=floor_security)
    try:
        admitted = judged(release(offered, security), floor=values, wish=wish)
    except RollbackError:
        assert security < floor_security or (not wished and offered <= floor)
        return
    assert security >= floor_security
    assert offered > floor or admitted.overrides or offered == floor == 0
