"""What every `prewarmkit.transports.Transport` must do, over real sockets.

Subclass, say how one is made, and let pytest collect it under anyio's plugin::

    pytestmark = pytest.mark.anyio

    class TestMyTransport(TransportContract):
        def transport(self):
            return MyTransport(max_connections=8)   # an async context manager that gives the transport

        def impatient_transport(self, stall_seconds):
            return MyTransport(stall_timeout=stall_seconds)
"""

from __future__ import annotations

from prewarmkit.testing.contracts.transport_faults import TransportFaultContract
from prewarmkit.testing.contracts.transport_messages import TransportMessageContract
from prewarmkit.testing.contracts.transport_sharing import TransportSharingContract

__all__ = ["TransportContract"]


class TransportContract(TransportMessageContract, TransportFaultContract, TransportSharingContract):
    """The whole suite."""
