"""Commands of the integrator at fixed moments of an update.

A hook before a step may veto it: a non-zero status stops the update as `device.handler`. A hook after a step only
hears of it: its failure is logged, because what happened cannot be undone by it. After a crash a hook may run again;
hooks are told so here and in the reference, because nobody can make a foreign program run exactly once.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from node_agent.programs import run_program
from update.errors import HandlerError

_LOG = logging.getLogger(__name__)


class Moment(StrEnum):
    """When a hook runs."""

    BEFORE_WRITE = "before_write"
    BEFORE_RESTART = "before_restart"
    AFTER_CONFIRM = "after_confirm"
    AFTER_REVERT = "after_revert"

    @property
    def may_veto(self) -> bool:
        """Whether a failure stops the update."""
        return self in {Moment.BEFORE_WRITE, Moment.BEFORE_RESTART}


@dataclass(frozen=True, slots=True)
class Hook:
    """One command at one moment."""

    moment: Moment
    command: tuple[str, ...]
    timeout_s: float


class Hooks:
    """All hooks of a node, run in their configured order."""

    def __init__(self, hooks: Sequence[Hook] = ()) -> None:
        self._hooks = tuple(hooks)

    async def run(self, moment: Moment, environment: Mapping[str, str]) -> None:
        """Run the hooks of `moment`; `HandlerError` for the first failure where the moment has a veto."""
        for hook in (hook for hook in self._hooks if hook.moment is moment):
            told = {**environment, "FIELDRELAY_MOMENT": moment}
            ended = await run_program(hook.command, timeout_s=hook.timeout_s, environment=told)
            if ended.succeeded:
                continue
            message = f"the {moment} hook {hook.command[0]!r} {ended.describe()}"
            if moment.may_veto:
                raise HandlerError(f"{message}; the update was stopped by it")
            _LOG.warning(message)
