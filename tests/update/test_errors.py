import ast
from pathlib import Path

from update import errors

ROOT = Path(__file__).parents[2]
PACKAGES = ("update", "node_agent", "media", "gateway")


def test_every_error_of_the_tree_stands_in_its_module() -> None:
    """Two errors with one code could not both be what an operator meets (`gateway.control.client`)."""
    names = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    elsewhere = [
        f"{file.relative_to(ROOT)}: {node.name}"
        for package in PACKAGES
        for file in (ROOT / package).rglob("*.py")
        if file != ROOT / "update" / "errors.py"
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef) and names & {ast.unparse(base).rpartition(".")[2] for base in node.bases}
    ]
    assert elsewhere == []
