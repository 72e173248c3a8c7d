"""What the gateway shows to a hawkBit server: one token for all targets, one for each, or its certificate.

Tokens lie in files that only the gateway can read: `gateway_token` is one file, `target_tokens` a folder with a file for each
controller id. They are read when they are needed, so a token may be changed while the gateway runs.
"""

from dataclasses import dataclass
from pathlib import Path

from gateway.north.token_file import read_token
from update.identity import check_name


@dataclass(frozen=True, slots=True)
class GatewayToken:
    """One token that may act as any target."""

    file: Path

    def header(self, controller: str) -> str:  # noqa: ARG002 - the same for all
        """The Authorization."""
        return f"GatewayToken {read_token(self.file)}"


@dataclass(frozen=True, slots=True)
class TargetTokens:
    """A token for each target, in a file of its name."""

    folder: Path

    def header(self, controller: str) -> str:
        """The Authorization; `ConfigurationError` where the target has no token."""
        return f"TargetToken {read_token(self.folder / check_name(controller, 'a controller id'))}"


@dataclass(frozen=True, slots=True)
class ByCertificate:
    """The client certificate of the connection says who we are."""

    def header(self, controller: str) -> str:  # noqa: ARG002 - the same for all
        """Nothing."""
        return ""
