"""`fieldrelay media write`: what a site needs, onto a stick."""

import stat
from pathlib import Path

import click

from gateway.cli.output import table
from gateway.cli.show import as_json, emit, no_progress, progress_bars
from gateway.words import size
from update.durable import Disk
from update.errors import UsageError
from update.publish.stick import Selection, read_site, select, write

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command("write")
@click.argument("stick", type=click.Path(exists=True, path_type=Path))
@click.option("--repo", type=_FOLDER, required=True, help="The published repository.")
@click.option("--for", "site", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True)
@click.option("--dry-run", is_flag=True, help="Only say what would be copied, and what it will do.")
@no_progress
@as_json
def write_stick(*, stick: Path, repo: Path, site: Path, dry_run: bool, no_progress: bool, as_json: bool) -> None:
    """Put onto STICK, a mounted folder, what the site of --for needs: the last report of its gateway, or a list of hardware."""
    if stat.S_ISBLK(stick.stat().st_mode) or not stick.is_dir():
        raise UsageError(f"{stick} is no folder: format the stick (mkfs.vfat -n UPDATE {stick}), mount it, and name where it is")
    selection = select(repo, read_site(site))
    if not dry_run:
        with progress_bars(wanted=not (no_progress or as_json)) as report:
            write(selection, repo, stick, Disk(), lambda _name, done, total: report("onto the stick", done, total))
    emit(
        "fieldrelay.media.write/1",
        _values(selection, written=not dry_run),
        _lines(selection, stick, dry_run=dry_run),
        as_json=as_json,
    )


def _values(selection: Selection, *, written: bool) -> dict[str, object]:
    return {
        "written": written,
        "bytes": selection.size_bytes,
        "expires": selection.expires.isoformat(),
        "targets": [{"path": info.path, "version": info.custom.version, "bytes": info.length} for info in selection.targets],
        "devices": [{"node": each.device.node, "version": each.version, "what": each.words} for each in selection.prospects],
    }


def _lines(selection: Selection, stick: Path, *, dry_run: bool) -> list[str]:
    rows = [(info.path, info.custom.version, size(info.length)) for info in selection.targets]
    devices = [(each.device.node, str(each.device.hardware), each.version or "-", each.words) for each in selection.prospects]
    return [
        table(("TARGET", "VERSION", "SIZE"), rows),
        "",
        table(("DEVICE", "HARDWARE", "RELEASE", "WHEN PLUGGED IN"), devices),
        "",
        f"{'would copy' if dry_run else 'copied and read back'} {size(selection.size_bytes)}, {stick}",
        f"good until {selection.expires:%Y-%m-%d %H:%M} UTC: plugged in later it is refused (trust.expired)",
    ]
