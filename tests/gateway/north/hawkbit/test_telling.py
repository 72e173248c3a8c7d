"""Whatever nodes say arrives at hawkBit, however much it is and whatever happens meanwhile; what does not is counted."""

from collections.abc import Mapping

import pytest

from gateway.database.queries import outgoing
from gateway.database.records import Outgoing
from gateway.north.hawkbit import client, telling
from gateway.simulators.hawkbit import HawkbitSimulator
from gateway.simulators.hawkbit_actions import Quotas, SimulatedAction
from tests.builders.north_site import COMPANY, NorthSite
from update.wire import ddi


async def begun(site: NorthSite, simulator: HawkbitSimulator, bundle: bytes) -> SimulatedAction:
    number = simulator.holdings.assign("n1", simulator.holdings.publish("os", "1.2", "os.swu", bundle))
    await site.poll()
    found = await site.action("n1")
    assert found is not None
    await site.fleet.progress.offer("n1", found.id)
    return simulator.holdings.actions[number]


def lines(action: SimulatedAction) -> list[str]:
    return [line or "" for entry in action.entries for line in entry.messages]


async def waiting(site: NorthSite) -> list[Outgoing]:
    async with site.database.reading() as transaction:
        return list(await outgoing.waiting(transaction, COMPANY))


async def test_what_is_said_while_another_line_is_being_sent_is_told_too(
    site: NorthSite, simulator: HawkbitSimulator, bundle: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    action = await begun(site, simulator, bundle)
    sending = client.HawkbitClient.feedback
    spoken = iter(["said during the first", "said during the second"])

    async def send(
        self: client.HawkbitClient, controller: str, source: str, feedback: ddi.Feedback, *, cancel: bool = False
    ) -> None:
        if (word := next(spoken, None)) is not None:
            await site.say("n1", "proceeding", "none", word)
        await sending(self, controller, source, feedback, cancel=cancel)

    monkeypatch.setattr(client.HawkbitClient, "feedback", send)
    await site.say("n1", "proceeding", "none", "said before")
    for _ in range(3):
        site.clock.advance(telling.GATHERED_S)
        await site.deliver()
    await site.say("n1", "closed", "failure", "the end")
    await site.deliver()
    told = [line for line in lines(action) if line.startswith("said")]
    assert told == ["said before", "said during the first", "said during the second"]


async def test_a_report_of_more_than_a_message_takes_and_of_long_lines_is_told_whole(
    site: NorthSite, simulator: HawkbitSimulator, bundle: bytes
) -> None:
    action = await begun(site, simulator, bundle)
    details = [f"{number:03} " + f"{number:03}" * 400 for number in range(60)]
    await site.say("n1", "proceeding", "none", *details)
    await site.say("n1", "closed", "failure", "e" * 1100)
    await site.deliver()
    told = lines(action)
    assert "".join(told).count("".join(details)) == 1
    assert "e" * 1100 in "".join(told)
    assert all(len(line) <= 512 for line in told)
    assert all(len(entry.messages) <= 50 for entry in action.entries)


async def test_what_does_not_fit_waits_for_the_end_with_the_reason_in_it_and_the_number_of_lines_left_out(
    site: NorthSite, simulator: HawkbitSimulator, bundle: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "MOST_MESSAGES", 5)
    action = await begun(site, simulator, bundle)
    for number in range(300):
        await site.say("n1", "proceeding", "none", "ERROR: no such device" if number == 250 else f"step {number:03}")
        await site.deliver()
    (rest,) = await waiting(site)
    await site.say("n1", "closed", "failure", "it ended")
    assert len(await waiting(site)) == 2
    await site.deliver()
    told = lines(action)
    (left_out,) = (int(line.split()[0]) for line in told if line.endswith("lines left out"))
    steps = [line for line in told if line.startswith("step")]
    assert steps == sorted(steps)
    assert steps[-9:] == [f"step {number:03}" for number in range(291, 300)]
    assert "ERROR: no such device" in told
    assert "it ended" in told
    assert len(steps) + 1 + left_out == 300
    assert not rest.attempts, "it was kept back"


async def test_what_is_beyond_the_quota_of_reports_is_not_stored_here_but_told(
    site: NorthSite, simulator: HawkbitSimulator, bundle: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.fleet.progress.MAX_REPORTS", 3)
    simulator.holdings.quotas = Quotas()
    action = await begun(site, simulator, bundle)
    for number in range(8):
        await site.say("n1", "proceeding", "none", f"step {number}")
    await site.say("n1", "closed", "failure", "it ended")
    await site.deliver()
    assert [line for line in lines(action) if line.startswith("step")] == [f"step {number}" for number in range(8)]


def test_a_stored_body_is_told_with_what_was_left_out() -> None:
    body: Mapping[str, object] = {"execution": "proceeding", "finished": "none", "details": ["last"], "left_out": 7}
    assert telling.feedback_of(body).status.details == ("7 lines left out", "last")
