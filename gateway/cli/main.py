"""`fieldrelay VERB ...`: finds the verb in a table, loads it, and turns refusals into a message and an exit status.

A verb is loaded when it is used, because each needs its own extra: a publisher's machine has no database, a gateway builds
no images. This file itself needs nothing but the standard library and `update.errors`, so that a missing extra is told by
its name and not as a stack trace. A verb of two words comes before the group of its first one: it needs other extras. Each entry
of the table names a click command; a test resolves every one.
"""

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Protocol

from update.errors import FieldrelayError, MissingExtraError, UsageError

_INTERRUPTED = 130  # 128 + SIGINT, as shells count


@dataclass(frozen=True, slots=True)
class Verb:
    """Where a verb's click command is (`module:name`), the extra that it needs, and what it is for."""

    target: str
    extra: str
    summary: str


VERBS: Mapping[str, Verb] = {
    "bundle": Verb("gateway.cli.bundle:bundle", "publisher", "build, inspect, verify, sign and compare bundles"),
    "repo": Verb("gateway.cli.repo:repo", "publisher", "publish releases as a TUF repository"),
    "demo": Verb("gateway.cli.demo:demo", "gateway,publisher", "the main job on this machine: upstream, gateway, nodes"),
    "gateway": Verb("gateway.cli.gateway:gateway", "gateway", "set up, run and command a gateway"),
    "media inspect": Verb("gateway.cli.stick:inspect", "gateway", "show a stick as this gateway would judge it"),
    "media write": Verb("gateway.cli.stick_write:write_stick", "publisher", "put what a site needs onto a stick"),
    "media": Verb("media.cli:media", "media", "bring updates from sticks: watch for them, mount them"),
    "simulate": Verb("gateway.cli.simulate:simulate", "gateway", "devices that exist only in a folder, for a dry run"),
}


class Command(Protocol):
    """What a verb must be: a `click.Command`."""

    def main(self, args: Sequence[str], prog_name: str, *, standalone_mode: bool) -> object:
        """Run; outside of standalone mode, errors are raised and a command's exit status is returned."""
        ...


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, the refusal's, 10 for wrong usage, or 130 when interrupted."""
    try:
        return _run(list(sys.argv[1:] if arguments is None else arguments))
    except FieldrelayError as error:
        print(f"error: {error} ({error.code})", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED


def load(name: str) -> Command:
    """The command of a verb. Errors: `UsageError` for an unknown one, `MissingExtraError`."""
    verb = VERBS.get(name)
    if verb is None:
        raise UsageError(f"no verb {name[:80]!r}; there are: {', '.join(VERBS)}")
    module, _, attribute = verb.target.partition(":")
    try:
        command: Command = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in {"gateway", "media", "node_agent", "update"}:
            raise
        raise MissingExtraError(
            f"`fieldrelay {name}` needs {error.name}, which is not installed: install this release's {_locks(verb)} "
            f"with `pip install --require-hashes -r` (see docs/how-to/install-a-gateway.md)"
        ) from error
    return command


def _locks(verb: Verb) -> str:
    """The lock files that hold an extra. Never the name of our distribution: it is published nowhere, a stranger's could be."""
    return " and ".join(f"locks/{extra}.txt" for extra in verb.extra.split(","))


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        print(_help())
        return 0 if arguments else UsageError.exit_status
    if arguments[0] == "--version":
        print(f"fieldrelay {version('fieldrelay')}")
        return 0
    words = 2 if " ".join(arguments[:2]) in VERBS else 1
    name = " ".join(arguments[:words])
    return _run_click(load(name), f"fieldrelay {name}", arguments[words:])


def _run_click(command: Command, name: str, arguments: list[str]) -> int:
    from click import Abort, ClickException  # noqa: PLC0415 - the verb that needs click has just been loaded with it

    try:
        status = command.main(arguments, name, standalone_mode=False)
    except ClickException as error:
        error.show()
        return UsageError.exit_status
    except Abort:
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED
    return status if isinstance(status, int) else 0


def _help() -> str:
    width = max(map(len, VERBS))
    verbs = [f"  {name.ljust(width)}  {verb.summary}" for name, verb in VERBS.items()]
    return "\n".join(
        [
            "usage: fieldrelay VERB [OPTIONS] ...",
            "",
            *verbs,
            "",
            "`fieldrelay VERB --help` explains a verb; `fieldrelay --version` shows the release.",
        ]
    )
