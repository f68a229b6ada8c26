"""The other side of the end-to-end benchmark, ``python warming_script.py [uvloop]``: what a good engineer writes otherwise.

procrastinate for the queue, aiobotocore for R2, aiogram for Telegram, a table of handles by a psycopg pool: each
library at its best documented settings. Everything is made once and shared, connection pools are as large
as there are jobs at once, jobs go in by the thousand, and the worker neither listens nor polls.
What makes no difference to it: streaming the object into the form, files in one chunk, fewer connections,
no validation of parameters, jobs deleted when they are done.
"""

# aiobotocore ships no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from typing import Any

import procrastinate
import psycopg_pool
import warming_side as side
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from aiogram import Bot
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.types import BufferedInputFile, Message
from procrastinate.types import JSONDict

CREATE = """
CREATE TABLE IF NOT EXISTS file_ids (
    media_key text PRIMARY KEY,
    kind text NOT NULL,
    file_id text NOT NULL,
    file_unique_id text NOT NULL,
    warmed_at timestamptz NOT NULL DEFAULT now()
)
"""
KEEP = """
INSERT INTO file_ids (media_key, kind, file_id, file_unique_id) VALUES (%s, %s, %s, %s)
ON CONFLICT (media_key) DO UPDATE
SET kind = EXCLUDED.kind, file_id = EXCLUDED.file_id, file_unique_id = EXCLUDED.file_unique_id, warmed_at = now()
"""


async def send(bot: Bot, name: str, data: bytes) -> tuple[str, str, str]:
    """Send a file as what its name says; the kind, and its two ids."""
    file = BufferedInputFile(data, name)
    message: Message
    match name.rpartition(".")[2]:
        case "jpg":
            message = await bot.send_photo(side.CHAT_ID, file, disable_notification=True)
            assert message.photo
            return "photo", message.photo[-1].file_id, message.photo[-1].file_unique_id
        case "mp4":
            message = await bot.send_video(side.CHAT_ID, file, disable_notification=True)
            assert message.video
            return "video", message.video.file_id, message.video.file_unique_id
        case _:
            message = await bot.send_document(side.CHAT_ID, file, disable_notification=True)
            assert message.document
            return "document", message.document.file_id, message.document.file_unique_id


async def main(task: side.Task) -> None:
    async with AsyncExitStack() as stack:
        s3: Any = await stack.enter_async_context(
            get_session().create_client(
                "s3",
                endpoint_url=task.endpoint,
                aws_access_key_id=task.access_key_id,
                aws_secret_access_key=task.secret_access_key,
                region_name="auto",
                config=AioConfig(
                    max_pool_connections=task.concurrency,
                    s3={"addressing_style": "path"},
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                ),
            )
        )
        session = AiohttpSession(api=TelegramAPIServer.from_base(task.api_base))
        bot = await stack.enter_async_context(Bot(task.token, session=session))
        database = await stack.enter_async_context(
            psycopg_pool.AsyncConnectionPool(
                task.dsn, min_size=4, max_size=task.concurrency, open=False, kwargs={"autocommit": True}
            )
        )
        async with database.connection() as connection:
            await connection.execute(CREATE)
        app = procrastinate.App(
            connector=procrastinate.PsycopgConnector(conninfo=task.dsn, min_size=4, max_size=task.concurrency)
        )
        await stack.enter_async_context(app.open_async())
        await app.schema_manager.apply_schema_async()

        @app.task(name="warm", retry=5)
        async def warm(key: str) -> None:
            answer = await s3.get_object(Bucket=side.BUCKET, Key=key)
            async with answer["Body"] as body:
                data = await body.read()
            ids = await send(bot, key.rpartition("/")[2], data)
            async with database.connection() as connection:
                await connection.execute(KEEP, (key, *ids))

        async def deliver(order: side.Order) -> None:
            for keys in order.slices():
                jobs: list[JSONDict] = [{"key": key} for key in keys]
                await warm.batch_defer_async(*jobs)
            await app.run_worker_async(
                concurrency=task.concurrency, wait=False, listen_notify=False, install_signal_handlers=False
            )

        await side.rounds(deliver, profile=task.profile)


if __name__ == "__main__":
    side.run(main(side.task()), *sys.argv[1:])
