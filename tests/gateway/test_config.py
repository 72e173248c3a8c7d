import dataclasses
import re
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config import (
    ContentSection,
    GatewayConfig,
    RepositorySection,
    load_config,
    parse_config,
)
from gateway.sections.assigners import HawkbitSection, WfxSection
from gateway.sections.calls import CallSection
from gateway.sections.interlocks import InterlockSection
from gateway.sections.log import LogLevel
from gateway.sections.probes import ProbeSection
from gateway.sections.pushed import SwuforwardSection
from gateway.sections.pushers import PusherSection
from gateway.sections.routes import RouteKind, RouteSection
from gateway.sections.webhooks import WebhookSection
from update.errors import ConfigurationError, FormatVersionError
from update.provided import CODE_SIGNING, MAX_PROVIDED_BYTES

SAMPLE = Path(__file__).parents[2] / "configs" / "gateway.toml"
NO_DEFAULT = (
    {"wan", "south.polling", "push.pusher"}
    | {f"repository.{key}" for key in ("name", "root", "upstreams", "rauc_certificate", "rauc_key")}
    | {f"route.{key}" for key in ("name", "prefix", "upstream", "kind")}
    | {f"hawkbit.{key}" for key in ("name", "url", "repository", "gateway_token", "target_tokens", "certificate", "key")}
    | {f"wfx.{key}" for key in ("name", "url", "repository", "token", "certificate", "key")}
    | {f"probe.{key}" for key in ("name", "nodes", "url", "command")}
    | {f"interlock.{key}" for key in ("name", "command", "url", "input")}
    | {f"webhook.{key}" for key in ("name", "url", "secret")}
    | {f"pusher.{key}" for key in ("name", "token", "secret", "repositories")}
    | {f"call.{key}" for key in ("name", "url", "token", "site_ca")}
    | {f"swuforward.{key}" for key in ("name", "repository", "allowed", "credentials", "certificate", "key")}
)
FILE = Path("/etc/fieldrelay/gateway.toml")
GATES = re.compile(r'^(?=command = \["/usr/local/lib/fieldrelay/machine-stopped"|input = "/sys/class/gpio/gpio17)', re.MULTILINE)
PROBING = 'command = ["/usr/local/lib/fieldrelay/probe"'
REPOSITORY = 'format_version = 1\n[[repository]]\nname = "v"\nroot = "root.json"\nupstreams = ["https://u.example/v"]\n'


def sample_values() -> dict[str, object]:
    """The sample with its keys uncommented."""
    return tomllib.loads(re.sub(r"^#(?=[a-z_\[])", "", SAMPLE.read_text(), flags=re.MULTILINE))


def section_fields(section: type) -> dict[str, object]:
    return {each.name: each for each in dataclasses.fields(section)}


def test_the_sample_means_the_defaults_as_it_stands() -> None:
    assert load_config(SAMPLE) == GatewayConfig(format_version=1)


def test_the_sample_shows_every_key_of_every_section() -> None:
    def check(shown: object, defaults: object, where: str) -> None:
        assert isinstance(shown, dict)
        assert dataclasses.is_dataclass(defaults)
        assert set(shown) == {each.name for each in dataclasses.fields(defaults)}, where
        for key, value in shown.items():
            default = getattr(defaults, key)
            if isinstance(value, dict):
                check(value, default, key)
            elif where not in NO_DEFAULT and f"{where}.{key}" not in NO_DEFAULT:
                plain = str(default) if isinstance(default, Path) else default
                assert (tuple(value) if isinstance(value, list) else value) == plain, f"{where}.{key}"

    values = sample_values()
    repositories = values.pop("repository")
    assert isinstance(repositories, list)
    check(repositories[0], RepositorySection(name="x", root=Path("x"), upstreams=("x",)), "repository")
    routes = values.pop("route")
    assert isinstance(routes, list)
    check(routes[0], RouteSection(name="x", prefix="/x/", upstream="http://x", kind=RouteKind.OSTREE), "route")
    servers = values.pop("hawkbit")
    assert isinstance(servers, list)
    check(servers[0], HawkbitSection(name="x", url="http://x", repository="x"), "hawkbit")
    executors = values.pop("wfx")
    assert isinstance(executors, list)
    check(executors[0], WfxSection(name="x", url="http://x", repository="x"), "wfx")
    listeners = values.pop("swuforward")
    assert isinstance(listeners, list)
    check(listeners[0], SwuforwardSection(name="x", repository="x", allowed=("::1",)), "swuforward")
    probes = values.pop("probe")
    assert isinstance(probes, list)
    check(probes[0], ProbeSection(name="x", nodes=("x",), url="http://x"), "probe")
    pushes = values["push"]
    assert isinstance(pushes, dict)
    check(pushes["pusher"][0], PusherSection(name="x", token=Path("x"), repositories=("x",)), "pusher")
    outwards = values.pop("call")
    assert isinstance(outwards, list)
    check(outwards[0], CallSection(name="x", url="http://x"), "call")
    gates = values.pop("interlock")
    assert isinstance(gates, list)
    check(gates[0], InterlockSection(name="x", url="http://x"), "interlock")
    receivers = values.pop("webhook")
    assert isinstance(receivers, list)
    check(receivers[0], WebhookSection(name="x", url="http://x", secret=Path("x")), "webhook")
    del values["attached"]  # tests/gateway/sections/test_attached.py
    for name, section in values.items():
        if name != "format_version":
            check(section, getattr(GatewayConfig(format_version=1), name), name)
    lists = {"repository", "route", "hawkbit", "wfx", "swuforward", "probe", "interlock", "webhook", "attached", "call"}
    assert set(values) | lists == set(section_fields(GatewayConfig))


