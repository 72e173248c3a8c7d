"""The configuration: every mistake named by its key, and the sample file is the truth about the defaults."""

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node_agent.bootloaders.uboot import UbootConfig
from node_agent.config import (
    CommandCheckSection,
    CommandInterlockSection,
    GatewaySection,
    HealthSection,
    HookSection,
    HttpCheckSection,
    HttpInterlockSection,
    InputInterlockSection,
    KindSection,
    LogSection,
    NodeConfig,
    NodeSection,
    PollSection,
    RepositorySection,
    load_config,
    parse_config,
)
from node_agent.drivers.linux import LinuxConfig
from update.errors import ConfigurationError, FormatVersionError
from update.provided import MAX_PROVIDED_BYTES
from update.trust.verified import Provenance

SAMPLE = Path(__file__).parents[2] / "configs" / "node.toml"
FILE = Path("/etc/fieldrelay/node.toml")
LEAST = """
format_version = 1
[node]
id = "n1"
hardware = "demo:1"
[gateway]
url = "https://192.0.2.1:8443/"
[[repository]]
name = "plant"
root = "root.json"
cms_roots = ["ca.pem"]
[driver]
kind = "linux"
[bootloader]
kind = "uboot"
"""


def uncommented() -> dict[str, object]:
    return tomllib.loads(re.sub(r"^#(?=[a-z_\[])", "", SAMPLE.read_text(), flags=re.MULTILINE))


def defaults_of(section: type) -> dict[str, object]:
    found: dict[str, object] = {}
    for each in dataclasses.fields(section):
        if each.default is not dataclasses.MISSING:
            found[each.name] = each.default
        elif each.default_factory is not dataclasses.MISSING:
            found[each.name] = each.default_factory()
    return found


def assert_shown(shown: object, section: type, given_here: set[str]) -> None:
    """Every key is shown; what has a default is shown at it."""
    assert isinstance(shown, dict)
    assert set(shown) == {each.name for each in dataclasses.fields(section)}, section
    for key, default in defaults_of(section).items():
        plain = str(default) if isinstance(default, Path) else default
        value = tuple(shown[key]) if isinstance(shown[key], list) else shown[key]
        assert key in given_here or value == plain, f"{section.__name__}.{key}"


def test_the_sample_shows_every_key_at_its_default() -> None:
    values = uncommented()
    assert set(values) == {each.name for each in dataclasses.fields(NodeConfig)}
    for name, section, given_here in (
        ("node", NodeSection, set()),
        ("gateway", GatewaySection, {"interfaces"}),
        ("health", HealthSection, set()),
        ("poll", PollSection, set()),
        ("log", LogSection, set()),
    ):
        assert_shown(values[name], section, given_here)
    lists = {name: values[name] for name in ("repository", "check", "hook", "interlock")}
    for name, kinds in (
        ("repository", [RepositorySection]),
        ("hook", [HookSection]),
        ("check", [CommandCheckSection, HttpCheckSection]),
        ("interlock", [CommandInterlockSection, HttpInterlockSection, InputInterlockSection]),
    ):
        without_value = {"rauc_certificate", "rauc_key"} if name == "repository" else set()
        shown = lists[name]
        assert isinstance(shown, list)
        for each, kind in zip(shown, kinds, strict=True):
            assert_shown(each, kind, without_value)


def test_the_sample_shows_every_key_of_driver_and_bootloader() -> None:
    values = uncommented()
    driver, bootloader = values["driver"], values["bootloader"]
    assert isinstance(driver, dict)
    assert isinstance(bootloader, dict)
    assert_shown(driver["linux"], LinuxConfig, {"slots"})
    command_line = bootloader["uboot"].pop("command_line")
    assert_shown({**bootloader["uboot"], "command_line": None}, UbootConfig, {"command_line"})
    assert_shown(command_line, type(UbootConfig().command_line), set())


def test_the_sample_can_be_used_as_it_stands_and_uncommented() -> None:
    assert load_config(SAMPLE).repository[0].root == SAMPLE.parent / "plant.root.json"
    text = re.sub(r"^#(?=[a-z_\[])", "", SAMPLE.read_text(), flags=re.MULTILINE)
    assert parse_config(text, FILE).check[0] == CommandCheckSection(
        kind="command", command=("/usr/lib/line-controller/self-test",)
    )


def test_the_least_configuration_means_the_defaults() -> None:
    config = parse_config(LEAST, FILE)
    assert config.gateway.url == "https://192.0.2.1:8443"
    assert config.repository[0] == RepositorySection(
        name="plant", root=FILE.parent / "root.json", cms_roots=(FILE.parent / "ca.pem",), minimum_provenance=Provenance.TUF
    )
    assert (config.health, config.poll) == (HealthSection(), PollSection())


