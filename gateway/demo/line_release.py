"""What the demo's maker publishes for a line: bundles for a controller, a motor, an FPGA and a radio, and plans for all four.

Everything goes through `update.publish`, as `fieldrelay bundle build`, `repo add` and `repo add-plan` do. Each release has its
plan, `line-VERSION`: a motor of the new version needs the new controller, so the motor is last, and the first to go back.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from gateway.demo.images import DemoImage
from gateway.demo.release import REPOSITORY, SLOTS, Maker, device_of
from gateway.simulators.cpu import make_firmware
from gateway.simulators.fpga import make_bitstream
from gateway.simulators.mcu_image import make_mcu_image
from update.plans.document import PLAN_SUFFIX, plan_bytes
from update.publish.bundles import BuiltBundle, build_bundle
from update.publish.plans import load_plan
from update.publish.spec import load_spec
from update.trust.verified import TargetCustom, UpdateClass

OLD, GOOD, BAD = "1.0", "1.1", "1.2"
CONTROLLER, MOTOR, FPGA, RADIO = "press-1", "motor-1", "fpga-1", "radio-1"
HARDWARE = {CONTROLLER: ("press", "1.0"), MOTOR: ("motor", "1.0"), FPGA: ("fpga", "1.0"), RADIO: ("radio", "1.0")}
SELECTION = "stable,main"
_DEVICES = {MOTOR: "mcu", FPGA: "fpga", RADIO: "cpu"}
_FIRST_COUNTER = 200
_BODY_BYTES = 20_000

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class LineRelease:
    """`controllers` by version; `content` is the image of each device that has no agent, by node and version."""

    controllers: Mapping[str, BuiltBundle]
    content: Mapping[tuple[str, str], bytes]


def publish_line(maker: Maker, images: Mapping[str, DemoImage], work: Path, progress: Progress) -> LineRelease:
    """Build and list three versions of everything, and a plan for each of the two newer ones; all of it is published once."""
    maker.disk.make_folder(work)
    controllers, content = {}, {}
    for number, version in enumerate((OLD, GOOD, BAD)):
        progress(f"building and signing the line's bundles {version}")
        counter = _FIRST_COUNTER + number
        controllers[version] = _add_controller(maker, images[version], work, counter)
        for node in _DEVICES:
            content[node, version] = _image(node, version)
            maker.disk.write_file(_file(work, node, version), content[node, version])
            _add_device(maker, node, version, work, counter)
        if version != OLD:
            _add_plan(maker, version, work, counter)
    maker.publish("targets")
    return LineRelease(controllers, content)


def hardware_of(node: str) -> str:
    """As metadata and configurations name it."""
    return ":".join(HARDWARE[node])


def _image(node: str, version: str) -> bytes:
    body = Random(f"{node} {version}").randbytes(_BODY_BYTES)  # noqa: S311 - images must repeat
    if node == MOTOR:
        return make_mcu_image(f"{version}.0", body)
    if node == FPGA:
        return make_bitstream(version, body + b"\0")  # erased flash is not its end
    return make_firmware(version)


def _add_controller(maker: Maker, image: DemoImage, work: Path, counter: int) -> BuiltBundle:
    slots = "".join(f'[[slots]]\nset = "{key.split(",")[0]}"\nmode = "{key.split(",")[1]}"\n' for key in SLOTS.values())
    other = {"a": "b", "b": "a"}
    devices = ", ".join(f'"{key}" = "{device_of(slot)}"' for slot, key in SLOTS.items())
    sources = ", ".join(f'"{key}" = "{device_of(other[slot])}"' for slot, key in SLOTS.items())
    text = (
        f'{_head(CONTROLLER, image.version)}{slots}[[images]]\nname = "press"\nfile = "{image.path}"\ntype = "delta"\n'
        f"devices = {{ {devices} }}\nsources = {{ {sources} }}\n"
    )
    built, custom = _built(maker, CONTROLLER, image.version, text, work), _custom(CONTROLLER, image.version, counter)
    maker.repository.add(built.file, f"line/{built.file.name}", custom)
    for delta in built.deltas:
        maker.repository.add(delta.file, delta.file.name, replace(custom, zck_header=delta.header))
    return built


def _add_device(maker: Maker, node: str, version: str, work: Path, counter: int) -> None:
    software_set, _, mode = SELECTION.partition(",")
    text = (
        f'{_head(node, version)}[[slots]]\nset = "{software_set}"\nmode = "{mode}"\n[[images]]\nname = "image"\n'
        f'file = "{_file(work, node, version)}"\ntype = "raw"\ndevices = {{ "{SELECTION}" = "{_DEVICES[node]}" }}\n'
    )
    built = _built(maker, node, version, text, work)
    maker.repository.add(built.file, f"line/{built.file.name}", _custom(node, version, counter))


def _file(work: Path, node: str, version: str) -> Path:
    return work / f"{node}-{version}.bin"


def _head(node: str, version: str) -> str:
    board, revision = HARDWARE[node]
    hardware = f'hardware = {{ board = "{board}", revisions = ["{revision}"] }}'
    return f'[bundle]\nname = "{board}"\nversion = "{version}"\nrepository = "{REPOSITORY}"\n{hardware}\n'


def _built(maker: Maker, node: str, version: str, spec: str, work: Path) -> BuiltBundle:
    file = work / f"{node}-{version}.toml"
    maker.disk.write_file(file, spec.encode())
    return build_bundle(load_spec(file), work / "bundles" / f"{node}-{version}", [maker.signer], maker.disk)


def _custom(node: str, version: str, counter: int) -> TargetCustom:
    return TargetCustom(
        hw_ids=(hardware_of(node),),
        version=version,
        release_counter=counter,
        security_counter=1,
        update_class=UpdateClass.FUNCTION,
    )


def _add_plan(maker: Maker, version: str, work: Path, counter: int) -> None:
    """The plan as a release engineer writes it."""
    members = "".join(
        f'[[members]]\nname = "{board}"\nselect = {{ nodes = ["{node}"] }}\nbundle = "line/{board}-{version}.swu"\n'
        for node, (board, _) in HARDWARE.items()
    )
    needs = f'[[requirements]]\nneed = "press >= {version}"\nwhile = "motor >= {version}"\n'
    file = work / f"line-{version}.toml"
    maker.disk.write_file(file, f'format_version = 1\n[plan]\nname = "line"\nversion = "{version}"\n{members}{needs}'.encode())
    plan = load_plan(file, maker.repository.listed())
    made = file.with_name(f"{plan.name}-{plan.version}{PLAN_SUFFIX}")
    maker.disk.write_file(made, plan_bytes(plan))
    custom = TargetCustom(version=version, release_counter=counter, plan=plan.name)
    maker.repository.add(made, f"line/{made.name}", custom)
