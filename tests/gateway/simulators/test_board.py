"""A simulated board restarts as a real one, and a power cut leaves nothing of it running."""

import asyncio
import json
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from gateway.simulators.board import MAX_RESTARTS, Board
from node_agent.bootloaders.simulated import SimulatedEnvironment
from node_agent.drivers.driver import RESTART_STATUS
from tests.builders.relayed import everything_else_ended, until
from update.durable import Disk
from update.errors import BootloaderError

MakeBoard = Callable[[str], Board]


@pytest.fixture
def make(tmp_path: Path) -> MakeBoard:
    def board(program: str) -> Board:
        environment = SimulatedEnvironment(tmp_path / "environment", Disk())
        environment.seed()
        return Board(
            "n1",
            environment=environment,
            command_line=tmp_path / "cmdline",
            agent=[sys.executable, "-c", program],
            variables={"FOLDER": str(tmp_path)},
            log=tmp_path / "log",
        )

    return board


COUNTING = """
import os, sys, pathlib
starts = pathlib.Path(os.environ["FOLDER"], "starts")
before = starts.read_text() if starts.exists() else ""
starts.write_text(before + pathlib.Path(os.environ["FOLDER"], "cmdline").read_text())
sys.exit({restart} if before.count("\\n") + 1 < {times} else {last})
"""


async def test_an_agent_that_asks_for_a_restart_is_started_again(make: MakeBoard, tmp_path: Path) -> None:
    board = make(COUNTING.format(restart=RESTART_STATUS, times=3, last=7))
    assert await board.run() == 7
    assert board.starts == ["a"] * 3
    assert (tmp_path / "starts").read_text() == "console=ttyS0 fieldrelay.slot=a\n" * 3


async def test_restarts_without_end_are_bounded_for_each_time_it_is_switched_on(make: MakeBoard) -> None:
    board = make(f"import os; os._exit({RESTART_STATUS})")
    assert await board.run() == RESTART_STATUS
    assert len(board.starts) == MAX_RESTARTS
    assert await board.run() == RESTART_STATUS
    assert len(board.starts) == 2 * MAX_RESTARTS


async def test_the_trial_that_the_agent_opened_is_what_the_next_start_boots(make: MakeBoard, tmp_path: Path) -> None:
    trial = {"bootslot": "b", "upgrade_available": "1", "bootcount": "0", "ustate": "1"}
    board = make(
        "import os, sys, json; from pathlib import Path; from update.durable import Disk\n"
        "from node_agent.bootloaders.simulated import SimulatedEnvironment\n"
        "folder = Path(os.environ['FOLDER'])\n"
        "if (folder / 'cmdline').read_text().strip().endswith('=b'): sys.exit(0)\n"
        f"SimulatedEnvironment(folder / 'environment', Disk()).write(json.loads('{json.dumps(trial)}'))\n"
        f"sys.exit({RESTART_STATUS})"
    )
    assert await board.run() == 0
    assert board.starts == ["a", "b"]


async def test_the_last_exit_status_is_told(make: MakeBoard) -> None:
    told: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    board = make("raise SystemExit(5)")
    board.power_on(told.set_result)
    assert await told == 5
    await board.off()


FAMILY = """
import os, subprocess, sys, time
from pathlib import Path
child = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
folder = Path(os.environ["FOLDER"])
for number in range(3):
    subprocess.Popen([sys.executable, "-c", child, str(folder / f"child{number}")], start_new_session=number > 0)
(folder / "child3").write_text(str(os.getpid()))
time.sleep(600)
"""


async def identities(folder: Path, count: int) -> list[int]:
    """The ids that `count` processes wrote, once all have."""

    def texts() -> list[str]:
        return [text for path in folder.glob("child*") if (text := path.read_text())]

    await until(lambda: len(texts()) == count)
    return [int(text) for text in texts()]


def is_alive(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


async def test_a_power_cut_ends_the_agent_and_whatever_it_had_started(make: MakeBoard, tmp_path: Path) -> None:
    told: list[int] = []
    board = make(FAMILY)
    board.power_on(told.append)
    processes = await identities(tmp_path, 4)
    assert all(map(is_alive, processes))
    await board.off()
    await until(lambda: not any(map(is_alive, processes)))  # a killed grandchild is gone once init has looked at it
    assert told == [], "a power cut is no end of the agent's own"
    await board.off()


class SlowEnvironment:
    """Variables behind a slow bus."""

    def __init__(self) -> None:
        self.reading = threading.Event()
        self.go_on = threading.Event()
        self.finished = False

    def read(self) -> Mapping[str, str]:
        self.reading.set()
        assert self.go_on.wait(20)
        self.finished = True
        return {}

    def write(self, changes: Mapping[str, str]) -> None:
        raise AssertionError("without a trial nothing is written")


class BrokenEnvironment:
    """Variables that cannot be read."""

    def read(self) -> Mapping[str, str]:
        raise BootloaderError("both copies are damaged")

    def write(self, changes: Mapping[str, str]) -> None:
        raise AssertionError("nothing was read")


def board_with(environment: SlowEnvironment | BrokenEnvironment, folder: Path) -> Board:
    line, log = folder / "cmdline", folder / "log"
    return Board("n1", environment=environment, command_line=line, agent=["false"], variables={}, log=log)


async def test_a_power_cut_during_the_boot_script_leaves_nothing_running(tmp_path: Path) -> None:
    environment = SlowEnvironment()
    board = board_with(environment, tmp_path)
    board.power_on()
    await asyncio.to_thread(environment.reading.wait, 20)
    cutting = asyncio.create_task(board.off())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not cutting.done()
    environment.go_on.set()
    await cutting
    assert environment.finished
    assert board.starts == []


async def test_a_board_that_does_not_boot_says_so_in_its_log_and_can_be_switched_off(tmp_path: Path) -> None:
    board, told = board_with(BrokenEnvironment(), tmp_path), list[int]()
    board.power_on(told.append)
    await everything_else_ended()
    assert "n1 did not start: both copies are damaged" in (tmp_path / "log").read_text()
    await board.off()
    assert (told, (tmp_path / "cmdline").exists()) == ([], False)
