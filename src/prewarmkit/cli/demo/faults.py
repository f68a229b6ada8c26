"""What can be broken on purpose, each by really causing it: nothing is simulated.

``unknown-kind`` is not here: it is a call of the supervisor's own.
"""

from __future__ import annotations

from attrs import evolve

from prewarmkit.cli.demo.wire import Order

__all__ = ["spoiled"]


def spoiled(order: Order, fault: str | None) -> Order:
    """The order of a worker that will meet this fault."""
    match fault:
        case "wrong-secret":
            return evolve(order, secret_access_key=order.secret_access_key[::-1])
        case "missing-bucket":
            return evolve(order, bucket=f"{order.bucket}-that-is-not-there")
        case "full-disk":
            # SQLite never shrinks a file for this: it may stay as large as it is, and no larger.
            return evolve(order, max_bytes=1)
        case "revoked-token":
            bot, _, secret = order.token.partition(":")
            return evolve(order, token=f"{bot}:{secret[::-1]}")
        case _:
            return order
