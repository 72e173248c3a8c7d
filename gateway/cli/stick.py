"""`fieldrelay media inspect`: any stick, folder or image as this gateway would judge it; nothing is taken."""

import asyncio
import tempfile
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import click

from gateway.cli.gateway import DEFAULT_CONFIG
from gateway.cli.output import table
from gateway.cli.show import as_json, emit
from gateway.config import load_config
from gateway.north.intake.inspection import Inspection
from media.fat import FatMedium
from media.folder import FolderMedium
from update.durable import Disk

_PATH = click.Path(exists=True, path_type=Path)
_HEAD = ("WHAT", "NAME", "REPOSITORY", "VERSION", "VERDICT", "WHY")


@click.command()
@click.argument("path", type=_PATH)
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), default=DEFAULT_CONFIG, show_default=True)
@as_json
def inspect(*, path: Path, config: Path, as_json: bool) -> int:
    """Show what this gateway would make of PATH (a folder, or a FAT image or device) without taking it.

    The exit status is that of the worst refusal.
    """
    medium = FolderMedium.at(path) if path.is_dir() else FatMedium.at(path)
    with closing(medium), tempfile.TemporaryDirectory(prefix="fieldrelay-inspect-") as scratch:
        inspection = Inspection(load_config(config), Disk(), Path(scratch), lambda: datetime.now(UTC))
        judged = asyncio.run(inspection.judge(medium))
    whys = [f"{each.message} ({each.code})" if each.code else each.message for each, _ in judged]
    rows = [
        (each.kind, each.name or ".", each.repository, each.version, each.verdict, why)
        for (each, _), why in zip(judged, whys, strict=True)
    ]
    values = {
        "contents": [
            {
                "kind": each.kind,
                "name": each.name,
                "repository": each.repository,
                "version": each.version,
                "verdict": each.verdict,
                "code": each.code,
                "message": each.message,
            }
            for each, _ in judged
        ]
    }
    lines = [table(_HEAD, rows)] if rows else ["nothing on it is meant for a gateway"]
    emit("fieldrelay.media.inspect/1", values, lines, as_json=as_json)
    return max((error.exit_status for _, error in judged if error is not None), default=0)
