"""The webhooks of this gateway, built as they are configured."""

from collections.abc import Callable, Sequence
from datetime import datetime

from gateway.config import GatewayConfig
from gateway.north.means import Common
from gateway.north.webhook.webhook import Webhook, WebhookWitness
from gateway.sections.webhooks import WebhookSection
from update.wire.http import Manner

Now = Callable[[], datetime]


def webhook_witnesses(config: GatewayConfig, now: Now) -> Sequence[WebhookWitness]:
    """What stores results for each of them."""
    return [WebhookWitness(receiver_of(section), config.gateway.name, now) for section in config.webhook]


def webhooks(config: GatewayConfig, common: Common, now: Now) -> Sequence[Webhook]:
    """One of each receiver."""
    return [
        Webhook(
            receiver_of(section),
            common.database,
            common.session,
            str(section.url),
            section.secret,
            gateway=config.gateway.name,
            manner=Manner(line=common.line),
            now=now,
        )
        for section in config.webhook
    ]


def receiver_of(section: WebhookSection) -> str:
    """The name under which messages wait for it."""
    return f"webhook:{section.name}"
