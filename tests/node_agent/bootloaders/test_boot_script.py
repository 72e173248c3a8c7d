import string

from hypothesis import given
from hypothesis import strategies as st

from node_agent.bootloaders.boot_script import DEFAULTS, SLOTS, next_boot, read_state

_NAMES = st.sampled_from([*DEFAULTS, "board"])
_DAMAGED = st.dictionaries(_NAMES, st.sampled_from(["", "0", "1", "2", "3", "9", "10", "a", "b", "c", "-1", "٣", "1 "]))


def test_a_start_without_a_trial_changes_nothing() -> None:
    environment = {**DEFAULTS, "bootslot": "b", "board": "demo"}
    boot = next_boot(environment)
    assert boot.slot == "b"
    assert boot.environment == environment


def test_a_start_of_a_trial_counts_and_says_testing() -> None:
    boot = next_boot({**DEFAULTS, "bootslot": "b", "upgrade_available": "1", "ustate": "1"})
    assert boot.slot == "b"
    assert boot.environment == {**DEFAULTS, "bootslot": "b", "upgrade_available": "1", "bootcount": "1", "ustate": "2"}


def test_the_start_after_the_last_allowed_one_returns() -> None:
    boot = next_boot({**DEFAULTS, "bootslot": "b", "upgrade_available": "1", "bootcount": "2", "ustate": "2"})
    assert boot.slot == "a"
    assert boot.environment == {**DEFAULTS, "ustate": "3"}


def test_an_empty_environment_starts_slot_a_without_a_trial() -> None:
    assert next_boot({}).slot == "a"
    assert next_boot({}).environment == {}


@given(_DAMAGED)
def test_any_environment_starts_a_slot_and_every_trial_ends(environment: dict[str, str]) -> None:
    boots = [next_boot(environment)]
    for _ in range(10):
        boots.append(next_boot(boots[-1].environment))
    assert {boot.slot for boot in boots} <= set(SLOTS)
    assert read_state(boots[-1].environment)["upgrade_available"] == "0"
    assert boots[-1].environment == boots[-2].environment


@given(st.dictionaries(st.text(string.ascii_lowercase, min_size=1), st.text()))
def test_variables_of_others_pass_through(others: dict[str, str]) -> None:
    foreign = {f"x_{name}": value for name, value in others.items()}
    after = next_boot(foreign).environment
    assert {name: after[name] for name in foreign} == foreign
