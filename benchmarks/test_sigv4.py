"""What the signing-key cache saves, and what a signature costs.

Needs the project and pytest alone; botocore, where it is installed, is measured beside ours
in interleaved rounds of one run, so that a noisy machine is noisy for both.
"""

from __future__ import annotations

import gc
import importlib
import statistics
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from prewarmkit import Credentials, KeyScope, MemoryKeyCache, SigningKey, SigV4Signer
from prewarmkit.sigv4 import keys

DAY = 86_400
START = 1_735_689_600.0  # 2025-01-01T00:00:00Z
TENANTS, BUCKETS, DAYS = 3, 2, 7
SIGNATURES = 420_000
URL = "https://0123abc.r2.cloudflarestorage.com/media/videos/2025/intro.mp4"
HEADERS = {"range": "bytes=0-1048575"}


class NoCache:
    """A key cache that keeps nothing."""

    def get(self, _scope: KeyScope, /) -> SigningKey | None:
        """Nothing."""
        return None

    def put(self, _scope: KeyScope, _key: SigningKey, /) -> None:
        """Forget it."""


def show(capsys: pytest.CaptureFixture[str], title: str, rows: list[tuple[str, str]]) -> None:
    """Print a table, with or without ``-s``."""
    width = max(len(name) for name, _ in rows)
    with capsys.disabled():
        print(f"\n\n{title}")
        for name, value in rows:
            print(f"  {name:<{width}}  {value}")


def test_a_week_of_signatures_derives_one_key_a_tenant_and_day(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three tenants with two buckets each, a signer for every bucket, one cache for all."""
    derived: Counter[KeyScope] = Counter()
    derive = keys.derive_signing_key

    def counting(credentials: Credentials, scope: KeyScope) -> SigningKey:
        derived[scope] += 1
        return derive(credentials, scope)

    monkeypatch.setattr(keys, "derive_signing_key", counting)
    now = START
    cache = MemoryKeyCache()
    tenants = [Credentials("SHARED-ID", f"secret-of-tenant-{number}") for number in range(TENANTS)]
    places = [
        (SigV4Signer(tenant, key_cache=cache, clock=lambda: now), f"https://host/bucket-{bucket}/key")
        for tenant in tenants
        for bucket in range(BUCKETS)
    ]
    rounds = SIGNATURES // len(places)
    step = DAYS * DAY / rounds
    began = time.perf_counter()
    for turn in range(rounds):
        now = START + turn * step
        for signer, url in places:
            signer.sign("GET", url)
    seconds = time.perf_counter() - began

    infos = [signer.cache_info() for signer, _ in places]
    hits, misses = sum(info.hits for info in infos), sum(info.misses for info in infos)
    rate = hits / (hits + misses)
    rows = [
        ("signatures", f"{hits + misses:,}"),
        ("hit rate", f"{rate:.5%}"),
        ("derivations", f"{derived.total()} ({TENANTS} tenants x {DAYS} days)"),
        ("keys held", f"{len(cache)} of at most {cache.maxsize}"),
        ("time", f"{seconds:.1f} s"),
    ]
    show(capsys, f"A simulated week, {TENANTS} tenants x {BUCKETS} buckets", rows)
    assert hits + misses == rounds * len(places) == SIGNATURES
    assert misses == derived.total()
    assert rate >= 0.9999
    assert set(derived.values()) == {1}
    expected = {(tenant.secret_digest, f"202501{day + 1:02}") for tenant in tenants for day in range(DAYS)}
    assert {(scope.secret_digest, scope.date) for scope in derived} == expected


def measured(
    calls: dict[str, Callable[[], object]], *, rounds: int = 40, loops: int = 300
) -> dict[str, list[float]]:
    """Microseconds a call of every kind, in interleaved rounds."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(loops):
            call()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, call in calls.items():
                began = time.perf_counter()
                for _ in range(loops):
                    call()
                times[name].append((time.perf_counter() - began) / loops * 1e6)
    finally:
        if was_enabled:
            gc.enable()
    return times


def lower_quartile(times: list[float]) -> float:
    """What noise does not move much."""
    return statistics.quantiles(times, n=4)[0]


def table(times: dict[str, list[float]], beside: str) -> list[tuple[str, str]]:
    """Rows of a table; how each compares to one of them."""
    reference = lower_quartile(times[beside])
    rows = [("", "   min     p25   (us)")]
    for name, values in times.items():
        quartile = lower_quartile(values)
        rows.append((name, f"{min(values):6.1f}  {quartile:6.1f}   {quartile / reference:5.2f} x"))
    return rows


def test_the_cost_of_a_signature_with_and_without_the_cache(capsys: pytest.CaptureFixture[str]) -> None:
    """A hit must be clearly cheaper than deriving the key each time."""
    credentials = Credentials("AKID", "a-secret-0123456789")
    cached = SigV4Signer(credentials)
    uncached = SigV4Signer(credentials, key_cache=NoCache())
    times = measured(
        {
            "sign, cached key": partial(cached.sign, "GET", URL, HEADERS),
            "sign, derived key": partial(uncached.sign, "GET", URL, HEADERS),
            "presign, cached key": partial(cached.presign, "GET", URL),
            "presign, derived key": partial(uncached.presign, "GET", URL),
        }
    )
    show(capsys, "A signature, by our signer", table(times, "sign, cached key"))
    for kind in ("sign", "presign"):
        assert lower_quartile(times[f"{kind}, cached key"]) < lower_quartile(times[f"{kind}, derived key"])


def botocore_calls(auth: Any, request: Any, credentials: Credentials) -> dict[str, Callable[[], object]]:
    """Botocore's signers for the same request, its request object built each time as it must be."""
    theirs = importlib.import_module("botocore.credentials").Credentials(
        credentials.access_key_id, credentials.secret_access_key
    )
    header = auth.S3SigV4Auth(theirs, "s3", "auto")
    query = auth.S3SigV4QueryAuth(theirs, "s3", "auto", expires=3600)

    def sign() -> str:
        signed = request(method="GET", url=URL, headers=HEADERS)
        header.add_auth(signed)
        return str(signed.headers["Authorization"])

    def presign() -> str:
        signed = request(method="GET", url=URL)
        query.add_auth(signed)
        return str(signed.url)

    return {"sign, botocore": sign, "presign, botocore": presign}


def test_the_cost_of_a_signature_beside_botocore(capsys: pytest.CaptureFixture[str]) -> None:
    """Ours must cost less than a third of botocore's."""
    try:
        auth = importlib.import_module("botocore.auth")
        request = importlib.import_module("botocore.awsrequest").AWSRequest
    except ImportError:
        reason = "botocore is not installed: `pip install botocore` for the comparison"
        with capsys.disabled():
            print(f"\n  skipped: {reason}")
        pytest.skip(reason)
    credentials = Credentials("AKID", "a-secret-0123456789")
    signer = SigV4Signer(credentials)
    ours: dict[str, Callable[[], object]] = {
        "sign, prewarmkit": partial(signer.sign, "GET", URL, HEADERS),
        "presign, prewarmkit": partial(signer.presign, "GET", URL),
    }
    times = measured(ours | botocore_calls(auth, request, credentials), rounds=25, loops=100)
    show(capsys, "A signature, beside botocore (interleaved)", table(times, "sign, prewarmkit"))
    for kind in ("sign", "presign"):
        ratio = lower_quartile(times[f"{kind}, botocore"]) / lower_quartile(times[f"{kind}, prewarmkit"])
        assert ratio > 3, kind
