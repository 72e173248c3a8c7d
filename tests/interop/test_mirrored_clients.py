"""Real clients of other ecosystems, each twice through a mirrored route: the second time its upstream is stopped.

Before the second run the clock passes `revalidate_s`, so the changing names are stale answers.
"""

import os
import random
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gateway.sections.routes import RouteKind
from tests.builders.mirrored_site import FileUpstream, route, site, upstream
from tests.interop.desync_tool import need_desync
from tests.interop.mirrored_peers import files_of, folder_upstream, mender_artifact, registry, run, succeed, write_image
from tests.peers import need_tool

pytestmark = pytest.mark.interop

CONTENT = random.Random(3).randbytes(700_000)


async def ostree_repository(tool: str, folder: Path) -> Path:
    tree = folder / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc" / "name").write_text("plant\n")
    (tree / "empty").touch()
    (tree / "image").write_bytes(CONTENT)
    (tree / "link").symlink_to("etc/name")
    repository = folder / "origin"
    await succeed(tool, f"--repo={repository}", "init", "--mode=archive")
    await succeed(tool, f"--repo={repository}", "commit", "-b", "plant/main", "-s", "1", f"--tree=dir={tree}", "--no-xattrs")
    await succeed(tool, f"--repo={repository}", "summary", "-u")
    return repository


async def ostree_pull(tool: str, folder: Path, url: str) -> tuple[int, str]:
    folder.mkdir()
    await succeed(tool, f"--repo={folder / 'repo'}", "init", "--mode=archive")
    await succeed(tool, f"--repo={folder / 'repo'}", "remote", "add", "--no-gpg-verify", "gateway", url)
    return await run(tool, f"--repo={folder / 'repo'}", "pull", "gateway", "plant/main")


async def test_ostree_pulls_while_its_upstream_is_away(tmp_path: Path) -> None:
    tool = need_tool("ostree")
    origin = folder_upstream(await ostree_repository(tool, tmp_path))
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(upstream(origin))
        async with site(tmp_path / "store", route(RouteKind.OSTREE, running.url)) as gateway:
            for client in ("first", "second"):
                status, said = await ostree_pull(tool, tmp_path / client, f"{gateway.url}/mirror")
                assert status == 0, said
                repository = f"--repo={tmp_path / client / 'repo'}"
                await succeed(tool, repository, "fsck")
                await succeed(tool, repository, "checkout", "-U", "gateway:plant/main", tmp_path / client / "out")
                assert files_of(tmp_path / client / "out") == files_of(tmp_path / "tree")
                await stack.aclose()
                gateway.pass_time(3600)
            assert gateway.mirror.state().stale_answers > 0


@pytest.mark.parametrize("kind", [".filez", ".dirtree", ".commit"])
async def test_an_ostree_object_that_was_tampered_with_does_not_pass(tmp_path: Path, kind: str) -> None:
    tool = need_tool("ostree")
    origin = folder_upstream(await ostree_repository(tool, tmp_path))
    path, data = max(((path, data) for path, data in origin.files.items() if path.endswith(kind)), key=lambda each: len(each[1]))
    middle = len(data) // 2
    origin.files[path] = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    async with upstream(origin) as running, site(tmp_path / "store", route(RouteKind.OSTREE, running.url)) as gateway:
        status, body = await gateway.get(f"/mirror/{path}")
        assert (status, b"trust.length-or-hash" in body) == (422, True)
        assert (await ostree_pull(tool, tmp_path / "client", f"{gateway.url}/mirror"))[0] != 0
        origin.files[path] = data
        assert (await ostree_pull(tool, tmp_path / "again", f"{gateway.url}/mirror"))[0] == 0


async def casync_store(tool: str, folder: Path, *options: str) -> Path:
    store = folder / "origin"
    store.mkdir()
    (folder / "image").write_bytes(CONTENT)
    await succeed(tool, "make", *options, f"--store={store / 'images.castr'}", store / "image.caibx", folder / "image")
    return store


async def casync_extract(tool: str, target: Path, url: str) -> tuple[int, str]:
    return await run(tool, "extract", f"--store={url}/images.castr", f"{url}/image.caibx", target)


