"""What is shown of a medium, in which words."""

from dataclasses import replace
from string import Formatter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.records import (
    Answer,
    Content,
    Course,
    Kind,
    MediumState,
    NodeResult,
    Stage,
    Verdict,
    from_mapping,
    to_mapping,
)
from media.signals import Show, Signal, foremost, signal_of
from media.words import BIG, Language, advice, big
from update.digest import digest_of
from update.errors import CorruptError
from update.store.journal import decode, encode

STATE = MediumState(medium="0781-1", label="UPDATE", stage=Stage.COPYING, since=100, done_bytes=42, total_bytes=100)
ANSWER = Answer(medium="0781-1", course=Course.UPDATING, since=200, done=1, total=3)

texts = st.text(max_size=40)
contents = st.builds(
    Content,
    kind=st.sampled_from(Kind),
    name=texts,
    verdict=st.sampled_from(Verdict),
    version=texts,
    size_bytes=st.integers(0, 1 << 50),
    sha256=st.none() | st.binary(max_size=3).map(digest_of),
)
states = st.builds(
    MediumState,
    medium=texts,
    label=texts,
    stage=st.sampled_from(Stage),
    since=st.integers(0, 1 << 40),
    done_bytes=st.integers(0, 1 << 50),
    total_bytes=st.integers(0, 1 << 50),
    code=texts,
    message=texts,
    contents=st.lists(contents, max_size=3).map(tuple),
)
results = st.builds(NodeResult, node=texts, wanted=texts, runs=texts, outcome=texts, code=texts, message=texts)
answers = st.builds(
    Answer,
    medium=texts,
    course=st.sampled_from(Course),
    since=st.integers(0, 1 << 40),
    done=st.integers(0, 2000),
    total=st.integers(0, 2000),
    contents=st.lists(contents, max_size=2).map(tuple),
    nodes=st.lists(results, max_size=3).map(tuple),
)


def shown(stage: Stage, answer: Answer | None = None) -> Signal:
    signal = signal_of(replace(STATE, stage=stage), answer)
    assert signal is not None
    return signal


def test_the_way_of_a_good_stick() -> None:
    way = [
        shown(Stage.FOUND),
        shown(Stage.CHECKING),
        shown(Stage.COPYING),
        shown(Stage.SAFE),
        shown(Stage.SAFE, replace(ANSWER, course=Course.ADOPTING)),
        shown(Stage.SAFE, replace(ANSWER, done=0)),
        shown(Stage.GONE, replace(ANSWER, done=0)),
        shown(Stage.SAFE, ANSWER),
        shown(Stage.GONE, ANSWER),
        shown(Stage.GONE, replace(ANSWER, course=Course.DONE)),
    ]

    assert [signal.show for signal in way] == [
        Show.FOUND,
        Show.CHECKING,
        Show.COPYING,
        Show.SAFE,
        Show.SAFE,
        Show.SAFE,
        Show.UPDATING,
        Show.UPDATING,
        Show.UPDATING,
        Show.DONE,
    ]
    assert [signal.removable for signal in way] == [False] * 3 + [True] * 7


def test_an_earlier_answer_does_not_hide_that_the_stick_is_being_read() -> None:
    assert shown(Stage.COPYING, replace(ANSWER, course=Course.DONE)).show is Show.COPYING


def test_a_stick_that_was_pulled_before_anything_was_copied_shows_nothing() -> None:
    assert signal_of(replace(STATE, stage=Stage.GONE), None) is None


def test_a_failure_of_the_stick_is_not_hidden_by_an_answer() -> None:
    assert shown(Stage.FAILED, ANSWER).show is Show.FAILED


def test_nothing_new_on_the_same_stick_leaves_the_running_update_in_sight() -> None:
    assert shown(Stage.NOTHING_NEW, ANSWER).show is Show.UPDATING
    assert shown(Stage.NOTHING_NEW, replace(ANSWER, course=Course.DONE)).show is Show.NOTHING_NEW


def test_one_light_for_several_sticks_is_about_the_one_that_must_stay() -> None:
    done, failed = Signal(Show.DONE, "A", True, 300), Signal(Show.FAILED, "B", True, 100)
    copying, newest = Signal(Show.COPYING, "C", False, 50), Signal(Show.SAFE, "D", True, 400)
    assert foremost([done, failed, copying, newest]) is copying
    assert foremost([done, failed, newest]) is failed
    assert foremost([done, newest]) is newest
    assert foremost([]) is None


def test_the_words_carry_the_figures() -> None:
    assert big(shown(Stage.COPYING), Language.ENGLISH) == "Copying 42 %"
    assert big(shown(Stage.SAFE, ANSWER), Language.GERMAN) == "Aktualisiert 1/3"
    failed = replace(STATE, stage=Stage.FAILED, code="trust.expired")
    signal = signal_of(failed, None)
    assert signal is not None
    assert big(signal, Language.ENGLISH) == "Failed trust.expired"
    assert advice(signal, Language.ENGLISH) == "The stick may be removed."
    assert advice(shown(Stage.COPYING), Language.GERMAN) == "Stick nicht entfernen."


@pytest.mark.parametrize("show", Show)
def test_every_language_says_everything_with_the_same_figures(show: Show) -> None:
    figures = {language: {name for _, name, _, _ in Formatter().parse(BIG[language][show]) if name} for language in Language}

    assert len({frozenset(names) for names in figures.values()}) == 1


@given(states, answers | st.none())
def test_every_pair_of_records_can_be_shown(state: MediumState, answer: Answer | None) -> None:
    signal = signal_of(state, answer)

    if signal is not None:
        assert signal.removable is (state.stage not in {Stage.FOUND, Stage.CHECKING, Stage.COPYING})
        assert all(big(signal, language) for language in Language)


@given(states)
def test_a_state_survives_its_file(state: MediumState) -> None:
    assert from_mapping(MediumState, decode(encode(to_mapping(state)))) == state


@given(answers)
def test_an_answer_survives_its_file(answer: Answer) -> None:
    assert from_mapping(Answer, decode(encode(to_mapping(answer)))) == answer


def test_a_member_of_a_later_release_is_ignored() -> None:
    assert from_mapping(MediumState, {**to_mapping(STATE), "battery": 3}) == STATE


@pytest.mark.parametrize("broken", [{"stage": "dancing"}, {"done_bytes": -1}, {"label": "x" * 301}, {"contents": [1]}])
def test_what_is_no_state_is_refused(broken: dict[str, object]) -> None:
    with pytest.raises(CorruptError, match=next(iter(broken))):
        from_mapping(MediumState, {**to_mapping(STATE), **broken})  # type: ignore[dict-item]  # broken on purpose
