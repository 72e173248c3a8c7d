from dataclasses import replace
from datetime import UTC, datetime

import pytest

from gateway.database.records import Action, ActionOutcome, ActionState, ClientKind, Commit, Handling, Release
from gateway.fleet.judgement import (
    INSTALLED,
    NOTHING,
    Judgement,
    Told,
    is_said_at_start,
    judge,
    judge_cancel,
    observe,
    runs_in_circles,
)
from update.digest import digest_of
from update.wire.ddi import Execution, Finished

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
RELEASE = Release("plant", "os.swu", digest_of(b"os"), 10, "1.2")
OPEN = Action(
    7, "n1", RELEASE, 1, Commit.COMMIT, ActionState.OPEN, "site", "uid 0", "", NOW, offered=NOW, superseded_by=None, end=None
)
WRITTEN = replace(OPEN, installed=NOW, boot_id="boot-1")


def told(execution: str, finished: str = "none", *details: str, outcome: str = "", proven: bool = True) -> Told:
    return Told("r", Execution(execution), Finished(finished), details=details, outcome=outcome, proven=proven)


def meant(kind: str, feedback: Told) -> ActionOutcome | str | None:
    judgement = judge(ClientKind(kind), feedback)
    return "installed" if judgement == INSTALLED else judgement.outcome


@pytest.mark.parametrize(
    ("feedback", "outcome"),
    [
        (told("closed", "success", outcome="confirmed"), ActionOutcome.SUCCESS),
        (told("closed", "success", outcome="confirmed", proven=False), "installed"),
        (told("closed", "success"), "installed"),
        (told("closed", "success", outcome="rolled-back"), ActionOutcome.ROLLED_BACK),
        (told("closed", "failure"), ActionOutcome.FAILURE),
        (told("closed", "failure", outcome="rolled-back"), ActionOutcome.ROLLED_BACK),
        (told("closed", "failure", outcome="refused"), ActionOutcome.REFUSED),
        (told("closed", "failure", outcome="inconsistent"), ActionOutcome.INCONSISTENT),
        (told("closed", "failure", outcome="cancelled"), ActionOutcome.CANCELLED),
        (told("closed", "failure", outcome="success"), ActionOutcome.FAILURE),
        (told("closed", "failure", outcome="confirmed"), ActionOutcome.FAILURE),
        (told("closed", "success", outcome="no such word"), ActionOutcome.FAILURE),
        (told("canceled", "success"), ActionOutcome.CANCELLED),
        (told("closed", "none"), "installed"),
        (told("proceeding", "success"), None),
        (told("download", "failure"), None),
        (told("downloaded", "success"), None),
        (told("rejected"), None),
    ],
)
def test_what_a_feedback_of_our_own_agent_means(feedback: Told, outcome: ActionOutcome | str | None) -> None:
    assert meant("agent", feedback) == outcome


@pytest.mark.parametrize(
    ("feedback", "outcome"),
    [
        (told("proceeding", "none", "Installing Update Chunk Artifacts."), None),
        (told("proceeding", "none", "Installed Chunk.", "All Chunks Installed."), "installed"),
        (told("closed", "success", "Update Installed."), ActionOutcome.SUCCESS),
        (told("closed", "success", "Skipped Update."), None),
        (told("closed", "none", "what is this"), "installed"),
        (told("closed", "failure", "No suitable .swu image found"), ActionOutcome.FAILURE),
        (told("canceled", "success"), ActionOutcome.CANCELLED),
    ],
)
def test_what_a_feedback_of_swupdate_means(feedback: Told, outcome: ActionOutcome | str | None) -> None:
    assert meant("swupdate", feedback) == outcome


@pytest.mark.parametrize(
    ("kind", "feedback", "at_start"),
    [
        ("swupdate", told("closed", "success", "Update Installed."), True),
        ("swupdate", told("closed", "failure", "Update Failed."), True),
        ("swupdate", told("closed", "failure", "No suitable .swu image found"), False),
        ("swupdate", told("proceeding", "none", "Update Installed."), False),
        ("rauc", told("closed", "success", "Update Installed."), False),
    ],
)
def test_only_swupdate_says_at_its_start_how_something_ended(kind: str, feedback: Told, at_start: bool) -> None:
    assert is_said_at_start(ClientKind(kind), feedback) is at_start


