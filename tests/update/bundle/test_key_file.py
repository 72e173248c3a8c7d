"""GLib's key files: what is read, and every refusal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from update.bundle.key_file import MAX_BYTES, MAX_GROUPS, MAX_KEYS, parse_key_file, split_list, unescape
from update.errors import DescriptionError, LimitError

_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=40)


def read(text: str) -> dict[str, dict[str, str]]:
    return {name: dict(values) for name, values in parse_key_file(text.encode(), "it").items()}


def test_groups_keys_comments_and_blanks() -> None:
    text = "# first\n\n[a]\nx=1\n  y = 2 \n\r\n[image.rootfs.v 1]\r\nfilename=a=b;c\r\nempty=\n"
    assert read(text) == {"a": {"x": "1", "y": "2 "}, "image.rootfs.v 1": {"filename": "a=b;c", "empty": ""}}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x=1\n", "before the first group"),
        ("[a]\nx=1\n[b]\n[a]\n", "a second time"),
        ("[a]\nx=1\nx=1\n", "a second time"),
        ("[a\n", "no name of a group"),
        ("[]\n", "no name of a group"),
        ("[a]b\n", "no name of a group"),
        ("[a[b]\n", "no name of a group"),
        ("[a]\njust words\n", "key=value"),
        ("[a]\n=1\n", "key=value"),
        ("[a]\nname[de]=1\n", "key=value"),
    ],
)
def test_what_is_malformed_is_refused_with_its_line(text: str, reason: str) -> None:
    with pytest.raises(DescriptionError, match=rf"it, line \d.*{reason}"):
        read(text)


def test_what_is_not_utf8_is_refused() -> None:
    with pytest.raises(DescriptionError, match="byte 4"):
        parse_key_file(b"[a]\n\xff=1", "it")


@pytest.mark.parametrize(
    "text",
    [
        "#" * (MAX_BYTES + 1),
        "".join(f"[g{number}]\n" for number in range(MAX_GROUPS + 1)),
        "[a]\n" + "".join(f"k{number}=\n" for number in range(MAX_KEYS + 1)),
    ],
)
def test_sizes_and_counts_are_limited(text: str) -> None:
    with pytest.raises(LimitError):
        read(text)


def test_escapes_stand_for_blanks_and_backslashes() -> None:
    assert unescape(r"\sa\tb\nc\\s\r", "it") == " a\tb\nc\\s\r"
    for wrong in ("\\x", "ends with \\"):
        with pytest.raises(DescriptionError, match="escape"):
            unescape(wrong, "it")


@given(_TEXT)
def test_what_was_escaped_is_read_again(text: str) -> None:
    assert unescape(text.replace("\\", "\\\\").replace(" ", "\\s"), "it") == text


def test_lists_end_with_or_without_a_semicolon() -> None:
    assert split_list("a;b;") == split_list("a;b") == ("a", "b")
    assert split_list("") == ()


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused_by_name(data: bytes) -> None:
    try:
        parse_key_file(b"[a]\n" + data, "it")
    except (DescriptionError, LimitError):
        return
