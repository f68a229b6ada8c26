"""One pool for an app and for the workers beside it.

uvicorn worker_app:app                                       # your web framework, with the lifespan below
python -m prewarmkit worker worker_app:pool --processes 2    # beside it, or on other machines
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from prewarmkit import Credentials, PoolSettings, PrewarmPool, R2Client
from prewarmkit.stores import PostgresStore
from prewarmkit.targets import TelegramTarget


@asynccontextmanager
async def pool(*, works: bool = True) -> AsyncGenerator[PrewarmPool, None]:
    """Called without arguments by each worker."""
    async with (
        R2Client(
            account_id=os.environ["R2_ACCOUNT_ID"],
            bucket=os.environ["R2_BUCKET"],
            credentials=Credentials(os.environ["R2_ACCESS_KEY_ID"], os.environ["R2_SECRET_ACCESS_KEY"]),
        ) as r2,
        PostgresStore(os.environ["DATABASE_URL"]) as store,
        TelegramTarget(os.environ["BOT_TOKEN"], warmup_chats=[int(os.environ["WARMUP_CHAT"])]) as bot,
        PrewarmPool(r2, bot, store, settings=PoolSettings(autostart=works)) as entered,
    ):
        yield entered


@asynccontextmanager
async def lifespan(_app: object) -> AsyncGenerator[dict[str, PrewarmPool], None]:
    """For the app: it enqueues, looks up and waits, and warms nothing itself."""
    async with pool(works=False) as entered:
        yield {"pool": entered}