@pytest.mark.parametrize("kind", ["rauc", "zephyr"])
@pytest.mark.parametrize(
    ("feedback", "outcome"),
    [
        (told("proceeding", "none", "Download complete."), None),
        (told("downloaded", "success", "Download complete."), None),
        (told("closed", "success", "Software bundle installed successfully."), "installed"),
        (told("closed", "failure", "Failed to install software bundle."), ActionOutcome.FAILURE),
    ],
)
def test_a_client_that_closes_before_its_restart_has_installed_and_no_more(
    kind: str, feedback: Told, outcome: ActionOutcome | str | None
) -> None:
    assert meant(kind, feedback) == outcome


def test_a_download_only_action_ends_with_the_download() -> None:
    downloaded = told("downloaded", "success", "Download complete.")
    assert judge(ClientKind.RAUC, downloaded, Handling.DOWNLOAD_ONLY).outcome is ActionOutcome.DOWNLOADED
    failed = told("downloaded", "failure")
    assert judge(ClientKind.RAUC, failed, Handling.DOWNLOAD_ONLY) == NOTHING


@pytest.mark.parametrize(
    ("feedback", "outcome"),
    [
        (told("closed", "success"), ActionOutcome.CANCELLED),
        (told("closed", "none"), ActionOutcome.CANCELLED),
        (told("closed", "failure"), ActionOutcome.FAILURE),
        (told("canceled", "success"), None),
        (told("proceeding"), None),
    ],
)
def test_what_an_answer_to_a_cancellation_means(feedback: Told, outcome: ActionOutcome | None) -> None:
    assert judge_cancel(feedback) is outcome


@pytest.mark.parametrize(
    ("action", "version", "boot_id", "outcome"),
    [
        (WRITTEN, "1.2", "boot-2", ActionOutcome.SUCCESS),
        (WRITTEN, "1.1", "boot-2", ActionOutcome.ROLLED_BACK),
        (WRITTEN, "1.2", "boot-1", None),  # before its restart
        (WRITTEN, "1.1", "boot-1", None),
        (WRITTEN, "1.2", "", None),
        (WRITTEN, "", "boot-2", None),
        (replace(WRITTEN, boot_id=""), "1.2", "boot-2", None),  # whether it has restarted is not known
        (OPEN, "1.2", "boot-2", None),  # nothing was installed yet
        (replace(OPEN, boot_id="boot-1"), "1.2", "boot-2", ActionOutcome.SUCCESS),  # it was seen to begin
        (replace(OPEN, boot_id="boot-1"), "1.1", "boot-2", ActionOutcome.ROLLED_BACK),
        (replace(WRITTEN, release=replace(RELEASE, version="")), "1.2", "boot-2", None),  # nobody knows what it should run
    ],
)
def test_only_another_boot_after_the_installation_proves_something(
    action: Action, version: str, boot_id: str, outcome: ActionOutcome | None
) -> None:
    assert observe(action, version, boot_id).outcome is outcome


def test_a_rollback_names_both_versions() -> None:
    seen = observe(WRITTEN, "1.1", "boot-2")
    assert seen == Judgement(
        outcome=ActionOutcome.ROLLED_BACK, code="device.rolled-back", message="runs 1.1 after its restart, 1.2 was installed"
    )


@pytest.mark.parametrize(("kind", "times", "circles"), [("swupdate", 2, True), ("swupdate", 1, False), ("rauc", 2, False)])
def test_a_beginning_after_two_installations_is_a_circle(kind: str, times: int, circles: bool) -> None:
    begins = told("proceeding", "none", "Installing Update Chunk Artifacts.")
    said = [("Installing Update Chunk Artifacts.",), ("All Chunks Installed.",)] * times
    assert runs_in_circles(ClientKind(kind), said, begins) is circles
    assert not runs_in_circles(ClientKind(kind), said, told("proceeding"))


def test_the_words_of_a_feedback_are_the_message_or_the_last_line() -> None:
    assert told("closed", "failure", "first", "last").words == "last"
    assert replace(told("closed", "failure", "first"), message="no answer on :80").words == "no answer on :80"
    assert told("closed").words == ""
