"""How the real servers are had: only what is pinned is believed, and what is there is not fetched again."""

import re
import stat
from pathlib import Path

import pytest

from tests.interop.servers import hawkbit_parts, install, rauc_hawkbit_parts, tuspy_parts, wfx_parts
from tests.interop.servers.steps import CannotInstallError, program, run

COPIES_JUNK = """#!/bin/sh
sed -n 's:.*<outputDirectory>\\(.*\\)</outputDirectory>.*:\\1:p' pom.xml > where
grep -o '<artifactId>[^<]*</artifactId><version>[^<]*' pom.xml | sed 's:<artifactId>::; s:</artifactId><version>:-:' |
while read -r jar; do echo junk > "$(cat where)/$jar.jar"; done
"""
ANSWERS_WITH_ANOTHER_DIGEST = """#!/bin/sh
case "$1" in
version) echo go version go1.25.3 linux/amd64 ;;
mod) echo '{"Sum": "h1:anothermodule=", "Dir": "/"}' ;;
*) exit 9 ;;
esac
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that are found first; everything is installed below `tmp_path`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    for module in (hawkbit_parts, wfx_parts, rauc_hawkbit_parts, tuspy_parts):
        monkeypatch.setattr(module, "_MARK", tmp_path / f"{module.__name__}.mark")
    monkeypatch.setattr(hawkbit_parts, "_FOLDER", tmp_path / "hawkbit")
    monkeypatch.setattr(hawkbit_parts, "_JARS", tmp_path / "hawkbit" / "lib")
    monkeypatch.setattr(rauc_hawkbit_parts, "PYTHON", tmp_path / "python3")
    monkeypatch.setattr(wfx_parts, "_GO", tmp_path / "go")
    monkeypatch.setattr(wfx_parts, "PROGRAM", tmp_path / "wfx" / "wfx")
    return folder


def have(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(script)
    (folder / name).chmod(stat.S_IRWXU)


def test_every_part_of_hawkbit_is_pinned_once() -> None:
    parts = hawkbit_parts.parts()
    assert all(re.fullmatch(r"[0-9a-f]{64}", part.sha256) for part in parts)
    assert len({part.file for part in parts}) == len({(part.group, part.artifact) for part in parts}) == len(parts)
    own = {part.version for part in parts if part.group == "org.eclipse.hawkbit"}
    assert own == {hawkbit_parts.VERSION}


def test_a_jar_that_is_not_the_pinned_one_is_refused_and_nothing_counts_as_installed(programs: Path) -> None:
    have(programs, "mvn", COPIES_JUNK)
    have(programs, "javac", "#!/bin/sh\nexit 0\n")
    with pytest.raises(CannotInstallError, match=hawkbit_parts.parts()[0].sha256):
        hawkbit_parts.install(print)
    assert not hawkbit_parts.is_installed()


def test_a_module_that_is_not_the_pinned_one_is_refused_before_it_is_built(programs: Path) -> None:
    have(programs, "go", ANSWERS_WITH_ANOTHER_DIGEST)
    have(programs, "gcc", "#!/bin/sh\nexit 0\n")
    with pytest.raises(CannotInstallError, match="h1:anothermodule="):
        wfx_parts.install(print)
    assert not wfx_parts.is_installed()


def test_what_was_installed_from_the_same_inputs_is_not_installed_again(programs: Path) -> None:
    wfx_parts.PROGRAM.parent.mkdir()
    wfx_parts.PROGRAM.touch()
    wfx_parts._MARK.write_text("of something older")
    assert not wfx_parts.is_installed()
    wfx_parts._MARK.write_text(wfx_parts._inputs())
    said: list[str] = []
    wfx_parts.install(said.append)
    assert said == [f"wfx {wfx_parts.WFX.version}: is there"]


def test_an_absent_program_is_named_with_its_package(programs: Path) -> None:
    with pytest.raises(CannotInstallError, match="Debian package some-package"):
        program("a-program-that-nobody-has", "some-package")


def test_what_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(CannotInstallError, match=r"(?s)ended with 3.*no such module"):
        run(["sh", "-c", "echo no such module >&2; exit 3"], folder=tmp_path, patience_s=60)


def test_what_hangs_is_ended(tmp_path: Path) -> None:
    with pytest.raises(CannotInstallError, match="more than 1 s"):
        run(["sleep", "600"], folder=tmp_path, patience_s=1)


def test_one_server_that_cannot_be_had_does_not_keep_from_the_other(programs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    have(programs, "mvn", "#!/bin/sh\necho no network\nexit 1\n")
    have(programs, "javac", "#!/bin/sh\nexit 0\n")
    wfx_parts.PROGRAM.parent.mkdir()
    wfx_parts.PROGRAM.touch()
    wfx_parts._MARK.write_text(wfx_parts._inputs())
    tuspy_parts._MARK.write_text(tuspy_parts._digest())
    assert install.main() == 1
    said = capsys.readouterr().out
    assert "no network" in said
    assert "wfx v0.6.0: is there" in said
    assert "python3-gi" in said
    assert "2 of 4 could not be had" in said


@pytest.mark.parametrize(("says", "words"), [("exit 1", "cannot import gi"), ("echo 2.7", "is Python 2.7, our own is")])
def test_another_python_than_ours_does_not_run_the_client(programs: Path, says: str, words: str) -> None:
    have(programs.parent, "python3", f"#!/bin/sh\n{says}\n")
    with pytest.raises(CannotInstallError, match=words):
        rauc_hawkbit_parts.install(print)
    assert not rauc_hawkbit_parts.is_installed()
