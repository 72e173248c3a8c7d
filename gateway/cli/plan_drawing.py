"""Release plans as text and as Mermaid: the steps from above to below, between them the reasons for their order.

Names and versions were said by plans and nodes: `output.printable` takes their control characters, and what Mermaid reads as its
own is written as an entity.
"""

from collections.abc import Iterable, Iterator, Sequence

from gateway.cli.output import printable
from gateway.fleet.schedule import Edge, PlanRefused, Revert, Schedule, ScheduledDevice

_BACK = {
    Revert.SWITCH: "switches back",
    Revert.RE_FLASH: "goes back by writing the previous image again",
    Revert.NONE: "CANNOT GO BACK",
}
_MERMAID_ENTITIES = str.maketrans({'"': "#quot;", "#": "#35;", "<": "#lt;", ">": "#gt;", "|": "#124;", ";": "#59;"})


def heading(schedule: Schedule, repository: str) -> str:
    """What it is about, in a line."""
    moving = sum(map(len, schedule.steps))
    counts = [f"{moving} {_plural('device', moving)} in {len(schedule.steps)} {_plural('step', len(schedule.steps))}"]
    counts += [f"{len(schedule.settled)} there already"] if schedule.settled else []
    counts += [f"{len(schedule.watched)} only watched"] if schedule.watched else []
    return f"release plan {schedule.plan} {schedule.version} of {repository}: {', '.join(counts)}"


def outline(schedule: Schedule) -> Iterator[str]:
    """The steps, a line for each device."""
    width = _width(schedule)
    for number, step in enumerate(schedule.steps, 1):
        for place, device in enumerate(step):
            yield f"{'' if place else f'step {number}':<10}{_device(device, width)}"


def explained(schedule: Schedule) -> Iterator[str]:
    """All of it: the steps with what each device does, why they are in this order, limits, the way back, and the notes."""
    yield from _diagram(schedule)
    yield ""
    yield from _beside("there already: probed with the others before the decision", schedule.settled)
    yield from _beside("only watched: never changed, and what the requirements say of it holds", schedule.watched)
    for limit in schedule.limits:
        yield f"limit: at most {limit.at_most} of {_names(limit.devices)} at the same moment ({limit.reason})"
    if schedule.steps:
        order = ", then ".join(_names(each.id for each in step) for step in schedule.reverse())
        yield f"the way back, on any failure before the decision: {order}"
    yield from (f"note: {printable(note)}" for note in schedule.notes)


def refusal(refused: PlanRefused) -> Iterator[str]:
    """Every reason; the kind of it first."""
    yield f"release plan {refused.plan} {refused.version} cannot be carried out here as it is now; nothing was touched:"
    for finding in refused.findings:
        yield f"  {finding.obstacle}: {printable(finding.message)}"


def mermaid(schedule: Schedule) -> Iterator[str]:
    """A flowchart for a page."""
    yield "flowchart TD"
    for number, step in enumerate(schedule.steps, 1):
        yield f'  subgraph step{number}["step {number}"]'
        for place, device in enumerate(step):
            yield f'    s{number}d{place}["{_escaped(device.id)}<br/>{_escaped(_change(device))}"]'
        yield "  end"
    for number in range(1, len(schedule.steps)):
        reasons = "<br/>".join(_escaped(line) for line in _reasons(schedule, number))
        yield f"  step{number} -->" + (f'|"{reasons}"|' if reasons else "") + f" step{number + 1}"
    yield '  decision{"decision for all"}'
    if schedule.steps:
        yield f"  step{len(schedule.steps)} --> decision"


def _diagram(schedule: Schedule) -> Iterator[str]:
    width = _width(schedule)
    yield "prepare   all of them fetch, verify and write; nothing restarts"
    for number, step in enumerate(schedule.steps, 1):
        yield "   |"
        yield from (f"   |         because {line}" for line in _reasons(schedule, number - 1))
        yield "   v"
        for place, device in enumerate(step):
            doing = [_BACK[device.revert]] if device.hold else ["does not wait for the decision", _BACK[device.revert]]
            doing += [f"after interlock {', '.join(device.interlocks)} opens"] if device.interlocks else []
            lead = f"step {number}" if place == 0 else "   |" if number < len(schedule.steps) else "   :"
            yield f"{lead:<10}{_device(device, width)}  {printable('; '.join(doing))}"
    yield "   |"
    yield "   v"
    yield "decision  everybody is probed once more; then all keep it, or all go back"


def _reasons(schedule: Schedule, number: int) -> Iterator[str]:
    """Why what comes after step `number` comes after: the edges of which the first later device is in the next step."""
    place = {device.id: at for at, step in enumerate(schedule.steps, 1) for device in step}
    for edge in schedule.edges:
        after = [place[each] for each in edge.after if each in place]
        if number and after and min(after) == number + 1:
            yield _reason(edge)


def _reason(edge: Edge) -> str:
    return f"{_names(edge.before)} before {_names(edge.after)}: {printable(edge.reason)} ({edge.kind})"


def _beside(what: str, devices: Sequence[ScheduledDevice]) -> Iterator[str]:
    if devices:
        told = _names(f"{each.id} ({each.version or '?'})" for each in devices)
        yield f"{what}: {told}"


def _device(device: ScheduledDevice, width: tuple[int, int, int]) -> str:
    name, member, change = width
    return f"{printable(device.id):<{name}}  {printable(device.member):<{member}}  {_change(device):<{change}}".rstrip()


def _width(schedule: Schedule) -> tuple[int, int, int]:
    every = [device for step in schedule.steps for device in step]
    texts = [[each.id for each in every], [each.member for each in every], [_change(each) for each in every]]
    name, member, change = (max(map(len, column), default=0) for column in texts)
    return name, member, change


def _change(device: ScheduledDevice) -> str:
    to = device.version if device.bundle is None else device.bundle.version
    return f"{printable(device.version) or '?'} -> {printable(to)}"


def _names(names: Iterable[str]) -> str:
    return ", ".join(map(printable, names))


def _escaped(text: str) -> str:
    return printable(text).translate(_MERMAID_ENTITIES)


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"
