"""A report for people: the same in plain text and as one page that needs nothing else, in every language of the gateway.

What came from a stick or from nodes is escaped in both: it can forge neither a line nor an element.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from types import MappingProxyType
from typing import Final

from gateway.database.records import ActionOutcome
from media.medium import shown
from media.records import Content, Kind, NodeResult, Verdict
from media.report_form import Report
from media.words import Language

_Words = Mapping[str, str]

PAPER: Final[Mapping[Language, _Words]] = MappingProxyType({
    Language.ENGLISH: MappingProxyType({
        "title": "Report of gateway {gateway}",
        "made": "Made on {time} UTC. Stick: {label}.",
        "all-ended": "All devices have ended.",
        "under-way": "Some devices are still under way; another report follows on the next stick.",
        "stale": "Accepted past its expiry by an operator: {reason}",
        "contents": "What was on the stick",
        "nodes": "What happened on the devices",
        "inventory": "What runs",
        "pending": "{count} messages wait for the line; they are in the .json file and are sent once it is up.",
        "nothing": "nothing",
        "what": "What", "name": "Name", "version": "Version", "verdict": "Result", "why": "Why",
        "device": "Device", "wanted": "Wanted", "runs": "Runs", "hardware": "Hardware", "seen": "Last seen (UTC)",
        Kind.REPOSITORY: "repository", Kind.BUNDLE: "release", Kind.REQUEST: "request",
        Verdict.ACCEPTED: "accepted", Verdict.KNOWN: "was here already",
        "": "under way",
        ActionOutcome.SUCCESS: "updated", ActionOutcome.UNVERIFIED: "installed, not verified",
        ActionOutcome.DOWNLOADED: "downloaded", ActionOutcome.FAILURE: "FAILED", ActionOutcome.REFUSED: "REFUSED",
        ActionOutcome.ROLLED_BACK: "ROLLED BACK", ActionOutcome.INCONSISTENT: "INCONSISTENT",
        ActionOutcome.CANCELLED: "cancelled", ActionOutcome.SUPERSEDED: "superseded", ActionOutcome.TIMED_OUT: "TIMED OUT",
    }),
    Language.GERMAN: MappingProxyType({
        "title": "Bericht des Gateways {gateway}",
        "made": "Erstellt am {time} UTC. Stick: {label}.",
        "all-ended": "Alle Geräte sind fertig.",
        "under-way": "Einige Geräte sind noch dabei; ein weiterer Bericht folgt auf dem nächsten Stick.",
        "stale": "Trotz Ablaufs von einem Bediener zugelassen: {reason}",
        "contents": "Was auf dem Stick war",
        "nodes": "Was auf den Geräten geschah",
        "inventory": "Was läuft",
        "pending": "{count} Meldungen warten auf die Leitung; sie stehen in der .json-Datei und werden dann gesendet.",
        "nothing": "nichts",
        "what": "Was", "name": "Name", "version": "Version", "verdict": "Ergebnis", "why": "Warum",
        "device": "Gerät", "wanted": "Gewünscht", "runs": "Läuft", "hardware": "Hardware", "seen": "Zuletzt gesehen (UTC)",
        Kind.REPOSITORY: "Repository", Kind.BUNDLE: "Release", Kind.REQUEST: "Anfrage",
        Verdict.ACCEPTED: "angenommen", Verdict.KNOWN: "war schon da",
        "": "läuft noch",
        ActionOutcome.SUCCESS: "aktualisiert", ActionOutcome.UNVERIFIED: "installiert, nicht geprüft",
        ActionOutcome.DOWNLOADED: "heruntergeladen", ActionOutcome.FAILURE: "FEHLGESCHLAGEN", ActionOutcome.REFUSED: "ABGELEHNT",
        ActionOutcome.ROLLED_BACK: "ZURÜCKGEKEHRT", ActionOutcome.INCONSISTENT: "UNEINHEITLICH",
        ActionOutcome.CANCELLED: "abgebrochen", ActionOutcome.SUPERSEDED: "überholt", ActionOutcome.TIMED_OUT: "ZEIT ABGELAUFEN",
    }),
})  # fmt: skip
"""All words of a report; a test says that every language has each, with the same figures in braces."""

_STYLE = (
    "body{font:16px/1.4 system-ui,sans-serif;margin:1rem;max-width:60rem}table{border-collapse:collapse;width:100%}"
    "td,th{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #999;overflow-wrap:anywhere}"
)


@dataclass(frozen=True, slots=True)
class _Part:
    heading: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def as_text(report: Report, language: Language) -> str:
    """As plain text, with line ends that every system shows."""
    lines = [*_sentences(report, language)]
    for part in _parts(report, PAPER[language]):
        lines += ["", part.heading, "-" * len(part.heading)]
        lines += ["  ".join(cell for cell in row if cell) for row in part.rows] or [PAPER[language]["nothing"]]
    return "\r\n".join([*lines, *(["", *report.logs] if report.logs else [])]) + "\r\n"


def as_html(report: Report, language: Language) -> str:
    """As one page without scripts, images or links."""
    title, *sentences = _sentences(report, language)
    body = [f"<h1>{escape(title)}</h1>", *(f"<p>{escape(each)}</p>" for each in sentences)]
    for part in _parts(report, PAPER[language]):
        body.append(f"<h2>{escape(part.heading)}</h2>")
        body.append(_table(part) if part.rows else f"<p>{escape(PAPER[language]['nothing'])}</p>")
    if report.logs:
        body.append(f"<pre>{escape(chr(10).join(report.logs))}</pre>")
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><title>{escape(title)}</title><style>{_STYLE}</style>'
    )
    return f'<!doctype html>\n<html lang="{language}"><head>{head}</head>\n<body>\n' + "\n".join(body) + "\n</body></html>\n"


def _sentences(report: Report, language: Language) -> list[str]:
    words = PAPER[language]
    plain = _plain(report.label)
    found = [
        words["title"].format(gateway=report.gateway),
        words["made"].format(time=_time(report.created), label=plain),
        words["all-ended" if report.complete else "under-way"],
    ]
    found += [words["stale"].format(reason=_plain(report.stale))] if report.stale else []
    found += [_plain(f"{report.message} ({report.code})")] if report.code else []
    return found + ([words["pending"].format(count=len(report.pending))] if report.pending else [])


def _parts(report: Report, words: _Words) -> Iterator[_Part]:
    contents = ("what", "name", "version", "verdict", "why")
    yield _Part(words["contents"], _heads(words, contents), [_content(each, words) for each in report.contents])
    nodes = ("device", "wanted", "runs", "verdict", "why")
    yield _Part(words["nodes"], _heads(words, nodes), [_node(each, words) for each in report.nodes])
    rows = [(each.node, each.hardware, each.version, _time(each.seen)) for each in report.inventory]
    plain = [tuple(map(_plain, row)) for row in rows]
    yield _Part(words["inventory"], _heads(words, ("device", "hardware", "runs", "seen")), plain)


def _content(content: Content, words: _Words) -> tuple[str, ...]:
    name, why = content.name or content.repository, _why(content.message, content.code)
    row = (words[content.kind], name, content.version, words[content.verdict], why)
    return tuple(map(_plain, row))


def _node(node: NodeResult, words: _Words) -> tuple[str, ...]:
    outcome = words.get(node.outcome, node.outcome)
    return tuple(map(_plain, (node.node, node.wanted, node.runs, outcome, _why(node.message, node.code))))


def _why(message: str, code: str) -> str:
    return f"{message} ({code})" if code else ""


def _plain(text: str) -> str:
    return shown((text,), most=1000)


def _heads(words: _Words, keys: Sequence[str]) -> tuple[str, ...]:
    return tuple(words[key] for key in keys)


def _table(part: _Part) -> str:
    head = "".join(f"<th>{escape(each)}</th>" for each in part.heads)
    rows = ("".join(f"<td>{escape(each)}</td>" for each in row) for row in part.rows)
    return f"<table><tr>{head}</tr>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"


def _time(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"
