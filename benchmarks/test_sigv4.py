"""What the signing-key cache saves, and what a signature costs beside other signers.

Needs the project and pytest alone. Peers that are installed are measured beside ours in
interleaved rounds of one run, so that a noisy machine is noisy for all; ``make bench``
installs them. Each sample signs requests for different keys and ranges.
"""

from __future__ import annotations

import importlib
import time
from collections import Counter
from collections.abc import Callable, Generator
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
from measuring import interleaved

from prewarmkit import Credentials, KeyScope, MemoryKeyCache, SigningKey, SigV4Signer
from prewarmkit.sigv4 import keyring
from prewarmkit.sigv4.keys import derive_signing_key

DAY = 86_400
START = 1_735_689_600.0  # 2025-01-01T00:00:00Z
TENANTS, BUCKETS, DAYS = 3, 2, 7
SIGNATURES = 1_000_000 // (TENANTS * BUCKETS) * (TENANTS * BUCKETS)
HOST = "0123abc.r2.cloudflarestorage.com"
ORIGIN = f"https://{HOST}"
KEYS = [f"videos/2025/{number:02}/intro-{number * 7919}.mp4" for number in range(50)]
URLS = [f"{ORIGIN}/media/{key}" for key in KEYS]
RANGES = [f"bytes={number * 1_048_576}-{(number + 1) * 1_048_576 - 1}" for number in range(50)]
CREDENTIALS = Credentials("AKIDEXAMPLE", "a-secret-0123456789-a-secret-0123456789")


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

    def counting(credentials: Credentials, scope: KeyScope) -> SigningKey:
        derived[scope] += 1
        return derive_signing_key(credentials, scope)

    monkeypatch.setattr(keyring, "derive_signing_key", counting)
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
        ("misses", f"{misses} (the first of each tenant; each later day's key was there before midnight)"),
        ("derivations", f"{derived.total()} ({TENANTS} tenants x {DAYS} days, and the day to come)"),
        ("keys held", f"{len(cache)} of at most {cache.maxsize}"),
        ("time", f"{seconds:.1f} s, each signature in a second of its own"),
    ]
    show(capsys, f"A simulated week, {TENANTS} tenants x {BUCKETS} buckets", rows)
    assert hits + misses == rounds * len(places) == SIGNATURES
    assert rate >= 0.9999
    assert misses == TENANTS
    assert set(derived.values()) == {1}
    expected = {
        (tenant.secret_digest, f"202501{day + 1:02}") for tenant in tenants for day in range(DAYS + 1)
    }
    assert {(scope.secret_digest, scope.date) for scope in derived} == expected


# ── what a signature costs ───────────────────────────────────────────────────

Call = Callable[[int], object]
"""Signs the n-th request."""


def microseconds(calls: dict[str, Call]) -> dict[str, float]:
    """The median microseconds of a call of every kind."""

    def series(call: Call) -> Callable[[int], float]:
        def run(count: int) -> float:
            began = time.perf_counter()
            for number in range(count):
                call(number % 50)
            return (time.perf_counter() - began) / count * 1e6

        return run

    return interleaved({name: series(call) for name, call in calls.items()}, rounds=40, calls=100)


def table(figures: dict[str, float], beside: str) -> list[tuple[str, str]]:
    """Rows of a table; how each compares to one of them."""
    rows = [(name, f"{figure:7.1f}   {figure / figures[beside]:6.2f} x") for name, figure in figures.items()]
    return [("", "     us"), *rows]


def test_the_cost_of_a_signature_with_and_without_the_cache(capsys: pytest.CaptureFixture[str]) -> None:
    """A hit must be clearly cheaper than deriving the key each time."""
    cached, uncached = SigV4Signer(CREDENTIALS), SigV4Signer(CREDENTIALS, key_cache=NoCache())
    figures = microseconds(
        {
            "sign, cached key": lambda n: cached.sign("GET", URLS[n], {"range": RANGES[n]}),
            "sign, derived key": lambda n: uncached.sign("GET", URLS[n], {"range": RANGES[n]}),
            "presign, cached key": lambda n: cached.presign("GET", URLS[n]),
            "presign, derived key": lambda n: uncached.presign("GET", URLS[n]),
            "sign, cached key, a list's query": lambda n: cached.sign(
                "GET", f"{ORIGIN}/media?list-type=2&max-keys={n}&prefix=videos%2F"
            ),
            "sign, cached key, a non-ASCII key": lambda n: cached.sign("GET", f"{ORIGIN}/media/größe-{n}"),
        }
    )
    show(capsys, "A signature, by our signer", table(figures, "sign, cached key"))
    for kind in ("sign", "presign"):
        assert figures[f"{kind}, cached key"] < 0.5 * figures[f"{kind}, derived key"]


def ours() -> dict[str, Call]:
    signer = SigV4Signer(CREDENTIALS)
    return {
        "sign, prewarmkit": lambda n: signer.sign("GET", URLS[n], {"range": RANGES[n]}),
        "presign, prewarmkit": lambda n: signer.presign("GET", URLS[n]),
    }


def by_botocore() -> dict[str, Call]:
    """Its signers, with its request object, which must be built each time."""
    auth, request = importlib.import_module("botocore.auth"), importlib.import_module("botocore.awsrequest")
    theirs = importlib.import_module("botocore.credentials").Credentials(
        CREDENTIALS.access_key_id, CREDENTIALS.secret_access_key
    )
    header = auth.S3SigV4Auth(theirs, "s3", "auto")
    query = auth.S3SigV4QueryAuth(theirs, "s3", "auto", expires=3600)

    def sign(n: int) -> None:
        header.add_auth(request.AWSRequest(method="GET", url=URLS[n], headers={"range": RANGES[n]}))

    def presign(n: int) -> None:
        query.add_auth(request.AWSRequest(method="GET", url=URLS[n]))

    return {"sign, botocore": sign, "presign, botocore": presign}


