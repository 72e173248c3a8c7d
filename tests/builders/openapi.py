"""What a published OpenAPI 3.0 says of requests and answers, as far as the one of wfx goes: a checker of values, no more.

The document lies beside the source tree and is none of it: `FIELDRELAY_SHARED` names the folder, otherwise it is looked for where
the tree itself was unpacked.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.peers import need

Yaml = Mapping[str, Any]  # as it was read
_TYPES = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}


def shared_file(*parts: str) -> Path:
    """A file of the shared data; skips where it is not there."""
    root = Path(os.environ.get("FIELDRELAY_SHARED", Path(__file__).parents[3] / "shared"))
    file = root.joinpath(*parts)
    need(present=file.is_file(), reason=f"{file} is not there; FIELDRELAY_SHARED names the folder with the published interfaces")
    return file


class OpenApi:
    """One document."""

    def __init__(self, file: Path) -> None:
        document: Any = yaml.safe_load(file.read_text())
        self._document: Yaml = document

    def check(self, method: str, path: str, *, asked: bytes, status: int, answered: bytes) -> None:
        """Fail unless the interface has this request, and this answer to it. `path` is below the base path, without a query."""
        operation = self._operation(method, path)
        if asked:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            self._check(json.loads(asked), schema, f"{method} {path}")
        response = operation["responses"].get(str(status))
        if response is None:
            assert "default" in operation["responses"], f"{method} {path} has no answer {status}"
            return
        schema = response.get("content", {}).get("application/json", {}).get("schema")
        if schema and answered.startswith(b"{"):  # some refusals are plain text
            self._check(json.loads(answered), schema, f"{method} {path} {status}")

    def parameters(self, method: str, path: str) -> frozenset[str]:
        """The names of what may stand in a query."""
        found = [self._resolved(each) for each in self._operation(method, path).get("parameters", [])]
        return frozenset(each["name"] for each in found if each["in"] == "query")

    def check_value(self, name: str, value: object) -> None:
        """Fail unless a value is what the component `name` describes."""
        self._check(value, {"$ref": f"#/components/schemas/{name}"}, name)

    def _operation(self, method: str, path: str) -> Yaml:
        for template, operations in sorted(self._document["paths"].items(), key=lambda item: "{" in item[0]):
            if re.fullmatch(re.sub(r"\{[a-z]+\}", "[^/]+", template), path) and method.lower() in operations:
                found: Yaml = operations[method.lower()]
                return found
        raise AssertionError(f"the interface has no {method} {path}")

    def _resolved(self, schema: Yaml) -> Yaml:
        while "$ref" in schema:
            found: Any = self._document
            for part in schema["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            schema = found
        return schema

    def _check(self, value: object, schema: Yaml, where: str) -> None:
        problems = list(self._problems(value, self._resolved(schema), where))
        assert not problems, problems[:5]

    def _problems(self, value: object, schema: Yaml, where: str) -> Iterator[str]:
        if value is None and schema.get("nullable"):
            return
        expected = _TYPES.get(schema.get("type", ""), object)
        if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
            yield f"{where}: {value!r} is no {schema['type']}"
            return
        if isinstance(value, dict):
            yield from (f"{where}: {name} is missing" for name in schema.get("required", ()) if name not in value)
            for name, inner in schema.get("properties", {}).items():
                if name in value:
                    yield from self._problems(value[name], self._resolved(inner), f"{where}.{name}")
        elif isinstance(value, list):
            for each in value:
                yield from self._problems(each, self._resolved(schema.get("items", {})), f"{where}[]")
        yield from _outside(value, schema, where)


def _outside(value: object, schema: Yaml, where: str) -> Iterator[str]:
    if isinstance(value, str | list):
        kind = "Length" if isinstance(value, str) else "Items"
        if not schema.get(f"min{kind}", 0) <= len(value) <= schema.get(f"max{kind}", len(value)):
            yield f"{where}: a length of {len(value)}"
    if isinstance(value, int) and value > schema.get("maximum", value):
        yield f"{where}: {value} is too much"
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        yield f"{where}: {value!r} does not match {schema['pattern']}"
    if value not in schema.get("enum", [value]):
        yield f"{where}: {value!r} is none of {schema['enum']}"
