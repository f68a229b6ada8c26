"""`SigV4Auth`: a host's own httpx client signs its requests with a `SigV4Signer`.

Owns the bridge between an ``httpx.Request`` and the signer, and nothing else. `R2Client`
does not use it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from hashlib import sha256

import httpx

from prewarmkit.sigv4.checks import is_a
from prewarmkit.sigv4.signer import SigV4Signer

__all__ = ["SigV4Auth"]

# Few, on purpose: what a proxy on the way may rewrite would break the signature.
_SIGNED = frozenset({"content-md5", "content-type", "host"})
_SET_BY_SIGNER = frozenset({"x-amz-date", "x-amz-security-token"})


class SigV4Auth(httpx.Auth):
    """Signs each request when it is sent; ``httpx.AsyncClient(auth=SigV4Auth(signer))``.

    Signed are host, content-type, content-md5 and every ``x-amz-*`` header. For S3 the body
    is unsigned, unless the request has an ``x-amz-content-sha256`` header; for any other
    service it is read into memory and hashed. With a credentials provider use an
    `httpx.AsyncClient`: only there can the credentials be renewed.

    httpx itself removes ``.`` and ``..`` from paths before this class sees them.
    """

    def __init__(self, signer: SigV4Signer) -> None:
        if not is_a(signer, SigV4Signer):
            raise TypeError(f"SigV4Auth needs a SigV4Signer, not {type(signer).__name__}.")
        self._signer = signer
        self.requires_request_body = signer.service != "s3"

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Sign, send, and learn the server's time."""
        if self.requires_request_body:
            request.read()
        self._sign(request)
        sent_at = self._signer.now()
        response = yield request
        self._observe(response, sent_at)

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Renew the credentials if they end soon; then as `sync_auth_flow`."""
        await self._signer.refresh()
        if self.requires_request_body:
            await request.aread()
        self._sign(request)
        sent_at = self._signer.now()
        response = yield request
        self._observe(response, sent_at)

    def _sign(self, request: httpx.Request) -> None:
        url = request.url
        # The parts that httpx puts on the wire; str(url) may have a fragment or a password.
        sent = b"".join([url.raw_scheme, b"://", url.netloc, url.raw_path]).decode("ascii")
        for name in _SET_BY_SIGNER:
            request.headers.pop(name, None)  # of an earlier attempt
        headers = [
            (name, value)
            for name, value in request.headers.multi_items()
            if name in _SIGNED or name.startswith("x-amz-")
        ]
        announced = request.headers.get("x-amz-content-sha256")
        payload_hash = announced
        if announced is None and self.requires_request_body:
            payload_hash = sha256(request.content).hexdigest()
        request.headers.update(self._signer.sign(request.method, sent, headers, payload_hash=payload_hash))

    def _observe(self, response: httpx.Response, sent_at: float) -> None:
        headers = response.headers
        self._signer.observe_server_date(headers.get("date"), sent_at=sent_at, age=headers.get("age"))
