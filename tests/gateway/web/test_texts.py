"""The page's words."""

from string import Formatter

import pytest

from gateway.web.snapshot import Condition
from gateway.web.texts import OF_CONDITION, OF_STATE, TEXTS, Text
from media.words import Language
from node_agent.states import State


@pytest.mark.parametrize("text", Text)
def test_every_language_says_everything_with_the_same_figures(text: Text) -> None:
    assert set(TEXTS) == set(Language)
    figures = {language: {name for _, name, _, _ in Formatter().parse(TEXTS[language][text]) if name} for language in Language}
    assert len({frozenset(names) for names in figures.values()}) == 1
    assert all(TEXTS[language][text].strip() for language in Language)


def test_no_table_has_a_text_too_many() -> None:
    assert [set(table) for table in TEXTS.values()] == [set(Text)] * len(Language)


def test_every_condition_has_words() -> None:
    assert set(OF_CONDITION) == set(Condition)


def test_what_agents_do_has_words() -> None:
    assert set(State) - {State(name) for name in OF_STATE} == {State.IDLE, State.REPORTING}
