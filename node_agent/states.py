"""The life of an update as data: which state may follow which, what to do after an unexpected restart, how often to try.

A state is written to the journal *before* anything is done in it, so after a restart the journal names what may have
been begun, never less. Every step is therefore idempotent, and three tables decide everything else:

- `TRANSITIONS`: the states that may follow. CONFIRMING is reachable only from TESTING.
- `RESUME`: the state to continue in, from the journal's state and from what the bootloader says is running.
- `TRIES`: how often a state may be entered for one update before another one is entered instead. A device that
  reboots in the middle of a step for ever is broken out of its loop by this, not by hope.

PREPARED and HOLDING wait for a decision about several devices that are updated together (`update.wire.assignment.Commit`);
they may be entered without limit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from update.errors import StateError


class State(StrEnum):
    """Where an update is."""

    IDLE = "idle"
    FETCHING = "fetching"
    WRITING = "writing"
    PREPARED = "prepared"
    ACTIVATING = "activating"
    RESTARTING = "restarting"
    TESTING = "testing"
    HOLDING = "holding"
    CONFIRMING = "confirming"
    REVERTING = "reverting"
    REPORTING = "reporting"


class Outcome(StrEnum):
    """How an update ended."""

    CONFIRMED = "confirmed"
    ROLLED_BACK = "rolled-back"
    REFUSED = "refused"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INCONSISTENT = "inconsistent"


class Running(StrEnum):
    """What a restart brought up, as the bootloader tells it."""

    PREVIOUS = "previous"  # another slot than the update's, which is incomplete, or whose trial failed
    WRITTEN = "written"  # another slot than the update's, which is complete and not on trial
    DUE = "due"  # another slot than the update's, which is on trial and starts next
    TARGET = "target"  # the slot that the update was written to


_S = State

TRANSITIONS: Mapping[State, tuple[State, ...]] = {
    _S.IDLE:       (_S.FETCHING, _S.TESTING, _S.REVERTING),
    _S.FETCHING:   (_S.WRITING, _S.REPORTING, _S.IDLE),
    _S.WRITING:    (_S.ACTIVATING, _S.PREPARED, _S.REPORTING),
    _S.PREPARED:   (_S.ACTIVATING, _S.WRITING, _S.REPORTING),
    _S.ACTIVATING: (_S.RESTARTING, _S.TESTING, _S.REVERTING, _S.REPORTING),
    _S.RESTARTING: (_S.TESTING, _S.REVERTING, _S.REPORTING),
    _S.TESTING:    (_S.CONFIRMING, _S.HOLDING, _S.REVERTING, _S.REPORTING),
    _S.HOLDING:    (_S.TESTING, _S.REVERTING),
    _S.CONFIRMING: (_S.REVERTING, _S.REPORTING),
    _S.REVERTING:  (_S.REPORTING,),
    _S.REPORTING:  (_S.IDLE,),
}  # fmt: skip
"""What may follow. From FETCHING back to IDLE: the gateway is away (it will be offered again), or installing is not yet allowed.
From IDLE to REVERTING: an operator returns to the previous version; to TESTING: a trial is found that nobody ordered here.
From PREPARED to WRITING: after a restart the slot is found incomplete. From HOLDING to TESTING: the decision is to keep it."""

_R = Running

RESUME: Mapping[State, Mapping[Running, State]] = {
    _S.IDLE:       {_R.PREVIOUS: _S.IDLE,       _R.WRITTEN: _S.IDLE,       _R.DUE: _S.IDLE,       _R.TARGET: _S.IDLE},
    _S.FETCHING:   {_R.PREVIOUS: _S.IDLE,       _R.WRITTEN: _S.IDLE,       _R.DUE: _S.IDLE,       _R.TARGET: _S.IDLE},
    _S.WRITING:    {_R.PREVIOUS: _S.WRITING,    _R.WRITTEN: _S.WRITING,    _R.DUE: _S.REPORTING,  _R.TARGET: _S.REPORTING},
    _S.PREPARED:   {_R.PREVIOUS: _S.WRITING,    _R.WRITTEN: _S.PREPARED,   _R.DUE: _S.REPORTING,  _R.TARGET: _S.REPORTING},
    _S.ACTIVATING: {_R.PREVIOUS: _S.REPORTING,  _R.WRITTEN: _S.ACTIVATING, _R.DUE: _S.RESTARTING, _R.TARGET: _S.TESTING},
    _S.RESTARTING: {_R.PREVIOUS: _S.REPORTING,  _R.WRITTEN: _S.REVERTING,  _R.DUE: _S.RESTARTING, _R.TARGET: _S.TESTING},
    _S.TESTING:    {_R.PREVIOUS: _S.REPORTING,  _R.WRITTEN: _S.REPORTING,  _R.DUE: _S.REVERTING,  _R.TARGET: _S.TESTING},
    _S.HOLDING:    {_R.PREVIOUS: _S.REVERTING,  _R.WRITTEN: _S.REVERTING,  _R.DUE: _S.REVERTING,  _R.TARGET: _S.HOLDING},
    _S.CONFIRMING: {_R.PREVIOUS: _S.REPORTING,  _R.WRITTEN: _S.REPORTING,  _R.DUE: _S.REVERTING,  _R.TARGET: _S.CONFIRMING},
    _S.REVERTING:  {_R.PREVIOUS: _S.REPORTING,  _R.WRITTEN: _S.REPORTING,  _R.DUE: _S.REVERTING,  _R.TARGET: _S.REVERTING},
    _S.REPORTING:  {_R.PREVIOUS: _S.REPORTING,  _R.WRITTEN: _S.REPORTING,  _R.DUE: _S.REPORTING,  _R.TARGET: _S.REPORTING},
}  # fmt: skip
"""Where to continue. FETCHING is simply offered again; what was downloaded is kept.

