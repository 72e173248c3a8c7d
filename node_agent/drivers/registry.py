"""Drivers and bootloaders by the name that the configuration gives them.

A technician adds a kind by copying one file and adding one line here. The modules are imported only when named, so that a
device does not load what it has no use for.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Final, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from node_agent.bootloaders.bootloader import Bootloader
from node_agent.drivers.driver import Driver, Surroundings
from update.durable import Disk
from update.errors import ConfigurationError

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Kind:
    """Where a kind's configuration class and its maker are, as `module:name`.

    `switches`: a driver that needs no bootloader. `own_machine`: its device is the machine that the agent runs on, unless the
    option `unless` is switched on. `places`: groups of options that say where the device is, of which no two devices share one; a
    group of which one is empty says nothing.
    """

    config: str
    maker: str
    switches: bool = False
    own_machine: bool = False
    unless: str = ""
    places: tuple[tuple[str, ...], ...] = ()


_IMAGES: Final = ("firmware_folder", "prefix")

DRIVERS: Final[Mapping[str, Kind]] = {
    "linux": Kind("node_agent.drivers.linux:LinuxConfig", "node_agent.drivers.linux:LinuxDriver", own_machine=True),
    "rauc": Kind(
        "node_agent.drivers.installers.rauc:RaucConfig",
        "node_agent.drivers.installers.rauc:RaucDriver",
        switches=True,
        own_machine=True,
    ),
    "swupdate": Kind(
        "node_agent.drivers.installers.swupdate:SwupdateConfig",
        "node_agent.drivers.installers.swupdate:SwupdateDriver",
        own_machine=True,
    ),
    "swupdate-web": Kind(
        "node_agent.drivers.swupdate_web.device:SwupdateWebConfig",
        "node_agent.drivers.swupdate_web.device:SwupdateWebDriver",
        switches=True,
        places=(("url",),),
    ),
    "fpga_flash": Kind(
        "node_agent.drivers.fpga_flash:FpgaFlashConfig",
        "node_agent.drivers.fpga_flash:create",
        switches=True,
        places=(("programmer",), ("chip_file",)),
    ),
    "fpga_manager": Kind(
        "node_agent.drivers.fpga_manager:FpgaManagerConfig",
        "node_agent.drivers.fpga_manager:create",
        switches=True,
        places=(("root", "manager"), _IMAGES),
    ),
    "mcuboot": Kind(
        "node_agent.drivers.mcuboot:McubootConfig",
        "node_agent.drivers.mcuboot:McubootDriver",
        switches=True,
        places=(("port",), ("host", "udp_port")),
    ),
    "command": Kind(
        "node_agent.drivers.command:CommandConfig",
        "node_agent.drivers.command:create",
        switches=True,
        places=(("address",), ("archive",)),
    ),
    "remoteproc": Kind(
        "node_agent.drivers.remoteproc:RemoteprocConfig",
        "node_agent.drivers.remoteproc:create",
        switches=True,
        places=(("root", "processor"), _IMAGES),
    ),
    "simulated": Kind(
        "node_agent.drivers.simulated:SimulatedConfig",
        "node_agent.drivers.simulated:SimulatedDriver",
        own_machine=True,
        unless="restarts",
    ),
}

NO_BOOTLOADER: Final = "none"

BOOTLOADERS: Final[Mapping[str, Kind]] = {
    NO_BOOTLOADER: Kind("node_agent.bootloaders.none:NoBootloaderConfig", "node_agent.bootloaders.none:create"),
    "uboot": Kind("node_agent.bootloaders.uboot:UbootConfig", "node_agent.bootloaders.uboot:create"),
    "simulated": Kind("node_agent.bootloaders.simulated:SimulatedBootloaderConfig", "node_agent.bootloaders.simulated:create"),
}


def check_pair(driver: str, bootloader: str) -> None:
    """`ConfigurationError` for a driver that needs a bootloader and has none, or that brings its own and has another."""
    switches = _find(DRIVERS, "driver", driver).switches
    if switches and bootloader != NO_BOOTLOADER:
        raise ConfigurationError(f'bootloader.kind: the driver {driver} switches slots itself; write kind = "{NO_BOOTLOADER}"')
    if not switches and bootloader == NO_BOOTLOADER:
        raise ConfigurationError(f"bootloader.kind: the driver {driver} needs a bootloader that switches its slots; name it")


def check_attached(driver: str, options: Mapping[str, object]) -> None:
    """`ConfigurationError` for a driver whose device is the machine it runs on: a gateway does not restart for a device."""
    found = _find(DRIVERS, "driver", driver)
    if not found.own_machine or options.get(found.unless) is True:
        return
    if found.unless:
        raise ConfigurationError(f"driver.{driver}.{found.unless} must be true for a device of a gateway, which does not restart")
    attached = ", ".join(sorted(name for name, kind in DRIVERS.items() if not kind.own_machine or kind.unless))
    raise ConfigurationError(
        f"driver.kind: the driver {driver} updates the machine that it runs on; for devices of a gateway there are {attached}"
    )


def places(driver: str, options: Mapping[str, object]) -> frozenset[str]:
    """Where a driver's device is, for people: what it shares with no other. `options` are settled (`settled_driver`)."""
    groups = [[(key, options.get(key)) for key in group] for group in _find(DRIVERS, "driver", driver).places]
    whole = [group for group in groups if all(value not in {None, "", Path()} for _, value in group)]
    return frozenset(", ".join(f"{key} = {_real(value)}" for key, value in group) for group in whole)


