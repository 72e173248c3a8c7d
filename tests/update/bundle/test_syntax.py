"""The text of a description: bounded before a parser sees it, and read without ambiguity."""

import pytest

from tests.builders.bundles import describe, image
from update.bundle.description import parse
from update.bundle.syntax import MAX_BYTES
from update.errors import DescriptionError, LimitError

DATA = b"image"


def nested_json(opening: str, closing: str) -> bytes:
    return b'{"software":' + opening.encode() * 10_000 + b"1" + closing.encode() * 10_000 + b"}"


@pytest.mark.parametrize(
    "data",
    [
        nested_json("[", "]"),
        nested_json('{"a":', "}"),
        nested_json("[", ""),
        b"[" * 10_000,
        b"software = " + b"( " * 10_000 + b") " * 10_000 + b";",
        b"a = { " * 10_000 + b"};" * 10_000,
        b"a = [ " * 10_000,
    ],
)
def test_ten_thousand_levels_are_refused_before_a_parser_sees_them(data: bytes) -> None:
    with pytest.raises((LimitError, DescriptionError)) as caught:
        parse(data)
    assert caught.type is LimitError or data.startswith(b"[")


def test_brackets_in_texts_are_no_nesting() -> None:
    text = '[{"\\' * 60
    assert parse(describe(images=[image("img", DATA)], description=text)).text == text


def test_a_description_above_the_limit_is_refused_unread() -> None:
    with pytest.raises(LimitError):
        parse(b"{" + b" " * MAX_BYTES)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"[]",
        b"{}",
        b'{"software": 7}',
        b'{"software": {}}',
        b'{"software": {"version": "1", "version": "2"}}',
        b'{"software": {"version": NaN}}',
        b'{"software": {"version": ' + b"9" * 5000 + b"}}",
        b'{"software": {"version": "\\ud800"}}',
        b'{"software": {"version": "a\\u0000b"}}',
        b'{"software": {"version": null}}',
        b"software = { version = 1; };",
        b'software = { version = "1"; version = "2"; };',
        b'@include "/etc/passwd"\n',
        b'software = { @include "/etc/passwd"\n };',
        b'software = { version = "\\xzz"; };',
        b"software = { version = " + b"9" * 5000 + b"; };",
        b"software = { version = 1e999; };",
        b"software = {",
        b"software = };",
    ],
)
def test_a_malformed_description_is_refused(data: bytes) -> None:
    with pytest.raises(DescriptionError):
        parse(data)
