"""A delta is offered only while what the node asks for can be had; what it asks for is what the real client asks for."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.fleet.variants import Outlook, Variant, asked_by_stock, choose, outlook
from update.chunks.plan import Source, plan_delta
from update.chunks.zchunk import HeaderIndex, parse_header
from update.durable import Disk
from update.publish.images import write_zchunk, zck_header


def index_of(folder: Path, name: str, content: bytes) -> HeaderIndex:
    (folder / name).write_bytes(content)
    write_zchunk(folder / name, folder / f"{name}.zck", Disk())
    return parse_header(zck_header(folder / f"{name}.zck"))


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[HeaderIndex, HeaderIndex]:
    """Old and new: the same but for three places."""
    folder, dice = tmp_path_factory.mktemp("versions"), random.Random(4)
    content = bytearray(dice.randbytes(700_000) + bytes(200_000))
    old = index_of(folder, "old", bytes(content))
    for place in (50_000, 300_000, 600_000):
        content[place : place + 500] = dice.randbytes(500)
    return old, index_of(folder, "new", bytes(content))


def nothing(_number: int) -> bool:
    return False


def everything(_number: int) -> bool:
    return True


def test_a_node_whose_version_is_unknown_asks_for_everything(versions: tuple[HeaderIndex, HeaderIndex]) -> None:
    _, new = versions
    found = outlook(new, None, nothing, [])
    assert found.asked_bytes == found.missing_bytes == new.total_length - new.header_size
    assert not found.complete


def test_a_node_that_runs_the_same_asks_for_the_last_chunk_only(versions: tuple[HeaderIndex, HeaderIndex]) -> None:
    """Swupdate 2022.12 never finds the last chunk of its source; where it occurs earlier, it does."""
    for index in versions:
        last = len(index) - 1
        once = (index.digest_of(last), index.size_of(last)) not in {
            (index.digest_of(number), index.size_of(number)) for number in range(last)
        }
        assert asked_by_stock(index, index) == ((last,) if once else ())


def test_a_stock_client_asks_for_no_less_than_a_plan_has(versions: tuple[HeaderIndex, HeaderIndex]) -> None:
    old, new = versions
    asked = outlook(new, old, nothing, [])
    planned = plan_delta(new, Source.of_index(old))
    assert planned.fetch_bytes <= asked.asked_bytes < new.total_length / 2


def test_a_delta_can_be_completed_from_what_is_held_without_any_upstream(versions: tuple[HeaderIndex, HeaderIndex]) -> None:
    old, new = versions
    asked = frozenset(asked_by_stock(new, old))
    assert outlook(new, old, asked.__contains__, []).complete
    assert outlook(new, old, everything, []).missing_bytes == 0
    for lost in asked:
        short = outlook(new, old, (asked - {lost}).__contains__, [])
        assert (short.complete, short.missing_chunks, short.missing_bytes) == (False, 1, new[lost].length)
        assert outlook(new, old, (asked - {lost}).__contains__, ["wan"]).complete


def test_what_is_held_and_not_asked_for_helps_nobody(versions: tuple[HeaderIndex, HeaderIndex]) -> None:
    old, new = versions
    asked = frozenset(asked_by_stock(new, old))
    assert not outlook(new, old, lambda number: number not in asked, []).complete


def test_the_variant_follows() -> None:
    whole, broken, waiting = Outlook(9, 0, 0, ()), Outlook(9, 9, 1, ()), Outlook(9, 9, 1, ("wan",))
    for good in (whole, waiting):
        assert choose(good, full_at_hand=True, full_reachable=True) is Variant.DELTA
    for bad in (broken, None):
        assert choose(bad, full_at_hand=True, full_reachable=False) is Variant.FULL
        assert choose(bad, full_at_hand=False, full_reachable=True) is Variant.FULL
        assert choose(bad, full_at_hand=False, full_reachable=False) is Variant.NOTHING_NOW


@settings(max_examples=50)
@given(held=st.sets(st.integers(0, 60)), more=st.sets(st.integers(0, 60)))
def test_holding_more_never_makes_it_worse(versions: tuple[HeaderIndex, HeaderIndex], held: set[int], more: set[int]) -> None:
    old, new = versions
    less, greater = outlook(new, old, held.__contains__, []), outlook(new, old, (held | more).__contains__, [])
    assert greater.missing_bytes <= less.missing_bytes <= less.asked_bytes == greater.asked_bytes
    assert greater.complete >= less.complete
    assert (less.missing_chunks == 0) == (less.missing_bytes == 0)
