"""The tutorial is run: its shell blocks in order, in one shell and one folder, against the output that it shows."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.peers import need_tool

PAGE = Path(__file__).parents[2] / "docs" / "tutorials" / "first-run.md"
PORT = "18443"
TIMEOUT_S = 240
MARK = "-- end of block {} --"


@dataclass(frozen=True, slots=True)
class Block:
    """One shell block, and the lines that the page shows below it; `…` stands for anything."""

    script: str
    shown: tuple[str, ...]


def blocks() -> Iterator[Block]:
    fences = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    for number, (language, text) in enumerate(fences):
        if language == "sh":
            below = fences[number + 1] if number + 1 < len(fences) else ("", "")
            yield Block(text, tuple(below[1].splitlines()) if below[0] == "text" else ())


def run(script: str, folder: Path) -> str:
    """Standard output of a shell of its own; whatever it started is gone afterwards."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {"PATH": path, "HOME": str(folder), "LC_ALL": "C.UTF-8", "TMPDIR": str(folder)}
    with subprocess.Popen(
        ["bash", "-eu", "-c", script],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as shell:
        try:
            output, _ = shell.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            pytest.fail(f"not finished in {TIMEOUT_S} s; the end of what was said:\n{(error.output or b'')[-2000:].decode()}")
        finally:
            if shell.poll() is None:
                os.killpg(shell.pid, signal.SIGKILL)
    assert shell.returncode == 0, output
    return output


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def pattern(line: str) -> str:
    return "[^\n]*".join(re.escape(part) for part in line.split("…"))


@pytest.mark.interop
@pytest.mark.xdist_group("mdns")  # gateways that announce themselves on loopback at the same time are tried, too
@pytest.mark.timeout(TIMEOUT_S + 20)
def test_the_first_run_goes_as_the_tutorial_says(tmp_path: Path) -> None:
    need_tool("openssl")
    found = list(blocks())
    assert len(found) >= 8
    script = "trap 'tail -n 5 gateway/log' ERR\n" + "".join(
        f"{block.script}\necho '{MARK.format(number)}'\n" for number, block in enumerate(found)
    )
    output = run(script.replace(PORT, str(free_port())), tmp_path)
    for number, block in enumerate(found):
        said, _, output = output.partition(f"{MARK.format(number)}\n")
        expected = "(?s:.*?)".join(f"^{pattern(line)}$" for line in block.shown)
        assert re.search(expected, said, re.MULTILINE) is not None, f"block {number} shows {block.shown}; what was said:\n{said}"
