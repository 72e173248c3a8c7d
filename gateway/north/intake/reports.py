"""Composes what goes back by hand: one report of each visit, signed, in `intake/outbox`, in three forms.

1. `<time>-<gateway>.json` is signed (`media.report_form`); `.txt` and `.html` say the same for people, in the site's language.
2. The first report is composed before the visit's answer is written, so that the medium that is still there can take it along;
   one more follows once all nodes have ended, and replaces the first where that has not left yet.
3. What receivers upstream do not have is told with the ids under which it is sent once the line is up: whoever gets both sees
   one.
4. Logs go along only where a request was accepted that asks for them.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.database.engine import Database
from gateway.database.queries import nodes, outgoing
from gateway.database.records import Node, Outgoing
from gateway.north.intake.paper import as_html, as_text
from gateway.north.intake.requests import Ask
from media.intake import OUTBOX
from media.records import Answer, Course
from media.report_form import MAX_LOG_LINES, MAX_MESSAGES, Device, Message, Report, to_bytes
from media.words import Language
from update.durable import Disk

MAX_WAITING: Final = 300
"""Reports that wait for a medium; of a site that no stick leaves the oldest go."""
_MODE: Final = 0o660


@dataclass(frozen=True, slots=True)
class Author:
    """Who reports: the gateway's name, its key, and the language of its people."""

    gateway: str
    key: Ed25519PrivateKey
    language: Language


class Reports:
    """Fills the outbox below `root`. `lines` are the newest lines of the log."""

    def __init__(self, disk: Disk, root: Path, database: Database, author: Author, lines: Callable[[], Sequence[str]]) -> None:
        self._disk = disk
        self._outbox = root / OUTBOX
        self._database = database
        self._author = author
        self._lines = lines

    async def compose(self, answer: Answer, label: str) -> Report:
        """Report what became of a visit so far. Errors: `StoreError`."""
        async with self._database.reading() as transaction:
            everyone = await nodes.everyone(transaction)
            pending = await outgoing.undelivered(transaction, limit=MAX_MESSAGES)
        asked = {ask for content in answer.contents for ask in content.asks}
        report = Report(
            gateway=self._author.gateway,
            visit=answer.visit,
            created=answer.since,
            complete=answer.course is not Course.UPDATING,
            label=label,
            course=answer.course,
            code=answer.code,
            message=answer.message,
            stale=answer.stale,
            contents=answer.contents,
            nodes=answer.nodes,
            pending=tuple(map(_message, pending)),
            inventory=tuple(map(_device, everyone)),
            logs=tuple(line[:4000] for line in self._lines()[-MAX_LOG_LINES:]) if Ask.LOGS in asked else (),
        )
        await asyncio.to_thread(self._put, report)
        return report

    def _put(self, report: Report) -> None:
        language = self._author.language
        self._disk.make_folder(self._outbox, mode=0o770)
        stem = _stem(report)
        old = [file for file in self._outbox.iterdir() if f".{_tag(report)}-" in file.name and not file.name.startswith(stem)]
        self._disk.write_files(
            self._outbox,
            [
                (f"{stem}.txt", as_text(report, language).encode()),
                (f"{stem}.html", as_html(report, language).encode()),
                (f"{stem}.json", to_bytes(report, self._author.key)),
            ],
            mode=_MODE,
        )
        waiting = sorted(file for file in self._outbox.iterdir() if not file.name.startswith("."))
        for file in (*old, *waiting[: -3 * MAX_WAITING]):
            self._disk.remove(file)


def _stem(report: Report) -> str:
    """Time, a piece of the visit's name since two may end in one second, and the gateway."""
    return f"{datetime.fromtimestamp(report.created, UTC):%Y%m%dT%H%M%SZ}.{_tag(report)}-{report.gateway}"


def _tag(report: Report) -> str:
    return "".join(each for each in report.visit.lower() if each in "0123456789abcdef")[:8] or "0"


def _message(waiting: Outgoing) -> Message:
    return Message(
        receiver=waiting.upstream,
        id=waiting.report,
        node=waiting.node,
        action=waiting.source,
        created=int(waiting.created.timestamp()),
        final=waiting.final,
        body=dict(waiting.body),
    )


def _device(node: Node) -> Device:
    return Device(
        node=node.id,
        hardware="" if node.hardware is None else str(node.hardware),
        version=node.running.version[:300],
        sha256=node.running.sha256,
        slot=node.running.slot[:300],
        assigner=node.assigner,
        seen=int(node.last_seen.timestamp()),
    )
