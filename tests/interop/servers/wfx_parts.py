"""wfx, built from its Go module.

1. The module is pinned by its `h1:` digest here; everything that it needs is pinned by its own go.sum. The checksum database
   is therefore not asked: it may be out of reach where a module proxy is used.
2. wfx needs a Go of at least `NEEDED`. An older one (1.19 of Debian 12) fetches a newer one as a module, pinned likewise; Go
   1.21 to 1.24 asks the checksum database for that in any case.
3. SQLite is the only storage that is compiled in; its Go package needs a C compiler.
4. Its two DAU workflows come in the module's source tree.
"""

import json
import platform
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.interop.servers.steps import BUILT, CannotInstallError, Say, is_marked, program, run

NEEDED: Final = (1, 25)
PROGRAM: Final = BUILT / "wfx" / "wfx"
WORKFLOWS: Final = BUILT / "wfx" / "workflows"

_MARK = BUILT / "wfx" / "installed"
_GO = BUILT / "go"
_ENVIRONMENT = {
    "CGO_CFLAGS": "-O0",  # SQLite in a fraction of the time; a peer need not be fast
    "CGO_ENABLED": "1",
    "GOCACHE": str(_GO / "build"),
    "GOFLAGS": "-modcacherw -buildvcs=false",  # so that `make clean` may remove it
    "GOMODCACHE": str(_GO / "modules"),
    "GONOSUMDB": "*",  # rule 1
    "GOTOOLCHAIN": "local",
    "GOWORK": "off",
}
_TAGS = "no_mysql,no_postgres"
_PATIENCE_S = 900


@dataclass(frozen=True, slots=True)
class Module:
    """One version of a Go module; `digest` as in go.sum."""

    path: str
    version: str
    digest: str


WFX: Final = Module("github.com/siemens/wfx", "v0.6.0", "h1:p53s9q/NKMN1gVVrRyLm9eAhlp+1I/YO2P1dPoZBI3M=")
_TOOLCHAIN = Module("golang.org/toolchain", "v0.0.1-go1.26.0.linux-amd64", "h1:1p2G5COR51f8Q3EQ4HLJQDDL2ytLEqfL/yTawB0Jr8w=")


def is_installed() -> bool:
    """Whether this very version is there."""
    return PROGRAM.is_file() and is_marked(_MARK, _inputs())


def install(say: Say) -> None:
    """Have wfx; does nothing when it is there. Raises `CannotInstallError`."""
    if is_installed():
        say(f"wfx {WFX.version}: is there")
        return
    compiler = _go(say)
    program("gcc", "gcc")
    say(f"wfx {WFX.version}: its module through the Go module proxy")
    source = _download(compiler, WFX)
    say(f"wfx {WFX.version}: what it needs (100 MB), and the build")
    PROGRAM.parent.mkdir(parents=True, exist_ok=True)
    command = [compiler, "build", "-mod=readonly", "-trimpath", "-tags", _TAGS, "-o", str(PROGRAM), "./cmd/wfx"]
    run(command, folder=source, patience_s=_PATIENCE_S, environment=_ENVIRONMENT)
    shutil.rmtree(WORKFLOWS, ignore_errors=True)
    WORKFLOWS.mkdir()
    for file in (source / "workflow" / "dau").glob("*.yml"):
        (WORKFLOWS / file.name).write_bytes(file.read_bytes())
    _MARK.write_text(_inputs())
    shutil.rmtree(_GO)  # 400 MB and more that nothing needs again


def _go(say: Say) -> str:
    """A Go that is new enough: the installed one, or one that it fetches (rule 2)."""
    installed = program("go", "golang-go")
    said = run([installed, "version"], folder=_GO, patience_s=60, environment=_ENVIRONMENT)
    found = re.search(r"go(\d+)\.(\d+)", said)
    if found is not None and (int(found[1]), int(found[2])) >= NEEDED:
        return installed
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise CannotInstallError(f"{said.strip()} is too old for wfx {WFX.version}; install Go {NEEDED[0]}.{NEEDED[1]} or newer")
    say(f"wfx {WFX.version}: {said.strip()} is too old; a newer Go (70 MB) as a module")
    folder = _download(installed, _TOOLCHAIN)
    for tool in [*folder.glob("bin/*"), *folder.glob("pkg/tool/*/*")]:
        tool.chmod(0o755)  # archives of modules keep no modes
    return str(folder / "bin" / "go")


def _download(compiler: str, module: Module) -> Path:
    """The folder of `module`, whose digest is the pinned one."""
    command = [compiler, "mod", "download", "-json", f"{module.path}@{module.version}"]
    answer = json.loads(run(command, folder=_GO, patience_s=_PATIENCE_S, environment=_ENVIRONMENT))
    if answer["Sum"] != module.digest:
        raise CannotInstallError(
            f"{module.path} {module.version} has digest {answer['Sum']}, pinned is {module.digest}; "
            "do not use it, and look where it came from"
        )
    return Path(answer["Dir"])


def _inputs() -> str:
    return f"{WFX.path} {WFX.version} {WFX.digest} {_TAGS}"
