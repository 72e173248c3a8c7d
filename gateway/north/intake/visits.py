"""Sees media come, has each adopted, orders what it brought, and answers until the nodes are through with it.

The answer of every medium is written on entering each course, so a gateway that was killed goes on: with the adoption while the
medium is still here, with the nodes in any case. A visit that has an answer beyond `adopting` is never adopted again. What became
of it is reported before the answer says so, and once more when the nodes have ended (`reports`).
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from gateway.database.records import ActionOutcome
from gateway.fleet.by_hand import ByHand, Carrier
from gateway.fleet.stale import StalePermits
from gateway.north.intake.adoption import Adopted, Adopter
from gateway.north.intake.desk import Desk
from gateway.north.intake.reports import Reports
from media.intake import Intake, media_in
from media.records import MAX_CONTENTS, MAX_NODES, Answer, Course, NodeResult, Offer, Verdict
from update.durable import Disk
from update.errors import FieldrelayError, StoreError

_LOG = logging.getLogger(__name__)

LOOK_S: Final = 0.2
_WELL = frozenset({ActionOutcome.SUCCESS, ActionOutcome.UNVERIFIED, ActionOutcome.DOWNLOADED, ActionOutcome.SUPERSEDED})
_TOLD_EVERY_S: Final = 0.5
_NODES_EVERY_S: Final = 1.0
_REPORT_AGAIN_S: Final = 10.0
_ENDED = frozenset({Course.DONE, Course.FAILED})


@dataclass(slots=True)
class _Count:
    taken: int = 0
    wanted: int = 0


class Visits:
    """All media of one gateway. `install`: order what came; otherwise it is only kept."""

    def __init__(
        self,
        disk: Disk,
        root: Path,
        adopter: Adopter,
        by_hand: ByHand,
        *,
        reports: Reports,
        permits: StalePermits,
        now: Callable[[], datetime],
        install: bool,
    ) -> None:
        self._disk = disk
        self._root = root
        self._adopter = adopter
        self._by_hand = by_hand
        self._reports = reports
        self._permits = permits
        self._now = now
        self._install = install
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Until cancelled."""
        await asyncio.to_thread(self._disk.make_folder, self._root, mode=0o770)
        try:
            while True:
                for intake in await asyncio.to_thread(lambda: list(media_in(self._disk, self._root))):
                    self._begin(intake)
                await asyncio.sleep(LOOK_S)
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _begin(self, intake: Intake) -> None:
        task = self._tasks.get(intake.medium)
        if task is None or task.done():
            if task is not None and not task.cancelled() and (error := task.exception()) is not None:
                _LOG.error("medium %s: %s", intake.medium, error, exc_info=error)
            self._tasks[intake.medium] = asyncio.create_task(self._serve(intake))

    async def _serve(self, intake: Intake) -> None:
        """One visit, if there is one that has no answer, else the nodes of the last one."""
        offer, answer = await asyncio.to_thread(intake.offer), await asyncio.to_thread(intake.answer)
        if offer is not None and (answer is None or answer.visit != offer.visit or answer.course is Course.ADOPTING):
            await self._visit(intake, offer)
        elif answer is not None and answer.course is Course.UPDATING:
            await self._follow(intake, answer, offer)
        elif answer is not None and answer.course in _ENDED and answer.reported != answer.course:
            await self._report_later(intake, answer, offer)

    async def _visit(self, intake: Intake, offer: Offer) -> None:
        permit = self._permits.take(offer.medium)
        answer = Answer(medium=offer.medium, visit=offer.visit, course=Course.ADOPTING, since=self._seconds(), stale=permit.words)
        intake.write_answer(answer)
        count = _Count()
        telling = asyncio.create_task(self._tell(intake, answer, count))
        try:
            adopted = await self._adopt(intake, offer, count, permit.grace)
        except FieldrelayError as error:
            _LOG.warning("medium %s: %s (%s)", offer.medium, error, error.code)
            ended = replace(answer, course=Course.FAILED, code=error.code, message=str(error)[:1000])
        else:
            ended = await self._ended(offer, answer, adopted)
        finally:
            telling.cancel()
            await asyncio.wait({telling})
        taken = count.taken
        ended = replace(ended, since=self._seconds(), taken_bytes=taken if _brought(ended) else 0, wanted_bytes=taken)
        intake.write_answer(await self._reported(ended, offer))
        _LOG.info("medium %s: %s, %s bytes taken", offer.medium, ended.course, taken)

    async def _adopt(self, intake: Intake, offer: Offer, count: _Count, grace: timedelta) -> Adopted:
        def took(size: int) -> None:
            count.taken += size

        def lacks(size: int) -> None:
            count.wanted += size

        return await self._adopter.adopt(Desk(intake, offer, took), offer, lacks, grace=grace)

    async def _ended(self, offer: Offer, answer: Answer, adopted: Adopted) -> Answer:
        answer = replace(answer, contents=adopted.contents[:MAX_CONTENTS])
        refused = next((content for content in adopted.contents if content.verdict is Verdict.REFUSED), None)
        if refused is not None and not (adopted.repositories or adopted.singles):
            return replace(answer, course=Course.FAILED, code=refused.code, message=refused.message)
        nodes: tuple[NodeResult, ...] = ()
        if self._install:
            carrier = Carrier(f"medium:{offer.visit}", offer.label or offer.medium, offer.left_in)
            nodes = await self._by_hand.order(adopted.repositories, adopted.singles, carrier)
        if refused is not None:
            answer = replace(answer, code=refused.code, message=refused.message)
        return with_nodes(answer, nodes[:MAX_NODES])

    async def _follow(self, intake: Intake, answer: Answer, offer: Offer | None) -> None:
        """Tell how the nodes get on, until all have ended or another visit has begun."""
        visit = offer.visit if offer else answer.visit
        while answer.course is Course.UPDATING:
            await asyncio.sleep(_NODES_EVERY_S)
            fresh = with_nodes(answer, await self._by_hand.look(answer.nodes))
            if fresh != answer:
                answer = replace(fresh, since=self._seconds())
                if answer.course in _ENDED:
                    answer = await self._reported(answer, offer)
                await asyncio.to_thread(intake.write_answer, answer)
            now = await asyncio.to_thread(intake.offer)
            if now is not None and now.visit != visit:
                return

    async def _tell(self, intake: Intake, answer: Answer, count: _Count) -> None:
        """Tell how much has come."""
        while True:
            await asyncio.sleep(_TOLD_EVERY_S)
            wanted = max(count.wanted, count.taken) if count.wanted else 0  # until the metadata is read, nobody knows
            try:
                told = replace(answer, taken_bytes=count.taken, wanted_bytes=wanted)
                await asyncio.to_thread(intake.write_answer, told)
            except StoreError as error:
                _LOG.warning("cannot tell how far medium %s is: %s (%s)", intake.medium, error, error.code)

    async def _reported(self, answer: Answer, offer: Offer | None) -> Answer:
        """The answer once it is reported; as it was where that cannot be now."""
        same = offer is not None and offer.visit == answer.visit
        label = offer.label if same and offer is not None else answer.medium
        try:
            await self._reports.compose(answer, label)
        except StoreError as error:
            _LOG.error("cannot report on medium %s yet: %s (%s)", answer.medium, error, error.code)
            return answer
        return replace(answer, reported=answer.course)

    async def _report_later(self, intake: Intake, answer: Answer, offer: Offer | None) -> None:
        """What could not be reported when it ended, or ended just before the gateway did."""
        told = await self._reported(answer, offer)
        if told != answer:
            await asyncio.to_thread(intake.write_answer, told)
        else:
            await asyncio.sleep(_REPORT_AGAIN_S)

    def _seconds(self) -> int:
        return int(self._now().timestamp())


def with_nodes(answer: Answer, nodes: tuple[NodeResult, ...]) -> Answer:
    """The same with how the nodes stand; once all have ended it is done, or failed with the first reason."""
    done = sum(1 for node in nodes if node.outcome)
    fresh = replace(answer, nodes=nodes, done=done, total=len(nodes))
    if done < len(nodes):
        return replace(fresh, course=Course.UPDATING)
    bad = next((node for node in nodes if node.outcome not in _WELL), None)
    if bad is None:
        return replace(fresh, course=Course.DONE)
    return replace(fresh, course=Course.FAILED, code=bad.code or bad.outcome, message=f"{bad.node}: {bad.message}"[:1000])


def _brought(answer: Answer) -> bool:
    return any(content.verdict is Verdict.ACCEPTED for content in answer.contents)
