"""A layout that endangers the golden region, or says nothing clear, is refused with the reason."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node_agent.drivers.fpga.layout import Region, make_layout, parse_regions, read_layout
from update.errors import ConfigurationError

BLOCK = 0x1000
GOOD = "00000000:0000ffff golden\n00010000:0001ffff update\n00020000:0002ffff second\n"


def test_a_layout_is_read_with_its_roles() -> None:
    layout = make_layout(parse_regions(GOOD), "golden", ("update", "second"), BLOCK)
    assert layout.golden == Region("golden", 0, 0x10000)
    assert [(region.name, region.size) for region in layout.updates] == [("update", 0x10000), ("second", 0x10000)]
    assert (layout.room_bytes, layout.end) == (0x10000, 0x30000)
    assert layout.text() == GOOD


@pytest.mark.parametrize(
    ("text", "updates", "reason"),
    [
        ("00000000:0000ffff golden\n0000f000:0001ffff update\n", ("update",), "touches golden"),
        ("00000000:0001ffff golden\n00010000:00010fff update\n", ("update",), "touches golden"),
        (GOOD.replace("00020000", "0001f000"), ("update", "second"), "touches update"),
        (GOOD.replace("00010000:0001ffff", "00010800:0001ffff"), ("update",), "block of 4096"),
        (GOOD.replace("00010000:0001ffff", "00010000:0001f7ff"), ("update",), "block of 4096"),
        (GOOD, ("golden",), "golden region is not written"),
        (GOOD, ("update", "update"), "named twice"),
        (GOOD, ("third",), "no region third"),
        ("00010000:0001ffff update\n", ("update",), "no region golden"),
        (GOOD + "00040000:0003ffff bad\n", ("update",), "ends before it starts"),
        (GOOD + "00040000:0004ffff update\n", ("update",), "there twice"),
        (GOOD + "zz:0004ffff bad\n", ("update",), "line 4"),
        (GOOD + "100000000:1ffffffff bad\n", ("update",), "line 4"),
        (GOOD + "00040000-0004ffff bad\n", ("update",), "line 4"),
    ],
)
def test_a_layout_that_cannot_be_used_is_refused(text: str, updates: tuple[str, ...], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        make_layout(parse_regions(text), "golden", updates, BLOCK)


def test_a_file_that_is_no_layout_is_refused(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b" " * (65 << 10))
    for name in ("large", "absent"):
        with pytest.raises(ConfigurationError):
            read_layout(tmp_path / name, "golden", ("update",), BLOCK)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20), st.sampled_from(["golden", "update", "second", "data"]))))
@settings(max_examples=100)
def test_whatever_is_accepted_never_reaches_golden(pieces: list[tuple[int, int, str]]) -> None:
    text = "".join(f"{start * 0x800:08x}:{(start + count) * 0x800 - 1:08x} {name}\n" for start, count, name in pieces)
    with suppress(ConfigurationError):
        layout = make_layout(parse_regions(text), "golden", ("update", "second"), BLOCK)
        golden = set(range(layout.golden.start, layout.golden.end, 0x800))
        first, second = (set(range(region.start, region.end, 0x800)) for region in layout.updates)
        assert not golden & (first | second)
        assert not first & second
        assert all(region.start % BLOCK == region.end % BLOCK == 0 for region in layout.updates)
        assert parse_regions(layout.text())["golden"] == layout.golden


@given(st.text(max_size=200))
@settings(max_examples=100)
def test_any_text_is_a_layout_or_refused(text: str) -> None:
    with suppress(ConfigurationError):
        parse_regions(text)