def test_the_sample_uncommented_is_valid() -> None:
    text = re.sub(r"^#(?=[a-z_\[])", "", SAMPLE.read_text(), flags=re.MULTILINE)
    one_each = text.replace("source_address", "# source_address").replace("target_tokens =", "# target_tokens =")
    one_each = GATES.sub("# ", one_each).replace(PROBING, f"# {PROBING}").replace("cms_roots = []", 'cms_roots = ["cms.pem"]')
    config = parse_config(one_each, FILE)
    assert config.hawkbit[0].requests_per_s == 20.0
    assert config.repository[0].upstreams == ("https://updates.example/vendor", "/srv/mirror/vendor")
    assert config.wan.source_interface == "wan0"


def test_two_ways_of_choosing_the_source_exclude_each_other() -> None:
    text = re.sub(r"^#(?=[a-z_\[])", "", SAMPLE.read_text(), flags=re.MULTILINE)
    one_each = GATES.sub("# ", text).replace("target_tokens =", "# target_tokens =")
    with pytest.raises(ConfigurationError, match="wan: source_address and source_interface exclude each other"):
        parse_config(one_each.replace(PROBING, f"# {PROBING}"), FILE)


def test_a_listener_for_masters_names_whom_it_answers_and_a_repository_that_there_is() -> None:
    section = '[[swuforward]]\nname = "line"\nallowed = ["10.0.0.0/8"]\nrepository = "{}"\n{}'
    assert parse_config(REPOSITORY + section.format("v", ""), FILE).swuforward[0].port == 8081
    for text, words in (
        (section.format("other", ""), "no \\[\\[repository"),
        (section.format("v", "").replace('"10.0.0.0/8"', ""), "allowed"),
        (section.format("v", "").replace("10.0.0.0/8", "10.0.0.1/8"), "allowed"),
        (section.format("v", 'certificate = "c.pem"'), "belong together"),
        (section.format("v", "") * 2, "given twice: line"),
        (section.format("v", "") + section.format("v", "").replace("line", "other"), "given twice: 8081"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            parse_config(REPOSITORY + text, FILE)


def test_a_wfx_is_proved_by_a_repository_that_there_is_and_its_events_leave_room_for_content() -> None:
    section = '[[wfx]]\nname = "plant"\nurl = "https://w.example"\nrepository = "{}"\n{}'
    assert parse_config(REPOSITORY + section.format("v", ""), FILE).wfx[0].client == "{node}"
    few = "events = {}\n[wan]\nconnections = 3\n"
    assert not parse_config(REPOSITORY + section.format("v", few.format("false")), FILE).wfx[0].events
    for text, words in (
        (section.format("other", ""), "no \\[\\[repository"),
        (section.format("v", few.format("true")), "wan.connections"),
        (section.format("v", "workflows = []"), "workflows"),
        (section.format("v", 'client = "all"'), "client"),
        (section.format("v", 'tags = ["a,b"]'), "tags"),
        (section.format("v", 'key = "wfx.key"'), "belong together"),
        (section.format("v", 'client_header = "X Client"'), "client_header"),
        (section.format("v", "") * 2, "given twice: plant"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            parse_config(REPOSITORY + text, FILE)


def test_a_hawkbit_is_shown_one_kind_of_token_and_proved_by_a_repository_that_there_is() -> None:
    section = '[[hawkbit]]\nname = "company"\nurl = "https://h.example"\nrepository = "{}"\n{}'
    assert parse_config(REPOSITORY + section.format("v", ""), FILE).hawkbit[0].controller == "{node}"
    with pytest.raises(ConfigurationError, match=r"no .*repository.* named w"):
        parse_config(REPOSITORY + section.format("w", ""), FILE)
    with pytest.raises(ConfigurationError, match="exclude each other"):
        parse_config(REPOSITORY + section.format("v", 'gateway_token = "a"\ntarget_tokens = "b"\n'), FILE)
    with pytest.raises(ConfigurationError, match="own name"):
        parse_config(REPOSITORY + 2 * section.format("v", ""), FILE)


def test_every_key_of_the_sample_is_explained() -> None:
    lines = SAMPLE.read_text().splitlines()
    bare = [line for before, line in pairwise(lines) if re.match(r"#[a-z_]+ = ", line) and not before.strip()]
    assert bare == []


def test_every_mistake_is_named_at_once_with_its_key() -> None:
    text = """
        format_version = 1
        gatway = {}
        [south]
        port = "8443"
        interfaces = ["eth0", "a name much too long"]
        [log]
        level = "loud"
        [[repository]]
        name = "../up"
        root = "root.json"
        upstreams = []
        cms_threshhold = 2
    """
    with pytest.raises(ConfigurationError) as caught:
        parse_config(text, FILE)
    message = str(caught.value)
    for key in (
        "gatway: no such key",
        "south.port: ",
        "south.interfaces[1]: a network interface has",
        "log.level: ",
        "repository[0].name: ",
        "repository[0].upstreams: ",
        "repository[0].cms_threshhold: no such key",
    ):
        assert key in message
    assert str(FILE) in message


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("[south]\nport = 0", "south.port"),
        ("[south]\nport = true", "south.port"),
        ("[south]\nport = 65536", "south.port"),
        ("[south]\naddresses = []", "south.addresses"),
        ('[south]\naddresses = ["gateway.example"]', "south.addresses[0]"),
        ("[south]\npolling_interval_s = 86400", "south.polling_interval_s"),
        ('[south]\ncontent = {enabled = "yes"}', "south.content.enabled"),
        ('[wan]\nproxy = "socks5://p"', "wan.proxy"),
        ('[wan]\nproxy = "http://user:secret@p"', "wan.proxy"),
        ('[wan]\nsource_address = "eth0"', "wan.source_address"),
        ("[store]\nquota_bytes = -1", "store.quota_bytes"),
        ("[store]\nquota_bytes = 1.5", "store.quota_bytes"),
        ("[control]\nallowed_uids = [-1]", "control.allowed_uids[0]"),
        ('[log]\nformat = "xml"', "log.format"),
        ('[gateway]\nname = ""', "gateway.name"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_by_key(line: str, key: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(f"{key}: ")) as caught:
        parse_config(f"format_version = 1\n{line}\n", FILE)
    assert "secret" not in str(caught.value)


ODD_HOSTS = ("http://cdn.example", "CDN.example", "", "a/b", "u@cdn.example", "cdn.example:", "cdn.example:123456", "*")


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('cms_purpose = "codeSigning"', "repository[0].cms_purpose"),
        ("cms_threshold = 0", "repository[0].cms_threshold"),
        ('hardware = ["board"]', "repository[0].hardware[0]"),
        *[(f'fetch_signed_urls = ["{text}"]', "repository[0].fetch_signed_urls[0]") for text in ODD_HOSTS],
        ('upstreams = ["ftp://u/v"]', "repository[0].upstreams"),
    ],
)
def test_a_repository_that_cannot_be_meant_is_refused_by_key(line: str, key: str) -> None:
    text = re.sub(r"upstreams.*\n", "", REPOSITORY) if line.startswith("upstreams") else REPOSITORY
    with pytest.raises(ConfigurationError, match=re.escape(key)):
        parse_config(f"{text}{line}\n", FILE)


def test_two_repositories_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="given twice: v"):
        parse_config(REPOSITORY + REPOSITORY.removeprefix("format_version = 1\n"), FILE)


def test_relative_paths_are_meant_from_the_folder_of_the_file() -> None:
    text = REPOSITORY.replace('"https://u.example/v"', '"https://u.example/v", "mirror", "/srv/m"') + 'cms_roots = ["ca.pem"]\n'
    config = parse_config(text + '[gateway]\nstate = "state"\n[wan]\nextra_ca = "x.pem"\n', FILE)
    (repository,) = config.repository
    assert repository.root == FILE.parent / "root.json"
    assert repository.upstreams == ("https://u.example/v", "/etc/fieldrelay/mirror", "/srv/m")
    assert repository.cms_roots == (FILE.parent / "ca.pem",)
    assert (config.gateway.state, config.wan.extra_ca) == (FILE.parent / "state", FILE.parent / "x.pem")
    assert config.control.socket == Path("/run/fieldrelay/control.sock")


def test_what_is_not_said_is_the_default() -> None:
    config = parse_config(REPOSITORY, FILE)
    assert config.repository[0].cms_purpose == CODE_SIGNING
    assert config.south.content == ContentSection()
    assert config.log.level is LogLevel.INFO


def test_a_newer_format_is_refused_before_its_keys_are_judged() -> None:
    with pytest.raises(FormatVersionError, match="format_version 2"):
        parse_config("format_version = 2\nkey_of_tomorrow = 1\n", FILE)


@pytest.mark.parametrize("text", ["", "format_version = 0", "format_version = '1'", "[south]\n", "format_version = true"])
def test_a_file_without_a_valid_format_version_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="format_version: "):
        parse_config(text, FILE)


def test_a_file_nested_without_end_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="not TOML"):
        parse_config("x = " + "[" * 10_000, FILE)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="gateway init"):
        load_config(tmp_path / "missing.toml")


