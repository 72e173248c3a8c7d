"""Which language a browser is answered in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.web.language import language_of
from media.words import Language


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", "en"),
        ("de", "de"),
        ("de-CH, de;q=0.9, en;q=0.8", "de"),
        ("en-US,en;q=0.9,de;q=0.8", "en"),
        ("fr, de;q=0.3", "de"),
        ("fr", "en"),
        ("en;q=0, de;q=0.1", "de"),
        ("DE", "de"),
        ("*", "en"),
        ("en;q=0.5, de;q=0.7", "de"),
        ("de;q=9, en", "en"),
    ],
)
def test_the_best_language_that_is_spoken_here_is_taken(accepted: str, language: str) -> None:
    assert language_of(accepted) == language


@given(st.text() | st.lists(st.sampled_from(["de", "en", ";q=", "0.5", ",", " ", "-", "*", "1.0001"])).map("".join))
def test_any_header_has_an_answer(accepted: str) -> None:
    assert language_of(accepted) in Language
