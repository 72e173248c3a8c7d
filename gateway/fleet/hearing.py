"""What a feedback of our own agent says, whichever way it came: over the network, or from a device that is attached here."""

from gateway.fleet.judgement import Told
from update.wire import ddi


def heard(status: ddi.Status, ours: ddi.Report, *, proven: bool) -> Told:
    """Both halves of a feedback as one; `proven`: who says what runs is to be believed."""
    return Told(
        report=str(ours.report),
        execution=status.execution,
        finished=status.result.finished,
        sequence=ours.sequence,
        details=tuple(status.details or ()),
        outcome=ours.outcome,
        code=ours.code[:64],
        message=ours.message,
        body=ours.model_dump(mode="json"),
        proven=proven,
    )
