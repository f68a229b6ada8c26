"""Our side of the end-to-end benchmark: ``python warming_ours.py fast|direct [unverified]``, and a task by standard input."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack

import warming_side as side

from prewarmkit import Credentials, PoolSettings, PrewarmPool, R2Client
from prewarmkit.stores import PostgresStore
from prewarmkit.targets import TelegramTarget
from prewarmkit.transports import FastTransport, Transport


async def main(task: side.Task, transport_name: str, *, verify: bool) -> None:
    async with AsyncExitStack() as stack:
        transport: Transport | None = None  # each makes one of its own, which is the default
        if transport_name == "fast":
            transport = await stack.enter_async_context(FastTransport())
        r2 = await stack.enter_async_context(
            R2Client(
                endpoint=task.endpoint,
                bucket=side.BUCKET,
                credentials=Credentials(task.access_key_id, task.secret_access_key),
                transport=transport,
                verify=verify,
            )
        )
        bot = await stack.enter_async_context(
            TelegramTarget(
                task.token,
                warmup_chats=[side.CHAT_ID],
                api_base=task.api_base,
                budget=None,  # the other side keeps to none either
                transport=transport,
            )
        )
        store = await stack.enter_async_context(PostgresStore(task.dsn, auto_migrate=True))
        pool = await stack.enter_async_context(
            PrewarmPool(r2, bot, store, settings=PoolSettings(concurrency=task.concurrency))
        )

        async def deliver(order: side.Order) -> None:
            for keys in order.slices():
                await pool.enqueue_many(keys)
            await pool.join()

        await side.rounds(deliver, profile=task.profile)


if __name__ == "__main__":
    side.run(main(side.task(), sys.argv[1], verify="unverified" not in sys.argv))
