"""Tokens in files."""

from pathlib import Path

import pytest

from gateway.north.token_file import read_token
from update.errors import ConfigurationError


def test_a_token_is_one_line_and_read_anew(tmp_path: Path) -> None:
    file = tmp_path / "token"
    for token in ("of-the-site", "a" * 4096):
        file.write_text(f" {token}\n")
        assert read_token(file) == token


@pytest.mark.parametrize("text", ["", "two words", "a\nb", "\x07", "ü", "a" * 4097])
def test_what_is_no_token_is_refused_without_showing_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match="holds no token") as caught:
        read_token(file)
    assert text not in str(caught.value) or not text
    with pytest.raises(ConfigurationError, match="none"):
        read_token(tmp_path / "none")
