"""hawkBit's update server, put together from the parts that its project publishes.

1. `hawkbit.lock` names every jar with its SHA-256: what Maven resolves for hawkbit-boot-starter-ddi-api,
   hawkbit-boot-starter-mgmt-api and H2 under the versions of hawkbit-parent 0.3.0M7. Nothing is resolved again here: Maven
   copies exactly these, and each is compared with its digest before anything is run.
2. 0.3.0M7 is the newest release all of whose parts could be had when this was written (of later ones only hawkbit-core, and
   no release of hawkbit-update-server). What it lacks: the confirmation flow, `installedBase` and automatic confirmation.
3. The jar of the complete server would add a start class and the user interface; the start class is `HawkbitStart.java`.
   It is compiled for Java 8, as the class reader of this Spring Framework demands.
4. The parts run on Java 17 with some packages opened to reflection (`OPENED`).
"""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from tests.interop.servers.steps import BUILT, CannotInstallError, Say, is_marked, program, run

VERSION: Final = "0.3.0M7"
MAIN_CLASS: Final = "fieldrelay.peer.HawkbitStart"
OPENED: Final = ("java.lang", "java.lang.reflect", "java.text", "java.util")
"""Packages of java.base that its libraries reflect on."""

_FOLDER = BUILT / "hawkbit"
_JARS, _CLASSES, _MARK = _FOLDER / "lib", _FOLDER / "classes", _FOLDER / "installed"
_REPOSITORY = BUILT / "maven"
_LOCK = Path(__file__).with_name("hawkbit.lock")
_START = Path(__file__).with_name("HawkbitStart.java")
_COPIER = ("org.apache.maven.plugins", "maven-dependency-plugin", "2.10")  # newer ones also fetch the POM of every part
_PATIENCE_S = 600


@dataclass(frozen=True, slots=True)
class Part:
    """One jar."""

    sha256: str
    group: str
    artifact: str
    version: str

    @property
    def file(self) -> Path:
        return _JARS / f"{self.artifact}-{self.version}.jar"


def parts() -> list[Part]:
    """What `hawkbit.lock` names, in the order of the class path."""
    lines = (line.split() for line in _LOCK.read_text().splitlines() if line and not line.startswith("#"))
    return [Part(sha256, *coordinates.split(":")) for sha256, coordinates in lines]


def class_path() -> str:
    """What the server is run from."""
    return ":".join(map(str, [_CLASSES, *(part.file for part in parts())]))


def is_installed() -> bool:
    """Whether this very set of parts is there."""
    return is_marked(_MARK, _inputs())


def install(say: Say) -> None:
    """Have the server; does nothing when it is there. Raises `CannotInstallError`."""
    if is_installed() and all(_is_intact(part) for part in parts()):
        say(f"hawkBit {VERSION}: is there")
        return
    maven, compiler = program("mvn", "maven"), program("javac", "openjdk-17-jdk-headless")
    _MARK.unlink(missing_ok=True)
    say(f"hawkBit {VERSION}: {len(parts())} jars (50 MB) through Maven")
    _fetch(maven)
    say(f"hawkBit {VERSION}: its start class")
    shutil.rmtree(_CLASSES, ignore_errors=True)
    _CLASSES.mkdir(parents=True)
    command: list[str | Path] = [compiler, "--release", "8", "-Xlint:-options", "-cp", class_path(), "-d", _CLASSES, _START]
    run(command, folder=_FOLDER, patience_s=_PATIENCE_S)
    _MARK.write_text(_inputs())
    shutil.rmtree(_REPOSITORY)  # the parts are copied


def _fetch(maven: str) -> None:
    for part in parts():
        if part.file.exists() and not _is_intact(part):
            part.file.unlink()
    _JARS.mkdir(parents=True, exist_ok=True)
    project = _FOLDER / "pom.xml"
    project.write_text(_project())
    repository = f"-Dmaven.repo.local={_REPOSITORY}"
    run(
        [maven, "-B", "-q", "-ntp", "-f", str(project), repository, f"{':'.join(_COPIER)}:copy"],
        folder=_FOLDER,
        patience_s=_PATIENCE_S,
    )
    for part in parts():
        if not _is_intact(part):
            found = _sha256(part.file) if part.file.is_file() else "no file"
            raise CannotInstallError(
                f"{part.group}:{part.artifact}:{part.version} has SHA-256 {found}, hawkbit.lock says {part.sha256}; "
                "do not use it, and look where it came from"
            )


def _project() -> str:
    """A project whose only work is to copy the parts."""
    items = "".join(
        f"<artifactItem><groupId>{escape(part.group)}</groupId><artifactId>{escape(part.artifact)}</artifactId>"
        f"<version>{escape(part.version)}</version></artifactItem>"
        for part in parts()
    )
    group, artifact, version = _COPIER
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion><groupId>fieldrelay</groupId>'
        "<artifactId>hawkbit-peer</artifactId><version>1</version><packaging>pom</packaging><build><plugins><plugin>"
        f"<groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version><configuration>"
        f"<outputDirectory>{escape(str(_JARS))}</outputDirectory><artifactItems>{items}</artifactItems>"
        "</configuration></plugin></plugins></build></project>\n"
    )


def _inputs() -> str:
    return hashlib.sha256(_LOCK.read_bytes() + _START.read_bytes()).hexdigest()


def _is_intact(part: Part) -> bool:
    return part.file.is_file() and _sha256(part.file) == part.sha256


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
