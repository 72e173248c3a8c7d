"""Names that may stand in paths, and hardware that admits a release."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from update.errors import ConfigurationError, HardwareError
from update.identity import Hardware, check_name, revision_matches


@pytest.mark.parametrize("name", ["a", "node-7", "A.b_c-9", "x" * 64])
def test_plain_names_are_accepted(name: str) -> None:
    assert check_name(name, "a node") == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a..b", "-a", "a-", ".a", "a/b", "a b", "a\0", "a\n", "x" * 65, "\u00e4", "a\\b"]
)
def test_names_that_could_leave_a_folder_or_hide_in_it_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_name(name, "a node")
    assert caught.value.code == "usage.configuration"


@given(st.text(max_size=80))
def test_an_accepted_name_is_one_harmless_path_component(name: str) -> None:
    try:
        check_name(name, "a node")
    except ConfigurationError:
        return
    assert name.isascii()
    assert not set(name) & set("/\\ \0\n")
    assert name.strip(".-_") == name


@pytest.mark.parametrize(
    ("text", "written"),
    [("board:1.0", "board:1.0"), ("board 1.0\n", "board:1.0"), ("b:r:x", "b:r:x"), ("Foo Bar:-", "Foo Bar:-")],
)
def test_hardware_is_read_in_both_spellings(text: str, written: str) -> None:
    assert str(Hardware.parse(text)) == written


@given(
    st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9 ._-]{0,20}[A-Za-z0-9])?", fullmatch=True),
    st.from_regex(r"[!-~]{1,20}", fullmatch=True),
)
def test_hardware_that_was_written_is_read_again(board: str, revision: str) -> None:
    assert Hardware.parse(str(Hardware(board, revision))) == Hardware(board, revision)


@pytest.mark.parametrize("text", ["", "board", ":1", "board:", "   ", "board "])
def test_hardware_without_board_or_revision_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        Hardware.parse(text)


def test_a_release_is_for_this_hardware_if_board_and_revision_fit() -> None:
    hardware = Hardware("imx8", "1.2")
    assert hardware.accepts(["other:1.2", "imx8:1.2"])
    assert hardware.accepts(["imx8:#RE:^1\\.[0-9]$"])
    assert not hardware.accepts(["imx8:1.3", "imx8x:1.2", "imx8", "imx8:", "other:#RE:.*"])
    assert not hardware.accepts([])


@pytest.mark.parametrize(
    ("pattern", "fits"), [("1.2", True), ("1x2", False), ("1.", False), ("#RE:^1.2$", True), ("#RE:2x", False)]
)
def test_a_literal_revision_is_no_pattern(pattern: str, fits: bool) -> None:
    assert revision_matches("1.2", pattern) is fits


@pytest.mark.parametrize("pattern", ["#RE:(", "#RE:" + "a" * 257, "#RE:[z-a]"])
def test_a_pattern_that_cannot_be_meant_is_refused(pattern: str) -> None:
    with pytest.raises(HardwareError) as caught:
        revision_matches("1.2", pattern)
    assert caught.value.code == "trust.hardware"


@given(st.text(max_size=40), st.text(max_size=20))
def test_hostile_patterns_raise_only_the_named_error(pattern: str, revision: str) -> None:
    try:
        revision_matches(revision, "#RE:" + pattern)
    except HardwareError:
        return
