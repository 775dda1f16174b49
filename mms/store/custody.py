"""What proves from outside that the store is ours and where it stands: its lock and its witness, kept up while the server runs."""

from __future__ import annotations

import logging

from mms.store.lock import Lock
from mms.store.trouble import Trouble
from mms.store.witness import Mark, Witness

logger = logging.getLogger(__name__)


class Custody:
    """The lock is taken again where its connection or file was lost; the witness follows each commit."""

    def __init__(self, lock: Lock, witness: Witness) -> None:
        self._lock = lock
        self._witness = witness
        self._witness_failed = False

    def keep_lock(self, epoch: int) -> None:
        """See that the lock is still ours, and take a lost one again. Raises StoreInUse, Trouble."""
        if not self._lock.held():
            self._lock.acquire()
            self.describe(epoch)

    def describe(self, epoch: int) -> None:
        """Leave word of our epoch with the lock, for whoever is refused."""
        try:
            self._lock.describe(epoch)
        except Trouble as trouble:
            logger.warning("The lock could not be described: %s", trouble.message)

    def testify(self, mark: Mark) -> bool:
        """Write the witness; False where that fails: what was committed is not proven against a store that goes back in time."""
        try:
            self._witness.write(mark)
        except OSError as error:
            if not self._witness_failed:
                logger.error(
                    "The witness %s cannot be written (%s): no change is taken until it can.",
                    self._witness.path, error.strerror
                )  # fmt: skip
            self._witness_failed = True
            self._witness.close()
            return False
        if self._witness_failed:
            logger.warning("The witness %s can be written again.", self._witness.path)
        self._witness_failed = False
        return True
