"""The import contracts hold, and the architecture page says what they say."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "explanation" / "architecture.md"
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
LAYERS = {contract["name"]: contract for contract in CONTRACTS if contract["type"] == "layers" and "containers" in contract}
DECISIONS = next(contract for contract in CONTRACTS if contract["name"].startswith("decisions do no I/O"))


def row(first_cell: str) -> str:
    """The row of the page's table of contracts."""
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith(f"| {first_cell}")]
    assert len(rows) == 1, first_cell
    return rows[0].replace("\\|", "|")


def test_the_contracts_hold() -> None:
    program = str(Path(sys.executable).with_name("lint-imports"))
    done = subprocess.run([program, "--no-cache", "--no-logo"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("package", LAYERS)
def test_the_page_shows_the_layers_of_each_package(package: str) -> None:
    layers = " > ".join(f"`{layer.replace('(', '').replace(')', '')}`" for layer in LAYERS[package]["layers"])
    assert layers in row(f"`{package}`")


def test_every_package_must_give_a_new_module_its_place() -> None:
    assert set(LAYERS) == {"update", "node_agent", "media", "gateway"}
    assert all(contract["exhaustive"] for contract in LAYERS.values())


def test_the_page_names_the_decisions() -> None:
    shown = row("decisions do no I/O")
    assert [name for name in DECISIONS["source_modules"] if f"`{name}`" not in shown] == []


@pytest.mark.parametrize("package", LAYERS)
def test_the_page_shows_every_module_in_its_tree(package: str) -> None:
    tree = PAGE.read_text().partition("## The tree")[2].partition("\n## ")[0]
    chapter = re.split(r"^    (?=\w)", tree, flags=re.MULTILINE)
    (shown,) = [part for part in chapter if part.startswith(f"{package}/")]
    words = set(re.findall(r"\w+", shown))
    files = [file for file in (ROOT / package).rglob("*.py") if file.name != "__init__.py"]
    parts = {file.parent.name if file.parent.name in {"queries", "versions", "migrations"} else file.stem for file in files}
    assert parts - words - {"versions"} == set()
