"""`fieldrelay media inspect` says of a stick what the gateway would, and leaves no trace."""

import asyncio
import json
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.cli.main import main
from tests.builders.hall import BOARD, Hall, make_hall, whole
from tests.builders.standing_site import now


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose name is short enough for a socket."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
async def hall(short: Path) -> Hall:
    hall = await make_hall(short)
    hall.builder.add_target("os/whole-2.swu", whole(short).read_bytes(), BOARD)
    hall.write_stick()
    return hall


def inspected(hall: Hall, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, tuple[str, str]]]:
    status = main(["media", "inspect", str(hall.folder / "stick"), "--config", str(hall.folder / "gateway.toml"), "--json"])
    contents = json.loads(capsys.readouterr().out)["contents"]
    return status, {each["name"]: (each["verdict"], each["code"]) for each in contents}


def snapshot(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_good_stick_is_good_and_nothing_is_taken(hall: Hall, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(hall.folder / "state")
    assert inspected(hall, capsys) == (0, {"": ("accepted", ""), "os/whole-2.swu": ("accepted", "")})
    assert snapshot(hall.folder / "state") == before


def test_the_worst_refusal_is_the_status(hall: Hall, capsys: pytest.CaptureFixture[str]) -> None:
    file = next((hall.folder / "stick" / "targets" / "os").glob("*.swu"))
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    (hall.folder / "stick" / "single.swu").write_bytes(file.read_bytes())
    status, judged = inspected(hall, capsys)
    assert judged == {
        "": ("accepted", ""),
        "os/whole-2.swu": ("refused", "trust.length-or-hash"),
        "single.swu": ("refused", "trust.provenance"),
    }
    assert status == 28


async def test_it_knows_what_the_gateway_trusts_already(hall: Hall, capsys: pytest.CaptureFixture[str]) -> None:
    (hall.folder / "stick").rename(hall.folder / "old")
    hall.builder.add_target("os/whole-3.swu", whole(hall.folder, "3").read_bytes(), BOARD)
    hall.write_stick()
    async with hall.with_media(install=False).running():
        await hall.plug_in()
    (hall.folder / "stick").rename(hall.folder / "new")
    (hall.folder / "old").rename(hall.folder / "stick")
    assert await asyncio.to_thread(inspected, hall, capsys) == (22, {"": ("refused", "trust.rollback")})


def test_an_expired_stick_is_expired(hall: Hall, capsys: pytest.CaptureFixture[str]) -> None:
    hall.builder.timestamp.expires = now() - timedelta(days=1)
    hall.write_stick()
    assert inspected(hall, capsys) == (23, {"": ("refused", "trust.expired")})
