"""What every `prewarmkit.stores.MediaStore` must do.

Subclass `StoreContract` in a test module, give it a ``store`` fixture (entered, empty)
and a way to let its time pass, and pytest runs the suite::

    class TestMyStore(StoreContract):
        @pytest.fixture
        async def store(self, clock):
            async with MyStore(clock=clock) as store:
                yield store
"""

from __future__ import annotations

from prewarmkit.testing.contracts.store_cache import StoreCacheContract
from prewarmkit.testing.contracts.store_queue import StoreQueueContract
from prewarmkit.testing.contracts.store_refusals import StoreRefusalsContract
from prewarmkit.testing.contracts.store_renewal import StoreRenewalContract
from prewarmkit.testing.contracts.store_suite import job

__all__ = ["StoreContract", "job"]


class StoreContract(StoreQueueContract, StoreCacheContract, StoreRefusalsContract, StoreRenewalContract):
    """The whole suite."""
