"""The shape of the tree: what no linter sees of the rules in CONTRIBUTING.md."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.cli.main import VERBS
from node_agent.drivers.registry import BOOTLOADERS, DRIVERS

ROOT = Path(__file__).parents[1]
PACKAGES = ("update", "node_agent", "media", "gateway")
MAX_LINES = 400
MAX_FUNCTION_LINES = 50
TABLES = {"update/errors.py": 600}
"""Files that are one table, which would only be harder to read in two."""

DURABLE = {"fsync", "fdatasync", "rename", "renames", "replace", "move"}
PROOFS = {"VerifiedTarget": "update/trust/verified.py", "VerifiedChunkIndex": "update/trust/verified.py"}
ENTRY = re.compile(r"(?:update|node_agent|media|gateway)(?:\.\w+)+:\w+", re.ASCII)

# Written so that this file does not hold what it looks for.
MACHINE = re.compile(r"/(?:home|Users|root|work|builds)/[a-z]" r"|/tmp/\w*\d")
_HOSTS = r"\b(?:py" r"pi|python" r"hosted|conda|artifact" r"ory|nex" r"us)\b[\w.-]*\.(?:org|com|io|net)"
_OPTIONS = r"--(?:extra-)?index" r"-url|--find" r"-links"
SOURCES_OF_PACKAGES = re.compile(f"{_HOSTS}|{_OPTIONS}", re.IGNORECASE)


def product_files() -> list[Path]:
    return sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))


def tracked_texts() -> Iterator[tuple[str, str]]:
    command = ["git", "ls-files", "--cached", "--exclude-standard"]
    for name in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        file = ROOT / name
        if file.is_file():
            yield name, file.read_text(encoding="utf-8", errors="replace")


def relative(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(), str(file))


@pytest.mark.parametrize("file", product_files(), ids=relative)
def test_a_file_is_short_and_begins_by_saying_what_it_is_for(file: Path) -> None:
    tree = parsed(file)
    assert ast.get_docstring(tree), "the first statement is a docstring"
    assert len(file.read_text().splitlines()) <= TABLES.get(relative(file), MAX_LINES)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            assert node.end_lineno - node.lineno < MAX_FUNCTION_LINES, f"{node.name} is too long"


@pytest.mark.parametrize("file", [file for file in product_files() if file.name == "__init__.py"], ids=relative)
def test_a_package_holds_a_docstring_and_nothing_else(file: Path) -> None:
    """Re-exports are where import cycles come from."""
    assert [type(node) for node in parsed(file).body] == [ast.Expr]


def test_every_folder_of_the_product_is_a_package() -> None:
    folders = {file.parent for file in product_files()}
    assert [relative(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


def test_only_durable_syncs_and_renames() -> None:
    """Ruff bans the same calls; this one also sees `os.replace` under another name, and the methods of `Path`."""
    users = set()
    for file in product_files():
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in DURABLE:
                owner = ast.unparse(node.func.value)
                plain_text = node.func.attr == "replace" and (len(node.args) != 1 or owner == "dataclasses")
                users.update([] if plain_text else [relative(file)])
            if isinstance(node, ast.ImportFrom) and node.module in {"os", "shutil"}:
                users.update(relative(file) for alias in node.names if alias.name in DURABLE)
    assert users == {"update/durable.py"}


@pytest.mark.parametrize("proof", PROOFS)
def test_only_the_code_that_verifies_makes_a_proof(proof: str) -> None:
    """`VerifiedBundle` has the same test beside its reader."""
    makers = set()
    for file in product_files():
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == proof:
                makers.add(relative(file))
    assert makers == {PROOFS[proof]}


def test_every_module_that_is_named_by_a_text_is_in_a_table_whose_entries_are_tested() -> None:
    """`module:name` strings are imports that no tool sees: they stand in the tables of the verbs and of the kinds only."""
    kinds = [text for kind in (*DRIVERS.values(), *BOOTLOADERS.values()) for text in (kind.config, kind.maker)]
    tested = {*(verb.target for verb in VERBS.values()), *kinds}
    found = {
        node.value
        for file in product_files()
        for node in ast.walk(parsed(file))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and ENTRY.fullmatch(node.value)
    }
    assert found == tested


def test_no_file_names_the_machine_it_was_written_on() -> None:
    places = [str(ROOT), str(Path.home())]
    found = {name for name, text in tracked_texts() if any(f"{place}/" in text for place in places) or MACHINE.search(text)}
    assert found == set()


def test_no_file_says_where_packages_come_from() -> None:
    """That is for whoever installs: an index in a lock file would override his."""
    assert {name: match[0] for name, text in tracked_texts() if (match := SOURCES_OF_PACKAGES.search(text))} == {}
