"""Kill -9 of worker processes on one durable store, the same for each."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Collection

import anyio
from attrs import frozen
from workers import finish

from prewarmkit.stores import MediaStore, State
from prewarmkit.testing.contracts.store import job

__all__ = ["Kills", "kill_and_go_on"]

_SLEEP_EACH = 4
_SLEEP_SECONDS = 0.7  # more than the workers' leases last


@frozen
class Kills:
    """A run in which processes died.

    Attributes:
        media: How many were put in; all are ready.
        victims: The numbers of the processes that were killed.
        seconds: How long it took.
    """

    media: int
    victims: Collection[int]
    seconds: float


async def kill_and_go_on(
    store: MediaStore, start_one: Callable[[], subprocess.Popen[bytes]], *, kills: int, media_a_kill: int
) -> Kills:
    """Kill one of three processes at a random point, again and again; then let the living finish.

    The first is spared: now and then it sleeps beyond its leases, and comes back with late words.
    """
    dice, put_in, victims, began = random.Random(7), 0, set[int](), time.monotonic()
    await store.enqueue([job("last", delay=3600)])  # nobody is done before the end
    running = [start_one() for _ in range(3)]
    sleeper = running[0]
    for kill in range(kills):
        await store.enqueue([job(f"{put_in + n}") for n in range(media_a_kill)])
        put_in += media_a_kill
        await anyio.sleep(dice.uniform(0.01, 0.2))
        is_asleep = kill % _SLEEP_EACH == 0
        if is_asleep:
            os.kill(sleeper.pid, signal.SIGSTOP)
            await anyio.sleep(_SLEEP_SECONDS)
        victim = running.pop(dice.randrange(1, 3))
        victims.add(victim.pid)
        os.kill(victim.pid, signal.SIGKILL)
        victim.communicate(timeout=10)
        if is_asleep:
            os.kill(sleeper.pid, signal.SIGCONT)
        running.append(start_one())
    await store.enqueue([job("last")])
    for process in running:
        finish(process)
    counts = await store.counts()
    assert {state: rows for (_, _, state), rows in counts.items()} == {State.READY: put_in + 1}
    return Kills(put_in + 1, victims, time.monotonic() - began)
