"""The signed file of a release plan."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from update.digest import digest_of
from update.errors import FieldrelayError, FormatVersionError, LimitError, PlanError
from update.plans.document import MAX_PLAN_BYTES, parse_plan, plan_bytes
from update.plans.plan import Accept, Deadlines, Limit, Lost, PlanBundle, PlanMember, ReleasePlan, Requirement, Selector
from update.plans.ranges import parse_condition

NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
BUNDLES = st.builds(PlanBundle, st.just("os/a.swu"), st.binary(max_size=3).map(digest_of), st.sampled_from(["1", "2.0-rc.1"]))
SELECTORS = st.builds(
    Selector,
    st.lists(NAMES, min_size=1, max_size=2).map(tuple),
    st.just(("imx8:#RE:^2[.]",)),
    st.dictionaries(NAMES, st.text(max_size=5), max_size=2),
)


@st.composite
def plans(draw: st.DrawFn) -> ReleasePlan:
    names = draw(st.lists(NAMES, min_size=2, max_size=4, unique=True))
    members = tuple(
        PlanMember(
            name,
            draw(SELECTORS),
            draw(BUNDLES if number == 0 else BUNDLES | st.none()),
            draw(st.none() | st.integers(0, 100)),
            draw(st.frozensets(st.sampled_from(Accept))),
            tuple(draw(st.lists(NAMES, max_size=2))),
            draw(st.integers(0, 5)),
        )
        for number, name in enumerate(names)
    )
    need, other = parse_condition(f"{names[0]} >= 2.1, < 3"), draw(st.none() | st.just(parse_condition(f"{names[1]} == 5.*")))
    limit = draw(
        st.builds(Limit, st.just((names[0],)), st.integers(1, 9))
        | st.builds(Limit, st.just((names[1],)), st.none(), st.integers(1, 9), NAMES)
    )
    return ReleasePlan(
        draw(NAMES),
        "7.1",
        members,
        (Requirement(need, other, draw(st.just("") | NAMES)),),
        (limit,),
        Deadlines(*[draw(st.integers(1, 86_400)) for _ in range(6)]),
        draw(st.sampled_from(Lost)),
        tuple(draw(st.lists(NAMES, max_size=2))),
        "for people",
    )


@given(plans())
@settings(max_examples=100)
def test_what_is_published_is_what_is_read(plan: ReleasePlan) -> None:
    data = plan_bytes(plan)
    assert parse_plan(data, "line.plan.json") == plan
    assert plan_bytes(parse_plan(data, "line.plan.json")) == data
    assert sorted(json.loads(data)) == list(json.loads(data))


GOOD = {
    "format_version": 1,
    "plan": {"name": "line", "version": "7"},
    "members": [
        {
            "name": "motor",
            "select": {"attributes": {"role": "motor"}},
            "bundle": {"path": "os/motor-2.swu", "sha256": digest_of(b"m"), "version": "2"},
        },
        {"name": "controller", "select": {"nodes": ["controller-1"]}},
    ],
    "requirements": [{"need": "motor >= 2", "while": "controller == 5.*"}],
    "limits": [{"members": ["motor"], "at_most": 1}],
}


def changed(path: str, value: object) -> bytes:
    """The good document with one value changed; `~` for absent."""
    document = json.loads(json.dumps(GOOD))
    *way, last = [int(each) if each.isdecimal() else each for each in path.split(".")]
    place = document
    for each in way:
        place = place[each]
    if value == "~":
        del place[last]
    else:
        place[last] = value
    return json.dumps(document).encode()


def test_defaults_stand_for_what_is_absent() -> None:
    plan = parse_plan(json.dumps(GOOD).encode(), "x")
    assert (plan.deadlines, plan.lost, plan.members[0].least, plan.members[1].bundle) == (Deadlines(), Lost.REVERT, 1, None)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("colour", "red", "colour: no such key"),
        ("plan.name", "a/b", "plan.name"),
        ("plan.version", "~", "plan.version"),
        ("plan.lost", "explode", "plan.lost"),
        ("members", [], "members"),
        ("members", [GOOD["members"][0]] * 2, "two members are named 'motor'"),  # type: ignore[index]  # a list, as it stands above
        ("members.0.bundle", "~", "nothing would be updated"),
        ("members.0.bundle.sha256", "00", "members[0].bundle.sha256"),
        ("members.0.bundle.path", "../etc", "members[0].bundle.path"),
        ("members.0.select", {}, "selects every node"),
        ("members.0.select.hardware", ["imx8:#RE:("], "members[0].select.hardware"),
        ("members.0.select.nodes", "controller", "members[0].select.nodes"),
        ("members.0.accept", ["no-brain"], "members[0].accept"),
        ("members.0.group", -1, "members[0].group"),
        ("members.0.group", "10", "members[0].group"),
        ("members.0.least", True, "members[0].least"),
        ("requirements.0.need", "motor => 2", "requirements[0].need"),
        ("requirements.0.need", "engine >= 2", "no member is named 'engine'"),
        ("requirements.0.while", "motor >= 2", "with itself"),
        ("requirements.0.because", "x", "requirements[0].because: no such key"),
        ("requirements", [GOOD["requirements"][0]] * 257, "requirements"),  # type: ignore[index]  # a list, as it stands above
        ("limits.0.keep_up", 1, "give one of at_most and keep_up"),
        ("limits.0.at_most", 0, "limits[0].at_most"),
        ("limits.0.members", ["press"], "no member is named 'press'"),
        ("deadlines", {"test_s": 0}, "deadlines.test_s"),
        ("format_version", 0, "format_version"),
        ("format_version", "~", "format_version"),
    ],
)
def test_each_mistake_is_refused_by_its_key(path: str, value: object, words: str) -> None:
    with pytest.raises(PlanError) as caught:
        parse_plan(changed(path, value), "line.plan.json")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"plan":1,"plan":2}',
        b'{"format_version":1.0}',
        b'{"format_version":NaN}',
        b"[" * 100_000,
        b"1" * 5000,
    ],
)
def test_what_is_no_json_of_a_plan_is_refused(data: bytes) -> None:
    with pytest.raises(PlanError):
        parse_plan(data, "x")


def test_a_newer_form_and_an_endless_file_are_told_apart() -> None:
    with pytest.raises(FormatVersionError):
        parse_plan(changed("format_version", 2), "x")
    with pytest.raises(LimitError):
        parse_plan(b" " * (MAX_PLAN_BYTES + 1), "x")


@given(st.data())
@settings(max_examples=100)
def test_damaged_files_are_read_or_refused_by_name(data: st.DataObject) -> None:
    good = bytearray(json.dumps(GOOD).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.sampled_from(b'{}[]",:0 1a-'))
    try:
        found = parse_plan(bytes(good), str(Path("x")))
    except FieldrelayError:
        return
    assert parse_plan(plan_bytes(found), "x") == found
