"""`docs/reference/commands.md`: every command, argument and option, drawn from the parsers themselves."""

import argparse
from collections.abc import Iterator, Sequence

import click

from gateway.cli.main import VERBS, load
from node_agent import cli as node_cli

_HEAD = """# Commands

Drawn from the parsers; a test compares. Results go to standard output, messages and progress to standard error.
Exit statuses: [errors](errors.md).

`fieldrelay` is the command of publishers and operators; a verb that needs an extra which is not installed says so
(status 12). `update` is the command of a node and needs the base dependencies only.
"""


def page() -> str:
    """The whole page."""
    parts = [_HEAD]
    for name, verb in VERBS.items():
        command = load(name)
        assert isinstance(command, click.Command)
        extras = " and ".join(f"`{extra}`" for extra in verb.extra.split(","))
        parts.append(f"\n## `fieldrelay {name}`\n\nExtra: {extras}.\n")
        parts += _click_sections(command, click.Context(command, info_name=f"fieldrelay {name}"), level=3)
    parts.append("\n## `update`\n\nNo extra.\n")
    parts += _argparse_sections(node_cli._parser())
    return "".join(parts)


def _click_sections(command: click.Command, context: click.Context, *, level: int) -> Iterator[str]:
    """A command, then its sub-commands."""
    yield f"\n{_text(command.help)}\n"
    pieces = " ".join(command.collect_usage_pieces(context))
    yield f"\n```text\n{context.command_path} {pieces}\n```\n"
    yield _table([_click_row(parameter, context) for parameter in command.params])
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            inner = click.Context(each, info_name=name, parent=context)
            yield f"\n{'#' * level} `{inner.command_path}`\n"
            yield from _click_sections(each, inner, level=level + 1)


def _click_row(parameter: click.Parameter, context: click.Context) -> tuple[str, str, str]:
    if isinstance(parameter, click.Option):
        value = "" if parameter.is_flag else f" {_metavar(parameter, context)}"
        names = ", ".join((*parameter.opts, *parameter.secondary_opts))
        several = parameter.multiple and "several times" not in (parameter.help or "")
        notes = [parameter.help or "", "Required." if parameter.required else "", "May be repeated." if several else ""]
        notes += [f"Range: {parameter.type._describe_range()}."] if isinstance(parameter.type, click.IntRange) else []
        notes += [f"Environment: `{parameter.envvar}`."] if isinstance(parameter.envvar, str) else []
        default = "" if parameter.is_flag or parameter.multiple or parameter.required else _default(parameter.default)
        return f"`{names}{value}`", " ".join(filter(None, notes)), default
    return f"`{parameter.make_metavar(context)}`", "", ""


def _metavar(parameter: click.Option, context: click.Context) -> str:
    return "INTEGER" if isinstance(parameter.type, click.IntRange) else parameter.make_metavar(context)


def _argparse_sections(parser: argparse.ArgumentParser) -> Iterator[str]:
    yield f"\n{_text(parser.description)}\n\n"
    yield f"```text\n{parser.prog} [OPTIONS] [status | install | confirm | rollback | agent]\n```\n"
    yield _table([row for action in parser._actions if (row := _argparse_row(action)) is not None])
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {each.dest: each.help for each in action._choices_actions}
            for name, each in action.choices.items():
                yield f"\n### `{parser.prog} {name}`\n\n{_text(helps[name])}\n"
                yield _table([row for inner in each._actions if (row := _argparse_row(inner)) is not None])


def _argparse_row(action: argparse.Action) -> tuple[str, str, str] | None:
    if isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
        return None
    value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
    name = f"{', '.join(action.option_strings)}{value}".strip()
    default = "" if action.default == argparse.SUPPRESS or action.nargs == 0 else _default(action.default)
    return f"`{name}`", _text(action.help), default


def _default(value: object) -> str:
    empty = value is None or value == "" or "UNSET" in repr(value)
    return "" if empty else f"`{value}`"


def _table(rows: Sequence[tuple[str, str, str]]) -> str:
    if not rows:
        return ""
    cells = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    lines = [f"| {name} | {meaning} | {default} |\n".replace("  |", " |") for name, meaning, default in cells]
    return "\n| argument or option | meaning | default |\n|---|---|---|\n" + "".join(lines)


def _text(text: str | None) -> str:
    plain = " ".join((text or "").split())
    return plain if not plain or plain.endswith(".") else f"{plain[0].upper()}{plain[1:]}."
