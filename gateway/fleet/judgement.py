"""What a node's word about an action means: under way, installed but not yet proved, or ended, and how; pure decisions.

Rules:

1. An action succeeds only when it is known that the node runs the release after its restart. Who says so differs by client:
   our own agent proves it (`Told.proven`); SWUpdate closes an action only after its restart, from the state that it kept in
   its bootloader (`ustate`); RAUC's updater closes it right after writing, before the restart, so its word means *installed*
   and no more, until the node is seen in another boot with the expected version (`observe`). So does that of Zephyr's client:
   it tells late, at the first poll after its restart, and a success whichever image was started then (`tells_late`). A RAUC
   that polls by itself says nothing at all: it is seen to begin, and then in another boot.
2. `closed` with `none` is taken for success by hawkBit. Nobody said that it succeeded: here it is *installed*.
3. SWUpdate answers a closed window by closing the action with success and the words "Skipped Update.": that ends nothing.
4. Where two words of a node contradict each other (success, but rolled back) the worse one counts.
5. A client that keeps no state installs the same release again and again. What begins after two installations shows it
   (`runs_in_circles`); the action is cancelled then, and ends as unverified. After one it may be the next attempt: SWUpdate
   2022.12 at times says "All Chunks Installed." before its installer has woken, which then fails and is asked once more.
6. SWUpdate says at its start what became of an update that it kept in mind, about whatever action is open then
   (`server_handle_initial_state`): one that came by hand, or before. Of an action that it never began this says nothing
   (`is_said_at_start`).

The words of SWUpdate are those of 2022.12 (`suricatta/server_hawkbit.c`).
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from gateway.database.records import Action, ActionOutcome, ClientKind, Handling, Stage
from update.wire.ddi import Execution, Finished

_SKIPPED = "Skipped Update."
_ALL_INSTALLED = "All Chunks Installed."
_AT_START = frozenset({"Update Installed.", "Update Failed."})
_A_CIRCLE = 2
_BEGINS = "Installing Update Chunk Artifacts."
_AGENT_ENDS = {
    "cancelled": ActionOutcome.CANCELLED,
    "inconsistent": ActionOutcome.INCONSISTENT,
    "refused": ActionOutcome.REFUSED,
    "rolled-back": ActionOutcome.ROLLED_BACK,
}
_NO_PROOF = frozenset({ClientKind.RAUC, ClientKind.ZEPHYR})

_WAITS = {"prepared": Stage.PREPARED, "holding": Stage.HOLDING}
_ON_ITS_WAY = frozenset({"fetching", "writing", "activating", "restarting", "reverting"})


@dataclass(frozen=True, slots=True)
class Told:
    """A feedback in hawkBit's words, and what our own agent adds: `outcome`, `code`, `message` and the whole `body`.

    `report` identifies it among all of the node's reports. `proven`: the agent's word comes with its proof.
    """

    report: str
    execution: Execution
    finished: Finished
    sequence: int = 0
    details: tuple[str, ...] = ()
    outcome: str = ""
    code: str = ""
    message: str = ""
    body: Mapping[str, object] | None = None
    proven: bool = False

    @property
    def words(self) -> str:
        """What it says to people: the agent's message, or the last of the client's lines."""
        return self.message or (self.details[-1] if self.details else "")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What to book: that the release is `installed` (not proved), or an `outcome`, which ends the action; or nothing."""

    installed: bool = False
    outcome: ActionOutcome | None = None
    code: str = ""
    message: str = ""


NOTHING = Judgement()
INSTALLED = Judgement(installed=True)


def judge(kind: ClientKind, told: Told, handling: Handling = Handling.FORCED) -> Judgement:
    """What a feedback about a deployment means from a client of this kind."""
    if told.execution is Execution.CANCELED:
        return _ended(ActionOutcome.CANCELLED, told)
    if told.execution is Execution.DOWNLOADED and handling is Handling.DOWNLOAD_ONLY and told.finished is not Finished.FAILURE:
        return _ended(ActionOutcome.DOWNLOADED, told)
    if told.execution is not Execution.CLOSED:
        return INSTALLED if kind is ClientKind.SWUPDATE and _ALL_INSTALLED in told.details else NOTHING
    if told.outcome in _AGENT_ENDS:
        return _ended(_AGENT_ENDS[told.outcome], told)
    if told.finished is Finished.FAILURE or told.outcome not in {"", "confirmed"}:
        return _ended(ActionOutcome.FAILURE, told)
    return _closed_well(kind, told)


def stage_of(action: Action, told: Told) -> Stage | None:
    """Where our own agent waits with an action of a coordinated release, by what it tells; None: that says nothing about it.

    A state that is entered from a waiting one by a decision, or by a restart that nobody ordered, leaves it as it was: what
    counts before a decision is that the node says anew that it waits.
    """
    state = str((told.body or {}).get("state", ""))
    if action.hold is None or told.execution is Execution.CLOSED or (told.body or {}).get("fence") != action.fence:
        return None
    return Stage.NONE if state in _ON_ITS_WAY else _WAITS.get(state)


def judge_cancel(told: Told) -> ActionOutcome | None:
    """The same for the answer to a cancellation (hawkBit DDI, `cancelAction` feedback)."""
    if told.execution is not Execution.CLOSED:
        return None
    return ActionOutcome.FAILURE if told.finished is Finished.FAILURE else ActionOutcome.CANCELLED


def runs_in_circles(kind: ClientKind, said: Iterable[Collection[str]], told: Told) -> bool:
    """Whether a client begins once more what it said twice that it installed (rule 5); `said` are the lines of each report."""
    again = kind is ClientKind.SWUPDATE and _BEGINS in told.details
    return again and sum(_ALL_INSTALLED in lines for lines in said) >= _A_CIRCLE


def is_said_at_start(kind: ClientKind, told: Told) -> bool:
    """Whether a client says at its start how an update ended, without knowing of which action (rule 6)."""
    return kind is ClientKind.SWUPDATE and told.execution is Execution.CLOSED and not _AT_START.isdisjoint(told.details)


def observe(action: Action, version: str, boot_id: str) -> Judgement:
    """What it means that the node runs `version` now, in this boot; empty texts where that is not known, as of the release.

    Only a boot after the one of the installation proves something: before it, the old version is what is to be expected.
    """
    restarted = boot_id and action.boot_id and boot_id != action.boot_id
    if not restarted or not version or not action.release.version:
        return NOTHING
    if version == action.release.version:
        return Judgement(outcome=ActionOutcome.SUCCESS, message=f"runs {version} after its restart")
    was = "installed" if action.installed is not None else "to be installed"
    message = f"runs {version} after its restart, {action.release.version} was {was}"
    return Judgement(outcome=ActionOutcome.ROLLED_BACK, code="device.rolled-back", message=message)


def tells_late(kind: ClientKind) -> bool:
    """Whether a client says only after its restart that it has installed: the boot of the installation is an earlier one."""
    return kind is ClientKind.ZEPHYR


def _closed_well(kind: ClientKind, told: Told) -> Judgement:
    if told.finished is not Finished.SUCCESS or kind in _NO_PROOF:
        return INSTALLED
    if kind is ClientKind.SWUPDATE:
        return NOTHING if _SKIPPED in told.details else _ended(ActionOutcome.SUCCESS, told)
    return _ended(ActionOutcome.SUCCESS, told) if told.proven and told.outcome == "confirmed" else INSTALLED


def _ended(outcome: ActionOutcome, told: Told) -> Judgement:
    return Judgement(outcome=outcome, code=told.code, message=told.words)
