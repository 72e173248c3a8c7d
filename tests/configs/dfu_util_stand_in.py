"""Stands in for dfu-util 0.11 with one device, `flash.bin` in a folder: the options of the example, and dfu-util's lines."""

import sys
from pathlib import Path

folder, arguments = Path(sys.argv[1]), sys.argv[2:]
assert arguments[:4] == ["-d", "0483:df11", "-S", "A1"], arguments
flash = folder / "flash.bin"
match arguments[4:]:
    case ["-l"]:
        print("dfu-util 0.11\n")
        if flash.exists() and (version := flash.read_bytes().partition(b"\n")[0].decode()):
            major, _, minor = version.partition(".")
            place = 'devnum=5, cfg=1, intf=0, path="1-1", alt=0, name="@Flash"'
            print(f'Found Runtime: [0483:df11] ver={int(major):02d}{minor}0, {place}, serial="A1"')
        elif flash.exists():
            print('Found DFU: [0483:df11] ver=0200, devnum=5, cfg=1, intf=0, path="1-1", alt=0, name="@Flash", serial="A1"')
    case ["-a", "0", "-D", image, "-R"]:
        flash.write_bytes(b"\n")
        if (folder / "pulled").exists():
            (folder / "pulled").unlink()
            print("Error during download", file=sys.stderr)
            sys.exit(74)
        flash.write_bytes(Path(image).read_bytes())
        print("Done!")
    case ["-a", "0", "-U", target]:
        Path(target).write_bytes(flash.read_bytes())
    case _:
        sys.exit(64)
