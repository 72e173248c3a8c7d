"""What people provide is read within limits, and every mistake is named by its key."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass

from update.errors import ConfigurationError, FormatVersionError
from update.provided import (
    MAX_PROVIDED_BYTES,
    NO_OTHER_KEYS,
    HardwareText,
    Name,
    ProvidedPath,
    Purpose,
    Url,
    check_values,
    parse_toml,
    read_provided,
    read_toml,
    refuse_newer,
)


@dataclass(frozen=True, config=NO_OTHER_KEYS)
class Inner:
    name: Name
    file: ProvidedPath = Path("/default")


@dataclass(frozen=True, config=NO_OTHER_KEYS)
class Outer:
    inner: tuple[Inner, ...] = ()
    hardware: HardwareText = "a:1"
    url: Url = "http://host"
    purpose: Purpose = ""
    number: int = Field(default=1, ge=1)


OUTER = TypeAdapter(Outer)
FILE = Path("/folder/file.toml")


def check(text: str) -> Outer:
    return check_values(OUTER, parse_toml(text, FILE), FILE)


def test_relative_paths_are_meant_from_the_file_that_names_them() -> None:
    found = check('[[inner]]\nname = "a"\nfile = "x/y"\n[[inner]]\nname = "b"\nfile = "/z"\n[[inner]]\nname = "c"')
    assert [inner.file for inner in found.inner] == [Path("/folder/x/y"), Path("/z"), Path("/default")]


def test_every_mistake_is_named_at_once_by_its_key() -> None:
    with pytest.raises(ConfigurationError) as refused:
        check('number = 0\nhardware = "none"\npurpose = "signing"\nurl = "ftp://x"\n[[inner]]\nname = ".."\nnme = "x"')
    message = str(refused.value)
    assert str(FILE) in message
    for key in ("number:", "hardware:", "purpose:", "url:", "inner[0].name:", "inner[0].nme: no such key"):
        assert key in message


@pytest.mark.parametrize("url", ["http://user:secret@host/x", "https://user@host"])
def test_an_address_with_credentials_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        check(f'url = "{url}"')
    assert "secret" not in str(refused.value)


def test_a_newer_format_is_refused_and_an_older_one_is_not() -> None:
    refuse_newer({"format_version": 1}, FILE, known=1)
    refuse_newer({}, FILE, known=1)
    with pytest.raises(FormatVersionError, match="format_version 2"):
        refuse_newer({"format_version": 2}, FILE, known=1)


@pytest.mark.parametrize("content", [b"\xff = 1", b"a = ", b"a = " + b"[" * 10_000, b"a = 1\na = 2", b"\x00"])
def test_what_is_no_toml_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.toml").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"x\.toml"):
        read_toml(tmp_path / "x.toml")


def test_a_file_above_the_limit_is_refused_and_one_at_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(bytes(MAX_PROVIDED_BYTES))
    assert len(read_provided(file)) == MAX_PROVIDED_BYTES
    file.write_bytes(bytes(MAX_PROVIDED_BYTES + 1))
    with pytest.raises(ConfigurationError, match=str(MAX_PROVIDED_BYTES)):
        read_provided(file)
    with pytest.raises(ConfigurationError, match="No such file"):
        read_provided(tmp_path / "absent")


@given(st.binary(max_size=300))
def test_whatever_a_file_holds_only_named_refusals_come_out(content: bytes) -> None:
    try:
        values = parse_toml(content, FILE)
        check_values(OUTER, values, FILE)
    except ConfigurationError:
        return
    assert isinstance(values, dict)
