"""From the TOML that a release engineer writes to the file of a release plan, checked against what the repository lists.

    format_version = 1

    [plan]
    name = "press-line"
    version = "2026.11"

    [[members]]
    name = "controller"
    select = { attributes = { role = "controller" } }    # or nodes = ["press-1"], or hardware = ["imx8:1"]
    bundle = "os/controller-5.1.swu"                     # a target of this repository; absent: only watched

    [[requirements]]
    need = "motor >= 2.1, < 3"
    while = "controller == 5.*"
    per = "line"

Every key and its default: docs/reference/release-plan.md. Each `bundle` is pinned here: the plan names its SHA-256 and version,
so whoever signs the plan signs these very bundles. A requirement that the bundles break among themselves is refused here; what
depends on what a site runs now is the site's to judge.
"""

from collections.abc import Mapping
from pathlib import Path

from update.errors import PlanError
from update.plans.document import plan_of
from update.plans.plan import ReleasePlan
from update.plans.ranges import Condition
from update.provided import read_toml
from update.trust.verified import TargetInfo


def load_plan(file: Path, listed: Mapping[str, TargetInfo]) -> ReleasePlan:
    """Read and check the engineer's TOML; `listed` are the repository's targets by path.

    Errors: `ConfigurationError` for what is no TOML, `PlanError` for everything else, `FormatVersionError`.
    """
    values = dict(read_toml(file))
    members = values.get("members")
    if isinstance(members, list):
        values["members"] = [_pinned(each, listed, file) if isinstance(each, Mapping) else each for each in members]
    plan = plan_of(values, str(file))
    check_end(plan, str(file))
    return plan


def check_end(plan: ReleasePlan, source: str) -> None:
    """Refuse a plan whose bundles break its own requirements: `PlanError` names the first."""
    versions = {each.name: each.bundle.version for each in plan.members if each.bundle is not None}
    for requirement in plan.requirements:
        if not _may_hold(requirement.need, versions) and _does_hold(requirement.given, versions):
            has = f"{requirement.need.member} {versions[requirement.need.member]}"
            beside = (
                "" if requirement.given is None else f" beside {requirement.given.member} {versions[requirement.given.member]}"
            )
            raise PlanError(f"{source}: {str(requirement)!r} would not hold at the end: the plan brings {has}{beside}")


def _may_hold(condition: Condition, versions: Mapping[str, str]) -> bool:
    return condition.member not in versions or condition.range.admits(versions[condition.member])


def _does_hold(condition: Condition | None, versions: Mapping[str, str]) -> bool:
    if condition is None:
        return True
    return condition.member in versions and condition.range.admits(versions[condition.member])


def _pinned(member: Mapping[str, object], listed: Mapping[str, TargetInfo], file: Path) -> Mapping[str, object]:
    path = member.get("bundle")
    if path is None:
        return member
    who = f"{file}: member {str(member.get('name', '?'))[:64]!r}"
    if not isinstance(path, str):
        raise PlanError(f"{who}: bundle is the path of a target, such as 'os/controller-5.1.swu'")
    info = listed.get(path)
    if info is None:
        raise PlanError(f"{who}: the repository lists no target {path[:120]!r}; `fieldrelay repo add` it first")
    if not info.custom.version:
        raise PlanError(f"{who}: {path} is listed without a version; add it again with --version")
    if info.custom.delta_of:
        raise PlanError(f"{who}: {path} is a delta; name {info.custom.delta_of}, which brings the same, and sites choose")
    return {**member, "bundle": {"path": path, "sha256": info.sha256, "version": info.custom.version}}
