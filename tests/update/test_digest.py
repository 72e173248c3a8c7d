"""Digests have one spelling."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from update.digest import digest_file, digest_of, parse_digest
from update.errors import MetadataError


@given(st.binary(max_size=200))
def test_the_digest_of_bytes_parses_to_itself(data: bytes) -> None:
    assert parse_digest(digest_of(data)) == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("text", ["", "a" * 63, "a" * 65, "A" * 64, "g" * 64, "\u0661" * 64, "a" * 64 + "\n", " " + "a" * 63])
def test_any_other_spelling_is_refused(text: str) -> None:
    with pytest.raises(MetadataError) as caught:
        parse_digest(text)
    assert caught.value.code == "trust.metadata"


@given(st.text(max_size=70))
def test_hostile_text_is_accepted_as_it_is_or_refused_by_name(text: str) -> None:
    try:
        assert parse_digest(text) == text
    except MetadataError:
        assert len(text) != 64 or set(text) - set("0123456789abcdef")


@pytest.mark.parametrize("length", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_a_file_is_read_to_its_end_whatever_its_length(tmp_path: Path, length: int) -> None:
    data = bytes(range(251)) * (length // 251 + 1)
    (tmp_path / "file").write_bytes(data[:length])
    assert digest_file(tmp_path / "file") == (digest_of(data[:length]), length)