def test_a_driver_gets_the_table_that_is_called_like_it() -> None:
    text = LEAST.replace('kind = "linux"', 'kind = "linux"\nlinux.restart = ["reboot"]')
    assert parse_config(text, FILE).driver == KindSection(kind="linux", options={"restart": ["reboot"]})
    with pytest.raises(ConfigurationError, match=r"driver\.simulated: no such key"):
        parse_config(LEAST.replace('kind = "linux"', 'kind = "linux"\nsimulated.slots = []'), FILE)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('id = "n1"', 'id = "n/1"', "node.id: a name may hold"),
        ('hardware = "demo:1"', 'hardware = "demo"', "node.hardware: hardware is written"),
        ('hardware = "demo:1"', 'hardware = "demo:1"\nstat = "x"', "node.stat: no such key"),
        ("https://192.0.2.1:8443/", "http://192.0.2.1", "gateway.url: a gateway is reached by https:// only"),
        ("https://192.0.2.1:8443/", "https://me:secret@gw", "gateway.url: holds a user name"),
        ("https://192.0.2.1:8443/", "", "gateway: name the gateway's url, or the interfaces"),
        ('name = "plant"', 'name = "plant"\ncms_threshold = 0', r"repository[0].cms_threshold: "),
        ('name = "plant"', 'name = "plant"\ncms_purpose = "signing"', "repository[0].cms_purpose: an extended key usage"),
        ('cms_roots = ["ca.pem"]', "cms_roots = []", "repository[0].cms_roots: "),
        ("[driver]", '[[check]]\nkind = "ping"\n[driver]', "check[0]: "),
        ("[driver]", '[[hook]]\nmoment = "later"\ncommand = ["x"]\n[driver]', "hook[0].moment: "),
        ("[driver]", "[health]\npasses = 2.5\n[driver]", "health.passes: "),
        ("[driver]", "[health]\ndeadline_s = 0\n[driver]", "health.deadline_s: "),
        ("format_version = 1", "", "format_version: "),
    ],
)
def test_a_mistake_is_named_by_its_key(old: str, new: str, expected: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_config(LEAST.replace(old, new), FILE)
    assert expected in str(caught.value)


def test_all_mistakes_are_named_at_once() -> None:
    text = LEAST.replace('id = "n1"', 'id = "/"').replace('kind = "uboot"', "kind = 5").replace('"root.json"', "7")
    with pytest.raises(ConfigurationError, match=r"node\.id.*bootloader\.kind.*repository\[0\]\.root"):
        parse_config(text, FILE)


def test_two_repositories_of_one_name_are_refused() -> None:
    text = LEAST + '[[repository]]\nname = "Plant"\nroot = "r"\ncms_roots = ["c"]\n'
    with pytest.raises(ConfigurationError, match="given twice: plant"):
        parse_config(text, FILE)


def test_an_interlock_says_how_it_is_read() -> None:
    text = (
        LEAST
        + """[[interlock]]
name = "stopped"
kind = "command"
command = ["is-stopped"]
[[interlock]]
name = "door"
kind = "input"
input = "door/value"
open = "closed"
deadline_s = 60
"""
    )
    assert parse_config(text, FILE).interlock == (
        CommandInterlockSection(name="stopped", kind="command", command=("is-stopped",)),
        InputInterlockSection(name="door", kind="input", input=FILE.parent / "door/value", open="closed", deadline_s=60),
    )


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (['kind = "input"', 'input = "x"'], "given twice: x"),
        (['kind = "inputs"'], "interlock[0]"),
        (['kind = "input"'], "interlock[0].input.input"),
        (['kind = "input"', 'input = "x"', 'url = "http://x"'], "interlock[0].input.url"),
        (['kind = "command"', "command = []"], "interlock[0].command.command"),
        (['kind = "http"', 'url = "file:///x"'], "interlock[0].http.url"),
        (['kind = "http"', 'url = "http://x"', "timeout_s = 0"], "interlock[0].http.timeout_s"),
        (['kind = "http"', 'url = "http://x"', "deadline_s = 0"], "interlock[0].http.deadline_s"),
    ],
)
def test_a_mistake_in_an_interlock_is_named(lines: list[str], expected: str) -> None:
    section = "\n".join(["[[interlock]]", 'name = "x"', *lines, ""])
    with pytest.raises(ConfigurationError) as caught:
        parse_config(LEAST + section * 2, FILE)
    assert expected in str(caught.value)


def test_a_newer_format_is_refused_before_its_keys_are_judged() -> None:
    with pytest.raises(FormatVersionError, match="format_version 2"):
        parse_config(LEAST.replace("format_version = 1", "format_version = 2\nnew = 1"), FILE)


def test_a_file_that_is_absent_too_large_or_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    with pytest.raises(ConfigurationError, match="--config"):
        load_config(file)
    file.write_bytes(b"#" * (MAX_PROVIDED_BYTES + 1))
    with pytest.raises(ConfigurationError, match="larger than"):
        load_config(file)
    file.write_bytes(b"a = '\xff'")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        load_config(file)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200) | st.text(max_size=60).map(lambda text: LEAST + text))
def test_hostile_text_is_only_ever_a_configuration_error(text: str) -> None:
    try:
        parse_config(text, FILE)
    except (ConfigurationError, FormatVersionError):
        return
