"""`fieldrelay gateway plan`: what a release plan would do here now, before anything is begun; or every reason why it cannot."""

import asyncio
from collections.abc import Sequence

import click

from gateway.cli import output, plan_drawing
from gateway.cli.places import Places
from gateway.cli.show import as_json, emit
from gateway.control import plan_messages as messages
from gateway.control.plan_messages import PlanReply
from update.errors import PlanRefusedError

_SCHEMA = "fieldrelay.gateway.plan/1"


@click.command()
@click.argument("release")
@click.option("--repository", default="", help="Where a plan of that name is in several.")
@click.option("--explain", is_flag=True, help="With the reason for each place in the order, limits, and the way back.")
@click.option("--mermaid", is_flag=True, help="As a flowchart in Mermaid's language.")
@as_json
@click.pass_obj
def plan(places: Places, release: str, repository: str, *, explain: bool, mermaid: bool, as_json: bool) -> int:
    """Show in which order plan RELEASE (its path, NAME-VERSION or version) would be carried out now; begins nothing.

    Where it cannot be carried out, the findings are shown, and the exit status is 18.
    """
    if as_json + explain + mermaid > 1:
        raise click.UsageError("say one of --json (which holds everything), --explain and --mermaid")
    request = messages.PlanRequest(release=release, repository=repository)
    found = asyncio.run(places.client().judge_plan(request))
    values = {"plan": output.as_values(messages.PLAN_REPLY, found)}
    emit(_SCHEMA, values, _lines(found, explain=explain, mermaid=mermaid), as_json=as_json)
    return 0 if found.refused is None else PlanRefusedError.exit_status


def _lines(found: PlanReply, *, explain: bool, mermaid: bool) -> Sequence[str]:
    if found.refused is not None:
        return list(plan_drawing.refusal(found.refused))
    if found.schedule is None:
        return []
    if mermaid:
        return list(plan_drawing.mermaid(found.schedule))
    head = [plan_drawing.heading(found.schedule, found.repository), *([found.description] if found.description else []), ""]
    return [*head, *(plan_drawing.explained(found.schedule) if explain else plan_drawing.outline(found.schedule))]


COMMANDS = (plan,)
