"""Real servers, honest fakes and contract suites, for our tests and for a host's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prewarmkit._lazy import lazy_exports

if TYPE_CHECKING:
    from prewarmkit.testing.faults.fault import Fault as Fault
    from prewarmkit.testing.faults.proxy import FaultProxy as FaultProxy

__all__ = ["Fault", "FaultProxy"]

_DEFINED_IN = {
    "Fault": "prewarmkit.testing.faults.fault",
    "FaultProxy": "prewarmkit.testing.faults.proxy",
}

__getattr__, __dir__ = lazy_exports(__name__, _DEFINED_IN)