def by_awscrt() -> dict[str, Call]:
    """The C library, its credentials provider reused."""
    auth, http = importlib.import_module("awscrt.auth"), importlib.import_module("awscrt.http")
    provider = auth.AwsCredentialsProvider.new_static(
        CREDENTIALS.access_key_id, CREDENTIALS.secret_access_key
    )

    def sign(n: int) -> None:
        headers = http.HttpHeaders([("host", HOST), ("range", RANGES[n])])
        request = http.HttpRequest("GET", f"/media/{KEYS[n]}", headers)
        config = auth.AwsSigningConfig(
            algorithm=auth.AwsSigningAlgorithm.V4,
            signature_type=auth.AwsSignatureType.HTTP_REQUEST_HEADERS,
            credentials_provider=provider,
            region="auto",
            service="s3",
            use_double_uri_encode=False,
            should_normalize_uri_path=False,
            signed_body_value="UNSIGNED-PAYLOAD",
            signed_body_header_type=auth.AwsSignedBodyHeaderType.X_AMZ_CONTENT_SHA_256,
        )
        auth.aws_sign_request(request, config).result()

    return {"sign, awscrt": sign}


def by_minio() -> dict[str, Call]:
    signer = importlib.import_module("minio.signer")
    theirs = importlib.import_module("minio.credentials").Credentials(
        CREDENTIALS.access_key_id, CREDENTIALS.secret_access_key
    )

    def sign(n: int) -> None:
        now = datetime.now(UTC)
        headers = {
            "Host": HOST,
            "Range": RANGES[n],
            "x-amz-content-sha256": "UNSIGNED-PAYLOAD",
            "x-amz-date": now.strftime("%Y%m%dT%H%M%SZ"),
        }
        signer.sign_v4_s3(
            method="GET",
            url=urlsplit(URLS[n]),
            region="auto",
            headers=headers,
            credentials=theirs,
            content_sha256="UNSIGNED-PAYLOAD",
            date=now,
        )

    return {"sign, minio": sign}


def by_aioaws() -> dict[str, Call]:
    """It takes no headers of the caller's, and hashes the (empty) body."""
    core, httpx = importlib.import_module("aioaws.core"), importlib.import_module("httpx")
    signer = core.AWSv4Auth(
        aws_access_key=CREDENTIALS.access_key_id,
        aws_secret_key=CREDENTIALS.secret_access_key,
        region="auto",
        service="s3",
    )
    urls = [httpx.URL(url) for url in URLS]
    return {"sign, aioaws": lambda n: signer.auth_headers("GET", urls[n])}


def by_obstore() -> dict[str, Call]:
    """In Rust."""
    obstore = importlib.import_module("obstore")
    store = importlib.import_module("obstore.store").S3Store(
        "media",
        endpoint=ORIGIN,
        access_key_id=CREDENTIALS.access_key_id,
        secret_access_key=CREDENTIALS.secret_access_key,
        region="auto",
    )
    hour = timedelta(hours=1)
    return {"presign, obstore": lambda n: obstore.sign(store, "GET", KEYS[n], hour)}


def by_boto3() -> dict[str, Call]:
    """What most people call."""
    client = importlib.import_module("boto3").client(
        "s3",
        endpoint_url=ORIGIN,
        aws_access_key_id=CREDENTIALS.access_key_id,
        aws_secret_access_key=CREDENTIALS.secret_access_key,
        region_name="auto",
        config=importlib.import_module("botocore.config").Config(signature_version="s3v4"),
    )
    return {
        "presign, boto3 generate_presigned_url": lambda n: client.generate_presigned_url(
            "get_object", Params={"Bucket": "media", "Key": KEYS[n]}
        )
    }


def peers() -> Generator[tuple[str, dict[str, Call] | None]]:
    """Each peer's calls, or None where it is not installed."""
    makers = (by_botocore, by_awscrt, by_minio, by_aioaws, by_obstore, by_boto3)
    for make in makers:
        name = make.__name__.removeprefix("by_")
        try:
            importlib.import_module(name)
        except ImportError:
            yield name, None
        else:
            yield name, make()


GOALS = {
    "sign, botocore": 12,
    "sign, awscrt": 3,
    "presign, obstore": 2,
    "presign, boto3 generate_presigned_url": 30,
}
"""How many times dearer than ours each must be."""


def test_the_cost_of_a_signature_beside_other_signers(
    capsys: pytest.CaptureFixture[str], plots: dict[str, dict[str, float]]
) -> None:
    calls = ours()
    for name, theirs in peers():
        if theirs is None:
            with capsys.disabled():
                print(f"\n{name} is not installed: left out")
        calls.update(theirs or {})
    if len(calls) == len(ours()):
        pytest.skip("no peer is installed: `make bench` installs them")
    figures = microseconds(calls)
    plots["signatures"] = figures
    for kind in ("sign", "presign"):
        rows = {name: figure for name, figure in figures.items() if name.startswith(kind)}
        show(capsys, f"{kind}, interleaved", table(rows, f"{kind}, prewarmkit"))
    for name, goal in GOALS.items():
        if name in figures:
            mine = figures[f"{name.partition(',')[0]}, prewarmkit"]
            assert figures[name] >= goal * mine, f"{name}: {figures[name] / mine:.1f} x, {goal} x is the goal"
