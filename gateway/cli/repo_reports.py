"""`fieldrelay repo ingest-reports`: what gateways wrote onto sticks, verified, shown, and kept once."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import click

from gateway.cli.show import as_json, emit
from media.folder import FolderMedium
from media.ingest import Ingested, Ledger, ingest, read_keys
from media.medium import shown
from update.durable import Disk

_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command("ingest-reports")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--keys", type=_FOLDER, required=True, help="Folder with GATEWAY.pub: what `fieldrelay gateway report-key` shows.")
@click.option("--into", type=_FOLDER, help="Folder that keeps every report and result once; without it they are only shown.")
@as_json
def ingest_reports(*, folder: Path, keys: Path, into: Path | None, as_json: bool) -> int:
    """Verify and show the reports of gateways that lie in FOLDER, such as a stick; the status is that of the first refusal."""
    known = read_keys(keys)
    with closing(FolderMedium.at(folder)) as medium:
        found = ingest(medium, known, Ledger(Disk(), into))
    emit("fieldrelay.repo.ingest-reports/1", {"reports": [_values(each) for each in found]}, list(_lines(found)), as_json=as_json)
    return next((each.error.exit_status for each in found if each.error is not None), 0)


def _lines(found: Sequence[Ingested]) -> Iterator[str]:
    for each in found:
        if each.report is None:
            yield f"REFUSED  {each.place}: {each.error} ({'' if each.error is None else each.error.code})"
            continue
        report = each.report
        when = f"{datetime.fromtimestamp(report.created, UTC):%Y-%m-%d %H:%M:%S}"
        state = "complete" if report.complete else "nodes still under way"
        yield f"{'new' if each.new else 'known':8} {report.gateway}  {when} UTC  {state}  {shown((report.label,))}"
        new = {name for name, _ in each.results}
        for node in report.nodes:
            word = "new" if report.result_id(node) in new else "known" if node.outcome else "-"
            why = f"  {node.message} ({node.code})" if node.code else ""
            ended = f"{node.outcome or 'under way'}{why}"
            yield shown((f"         {word:6} {node.node}  wanted {node.wanted}  runs {node.runs}  {ended}",), most=1000)
        if report.pending:
            yield f"         {len(report.pending)} messages wait there for their receivers"
    if not found:
        yield "no report of a gateway lies here"


def _values(each: Ingested) -> dict[str, object]:
    if each.report is None or each.error is not None:
        code, message = ("", "") if each.error is None else (each.error.code, str(each.error))
        return {"place": each.place, "verdict": "refused", "code": code, "message": message}
    report = each.report
    new = {name for name, _ in each.results}
    results = [
        {
            "id": report.result_id(node),
            "new": report.result_id(node) in new,
            "node": node.node,
            "wanted": node.wanted,
            "runs": node.runs,
            "outcome": node.outcome,
            "code": node.code,
            "message": node.message,
        }
        for node in report.nodes
    ]
    return {
        "place": each.place,
        "verdict": "new" if each.new else "known",
        "id": report.id,
        "gateway": report.gateway,
        "created": report.created,
        "complete": report.complete,
        "results": results,
        "pending": [{"receiver": waiting.receiver, "id": waiting.id} for waiting in report.pending],
    }
