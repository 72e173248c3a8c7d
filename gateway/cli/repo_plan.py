"""`fieldrelay repo add-plan`: a release of many devices, checked and listed beside its bundles."""

from datetime import UTC, datetime
from pathlib import Path

import click

from gateway.cli.show import as_json, emit
from update.durable import Disk
from update.plans.document import PLAN_SUFFIX, plan_bytes
from update.publish.plans import load_plan
from update.publish.repository import PublishedRepository
from update.trust.verified import TargetCustom


@click.command("add-plan")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--release-counter", type=click.IntRange(0), required=True, help="Orders releases; higher than the last one's.")
@click.option("--below", default="", metavar="PATH", help="Folder of the target's name, such as lines/press.")
@as_json
def add_plan(*, folder: Path, file: Path, release_counter: int, below: str, as_json: bool) -> None:
    """List the release plan of FILE (TOML), whose bundles are listed already; writes NAME-VERSION.plan.json beside it."""
    disk = Disk()
    repository = PublishedRepository(folder, disk, lambda: datetime.now(UTC), name=folder.absolute().name)
    plan = load_plan(file, repository.listed())
    made = file.with_name(f"{plan.name}-{plan.version}{PLAN_SUFFIX}")
    disk.write_file(made, plan_bytes(plan))
    path = f"{below.strip('/')}/{made.name}" if below else made.name
    info = repository.add(made, path, TargetCustom(version=plan.version, release_counter=release_counter, plan=plan.name))
    values = {"plan": plan.name, "version": plan.version, "path": info.path, "sha256": info.sha256, "length": info.length}
    pinned = [f"  {each.name}  {each.bundle.path}  {each.bundle.version}" for each in plan.members if each.bundle is not None]
    lines = [f"{info.path}  {info.length} bytes  sha256 {info.sha256}", *pinned, "next: repo sign FOLDER targets --key …"]
    emit("fieldrelay.repo.add-plan/1", values, lines, as_json=as_json)
