"""The pages of `docs/reference/` that are drawn from the code: `make reference` writes them anew, a test compares."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from node_agent.states import reference_page as states
from tests.docs.page_commands import page as commands
from tests.docs.page_configuration import page as configuration
from tests.docs.page_errors import page as errors

FOLDER: Final = Path(__file__).parents[2] / "docs" / "reference"
PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "commands.md": commands,
    "configuration.md": configuration,
    "errors.md": errors,
    "states.md": states,
}

if __name__ == "__main__":
    for name, draw in PAGES.items():
        (FOLDER / name).write_text(draw())
