"""The boot variables of a bundle, as one set that travels with the slot switch.

The list is applied last and in one write with the switch: it is the commit point of the update. A later line for the
same name replaces an earlier one, as the real SWUpdate does. Whether a variable would break the switch is the
bootloader's to say (`Bootloader.check`), before the first byte is written.
"""

from collections.abc import Mapping, Sequence

from update.bundle.entries import BootVariable
from update.errors import HandlerError

MAX_VARIABLES = 128


def boot_variables(lines: Sequence[BootVariable]) -> Mapping[str, str]:
    """Name to value; an empty value removes the variable. `HandlerError` for more than any environment holds."""
    variables = {line.name: line.value for line in lines}
    if len(variables) > MAX_VARIABLES:
        raise HandlerError(f"the bundle sets {len(variables)} boot variables, at most {MAX_VARIABLES} are written")
    return variables
