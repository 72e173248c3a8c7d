"""The maker in its own process: what it writes leads to the image, what it may take is bounded, and it ends with the gateway."""

import io
import os
import subprocess
from dataclasses import replace

import pytest

from gateway.south.pairs import maker
from gateway.south.pairs.maker import OUTCOME, Job, Outcome, make
from gateway.south.pairs.workshop import COMMAND
from tests.builders.pair_site import MEMORY, PairSite
from tests.update.chunks.edits import read_of
from update.chunks.pair import PatchForm, apply_pair
from update.digest import Digest, digest_file
from update.errors import CorruptError, LimitError, StoreError, UsageError


def run(job: Job | str) -> tuple[int, Outcome]:
    """As the gateway runs it: the standard input stays open."""
    text = job if isinstance(job, str) else job.as_json()
    with subprocess.Popen([*COMMAND, text], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        return process.wait(), OUTCOME.validate_json(output.splitlines()[-1])


@pytest.mark.parametrize("form", list(PatchForm))
def test_the_patch_leads_from_one_image_to_the_other_and_is_small(pair_site: PairSite, form: PatchForm) -> None:
    job, images = pair_site.job(form), pair_site.images
    outcome = make(job)
    assert (outcome.sha256, outcome.size) == digest_file(job.out)
    assert outcome.size < 100_000
    old, new, made = (images / "old").read_bytes(), (images / "new").read_bytes(), list[bytes]()
    patch = io.BytesIO(job.out.read_bytes())
    apply_pair(form, patch, read_of(old), len(old), made.append, size=len(new), memory_bytes=MEMORY)
    assert b"".join(made) == new


def test_an_image_with_another_header_is_not_taken(pair_site: PairSite) -> None:
    with pytest.raises(CorruptError, match="another header"):
        make(replace(pair_site.job(), old_header=Digest("0" * 64)))


def test_a_patch_that_grows_larger_than_the_chunks_is_given_up(pair_site: PairSite) -> None:
    with pytest.raises(LimitError, match="more than the 100 bytes"):
        make(pair_site.job(max_bytes=100))


def test_an_image_that_has_gone_is_named(pair_site: PairSite) -> None:
    with pytest.raises(StoreError, match="cannot open"):
        make(replace(pair_site.job(), new=pair_site.images / "gone.zck"))


def test_the_process_says_what_it_made(pair_site: PairSite) -> None:
    job = pair_site.job()
    status, outcome = run(job)
    assert (status, outcome.code) == (0, "")
    assert (outcome.sha256, outcome.size) == digest_file(job.out)


def test_too_little_memory_ends_in_a_word(
    pair_site: PairSite, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def greedy(_job: Job) -> Outcome:
        raise MemoryError

    monkeypatch.setattr(maker, "make", greedy)
    monkeypatch.setattr(maker, "_restricted", lambda job: job)
    monkeypatch.setattr("sys.argv", ["maker", pair_site.job().as_json()])
    assert maker.main() == LimitError.exit_status
    assert "maker_memory_bytes" in OUTCOME.validate_json(capsys.readouterr().out).message


def test_a_command_line_that_is_no_job_is_refused() -> None:
    status, outcome = run("{}")
    assert (status, outcome.code) == (UsageError.exit_status, UsageError.code)


def test_it_ends_when_the_gateway_does(pair_site: PairSite) -> None:
    """A job that would wait for ever: its old image is a pipe into which nobody writes."""
    pipe = pair_site.images.parent / f"pipe-{os.getpid()}"
    os.mkfifo(pipe)
    job = replace(pair_site.job(), old=pipe)
    with subprocess.Popen([*COMMAND, job.as_json()], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=120) == UsageError.exit_status
    pipe.unlink()
