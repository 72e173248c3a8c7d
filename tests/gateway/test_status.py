from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import TypeAdapter

from gateway.cli.output import show_nodes, show_status
from gateway.control.messages import NODES_REPLY, STATUS_REPLY
from gateway.database.records import Running
from gateway.demo.screen import _table, _wanted
from gateway.fleet.catalogue import AssignerState
from gateway.status import GatewayState, NodeState, StoreState, Wanted
from update.trust.verified import Provenance

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def wanted(report: Mapping[str, object], *, state: str = "open", outcome: str = "", code: str = "") -> Wanted:
    return Wanted(1, "plant", "os.swu", "1.2", NOW, state, "", outcome, code, "", report)


def node(order: Wanted | None) -> NodeState:
    return NodeState("n1", "agent", "site", "board:1", Running("1.1", "", "a"), order, {}, NOW, NOW, late=False)


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (wanted({}), "open"),
        (wanted({"state": "fetching", "done": 0, "total": 0}), "fetching"),
        (wanted({"state": "writing", "done": 999, "total": 1000}), "writing 99 %"),
        (wanted({"state": "writing", "done": 5000, "total": 1000}), "writing 100 %"),
        (wanted({"state": "testing"}), "testing"),
        (wanted({"state": "writing"}, state="cancelling"), "cancelling"),
        (wanted({"state": "reporting"}, state="closed", outcome="success"), "success"),
        (wanted({"state": "reporting"}, state="closed", outcome="failure", code="device.health"), "failure"),
        (wanted({"state": 7, "done": "x", "total": []}), "open"),
        (wanted({"state": "w" * 500}), "w" * 32),
    ],
)
def test_people_see_what_the_agent_does(order: Wanted, said: str) -> None:
    assert order.standing == said
    shown = show_nodes((node(order),), NOW)
    assert (f"{said} (device.health)" if order.code else said) in shown.splitlines()[1]
    assert _wanted(node(order)) == f"1.2: {said}"
    assert [str(cell) for cell in _table((node(order),)).columns[4].cells] == [said]


def test_what_an_agent_says_cannot_draw_on_the_terminal() -> None:
    assert "\x1b" not in show_nodes((node(wanted({"state": "\x1b[2Jwriting"})),), NOW)


def test_programs_get_the_figures_and_not_the_words() -> None:
    reply: TypeAdapter[tuple[NodeState, ...]] = NODES_REPLY
    (value,) = reply.dump_python((node(wanted({"state": "writing", "done": 1, "total": 2})),))
    assert value["wanted"]["report"] == {"state": "writing", "done": 1, "total": 2}
    assert "standing" not in value["wanted"]


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (replace(wanted({}), installed=NOW), "installed, not yet verified"),
        (replace(wanted({"state": "writing"}), installed=NOW), "installed, not yet verified"),
        (replace(wanted({}, state="closed", outcome="success"), installed=NOW), "success"),
        (replace(wanted({}, state="closed", outcome="unverified"), installed=NOW), "unverified"),
    ],
)
def test_what_was_installed_is_no_success_before_it_is_verified(order: Wanted, said: str) -> None:
    assert order.standing == said
    assert said in show_nodes((node(order),), NOW)


@pytest.mark.parametrize(("provenance", "accepts"), [(Provenance.TUF, Provenance.TUF), (Provenance.CMS, Provenance.CMS)])
def test_people_see_whose_word_a_release_goes_by_and_what_the_node_accepts(provenance: Provenance, accepts: Provenance) -> None:
    shown = show_nodes((replace(node(replace(wanted({}), provenance=provenance)), accepts=accepts),), NOW).splitlines()
    assert "PROOF" in shown[0]
    assert f"{provenance} (accepts {accepts})" in shown[1]
    (value,) = NODES_REPLY.dump_python((replace(node(replace(wanted({}), provenance=provenance)), accepts=accepts),))
    assert (value["wanted"]["provenance"], value["accepts"]) == (provenance, accepts)


def test_people_see_how_assigners_elsewhere_stand() -> None:
    away = AssignerState("hawkbit:company", 12, NOW - timedelta(hours=2), 3, "wire.unreachable", "no route")
    state = GatewayState("gw", "1.0", NOW, NOW, (), (), StoreState(0, 0, 0), assigners=(away,))
    (line,) = [line for line in show_status(state).splitlines() if line.startswith("hawkbit:")]
    assert line.split()[:3] == ["hawkbit:company", "12", "2"]
    assert line.endswith("ago  3        no route (wire.unreachable)")
    assert "ASSIGNER" not in show_status(replace(state, assigners=()))
    told: TypeAdapter[GatewayState] = STATUS_REPLY
    assert told.dump_python(state)["assigners"][0]["waiting"] == 3
