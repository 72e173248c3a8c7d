"""Pairs of bundles are read as they were written, or lost with a word."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.database.records import Release
from gateway.north.joined import MAX_PAIRS, JoinedPairs
from update.digest import digest_of
from update.durable import Disk
from update.store.journal import Journal
from update.trust.verified import Provenance


def release(name: str) -> Release:
    return Release("plant", name, digest_of(name.encode()), len(name), "1.0", Provenance.CMS)


def pairs_in(folder: Path) -> JoinedPairs:
    return JoinedPairs(Journal(Disk(), folder / "joined.json"))


def test_what_was_written_is_read(tmp_path: Path) -> None:
    pairs = [(release(f"{number}.swu"), release(f"{number}-delta.swu")) for number in range(MAX_PAIRS + 2)]
    assert pairs_in(tmp_path).read() == ()
    pairs_in(tmp_path).write(pairs)
    assert list(pairs_in(tmp_path).read()) == pairs[2:]
    assert JoinedPairs().read() == ()


_JSON = st.recursive(
    st.none() | st.integers(-5, 5) | st.text(max_size=5), lambda each: st.lists(each) | st.dictionaries(st.text(), each)
)


@settings(max_examples=60, deadline=None)
@given(_JSON)
def test_anything_else_is_nothing(pairs: object) -> None:
    class Fake:
        def read(self) -> object:
            return {"pairs": pairs}

    assert JoinedPairs(Fake()).read() == ()  # type: ignore[arg-type]  # a journal as far as it is read
