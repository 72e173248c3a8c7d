"""`docs/reference/configuration.md`: every key of every file, drawn from the code that checks it and from the samples.

Values, bounds and defaults come from the schema of the configuration classes, meanings from the comments of
`configs/*.toml` that stand directly above one key, or from `tests.docs.meanings`. A key without a meaning is an error.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import TypeAdapter

from gateway.config import GatewayConfig
from media.config import MediaConfig
from node_agent.config import NodeConfig
from node_agent.drivers.registry import BOOTLOADERS, DRIVERS, resolve
from tests.docs.meanings import MEANINGS
from update.publish import spec
from update.publish.spec import BundleSpec

Schema = Mapping[str, Any]  # JSON Schema, as pydantic writes it

ROOT = Path(__file__).parents[2]
PIPE = "\\|"
_SAMPLE_LINE = re.compile(r"#?(?:\[+(?P<section>[a-z_.]+)\]+|(?P<key>[a-z_]+) = .*)", re.ASCII)

_HEAD = """# Configuration

Drawn from the classes that check the files, and from the comments of the samples in `configs/`; a test compares.

All files are TOML. A key that is not known is refused, and every mistake of a file is told at once, each with its key
(`usage.configuration`, status 11). `format_version` is refused if it is newer than the release knows (`usage.format-version`).
Relative paths are meant from the folder of the file.
"""


def page() -> str:
    """The whole page."""
    parts = [_HEAD]
    parts.append(
        "\n## The gateway: `gateway.toml`\n\nDefault place: `/etc/fieldrelay/gateway.toml`. Sample: `configs/gateway.toml`.\n"
    )
    parts += _sections(TypeAdapter(GatewayConfig).json_schema(), _comments("gateway"), "")
    parts.append("\n## A node: `node.toml`\n\nDefault place: `/etc/fieldrelay/node.toml`. Sample: `configs/node.toml`.\n")
    comments = _comments("node")
    parts += _sections(TypeAdapter(NodeConfig).json_schema(), comments, "")
    for what, kinds in (("driver", DRIVERS), ("bootloader", BOOTLOADERS)):
        for name, kind in kinds.items():
            schema = TypeAdapter(cast("type[object]", resolve(kind.config))).json_schema()
            parts += _section(schema, schema, comments, f"{what}.{name}", "[{}]")
    parts.append("\n## Media: `media.toml`\n\nDefault place: `/etc/fieldrelay/media.toml`. Sample: `configs/media.toml`.\n")
    parts += _sections(TypeAdapter(MediaConfig).json_schema(), _comments("media"), "")
    parts.append("\n## A bundle: `SPEC.toml`\n\nGiven to `fieldrelay bundle build` ([how-to](../how-to/build-a-bundle.md)).\n")
    parts += _sections(BundleSpec.model_json_schema(), _spec_comments(), "")
    return "".join(parts)


def _sections(schema: Schema, comments: Mapping[str, str], prefix: str) -> Iterator[str]:
    """The keys of the file itself, then its sections."""
    own = {name: each for name, each in schema["properties"].items() if not _inner(each, schema)}
    if own:
        yield "\n" + _table({**schema, "properties": own}, schema, comments, prefix)
    for name, each in schema["properties"].items():
        for inner in _inner(each, schema):
            yield from _section(inner, schema, comments, f"{prefix}{name}", "[[{}]]" if "items" in each else "[{}]")


def _section(section: Schema, schema: Schema, comments: Mapping[str, str], name: str, form: str) -> Iterator[str]:
    """One section: heading, meaning, keys, then what is below it."""
    kind = section["properties"].get("kind", {}).get("const")
    of_kind = f' with `kind = "{kind}"`' if kind else ""
    yield f"\n### `{form.format(name)}`{of_kind}\n"
    yield f"\n{' '.join(section.get('description', '').split())}\n"
    shown = {key: each for key, each in section["properties"].items() if key != "options" and not _inner(each, schema)}
    if shown:
        yield "\n" + _table({**section, "properties": shown}, schema, comments, f"{name}.")
    for key, each in section["properties"].items():
        for inner in _inner(each, schema):
            yield from _section(inner, schema, comments, f"{name}.{key}", "[[{}]]" if "items" in each else "[{}]")


def _inner(each: Schema, schema: Schema) -> list[Schema]:
    """The tables that a key holds: itself one, or a list of them."""
    choices = each.get("items", each)
    references = [choices, *choices.get("oneOf", ()), *choices.get("anyOf", ())]
    found = [schema["$defs"][one["$ref"].rpartition("/")[2]] for one in references if "$ref" in one]
    return [one for one in found if "properties" in one]


def _table(section: Schema, schema: Schema, comments: Mapping[str, str], prefix: str) -> str:
    rows = []
    for key, each in section["properties"].items():
        default = "*required*" if key in section.get("required", ()) else _value(each.get("default"))
        name = f"{prefix}{key}"
        cells = [f"`{key}`", _kind(each, schema), default, MEANINGS[name] if name in MEANINGS else comments[name]]
        rows.append(f"| {' | '.join(cell.replace('|', PIPE) for cell in cells)} |\n".replace("  |", " |"))
    return "| key | value | default | meaning |\n|---|---|---|---|\n" + "".join(rows)


def _kind(each: Schema, schema: Schema) -> str:
    """What a value may be, in words."""
    if "$ref" in each:
        each = schema["$defs"][each["$ref"].rpartition("/")[2]]
    if "anyOf" in each:
        return " or ".join(_kind(one, schema) for one in each["anyOf"] if one.get("type") != "null")
    if "enum" in each:
        return ", ".join(f"`{value}`" for value in each["enum"])
    if "const" in each:
        return f"`{each['const']}`"
    if each.get("type") == "array":
        return f"list: {_kind(each['items'], schema)}" if "items" in each else "list: text"
    if each.get("type") == "object":
        return "table"
    name = {"path": "path"}.get(
        each.get("format", ""), {"string": "text", "boolean": "true or false"}.get(each["type"], each["type"])
    )
    return f"{name}{_bounds(each)}"


def _bounds(each: Schema) -> str:
    low, high = each.get("minimum"), each.get("maximum")
    if (above := each.get("exclusiveMinimum")) is not None:
        return f", above {above}" + (f" to {high}" if high is not None else "")
    if low is not None and high is not None:
        return f", {low} to {high}"
    return f", at least {low}" if low is not None else ""


def _value(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    shown = f'"{value}"' if isinstance(value, str) else str(value).replace("'", '"')
    return f"`{shown}`"


def _comments(name: str) -> dict[str, str]:
    """Meanings by `section.key`, from the comments of a sample that belong to one key alone, in whichever section of a list."""
    found: dict[str, str] = {}
    section, comment = "", ""
    for line in (ROOT / "configs" / f"{name}.toml").read_text().splitlines():
        entry = _SAMPLE_LINE.fullmatch(line)
        if entry is None:
            comment = f"{comment} {line.removeprefix('#').strip()}".strip() if line else ""
        elif entry["section"]:
            section, comment = f"{entry['section']}.", ""
        else:
            found |= {f"{section}{entry['key']}": comment} if comment else {}
            comment = ""
    return found


def _spec_comments() -> dict[str, str]:
    """The comments at the ends of the lines in the example of `update.publish.spec`."""
    found, section = {}, ""
    for line in map(str.strip, (spec.__doc__ or "").splitlines()):
        if heading := re.fullmatch(r"\[+([a-z]+)\]+.*", line):
            section = f"{heading[1]}."
        elif (entry := re.fullmatch(r"([a-z_]+) = .*?(?:  +# (.*))?", line)) and entry[2]:
            found[f"{section}{entry[1]}"] = f"{entry[2][0].upper()}{entry[2][1:]}."
    return found
