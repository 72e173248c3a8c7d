"""`update`: the command line of a node. Results go to stdout, progress and messages to stderr.

    update status               what runs, what is under way, how the last update ended
    update --now                look for an update now (through the running agent, if there is one)
    update install FILE         install a bundle brought by hand
    update confirm              keep the version on trial without its health checks
    update rollback REASON      return to the previous version
    update agent                look and update for ever

Exit status: 0 done; 3 nothing to do (with --exit-code); 100 the device must be restarted; else that of the error
(`update.errors`): 1x usage and state, 2x trust, 3x bundle, 4x device, 5x disk, 6x network.
"""

import argparse
import asyncio
import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from node_agent import verbs
from node_agent.agent import Watch
from node_agent.assembly import Node, assemble
from node_agent.config import Log, LogSection, load_config
from node_agent.record import Entry
from node_agent.verbs import Answer
from update.durable import Disk
from update.errors import FieldrelayError, UsageError

DEFAULT_CONFIG = Path("/etc/fieldrelay/node.toml")
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command; the exit status."""
    as_json = "--json" in (sys.argv[1:] if arguments is None else arguments)
    try:
        options = _parser().parse_args(arguments, argparse.Namespace(config=DEFAULT_CONFIG, json=False, no_progress=False))
        answer = asyncio.run(_run(options))
    except FieldrelayError as error:
        _fail(error, as_json=as_json)
        return error.exit_status
    except KeyboardInterrupt:
        return _INTERRUPTED
    if as_json:
        print(json.dumps(dict(answer.values), default=str))
    elif answer.text:
        print(answer.text)
    return answer.exit_status


async def _run(options: argparse.Namespace) -> Answer:
    config = load_config(options.config)
    _log(config.log)
    node = assemble(config, options.config, Disk())
    watch = _unseen if options.no_progress or not sys.stderr.isatty() else _Progress().show
    return await _verb(options, node, watch)


async def _verb(options: argparse.Namespace, node: Node, watch: Watch) -> Answer:
    match options.verb:
        case "status":
            return await verbs.status(node)
        case "install":
            return await verbs.install(node, options.file, options.reason, watch)
        case "confirm":
            return await verbs.confirm(node, watch)
        case "rollback":
            return await verbs.roll_back(node, options.reason, watch)
        case "agent":
            return await verbs.run_agent(node, watch)
        case _:
            if not options.now:
                raise UsageError("say what to do: status, --now, install FILE, confirm, rollback REASON or agent")
            return await verbs.look_now(node, watch, nothing_status=verbs.NOTHING_STATUS if options.exit_code else 0)


class _Parser(argparse.ArgumentParser):
    """Mistakes on the command line are named errors like all others."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of leaving the process."""
        raise UsageError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    common = _Parser(add_help=False)
    common.add_argument("--config", type=Path, default=argparse.SUPPRESS, metavar="FILE", help=f"default: {DEFAULT_CONFIG}")
    common.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="one JSON object on stdout")
    common.add_argument("--no-progress", action="store_true", default=argparse.SUPPRESS, help="no progress on stderr")
    parser = _Parser(prog="update", description="Update this node.", parents=[common])
    parser.add_argument("--now", action="store_true", help="look for an update now")
    parser.add_argument("--exit-code", action="store_true", help=f"status {verbs.NOTHING_STATUS} if there is nothing to do")
    sub = parser.add_subparsers(dest="verb", metavar="{status,install,confirm,rollback,agent}")
    sub.add_parser("status", parents=[common], help="what runs, and how the last update ended")
    install = sub.add_parser("install", parents=[common], help="install a bundle brought by hand")
    install.add_argument("file", type=Path)
    install.add_argument("--reason", default="", help="why an older release is wanted back")
    sub.add_parser("confirm", parents=[common], help="keep the version on trial without its health checks")
    rollback = sub.add_parser("rollback", parents=[common], help="return to the previous version")
    rollback.add_argument("reason", help="kept in the journal and reported")
    sub.add_parser("agent", parents=[common], help="look and update for ever")
    return parser


def _fail(error: FieldrelayError, *, as_json: bool) -> None:
    """The same code as everywhere else: for people on stderr, for programs as the one object on stdout."""
    if as_json:
        print(json.dumps({"schema": "fieldrelay.update/1", "error": error.code, "message": str(error)}))
    print(f"update: {error} ({error.code})", file=sys.stderr)


def _log(section: LogSection) -> None:
    handler = logging.StreamHandler(sys.stderr)
    text = section.format is Log.TEXT or (section.format is Log.AUTO and sys.stderr.isatty())
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s") if text else _JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(section.level.upper())


class _JsonLines(logging.Formatter):
    """One JSON object per message."""

    def format(self, record: logging.LogRecord) -> str:
        """Time (UTC), level, where from, what."""
        said = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said)


def _unseen(_entry: Entry, _done: int, _total: int) -> None:
    """Nobody is there to look at progress."""


class _Progress:
    """One line on a terminal, redrawn when it changes."""

    def __init__(self) -> None:
        self._line = ""

    def show(self, entry: Entry, done: int, total: int) -> None:
        """Draw state and share."""
        share = f" {100 * done // total:3d} %" if total else ""
        line = f"{entry.state}{share}"
        if line != self._line:
            self._line = line
            print(f"\r\x1b[K{line}", end="\n" if entry.state == "idle" else "", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