def test_a_file_too_large_or_not_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_bytes(b"#" * (MAX_PROVIDED_BYTES + 1))
    with pytest.raises(ConfigurationError, match="larger"):
        load_config(file)
    file.write_bytes(b"format_version = \xff")
    with pytest.raises(ConfigurationError, match="UTF-8"):
        load_config(file)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200) | st.text(alphabet="[]{}=\"',.#\n repositoysuh123", max_size=200))
def test_hostile_text_raises_only_the_named_errors(text: str) -> None:
    try:
        parse_config("format_version = 1\n" + text, FILE)
    except (ConfigurationError, FormatVersionError):
        return


ROUTE = 'format_version = 1\n[[route]]\nname = "os"\nprefix = "/ostree/"\nupstream = "https://u.example/o"\nkind = "ostree"\n'


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("/ostree/", "/ostree", "begins and ends with"),
        ("/ostree/", "/", "begins and ends with"),
        ("/ostree/", "/a/../b/", "begins and ends with"),
        ("/ostree/", "/targets/x/", "the gateway's own"),
        ("/ostree/", "/v2/", "below /v2/"),
        ('"ostree"', '"oci"', "below /v2/"),
        ("https://u", "file://u", "route"),
        ('"ostree"', '"ftp"', "kind"),
        ('"os"', '"os"\nquota_bytes = 5', "above quota_bytes"),
        ("format_version = 1", "format_version = 1\n" + ROUTE.partition("\n")[2], "given twice"),
    ],
)
def test_a_route_that_cannot_be_meant_is_refused(old: str, new: str, reason: str) -> None:
    assert parse_config(ROUTE, FILE).route[0].kind is RouteKind.OSTREE
    with pytest.raises(ConfigurationError, match=reason):
        parse_config(ROUTE.replace(old, new, 1), FILE)


