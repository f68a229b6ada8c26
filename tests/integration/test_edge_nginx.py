"""`EdgeTarget` before a real nginx with ``proxy_cache``, where one is installed: nobody's idea of a cache but its own.

``PREWARMKIT_NGINX`` names a binary that is not on the path. Its ``$upstream_cache_status`` has Cloudflare's words.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import httpx
import pytest

from prewarmkit.errors import Transient
from prewarmkit.media import Media
from prewarmkit.targets import EdgeTarget
from prewarmkit.testing.edge import EdgeServer, Rules
from prewarmkit.testing.processes import free_ports

pytestmark = pytest.mark.anyio

NGINX = os.environ.get("PREWARMKIT_NGINX") or shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
BODY = bytes(range(256)) * 32_000
NO_DELAYS = (0.0, 0.0, 0.0)
HEADER = "x-cache-status"

CONFIG = """
daemon off;
master_process off;
pid {here}/nginx.pid;
error_log {here}/error.log;
events {{ }}
http {{
    access_log {here}/access.log;
    client_body_temp_path {here}/body;
    fastcgi_temp_path {here}/fastcgi;
    proxy_temp_path {here}/proxy;
    scgi_temp_path {here}/scgi;
    uwsgi_temp_path {here}/uwsgi;
    proxy_cache_path {here}/cache keys_zone=media:1m;
    proxy_cache_use_stale error timeout;
    proxy_cache_valid 404 3m;
    proxy_cache_valid 200 10m;
    proxy_cache_revalidate on;
    proxy_hide_header age;
    proxy_hide_header cf-cache-status;
    proxy_hide_header cf-ray;
    add_header {header} $upstream_cache_status always;
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://127.0.0.1:{origin}; proxy_cache media; }}
        location /bypass/ {{
            proxy_pass http://127.0.0.1:{origin};
            proxy_cache media;
            proxy_cache_bypass 1;
            proxy_no_cache 1;
        }}
        location /plain/ {{ proxy_pass http://127.0.0.1:{origin}; }}
    }}
}}
"""


@pytest.fixture
def bucket() -> Iterator[EdgeServer]:
    """What nginx fetches from: counted, and itself no cache."""
    with EdgeServer(rules=Rules(extensions=frozenset())) as server:
        yield server


@pytest.fixture
def nginx(bucket: EdgeServer, tmp_path: Path) -> Iterator[str]:
    if NGINX is None:
        pytest.skip("no nginx here: apt install nginx-light, or name one in PREWARMKIT_NGINX")
    [port] = free_ports(1)
    config = tmp_path / "nginx.conf"
    config.write_text(CONFIG.format(here=tmp_path, port=port, origin=bucket.port, header=HEADER))
    process = subprocess.Popen(
        [NGINX, "-p", str(tmp_path), "-e", str(tmp_path / "error.log"), "-c", str(config)],
        stderr=subprocess.PIPE,
    )
    try:
        _wait_until_served(process, f"http://127.0.0.1:{port}/plain/")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate(timeout=10)


def _wait_until_served(process: subprocess.Popen[bytes], url: str) -> None:
    while process.poll() is None:
        try:
            httpx.get(url)
        except httpx.ConnectError:
            time.sleep(0.01)
        else:
            return
    pytest.fail(f"nginx did not start: {process.communicate()[1].decode()}")


@pytest.fixture
async def target(nginx: str) -> AsyncIterator[EdgeTarget]:
    async with EdgeTarget(nginx, status_header=HEADER, verify_delays=NO_DELAYS) as target:
        yield target


def fetched(bucket: EdgeServer, key: str) -> list[int]:
    return [request.status for request in bucket.origin_requests if request.key == key]


async def viewed(url: str) -> httpx.Response:
    async with httpx.AsyncClient() as viewer:
        return await viewer.get(url)


async def test_a_primed_medium_hits_for_viewers(bucket: EdgeServer, target: EdgeTarget) -> None:
    """The bucket is read once, 8 MB and all."""
    bucket.put("ünder score/a.mp4", BODY, cache_control="max-age=600")
    warmed = await target.warm(Media("ünder score/a.mp4"), bucket.source())
    assert (warmed.weak, warmed.details["cache_status"]) == ((), "HIT")
    assert warmed.expires_at is not None
    answer = await viewed(warmed.handle)
    assert (answer.headers[HEADER], answer.content) == ("HIT", BODY)
    assert fetched(bucket, "ünder score/a.mp4") == [200]


async def test_a_head_is_enough_for_nginx_too(nginx: str, bucket: EdgeServer) -> None:
    """It asks the origin by GET (``proxy_cache_convert_head``)."""
    bucket.put("a.mp4", BODY)
    async with EdgeTarget(
        nginx, method="HEAD", status_header=HEADER, verify_delays=(0.05, 0.2, 1.0)
    ) as target:
        assert (await target.warm(Media("a.mp4"), bucket.source())).weak == ()
    answer = await viewed(f"{nginx}/a.mp4")
    assert (answer.headers[HEADER], answer.content) == ("HIT", BODY)
    assert fetched(bucket, "a.mp4") == [200]


@pytest.mark.parametrize("headers", [{"set-cookie": "a=1"}, {"cache-control": "private"}])
async def test_what_it_may_not_keep_is_not_retained(
    bucket: EdgeServer, target: EdgeTarget, headers: dict[str, str]
) -> None:
    bucket.put("a.jpg", BODY, headers=headers)
    warmed = await target.warm(Media("a.jpg"), bucket.source())
    assert (warmed.weak, warmed.details["requests"]) == (("not_retained",), 4)


@pytest.mark.parametrize(
    ("key", "reason"), [("bypass/a.jpg", "origin_forbids"), ("plain/a.jpg", "not_cloudflare_cache")]
)
async def test_where_it_is_not_set_up_to_keep_one_request_tells(
    bucket: EdgeServer, target: EdgeTarget, key: str, reason: str
) -> None:
    bucket.put(key, BODY)
    warmed = await target.warm(Media(key), bucket.source())
    assert (warmed.weak, fetched(bucket, key)) == ((reason,), [200])


async def test_what_expired_is_revalidated_and_warm(bucket: EdgeServer, target: EdgeTarget) -> None:
    """The bucket says 304, and no byte is sent again."""
    bucket.put("a.jpg", BODY, cache_control="max-age=1")
    said: set[str] = set()
    with anyio.fail_after(10):
        while "REVALIDATED" not in said:  # asking makes nothing younger
            await anyio.sleep(0.02)
            warmed = await target.warm(Media("a.jpg"), bucket.source())
            assert warmed.weak == ()
            said.add(warmed.details["cache_status"])
    assert 304 in {request.status for request in bucket.requests}


async def test_what_expired_while_the_origin_is_away_is_stale(bucket: EdgeServer, target: EdgeTarget) -> None:
    bucket.put("a.jpg", BODY, cache_control="max-age=1")
    source = bucket.source()
    assert (await target.warm(Media("a.jpg"), source)).weak == ()
    await anyio.to_thread.run_sync(bucket.stop)
    with anyio.fail_after(10):
        while (warmed := await target.warm(Media("a.jpg"), source)).weak == ():  # noqa: ASYNC110 - nginx's own clock
            await anyio.sleep(0.02)
    assert warmed.weak == ("stale",)


async def test_a_404_that_it_keeps_is_no_hit(bucket: EdgeServer, target: EdgeTarget, nginx: str) -> None:
    assert (await viewed(f"{nginx}/late.jpg")).status_code == 404
    bucket.put("late.jpg", BODY)
    answer = await viewed(f"{nginx}/late.jpg")
    assert (answer.status_code, answer.headers[HEADER]) == (404, "HIT")
    with pytest.raises(Transient, match="404"):
        await target.warm(Media("late.jpg"), bucket.source())


async def test_what_was_overwritten_is_failed_until_it_expires(
    bucket: EdgeServer, target: EdgeTarget, nginx: str
) -> None:
    """Nginx has the old version, and says HIT."""
    bucket.put("a.jpg", BODY)
    assert (await target.warm(Media("a.jpg"), bucket.source())).weak == ()
    bucket.put("a.jpg", BODY[1:])
    with pytest.raises(Exception, match="serves another"):
        await target.warm(Media("a.jpg"), bucket.source())
    assert (await viewed(f"{nginx}/a.jpg")).content == BODY


async def test_an_origin_that_nginx_cannot_reach_is_transient(bucket: EdgeServer, target: EdgeTarget) -> None:
    bucket.put("a.jpg", BODY)
    source = bucket.source()
    await anyio.to_thread.run_sync(bucket.stop)
    with pytest.raises(Transient, match="502"):
        await target.warm(Media("a.jpg"), source)
