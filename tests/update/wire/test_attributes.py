import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from update.digest import Digest
from update.errors import ProtocolError
from update.identity import Hardware
from update.wire.attributes import CAN, HARDWARE, SHA256, SLOT, VERSION, Ability, NodeFacts, read_facts

DIGEST = Digest("0a" * 32)
WORD = st.text("abc019._-", min_size=1, max_size=20)


@settings(max_examples=50, deadline=None)
@given(
    facts=st.builds(
        NodeFacts,
        hardware=st.none() | st.builds(Hardware, WORD, WORD),
        version=st.text(max_size=300),
        sha256=st.none() | st.just(DIGEST),
        slot=st.text(max_size=64),
        can=st.none() | st.frozensets(st.sampled_from(Ability)),
    )
)
def test_what_is_said_is_what_is_read(facts: NodeFacts) -> None:
    assert read_facts(facts.attributes()) == facts


def test_what_is_not_known_is_left_out() -> None:
    assert NodeFacts().attributes() == {}
    assert NodeFacts(version="1.2").attributes() == {VERSION: "1.2"}


def test_a_device_that_can_do_nothing_is_not_one_that_has_not_said() -> None:
    assert NodeFacts(can=frozenset()).attributes() == {CAN: "none"}
    assert read_facts({CAN: "hold,fly"}) == NodeFacts(can=frozenset({Ability.HOLD}))


def test_other_attributes_are_nobodys_business() -> None:
    assert read_facts({"serial": "7", "version": "9"}) == NodeFacts()


@pytest.mark.parametrize(
    "attributes",
    [
        {HARDWARE: "board"},
        {HARDWARE: "b:" + "1" * 160},
        {VERSION: "1" * 301},
        {SHA256: "0A" * 32},
        {SHA256: "00"},
        {SLOT: "s" * 65},
        {CAN: "hold," * 20},
    ],
)
def test_a_malformed_fact_is_refused(attributes: dict[str, str]) -> None:
    with pytest.raises(ProtocolError):
        read_facts(attributes)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from([HARDWARE, VERSION, SHA256, SLOT, CAN]), st.text(max_size=400)))
def test_hostile_attributes_raise_only_the_named_error(attributes: dict[str, str]) -> None:
    try:
        read_facts(attributes)
    except ProtocolError:
        return
