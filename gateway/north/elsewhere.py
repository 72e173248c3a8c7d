"""The assigners elsewhere, all of them: told of what becomes of their wishes, and asked for new ones; and who is told only."""

from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from typing import Protocol

from gateway.config import GatewayConfig
from gateway.fleet.catalogue import AssignerState
from gateway.fleet.takeover import Takeover
from gateway.fleet.telling import Teller, Telling
from gateway.north.hawkbit.build import hawkbit_tellers, hawkbit_upstreams
from gateway.north.means import Common
from gateway.north.push.build import push_tellers, push_upstreams
from gateway.north.webhook.build import webhook_witnesses, webhooks
from gateway.north.wfx.build import wfx_tellers, wfx_upstreams

Begin = Callable[[Coroutine[object, object, object], str], None]
"""Begins work that lasts as long as the gateway."""


class _Upstream(Protocol):
    async def run(self) -> None: ...

    async def state(self) -> AssignerState: ...


class _Asked(_Upstream, Protocol):
    def hasten(self) -> None: ...


class Elsewhere:
    """Built in two steps: `telling` goes to the fleet, whose `takeover` the upstreams need."""

    def __init__(self, config: GatewayConfig, now: Callable[[], datetime]) -> None:
        self._config = config
        self._now = now
        self._hawkbit_tellers = hawkbit_tellers(config.hawkbit, now)
        self._wfx_tellers = wfx_tellers(config.wfx, now)
        self._upstreams: Sequence[_Upstream] = ()
        self._asked: Sequence[_Asked] = ()
        tellers: dict[str, Teller] = {**self._hawkbit_tellers, **self._wfx_tellers, **push_tellers(config.swuforward)}
        self.telling = Telling(tellers, webhook_witnesses(config, now))

    def begin(self, takeover: Takeover, common: Common, begin: Begin) -> None:
        """Ask every one of them from now on."""
        begin(common.unlisted.run(), "adoption")
        self._asked = [
            *hawkbit_upstreams(self._config, self._hawkbit_tellers, takeover, common, self._now),
            *wfx_upstreams(self._config, self._wfx_tellers, takeover, common, self._now),
        ]
        self._upstreams = [
            *self._asked,
            *push_upstreams(self._config, takeover, common, self._now),
            *webhooks(self._config, common, self._now),
        ]
        for upstream in self._upstreams:
            begin(upstream.run(), "assigner")

    def hasten(self) -> None:
        """Ask those that are polled soon: somebody says that there is news."""
        for upstream in self._asked:
            upstream.hasten()

    async def states(self) -> tuple[AssignerState, ...]:
        """How each of them stands."""
        return tuple([await upstream.state() for upstream in self._upstreams])
