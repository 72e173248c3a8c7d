"""Where the gateway is that a command is for."""

from dataclasses import dataclass
from pathlib import Path

import click

from gateway.config import load_config
from gateway.control.client import ControlClient

reason_option = click.option("--reason", default="", help="Why; kept with what is done.")


@dataclass(frozen=True, slots=True)
class Places:
    """Where the gateway is: its configuration, and the socket if it was named."""

    config: Path
    socket: Path | None

    def client(self) -> ControlClient:
        """To the socket that was named, else to the configured one: an operator need not be able to read the configuration."""
        return ControlClient(self.socket or load_config(self.config).control.socket)