@pytest.mark.parametrize("options", [(), ("--digest=sha256", "--compression=xz"), ("--compression=gzip",)], ids=str)
async def test_casync_extracts_while_its_upstream_is_away(tmp_path: Path, options: tuple[str, ...]) -> None:
    tool = need_tool("casync")
    origin = folder_upstream(await casync_store(tool, tmp_path, *options))
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(upstream(origin))
        async with site(tmp_path / "store", route(RouteKind.CASYNC, running.url)) as gateway:
            for client in ("first", "second"):
                status, said = await casync_extract(tool, tmp_path / client, f"{gateway.url}/mirror")
                assert status == 0, said
                assert (tmp_path / client).read_bytes() == CONTENT
                await stack.aclose()
                gateway.pass_time(3600)
            assert gateway.mirror.state().stale_answers > 0


async def desync_extract(tool: Path, folder: Path, url: str) -> tuple[int, str]:
    """With a store of its own beside it, so that a chunk is asked for once."""
    cache = folder / "cache"
    cache.mkdir(parents=True)
    options = ("--store", f"{url}/images.castr", "--cache", cache)
    return await run(tool, "extract", *options, f"{url}/image.caibx", folder / "image", env={"HOME": str(folder)})


@pytest.mark.timeout(600)  # builds the tool at its first use
async def test_desync_extracts_while_its_upstream_is_away(tmp_path: Path) -> None:
    tool = need_desync()
    store = tmp_path / "origin" / "images.castr"
    store.mkdir(parents=True)
    (tmp_path / "image").write_bytes(CONTENT)
    index = tmp_path / "origin" / "image.caibx"
    await succeed(tool, "make", "--store", store, index, tmp_path / "image", env={"HOME": str(tmp_path)})
    origin = folder_upstream(tmp_path / "origin")
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(upstream(origin))
        async with site(tmp_path / "store", route(RouteKind.CASYNC, running.url)) as gateway:
            for client in ("first", "second"):
                status, said = await desync_extract(tool, tmp_path / client, f"{gateway.url}/mirror")
                assert status == 0, said
                assert (tmp_path / client / "image").read_bytes() == CONTENT
                assert len(files_of(tmp_path / client / "cache")) == len(origin.files) - 1
                await stack.aclose()
                gateway.pass_time(3600)
            assert gateway.mirror.state().stale_answers > 0
    assert sorted(path for path, _ in running.asked) == sorted(origin.files)


@pytest.mark.timeout(600)
async def test_desync_takes_no_chunk_that_was_tampered_with(tmp_path: Path) -> None:
    tool = need_desync()
    origin = folder_upstream(await casync_store(need_tool("casync"), tmp_path))
    chunks = sorted(path for path in origin.files if path.endswith(".cacnk"))
    origin.files[chunks[0]] = origin.files[chunks[1]]
    async with upstream(origin) as running, site(tmp_path / "store", route(RouteKind.CASYNC, running.url)) as gateway:
        assert (await desync_extract(tool, tmp_path / "bad", f"{gateway.url}/mirror"))[0] != 0
        origin.files = folder_upstream(tmp_path / "origin").files
        status, said = await desync_extract(tool, tmp_path / "good", f"{gateway.url}/mirror")
        assert status == 0, said
        assert (tmp_path / "good" / "image").read_bytes() == CONTENT


async def test_a_chunk_that_was_tampered_with_does_not_pass(tmp_path: Path) -> None:
    tool = need_tool("casync")
    origin = folder_upstream(await casync_store(tool, tmp_path))
    chunks = sorted(path for path in origin.files if path.endswith(".cacnk"))
    origin.files[chunks[0]] = origin.files[chunks[1]]  # a chunk, but another one
    async with upstream(origin) as running, site(tmp_path / "store", route(RouteKind.CASYNC, running.url)) as gateway:
        status, body = await gateway.get(f"/mirror/{chunks[0]}")
        assert (status, b"trust.length-or-hash" in body) == (422, True)
        assert (await casync_extract(tool, tmp_path / "out", f"{gateway.url}/mirror"))[0] != 0