def _real(value: object) -> str:
    """A path of the system by its own name: serial ports have several."""
    text = str(value)
    return str(Path(text).resolve()) if text.startswith("/") else text


def settled_driver(kind: str, options: Mapping[str, object], folder: Path) -> dict[str, object]:
    """`options` complete, with every path meant from `folder`, without making anything. Errors: as `make_driver`."""
    return _settled("driver", _find(DRIVERS, "driver", kind), kind, options, folder)


def settled_bootloader(kind: str, options: Mapping[str, object], folder: Path) -> dict[str, object]:
    """The same of a bootloader."""
    return _settled("bootloader", _find(BOOTLOADERS, "bootloader", kind), kind, options, folder)


def make_driver(kind: str, options: Mapping[str, object], folder: Path, surroundings: Surroundings) -> Driver:
    """The driver `kind`; relative paths in `options` are meant from `folder`. Errors: `ConfigurationError` names the key."""
    found = _find(DRIVERS, "driver", kind)
    maker = cast("Callable[[object, Surroundings], Driver]", resolve(found.maker))
    return maker(_configuration(f"driver.{kind}", found, options, folder), surroundings)


def make_bootloader(kind: str, options: Mapping[str, object], folder: Path, disk: Disk) -> Bootloader:
    """The bootloader `kind`; as `make_driver`."""
    found = _find(BOOTLOADERS, "bootloader", kind)
    maker = cast("Callable[[object, Disk], Bootloader]", resolve(found.maker))
    return maker(_configuration(f"bootloader.{kind}", found, options, folder), disk)


def resolve(place: str) -> object:
    """What a string `module:name` of the tables stands for."""
    module, _, name = place.partition(":")
    found: object = getattr(import_module(module), name)
    return found


def _find(kinds: Mapping[str, Kind], what: str, name: str) -> Kind:
    if name not in kinds:
        raise ConfigurationError(f"no {what} is called {name[:80]!r}; there are {', '.join(sorted(kinds))}")
    return kinds[name]


def _settled(what: str, found: Kind, name: str, options: Mapping[str, object], folder: Path) -> dict[str, object]:
    value = _configuration(f"{what}.{name}", found, options, folder)
    settled: dict[str, object] = TypeAdapter(cast("type[object]", resolve(found.config))).dump_python(value)
    return settled


def _configuration(where: str, kind: Kind, options: Mapping[str, object], folder: Path) -> object:
    adapter = TypeAdapter(cast("type[object]", resolve(kind.config)))
    try:
        return _rooted(adapter.validate_python(dict(options)), folder)
    except ValidationError as error:
        mistakes = [f"{where}.{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_input=False)]
        raise ConfigurationError("; ".join(mistakes)) from error


def _rooted(value: _T, folder: Path) -> _T:
    """`value` with every relative path in it meant from `folder`."""
    rooted: object = value
    if isinstance(value, Path):
        rooted = folder / value
    elif isinstance(value, tuple):
        rooted = tuple(_rooted(each, folder) for each in value)
    elif is_dataclass(value) and not isinstance(value, type):
        rooted = replace(value, **{field.name: _rooted(getattr(value, field.name), folder) for field in fields(value)})
    return cast("_T", rooted)