WRITING or PREPARED with the target running or on trial: somebody switched slots by hand; nothing is written, that is reported.
ACTIVATING to CONFIRMING with the previous slot running and no trial due: the bootloader has given the new version up.
"""


UNLIMITED: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Tries:
    """At most `limit` entries of a state for one update; then, and after an error in it, `then` is entered instead."""

    limit: int
    then: State


TRIES: Mapping[State, Tries] = {
    _S.FETCHING:   Tries(10, _S.REPORTING),
    _S.WRITING:    Tries(5,  _S.REPORTING),
    _S.PREPARED:   Tries(UNLIMITED, _S.REPORTING),
    _S.ACTIVATING: Tries(3,  _S.REVERTING),
    _S.RESTARTING: Tries(3,  _S.REVERTING),
    _S.TESTING:    Tries(3,  _S.REVERTING),
    _S.HOLDING:    Tries(UNLIMITED, _S.REVERTING),
    _S.CONFIRMING: Tries(5,  _S.REVERTING),
    _S.REVERTING:  Tries(5,  _S.REPORTING),
}  # fmt: skip
"""The limits. A REVERTING that gave up ends as `inconsistent`: somebody must look at the device."""

MEANING: Mapping[State, str] = {
    _S.IDLE: "Nothing to do; the last outcome is kept.",
    _S.FETCHING: "Metadata is refreshed, the target resolved in it and judged; the bundle is downloaded and verified.",
    _S.WRITING: "The inactive slot is being written and read back.",
    _S.PREPARED: "The slot is written; the decision to try it, made for several devices together, is waited for.",
    _S.ACTIVATING: "The written slot is made the trial of the next start.",
    _S.RESTARTING: "The device is asked to restart.",
    _S.TESTING: "The new version runs on trial; health checks decide.",
    _S.HOLDING: "The new version runs on trial, was well and is tested again and again; the decision to keep it is waited for.",
    _S.CONFIRMING: "The new version becomes permanent, then the security floor rises.",
    _S.REVERTING: "The device is taken back to the slot it came from.",
    _S.REPORTING: "The outcome is put into the durable queue of reports.",
}


def check_transition(old: State, new: State) -> None:
    """Refuse a step that the table does not hold: `StateError`."""
    if new not in TRANSITIONS[old]:
        allowed = ", ".join(TRANSITIONS[old])
        raise StateError(f"an update cannot go from {old} to {new}; from {old} it may go to {allowed}")


def resume(state: State, running: Running) -> State:
    """The state to continue in after a restart that found the journal in `state` and `running` on the device."""
    return RESUME[state][running]


def reference_page() -> str:
    """`docs/reference/states.md`, drawn from the tables."""
    arrows = "\n".join(f"    {old} --> {new}" for old, following in TRANSITIONS.items() for new in following)
    states = "\n".join(f"| {each} | {MEANING[each]} | {', '.join(TRANSITIONS[each])} | {_tries(each)} |" for each in State)
    resumed = "\n".join(f"| {each} | " + " | ".join(RESUME[each][running] for running in Running) + " |" for each in State)
    outcomes = "\n".join(f"- `{outcome}`" for outcome in Outcome)
    return _PAGE.format(arrows=arrows, states=states, resumed=resumed, outcomes=outcomes)


_PAGE = """# States of an update

Drawn from `node_agent/states.py`; a test compares.

```mermaid
stateDiagram-v2
{arrows}
```

| state | meaning | followed by | tries, then |
|---|---|---|---|
{states}

## After an unexpected restart

What is running decides where the update continues. `previous`: another slot than the update's runs, and the update's is
incomplete or its trial failed. `written`: another slot runs, and the update's is complete. `due`: another slot runs, and
the update's is on trial and starts next. `target`: the update's slot runs.

| journal | previous | written | due | target |
|---|---|---|---|---|
{resumed}

## Outcomes

{outcomes}
"""


def _tries(state: State) -> str:
    if state not in TRIES:
        return "-"
    limit = TRIES[state].limit
    return f"{'no limit' if limit == UNLIMITED else limit}, {TRIES[state].then}"