PROFILE = 'format_version = 1\n[wan]\n[[wan.profile]]\nfrom = "06:00"\nto = "18:00"\nbytes_per_s = 250000\n'


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"06:00"', '"6"', r"wan.profile\[0\].from: a time is written"),
        ('to = "18:00"\n', "", r"wan.profile\[0\].to"),
        ("250000", "1", r"wan.profile\[0\].bytes_per_s: 1 bytes/s carry no update"),
        ("250000", '250000\ndays = ["sunday"]', "days"),
        ("250000", "250000\nrate = 1", "no such key"),
        ("[wan]", '[wan]\ntime_zone = "Middle/Earth"', "wan.time_zone: no time zone 'Middle/Earth'"),
        ("[wan]", "[wan]\nconnections = 1", "wan.connections"),
        ("[wan]", "[wan]\nbytes_per_s = 4095", "wan.bytes_per_s: 4095 bytes/s carry no update"),
        ("[wan]", "[south]\nnode_bytes_per_s = -1\n[wan]", "south.node_bytes_per_s"),
    ],
)
def test_a_limit_that_cannot_be_meant_is_refused(old: str, new: str, reason: str) -> None:
    assert parse_config(PROFILE, FILE).wan.profile[0].bytes_per_s == 250000
    with pytest.raises(ConfigurationError, match=reason):
        parse_config(PROFILE.replace(old, new, 1), FILE)


@pytest.mark.parametrize("mode", ["union", "full"])
def test_to_fetch_before_nodes_ask_needs_the_authorities_that_prove_bundles(mode: str) -> None:
    text = f'format_version = 1\n[[repository]]\nname = "v"\nroot = "r"\nupstreams = ["u"]\nprefetch = "{mode}"\n'
    with pytest.raises(ConfigurationError, match=f'v: prefetch = "{mode}" needs cms_roots'):
        parse_config(text, FILE)
    (section,) = parse_config(text + 'cms_roots = ["ca.pem"]\n', FILE).repository
    assert section.prefetch == mode


def test_every_webhook_has_its_own_name() -> None:
    section = '[[webhook]]\nname = "mes"\nurl = "https://mes.example/hook"\nsecret = "mes.secret"\n'
    assert parse_config("format_version = 1\n" + section, FILE).webhook[0].secret == Path("/etc/fieldrelay/mes.secret")
    with pytest.raises(ConfigurationError, match="given twice: mes"):
        parse_config("format_version = 1\n" + section * 2, FILE)
