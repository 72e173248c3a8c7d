"""The configuration of webhooks: where results are told as signed JSON."""

from pydantic.dataclasses import dataclass

from update.provided import NO_OTHER_KEYS, Name, ProvidedPath, Url


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class WebhookSection:
    """A receiver of every result, as `webhook:NAME`. `secret` is a file with what messages are signed by."""

    name: Name
    url: Url
    secret: ProvidedPath


def checked_webhooks(sections: tuple[WebhookSection, ...]) -> tuple[WebhookSection, ...]:
    """Names once each."""
    names = [section.name for section in sections]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"each webhook has its own name; given twice: {', '.join(doubled)}")
    return sections
