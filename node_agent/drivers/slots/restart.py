"""How an A/B device restarts: by a command of the integrator, or by its supervisor when the agent ends."""

from collections.abc import Sequence

from node_agent.drivers.driver import Restart
from node_agent.programs import run_program
from update.errors import HandlerError

_TIMEOUT_S = 60.0


async def restart_by(command: Sequence[str]) -> Restart:
    """Run the restart command; an empty one leaves it to the supervisor. Errors: `HandlerError`."""
    if not command:
        return Restart.BY_EXIT
    ended = await run_program(command, timeout_s=_TIMEOUT_S, environment={})
    if not ended.succeeded:
        raise HandlerError(f"the restart command {command[0]} {ended.describe()}")
    return Restart.COMMANDED
