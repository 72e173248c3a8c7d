"""The node as its technician meets it: real command line, driver, slots, TLS, TUF and bundles against one gateway."""

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.simulators.board import Board
from node_agent.bootloaders.scripted import start
from node_agent.bootloaders.simulated import SimulatedEnvironment
from node_agent.cli import main
from node_agent.control import only_one
from node_agent.drivers.driver import SlotState
from node_agent.drivers.slots.records import SlotRecord, SlotRecords
from tests.builders.bundles import DEMO
from tests.builders.keys import make_pki
from tests.builders.repository import RepositoryBuilder
from tests.builders.site import Site
from tests.contract import devices
from tests.node_agent.gateway_double import NODE, TOKEN, Gateway
from update.digest import digest_of
from update.durable import Disk
from update.errors import InterlockError, RolledBackError
from update.trust.verified import TargetCustom
from update.wire.assignment import Assignment, Commit
from update.wire.attributes import SLOT, VERSION

REPOSITORY = "repository.example"
ENDED_S = 60


@dataclass
class Place:
    """One node's folder and the gateway it belongs to."""

    folder: Path
    gateway: Gateway
    releases: dict[int, devices.Release]

    @property
    def config(self) -> Path:
        return self.folder / "node.toml"

    def order(self, version: int, *, action: int | None = None, fence: int | None = None) -> None:
        content = self.releases[version].bundle.file.read_bytes()
        number = action or version
        self.gateway.size = len(content)
        self.gateway.order = Assignment(
            REPOSITORY, f"os-{version}.swu", digest_of(content), number, number if fence is None else fence, Commit.COMMIT
        )
        self.gateway.zck["targets/root.zck"] = next(iter(self.releases[version].chunks.files.values()))

    async def update(self, *arguments: str) -> int:
        """Run the command line as its own process would, in a thread."""
        return await asyncio.to_thread(main, ["--config", str(self.config), *arguments])

    def power_on(self) -> str:
        slot = start(SimulatedEnvironment(self.folder / "environment", Disk()))
        (self.folder / "cmdline").write_text(f"fieldrelay.slot={slot}\n")
        return slot

    def holds(self, slot: str, version: int) -> bool:
        root = devices.slot_path(self.folder, slot, "root").read_bytes()
        kernel = devices.slot_path(self.folder, slot, "kernel").read_bytes()
        return root.startswith(devices.make_root(version)) and kernel.startswith(devices.make_kernel(version))

    def write_config(self, check: str = "true", more: str = "") -> None:
        slots = "".join(
            f'[[driver.linux.slots]]\nname = "{slot.name}"\nselection = "{slot.selection}"\nparts = ['
            + ", ".join(f'{{ name = "{each.name}", device = "{each.device}", path = "{each.path.name}" }}' for each in slot.parts)
            + "]\n"
            for slot in devices.linux_config(self.folder).slots
        )
        self.config.write_text(
            f'format_version = 1\n[node]\nid = "{NODE}"\nhardware = "{DEMO}"\nstate = "state"\n'
            f'[gateway]\nurl = "{self.gateway.url}"\nsite_ca = "{self.gateway.site.ca}"\ntoken = "token"\n'
            f'[[repository]]\nname = "{REPOSITORY}"\nroot = "root.json"\ncms_roots = ["anchors.pem"]\n'
            f'[driver]\nkind = "linux"\n{slots}'
            '[bootloader]\nkind = "simulated"\nsimulated.environment = "environment"\n'
            'simulated.command_line.path = "cmdline"\n'
            f"[health]\ndeadline_s = {60 if check == 'true' else 4}\ninterval_s = 0.1\npasses = 2\ngateway = true\n"
            f"[[check]]\nkind = \"command\"\ncommand = ['sh', '-c', '{check}']\n"
            f"[poll]\nminimum_s = 0.1\nmaximum_s = 0.2\nretry_s = 0.2\n{more}"
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[int, devices.Release]:
    folder = tmp_path_factory.mktemp("releases")
    return {version: devices.make_release(folder, version) for version in (2, 3)}


@pytest.fixture(scope="module")
def repository(releases: dict[int, devices.Release]) -> RepositoryBuilder:
    builder = RepositoryBuilder(now=datetime.now(UTC))
    for version, release in releases.items():
        custom = TargetCustom((str(DEMO),), f"{version}.0", version, 1).as_json()
        builder.add_target(f"os-{version}.swu", release.bundle.file.read_bytes(), custom)
    builder.publish()
    return builder


@pytest.fixture
async def place(
    tmp_path: Path, site: Site, repository: RepositoryBuilder, releases: dict[int, devices.Release]
) -> AsyncIterator[Place]:
    """A commissioned node that runs version 1 in slot a, and its gateway."""
    devices.linux_device(tmp_path)
    SlotRecords(Disk(), tmp_path / "state/slots").write("a", SlotRecord(SlotState.CONFIRMED, "1.0"))
    (tmp_path / "root.json").write_bytes(repository.root_bytes)
    (tmp_path / "anchors.pem").write_bytes(make_pki().anchors_pem)
    (tmp_path / "token").write_text(TOKEN)
    async with Gateway(site, REPOSITORY, repository).serve() as gateway:
        made = Place(tmp_path, gateway, releases)
        made.write_config()
        made.power_on()
        yield made


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """The command line configures the root logger; give it back."""
    root = logging.getLogger()
    kept, level = list(root.handlers), root.level
    yield
    root.handlers[:] = kept
    root.setLevel(level)


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    values = json.loads(capsys.readouterr().out)
    assert isinstance(values, dict)
    return values


async def test_now_writes_and_asks_for_a_restart_then_confirms_then_has_nothing_to_do(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.order(2)
    assert await place.update("--now") == 100
    assert "restart" in capsys.readouterr().out
    assert place.power_on() == "b"
    assert await place.update("--now", "--json") == 0
    assert said(capsys)["outcome"] == "confirmed"
    assert place.holds("b", 2)
    assert place.holds("a", 1)
    assert await place.update("--now", "--exit-code") == 3
    told = place.gateway.feedback[-1].fieldrelay
    assert told is not None
    assert (told.outcome, told.slot, told.version) == ("confirmed", "b", "2.0")
    assert told.downloaded_bytes > 0
    assert told.reused_bytes > 0
    assert place.gateway.attributes["fieldrelay.hardware"] == str(DEMO)


async def test_status_shows_slots_and_the_last_outcome_also_while_an_agent_is_at_work(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await place.update("status") == 0
    assert "* slot a  active" in capsys.readouterr().out
    place.order(2)
    assert await place.update("--now") == 100
    capsys.readouterr()
    with only_one(place.folder / "state"):
        assert await place.update("status", "--json") == 0
    values = said(capsys)
    assert (values["state"], values["agent_running"], values["node"]) == ("restarting", True, NODE)
    slots = values["slots"]
    assert isinstance(slots, list)
    assert [(slot["name"], slot["state"], slot["version"], slot["trial"]) for slot in slots] == [
        ("a", "active", "1.0", False),
        ("b", "pending", "2.0", True),
    ]


async def test_a_version_that_is_not_well_is_taken_back_with_the_reason_and_its_exit_status(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.write_config('test "$FIELDRELAY_VERSION" != 2.0 || { echo no sensor; exit 1; }')
    place.order(2)
    assert await place.update("--now") == 100
    place.power_on()
    assert await place.update("--now") == 100
    assert place.power_on() == "a"
    capsys.readouterr()
    assert await place.update("--now") == 45
    assert "no sensor" in capsys.readouterr().out
    assert place.gateway.outcomes == ["rolled-back"]


async def test_the_gateway_hears_what_runs_as_soon_as_it_changed(place: Place) -> None:
    def told() -> list[str | None]:
        return [place.gateway.attributes.get(name) for name in (SLOT, VERSION)]

    for version, before, after in ((2, ["a", "1.0"], ["b", "2.0"]), (3, ["b", "2.0"], ["a", "3.0"])):
        place.order(version)
        assert await place.update("--now") == 100
        assert told() == before
        place.power_on()
        assert await place.update("--now") == 0
        assert told() == after
    assert await place.update("rollback", "too slow") == 100
    assert place.power_on() == "b"
    assert await place.update("--now") == RolledBackError.exit_status
    assert told() == ["b", "2.0"]


async def test_a_bundle_brought_by_hand_is_installed_without_a_gateway(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    file = place.releases[2].bundle.file
    place.config.write_text(place.config.read_text().replace("[driver]", 'minimum_provenance = "cms"\n[driver]', 1))
    place.gateway.zck["targets/root.zck"] = next(iter(place.releases[2].chunks.files.values()))
    assert await place.update("install", str(file)) == 100
    place.power_on()
    assert await place.update("--now") == 0
    assert place.holds("b", 2)
    assert await place.update("rollback", "the line needs 1.0", "--json") == 100
    capsys.readouterr()
    assert place.power_on() == "a"
    assert await place.update("--now", "--json") == 46
    assert said(capsys)["message"] == "the line needs 1.0"


async def test_an_install_first_ends_what_was_interrupted(place: Place) -> None:
    place.order(2)
    assert await place.update("--now") == 100
    place.power_on()
    place.gateway.zck["targets/root.zck"] = next(iter(place.releases[3].chunks.files.values()))
    assert await place.update("install", str(place.releases[3].bundle.file)) == 100
    assert place.power_on() == "a"
    assert await place.update("--now") == 0
    assert place.holds("b", 2)
    assert place.holds("a", 3)
    assert place.gateway.outcomes == ["confirmed"]


async def test_an_order_that_is_not_in_the_metadata_is_refused_with_its_code(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.order(2)
    assert place.gateway.order is not None
    place.gateway.order = Assignment(REPOSITORY, "absent.swu", place.gateway.order.sha256, 5, 5, Commit.COMMIT)
    assert await place.update("--now", "--json") == 26
    assert said(capsys)["code"] == "trust.unknown-target"
    assert place.gateway.outcomes == ["refused"]


async def test_an_operator_confirms_by_hand(place: Place) -> None:
    place.write_config("false")
    place.order(2)
    assert await place.update("--now") == 100
    place.power_on()
    assert await place.update("confirm") == 0
    assert place.gateway.outcomes == ["confirmed"]
    assert await place.update("confirm") == 14


async def test_while_an_agent_is_at_work_an_install_is_refused_with_what_to_do(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    (place.folder / "state").mkdir(exist_ok=True)
    with only_one(place.folder / "state"):
        assert await place.update("install", "x.swu") == 13
        assert "stopped first" in capsys.readouterr().err
        assert await place.update("--now", "--json") == 13
    assert said(capsys)["error"] == "usage.busy"


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        ((), 10, "say what to do"),
        (("reboot",), 10, "invalid choice"),
        (("install",), 10, "required: file"),
        (("rollback",), 10, "required: reason"),
        (("--config", "/nowhere/node.toml", "status"), 11, "/nowhere/node.toml"),
        (("status", "--config", "/nowhere/node.toml"), 11, "/nowhere/node.toml"),
    ],
)
async def test_mistakes_are_named_with_their_exit_status(
    place: Place, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], status: int, text: str
) -> None:
    assert await place.update(*arguments) == status
    assert text in capsys.readouterr().err


def test_the_usage_line_names_every_sub_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    usage = capsys.readouterr().out.partition("\n\n")[0]
    assert all(verb in usage for verb in ("status", "install", "confirm", "rollback", "agent"))


async def test_a_gateway_that_is_away_is_said_with_its_exit_status(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.config.write_text(place.config.read_text().replace(place.gateway.url, "https://127.0.0.1:1"))
    assert await place.update("--now") == 61
    assert "127.0.0.1:1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("check", "outcome", "starts"),
    [("true", "confirmed", ["a", "b"]), ("test $FIELDRELAY_SLOT = a", "rolled-back", ["a", "b", "a"])],
)
async def test_the_agent_updates_restarts_and_goes_on(place: Place, check: str, outcome: str, starts: list[str]) -> None:
    place.write_config(check)
    place.order(2)
    board = Board(
        NODE,
        environment=SimulatedEnvironment(place.folder / "environment", Disk()),
        command_line=place.folder / "cmdline",
        agent=[sys.executable, "-m", "node_agent.cli", "--config", str(place.config), "agent"],
        variables={"PYTHONPATH": str(Path(__file__).parents[2])},
        log=place.folder / "agent.log",
    )
    board.power_on()
    try:
        async with asyncio.timeout(ENDED_S):
            await place.gateway.ended.wait()
        assert await place.update("--now") == 0, "the running agent is asked through its socket"
    finally:
        await board.off()
    assert place.gateway.outcomes == [outcome], (place.folder / "agent.log").read_text()[-2000:]
    assert board.starts == starts
    assert place.holds("b", 2)


async def test_a_machine_that_runs_is_not_restarted_and_the_way_goes_on_when_it_stands(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    stands = place.folder / "stands"
    stands.write_text("0")
    place.write_config(more='[[interlock]]\nname = "machine-stands"\nkind = "input"\ninput = "stands"\ntimeout_s = 60\n')
    place.order(2)
    assert await place.update("--now") == InterlockError.exit_status
    assert "not now: an interlock is shut, activating 2.0" in capsys.readouterr().out
    assert place.power_on() == "a", "nothing was activated"
    stands.write_text("1\n")
    assert await place.update("--now") == 100
    assert place.power_on() == "b"
    assert await place.update("--now") == 0
    assert place.holds("b", 2)