async def skopeo_pull(tool: str, target: Path, host: str) -> tuple[int, str]:
    return await run(
        tool, "--insecure-policy", "copy", "--src-tls-verify=false", f"docker://{host}/plant/app:1", f"oci:{target}:1"
    )


async def push_image(tool: str, folder: Path, host: str) -> None:
    write_image(folder / "image", CONTENT)
    await succeed(
        tool, "--insecure-policy", "copy", "--dest-tls-verify=false", f"oci:{folder / 'image'}:1", f"docker://{host}/plant/app:1"
    )


async def test_skopeo_pulls_while_the_registry_is_away(tmp_path: Path) -> None:
    skopeo, server = need_tool("skopeo"), need_tool("docker-registry")
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(registry(server, tmp_path))
        await push_image(skopeo, tmp_path, host)
        async with site(tmp_path / "store", route(RouteKind.OCI, f"http://{host}/v2")) as gateway:
            place = gateway.url.removeprefix("http://")
            for client in ("first", "second"):
                status, said = await skopeo_pull(skopeo, tmp_path / client, place)
                assert status == 0, said
                assert files_of(tmp_path / client / "blobs") == files_of(tmp_path / "image" / "blobs")
                await stack.aclose()
                gateway.pass_time(3600)
            await succeed(skopeo, "inspect", "--no-tags", "--tls-verify=false", f"docker://{place}/plant/app:1")
            assert gateway.mirror.state().stale_answers > 0


async def test_a_layer_that_was_tampered_with_in_the_registry_does_not_pass(tmp_path: Path) -> None:
    skopeo, server = need_tool("skopeo"), need_tool("docker-registry")
    async with registry(server, tmp_path) as host:
        await push_image(skopeo, tmp_path, host)
        layer = max((tmp_path / "registry").rglob("data"), key=lambda file: file.stat().st_size)
        data = layer.read_bytes()
        layer.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        async with site(tmp_path / "store", route(RouteKind.OCI, f"http://{host}/v2")) as gateway:
            status, body = await gateway.get(f"/v2/plant/app/blobs/sha256:{layer.parent.name}")
            assert (status, b"trust.length-or-hash" in body) == (422, True)
            assert (await skopeo_pull(skopeo, tmp_path / "out", gateway.url.removeprefix("http://")))[0] != 0
            assert all(held.path.endswith(layer.parent.name) is False for held in gateway.objects._held.values())


async def mender(folder: Path, *command: str) -> str:
    """The client on a device of its own: its state in `folder`, and the name of what runs where it looks for it at first."""
    state, etc = folder / "state", folder / "etc"
    for each in (state, etc):
        each.mkdir(parents=True, exist_ok=True)
    (state / "device_type").write_text("device_type=plant\n")
    (etc / "artifact_info").write_text("artifact_name=app-0\n")
    (folder / "mender.conf").write_text("{}")
    options = ["--no-syslog", "--data", str(state), "--config", str(folder / "mender.conf"), "--fallback-config", "none"]
    prefix = [need_tool("unshare"), *([] if os.geteuid() == 0 else ["--map-root-user"]), "--mount"]
    script = 'mount --bind "$0" /etc/mender && exec "$@"'
    return await succeed(*prefix, "sh", "-c", script, etc, need_tool("mender"), *options, *command)


async def test_mender_installs_while_its_upstream_is_away(tmp_path: Path) -> None:
    need_tool("mender")
    target = tmp_path / "installed" / "app"
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(upstream(FileUpstream({"releases/a.mender": mender_artifact(CONTENT, target)})))
        async with site(tmp_path / "store", route(RouteKind.MENDER, running.url)) as gateway:
            for client in ("first", "second"):
                await mender(tmp_path / client, "install", f"{gateway.url}/mirror/releases/a.mender")
                assert target.read_bytes() == CONTENT
                await mender(tmp_path / client, "commit")
                assert "app-1" in await mender(tmp_path / client, "show-artifact")
                target.unlink()
                await stack.aclose()
                gateway.pass_time(3600)
    assert running.asked == [("releases/a.mender", "")]
