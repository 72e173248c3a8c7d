"""`fieldrelay repo push GATEWAY_URL --repo DIR|BUNDLE --token-file FILE`: bring a release to a gateway from a build server.

Only what the gateway lacks goes over the line, and a push that was cut off goes on when it is begun again. The exit status is
that of the gateway's verdict: 0 if everything was taken or known, that of the first refusal otherwise.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import click

from gateway.cli.output import table
from gateway.cli.show import Report, as_json, emit, no_progress, progress_bars
from gateway.north.token_file import read_token
from gateway.words import size
from update.errors import FieldrelayError, TrustError
from update.publish.pushes import PushedFile, files_of, label_of
from update.wire.http import Manner
from update.wire.push_messages import Begin, Verdict
from update.wire.pushing import PushClient
from update.wire.rate import Retry
from update.wire.session import wan_session
from update.wire.tls import GATEWAY_IDENTITY, client_context

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_Result = TypeVar("_Result")
_ATTEMPTS = 12
_HEAD = ("FILE", "VERDICT", "VERSION", "BYTES", "REASON")


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the command line says."""

    url: str
    token: Path
    site_ca: Path | None
    repository: str


@click.command("push")
@click.argument("url", metavar="GATEWAY_URL")
@click.option("--repo", "source", type=click.Path(exists=True, path_type=Path), required=True, help="A repository, or a bundle.")
@click.option("--token-file", type=_FILE, required=True, help="The pusher's token, as in push.pusher.token.")
@click.option("--site-ca", type=_FILE, help="The gateway's site CA (PEM); default: the public CAs of this machine.")
@click.option("--repository", default="", metavar="NAME", help="The repository's name there; default: the gateway finds out.")
@click.option("--dry-run", is_flag=True, help="Only say what the gateway lacks.")
@no_progress
@as_json
def push(
    *,
    url: str,
    source: Path,
    token_file: Path,
    site_ca: Path | None,
    repository: str,
    dry_run: bool,
    no_progress: bool,
    as_json: bool,
) -> int:
    """Push a published repository, or a single bundle, to the gateway at GATEWAY_URL."""
    files = files_of(source)
    asked = _Asked(url, token_file, site_ca, repository)
    if dry_run:
        lacking = asyncio.run(_with_client(asked, lambda client: _lacking(client, files)))
        values = {"lacking": [{"path": each.path, "bytes": each.length} for each in lacking]}
        lines = [f"{each.path}  {size(each.length)}" for each in lacking]
        total = f"{len(lacking)} of {len(files)} files, {size(sum(each.length for each in lacking))}"
        emit("fieldrelay.repo.push.dry-run/1", values, [*lines, total], as_json=as_json)
        return 0
    with progress_bars(wanted=not no_progress and not as_json) as report:
        verdict = asyncio.run(_with_client(asked, lambda client: _push(client, files, asked.repository, report)))
    rows = [
        (each.path, each.verdict, each.version or "-", str(each.bytes), _reason(each.code, each.message))
        for each in verdict.files
    ]
    wanted = f"wanted of {verdict.nodes} nodes" if verdict.nodes else "kept; no node is to have it now"
    emit("fieldrelay.repo.push/1", {"verdict": asdict(verdict)}, [table(_HEAD, rows), wanted], as_json=as_json)
    return _status(verdict)


async def _with_client(asked: _Asked, work: Callable[[PushClient], Awaitable[_Result]]) -> _Result:
    tls = None if asked.site_ca is None else client_context(asked.site_ca)
    manner = Manner(
        headers={"Authorization": f"Bearer {read_token(asked.token)}"},
        server_hostname=None if tls is None else GATEWAY_IDENTITY,
        tls=tls,
    )
    async with wan_session() as session:
        try:
            return await work(PushClient(session, asked.url, manner, Retry(attempts=_ATTEMPTS)))
        finally:
            if session.connector is not None:  # all was answered; a farewell would outlive the loop
                await session.connector.close(abort_ssl=True)


async def _push(client: PushClient, files: Sequence[PushedFile], repository: str, report: Report) -> Verdict:
    label = await asyncio.to_thread(label_of, files)
    session = await client.begin(Begin(repository, label))
    lacking = await _lacking(client, files)
    for each in lacking:
        await client.send(session, each.path, each.file, partial(_reported, report, each))
    return await client.finish(session.session)


async def _lacking(client: PushClient, files: Sequence[PushedFile]) -> list[PushedFile]:
    """What has to be sent: metadata always, content that is not there."""
    return [each for each in files if each.sha256 is None or not await client.has(each.sha256)]


def _reported(report: Report, each: PushedFile, done: int) -> None:
    report(each.path, done, each.length)


def _reason(code: str, message: str) -> str:
    return f"{message} ({code})" if code else ""


def _status(verdict: Verdict) -> int:
    """The exit status of the first refusal."""
    if not verdict.refused:
        return 0
    return _statuses(FieldrelayError).get(verdict.refused[0].code, TrustError.exit_status)


def _statuses(kind: type[FieldrelayError]) -> dict[str, int]:
    found = {kind.code: kind.exit_status}
    for each in kind.__subclasses__():
        found |= _statuses(each)
    return found
