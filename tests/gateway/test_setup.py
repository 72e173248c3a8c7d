import stat
import tomllib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli.output import next_steps
from gateway.config import StateFolder, load_config
from gateway.database.engine import Database, sqlite_url
from gateway.setup import Wishes, configuration, set_up
from update.digest import digest_of
from update.durable import Disk, Operation
from update.errors import ConfigurationError, StateError
from update.trust.signers import read_certificate
from update.wire.tls import server_context

NOW = datetime(2026, 11, 20, tzinfo=UTC)


@pytest.fixture
def wishes(tmp_path: Path) -> Wishes:
    return Wishes(
        tmp_path / "etc" / "gateway.toml", "gw1", tmp_path / "state", tmp_path / "run" / "s", 9443, ("10.0.0.1",), ("lo",)
    )


def everything(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_all_that_a_first_start_needs_is_there(wishes: Wishes) -> None:
    made = await set_up(wishes, Disk(), NOW)
    config = load_config(wishes.file)
    assert (config.gateway.name, config.gateway.state, config.south.port) == ("gw1", wishes.state, 9443)
    assert (config.south.hosts, config.south.interfaces, config.control.socket) == (("10.0.0.1",), ("lo",), wishes.socket)
    folder = StateFolder(config.gateway.state)
    server_context(*folder.server, folder.authority[0])
    authority = read_certificate(folder.authority[0])
    assert made.site_ca_sha256 == digest_of(authority.public_bytes(Encoding.DER))
    await (await Database.open(sqlite_url(folder.database))).close()
    assert made.site_ca_sha256 in next_steps(made)


async def test_keys_are_readable_by_the_gateway_only(wishes: Wishes) -> None:
    await set_up(wishes, Disk(), NOW)
    folder = StateFolder(wishes.state)
    for path in (folder.authority[1], folder.server[1]):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.keys.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.root.stat().st_mode) == 0o750


async def test_nothing_is_overwritten(wishes: Wishes, tmp_path: Path) -> None:
    await set_up(wishes, Disk(), NOW)
    before = everything(tmp_path)
    with pytest.raises(StateError, match=r"gateway\.toml exists"):
        await set_up(wishes, Disk(), NOW)
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"name": "../gw"}, r"gateway\.name"),
        ({"interfaces": ("a name too long for one",)}, r"south\.interfaces"),
        ({"port": 0}, r"south\.port"),
    ],
)
async def test_wishes_that_cannot_be_meant_make_nothing(
    wishes: Wishes, tmp_path: Path, change: dict[str, object], text: str
) -> None:
    with pytest.raises(ConfigurationError, match=text):
        await set_up(replace(wishes, **change), Disk(), NOW)  # type: ignore[arg-type]  # wrong on purpose
    assert everything(tmp_path) == {}


class Cut(Exception):  # noqa: N818 - a power cut is no error
    """The power went."""


async def test_an_attempt_that_was_cut_anywhere_is_simply_repeated(wishes: Wishes, tmp_path: Path) -> None:
    async def attempt(folder: Path, cut_at: int) -> int:
        seen = 0

        def observe(_operation: Operation) -> None:
            nonlocal seen
            if seen == cut_at:
                raise Cut
            seen += 1

        here = replace(wishes, file=folder / "gateway.toml", state=folder / "state")
        try:
            await set_up(here, Disk(observe), NOW)
        except Cut:
            if not here.file.exists():
                await set_up(here, Disk(), NOW)
        config = load_config(here.file)
        server_context(*StateFolder(config.gateway.state).server, StateFolder(config.gateway.state).authority[0])
        return seen

    steps = await attempt(tmp_path / "whole", -1)
    assert steps > 10
    for cut_at in range(steps):
        await attempt(tmp_path / str(cut_at), cut_at)


@given(name=st.text(max_size=20), host=st.text(max_size=20))
def test_whatever_was_said_stands_in_the_file_as_it_was_said(name: str, host: str) -> None:
    place = Path("/x")
    values = tomllib.loads(configuration(Wishes(place, name, place, place, 1, (host, name), ())))
    assert values["gateway"]["name"] == name
    assert values["south"]["hosts"] == [host, name]
