"""A line of four devices behind the demo's gateway, updated as one: a controller with Linux, a motor, an FPGA and a radio.

The maker publishes two releases, each with a plan for all four. The first one is good: all take it. The second one has an image
for the motor that starts and never answers: all four go back, in descending order. Then every device is switched off and on, and
read: what it holds must be the release, or the one before, to the byte.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from gateway.control.messages import TokenRequest
from gateway.control.plan_messages import PlanRequest
from gateway.control.release_messages import StartRequest
from gateway.demo.appliance import Appliance
from gateway.demo.images import DemoImage, build_images
from gateway.demo.line_devices import LineDevices, line_devices
from gateway.demo.line_figures import COMPLETE, REVERTED, LineDevice, LineRun, LineWish, line_problems
from gateway.demo.line_release import BAD, CONTROLLER, GOOD, HARDWARE, MOTOR, OLD, LineRelease, hardware_of, publish_line
from gateway.demo.nodes import Factory, Plan, slot_digest
from gateway.demo.release import REPOSITORY
from gateway.demo.screen import Screen
from gateway.fleet.release_states import ReleaseState
from gateway.simulators.board import Board
from gateway.simulators.upstream import UpstreamServer
from gateway.status import NodeState
from update.digest import digest_file, digest_of
from update.errors import StateError, WireError

WISHES = (LineWish(GOOD, COMPLETE, GOOD), LineWish(BAD, REVERTED, GOOD, blamed=MOTOR))
_SEED = 7
_CAP_BYTES = 3 << 20
_LOOK_S = 0.2
_PATIENCE_S = 240.0


@dataclass(frozen=True, slots=True)
class Ground:
    """What the line stands on: a site that runs, whose upstream is switched off, and what its nodes are made from."""

    factory: Factory
    gateway: Appliance
    upstream: UpstreamServer
    screen: Screen


class Line:
    """The four devices. `set_up` first, which fills `digests` (by device and version); `problems` grow."""

    def __init__(self, ground: Ground, cleanup: AsyncExitStack) -> None:
        self._ground = ground
        self._cleanup = cleanup
        self._work = ground.factory.work / "line"
        self._images: Mapping[str, DemoImage] = {}
        self._devices: LineDevices | None = None
        self._board: Board | None = None
        self.digests: Mapping[tuple[str, str], str] = {}
        self.problems: list[str] = []

    async def show(self) -> tuple[LineRun, ...]:
        """All of it."""
        await self.set_up()
        runs = []
        for wish in WISHES:
            run = await self.run(wish.release)
            self.problems += line_problems(run, wish, self.digests)
            runs.append(run)
        return tuple(runs)

    async def set_up(self) -> None:
        """Publish, attach the devices, switch the controller on, and wait until the gateway knows all four."""
        ground, screen = self._ground, self._ground.screen
        screen.step("a line joins: a controller, and a motor, an FPGA and a radio that the gateway itself looks after")
        images = await asyncio.to_thread(build_images, self._work, seed=_SEED, cap_bytes=_CAP_BYTES, progress=screen.step)
        self._images = {image.version: image for image in images}
        maker = ground.factory.release.maker
        release = await asyncio.to_thread(publish_line, maker, self._images, self._work / "release", screen.step)
        self.digests = await asyncio.to_thread(_digests, release, self._images)
        devices = await self._cleanup.enter_async_context(line_devices(self._work / "devices", release))
        self._devices = devices
        await ground.upstream.start()
        await ground.gateway.grow(ground.factory.disk, devices.sections())
        self._cleanup.push_async_callback(self._power_off)
        await self._power_on(release)
        await self._until("all four are there", _all_known)
        await ground.gateway.client.refresh(REPOSITORY)

    async def run(self, version: str) -> LineRun:
        """Carry release `version` out, whatever it ends as; then cut the power, and read."""
        client, began_s = self._ground.gateway.client, time.monotonic()
        planned = await client.judge_plan(PlanRequest(release=f"line-{version}", repository=REPOSITORY))
        if planned.schedule is None:
            raise StateError(f"the line's plan {version} was refused: {planned.refused}")
        order = tuple(tuple(device.id for device in step) for step in planned.schedule.steps)
        because = "; ".join(edge.reason for edge in planned.schedule.edges)
        self._ground.screen.step(f"release line-{version}: {', then '.join(', '.join(step) for step in order)} ({because})")
        begun = await client.start_release(StartRequest(release=f"line-{version}", repository=REPOSITORY, reason="demo"))
        ended = await self._ended(begun.id)
        self._ground.screen.step(f"release line-{version} is {ended.standing}{f': {ended.why}' if ended.why else ''}")
        seconds = round(time.monotonic() - began_s, 1)
        return LineRun(version, order, ended.ending, ended.why, seconds, await self.read())

    async def read(self) -> tuple[LineDevice, ...]:
        """Every device, after its power was cut."""
        if self._devices is None or self._board is None:
            raise StateError("the line was not set up")
        starts = len(self._board.starts)
        await self._board.off()
        self._board.power_on()
        async with asyncio.timeout(_PATIENCE_S):
            while len(self._board.starts) == starts:  # noqa: ASYNC110 - the board has nobody to tell
                await asyncio.sleep(_LOOK_S)
        slot = self._board.starts[-1]
        digest = await asyncio.to_thread(slot_digest, self._ground.factory.work / "nodes" / CONTROLLER, slot)
        says = next((version for (device, version), each in self.digests.items() if (device, each) == (CONTROLLER, digest)), "")
        others = await asyncio.to_thread(self._devices.read)
        return (LineDevice(CONTROLLER, "linux", says, digest), *others)

    async def _power_on(self, release: LineRelease) -> None:
        ground = self._ground
        token = await ground.gateway.client.token(TokenRequest(node=CONTROLLER, valid_s=3600, reason="demo"))
        factory = replace(
            ground.factory,
            images=self._images,
            release=replace(ground.factory.release, built=release.controllers),
            hardware=hardware_of(CONTROLLER),
        )
        self._board = await asyncio.to_thread(factory.make, Plan(CONTROLLER, OLD), token.token)
        self._board.power_on()

    async def _power_off(self) -> None:
        if self._board is not None:
            await self._board.off()

    async def _ended(self, number: int) -> ReleaseState:
        state = await self._ground.gateway.client.release(number)
        async with asyncio.timeout(_PATIENCE_S):
            while not state.ending:
                await self._look()
                await asyncio.sleep(_LOOK_S)
                state = await self._ground.gateway.client.release(number)
        return state

    async def _until(self, what: str, condition: Callable[[Sequence[NodeState]], bool]) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while not condition(await self._look()):  # noqa: ASYNC110 - the gateway is asked, it does not call
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError as error:
            raise StateError(f"not so in {_PATIENCE_S:g} s: {what}; the logs are in {self._ground.factory.work}") from error

    async def _look(self) -> Sequence[NodeState]:
        try:
            nodes = await self._ground.gateway.client.nodes()
        except WireError:
            return ()
        self._ground.screen.update(nodes, self._ground.upstream.traffic.sent_bytes)
        return nodes


def _all_known(nodes: Sequence[NodeState]) -> bool:
    return set(HARDWARE) <= {node.id for node in nodes if node.running.version}


def _digests(release: LineRelease, images: Mapping[str, DemoImage]) -> Mapping[tuple[str, str], str]:
    known = {key: str(digest_of(data)) for key, data in release.content.items()}
    return known | {(CONTROLLER, version): str(digest_file(image.path)[0]) for version, image in images.items()}
