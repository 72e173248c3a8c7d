"""What is shipped: the wheel, its programs, and what the locks pin."""

import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from email import message_from_bytes
from email.message import Message
from importlib.metadata import EntryPoint, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGES = ("update", "node_agent", "media", "gateway")
LOCKED_EXTRAS = ("gateway", "publisher", "dbus", "devices", "media", "speed", "test", "docs")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = {"node": (), "gateway": ("gateway",), "media": ("media",), "publisher": ("publisher",), "dev": LOCKED_EXTRAS}

_PIN = re.compile(r"([a-z0-9.-]+)==(\S+)((?: --hash=sha256:[0-9a-f]{64})+)", re.ASCII)


def pins(lock: str) -> dict[str, str]:
    """Versions by name; every logical line of a lock file is one pin with its hashes."""
    lines = (ROOT / "locks" / f"{lock}.txt").read_text().replace(" \\\n   ", "").splitlines()
    found = {}
    for line in lines:
        pin = _PIN.fullmatch(line)
        assert pin is not None, f"locks/{lock}.txt: not a pin with hashes: {line[:80]!r}"
        found[pin[1]] = pin[2]
    return found


def demanded(extras: Iterable[str]) -> list[Requirement]:
    optional = [text for extra in extras for text in PROJECT["optional-dependencies"][extra]]
    return [Requirement(text) for text in (*PROJECT["dependencies"], *optional)]


def closure(requirements: Iterable[Requirement]) -> set[str]:
    """Names of everything that `requirements` bring along, by the metadata of what is installed."""
    known: dict[str, set[str]] = {}
    waiting = [(canonicalize_name(each.name), {"", *each.extras}) for each in requirements]
    while waiting:
        name, extras = waiting.pop()
        if not (fresh := extras - known.get(name, set())):
            continue
        known.setdefault(name, set()).update(fresh)
        waiting += [
            (canonicalize_name(each.name), {"", *each.extras})
            for each in map(Requirement, requires(name) or [])
            if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in fresh)
        ]
    return set(known)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


def members(wheel: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(wheel) as archive:
        yield from ((name, archive.read(name)) for name in archive.namelist())


def metadata(wheel: Path) -> Message:
    return message_from_bytes(next(data for name, data in members(wheel) if name.endswith(".dist-info/METADATA")))


def source_files() -> set[str]:
    """Files of the four packages that are tracked, or would be."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return {name for name in listed if (ROOT / name).is_file()}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_requirement_is_pinned_at_a_version_that_satisfies_it(lock: str) -> None:
    pinned = pins(lock)
    for requirement in demanded(LOCKS[lock]):
        found = pinned.get(canonicalize_name(requirement.name))
        assert found is not None, f"locks/{lock}.txt lacks {requirement.name}: make lock"
        assert requirement.specifier.contains(found), f"locks/{lock}.txt pins {requirement.name} {found}: make lock"


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_what_comes_along_and_nothing_else(lock: str) -> None:
    assert {canonicalize_name(name) for name in pins(lock)} == closure(demanded(LOCKS[lock]))


@pytest.mark.parametrize("lock", LOCKS)
def test_what_runs_here_is_what_is_locked(lock: str) -> None:
    assert {name: version(name) for name in pins(lock)} == pins(lock)


@pytest.mark.parametrize("lock", LOCKS)
def test_everybody_has_the_versions_that_developers_test(lock: str) -> None:
    assert pins(lock).items() <= pins("dev").items()


def test_the_wheel_holds_the_four_packages_and_nothing_else(wheel: Path) -> None:
    names = {name for name, _ in members(wheel)}
    information = {name for name in names if name.partition("/")[0] == f"fieldrelay-{PROJECT['version']}.dist-info"}
    assert names - information == source_files()
    assert {name.partition("/")[0] for name in names - information} == set(PACKAGES)
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    assert any(name.startswith("gateway/database/migrations/versions/v0001") for name in names)
    assert {name.rpartition("/")[2] for name in information} == {
        "METADATA", "WHEEL", "RECORD", "entry_points.txt", "LICENSE", "NOTICE",
    }  # fmt: skip


def test_the_wheel_cannot_be_uploaded_by_accident(wheel: Path) -> None:
    classifiers = metadata(wheel).get_all("Classifier") or []
    assert "Private :: Do Not Upload" in classifiers
    assert [each for each in classifiers if each.startswith("Programming Language :: Python :: 3.")] == [
        "Programming Language :: Python :: 3.11"
    ]


@pytest.mark.parametrize("script", PROJECT["scripts"])
def test_every_program_of_the_wheel_resolves(script: str, wheel: Path) -> None:
    text = next(data for name, data in members(wheel) if name.endswith(".dist-info/entry_points.txt")).decode()
    lines = dict(line.split(" = ") for line in text.splitlines() if " = " in line)
    assert callable(EntryPoint(script, lines[script], "console_scripts").load())
