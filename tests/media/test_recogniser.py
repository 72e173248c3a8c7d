"""What lies on a medium is told by its content."""

import json
import string
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.folder import FolderMedium
from media.medium import Entry, EntryKind
from media.recogniser import MAX_REQUEST_BYTES, REQUEST_SCHEMA, Found, recognise, request_of
from media.records import MAX_CONTENTS, Kind
from update.errors import FieldrelayError, MediumGoneError, MediumLimitError, MediumUnreadableError, NotFoundError

SWU = b"070702" + b"0" * 200
RAUCB = b"hsqs" + b"0" * 200
REQUEST = json.dumps({"schema": REQUEST_SCHEMA, "logs": True}).encode()


class Files:
    """A medium of given files."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = {tuple(name.split("/")): data for name, data in files.items()}
        self.opened: list[tuple[str, ...]] = []

    def walk(self) -> Iterator[Entry]:
        folders = sorted({parts[:count] for parts in self._files for count in range(1, len(parts))})
        files = [Entry(parts, EntryKind.FILE, len(data)) for parts, data in self._files.items()]
        yield from (Entry(parts, EntryKind.FOLDER) for parts in folders)
        yield from files

    def open(self, parts: Sequence[str]) -> BinaryIO:
        self.opened.append(tuple(parts))
        if tuple(parts) not in self._files:
            raise NotFoundError("/".join(parts))
        return BytesIO(self._files[tuple(parts)])

    def trouble(self, error: OSError, parts: Sequence[str]) -> FieldrelayError:
        return MediumUnreadableError(f"{parts}: {error}")

    def close(self) -> None:
        """Nothing to do."""


def found(files: dict[str, bytes]) -> set[tuple[Kind, str]]:
    return {(each.kind, "/".join(each.parts)) for each in recognise(Files(files))}


def test_each_kind_is_recognised_whatever_it_is_called() -> None:
    assert found({"readme.txt": SWU, "x/y.bin": RAUCB, "note": REQUEST, "holiday.jpg": b"\xff\xd8", "empty": b""}) == {
        (Kind.BUNDLE, "readme.txt"),
        (Kind.BUNDLE, "x/y.bin"),
        (Kind.REQUEST, "note"),
    }


def test_a_name_makes_nothing_a_bundle() -> None:
    assert found({"update.swu": b"MZ" + b"0" * 100, "update.raucb": b"070", "metadata": b"", "timestamp.json": b"{}"}) == set()


def test_repositories_are_found_at_the_top_and_below_and_not_searched_singly() -> None:
    medium = Files({"metadata/timestamp.json": b"{}", "targets/a/b.swu": SWU, "single.swu": SWU})

    assert {(each.kind, each.parts) for each in recognise(medium)} == {(Kind.REPOSITORY, ()), (Kind.BUNDLE, ("single.swu",))}
    assert medium.opened == [("single.swu",)]
    assert found({"vendor/metadata/timestamp.json": b"{}", "vendor/targets/a.swu": SWU}) == {(Kind.REPOSITORY, "vendor")}


def test_a_repository_inside_another_one_is_content_of_it() -> None:
    assert found({"metadata/timestamp.json": b"{}", "targets/x/metadata/timestamp.json": b"{}"}) == {(Kind.REPOSITORY, "")}


def test_what_systems_leave_behind_is_passed_over() -> None:
    left = {"._a.swu": SWU, "$RECYCLE.BIN/a.swu": SWU, "System Volume Information/a": SWU, "FIELDRELAY/gw/r.json": REQUEST}
    assert found({**left, ".Trashes/501/a.swu": SWU}) == set()


def test_a_file_that_cannot_be_read_is_passed_over() -> None:
    class Failing(Files):
        def open(self, parts: Sequence[str]) -> BinaryIO:
            if parts[-1] == "bad":
                raise MediumUnreadableError("sector 7")
            return super().open(parts)

    assert recognise(Failing({"bad": SWU, "good": SWU})) == (Found(Kind.BUNDLE, ("good",), len(SWU)),)


def test_a_medium_that_goes_away_is_not_taken_for_an_empty_one() -> None:
    class Pulled(Files):
        def open(self, parts: Sequence[str]) -> BinaryIO:
            raise MediumGoneError("pulled")

    with pytest.raises(MediumGoneError):
        recognise(Pulled({"a": SWU}))


def test_more_bundles_than_any_site_needs_are_refused() -> None:
    with pytest.raises(MediumLimitError):
        recognise(Files({f"{number}.swu": SWU for number in range(MAX_CONTENTS + 1)}))


def test_a_link_called_like_the_timestamp_makes_no_repository(tmp_path: Path) -> None:
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "timestamp.json").symlink_to("/etc/hostname")
    medium = FolderMedium.at(tmp_path)
    assert recognise(medium) == ()
    medium.close()


names = st.lists(st.text(string.ascii_letters + "._$ -", min_size=1, max_size=8), min_size=1, max_size=4).map("/".join)
starts = st.sampled_from([SWU, RAUCB, REQUEST, b"{", b"[" * 5000, b""])


@given(st.dictionaries(names, st.tuples(starts, st.binary(max_size=40)).map(b"".join), max_size=8))
def test_any_medium_is_recognised_without_a_surprise(files: dict[str, bytes]) -> None:
    for each in recognise(Files(files)):
        assert each.kind is Kind.REPOSITORY or "/".join(each.parts) in files


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_not(data: bytes) -> None:
    assert request_of(data) is None or json.loads(data)["schema"] == REQUEST_SCHEMA


def test_a_request_has_a_limit() -> None:
    assert request_of(REQUEST + b" " * MAX_REQUEST_BYTES) is None
    assert request_of(b"[" * 60_000) is None
