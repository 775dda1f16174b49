"""Every error class of the server; what a caller may be told, with no word of HTTP or of exit codes.

`mms/api/errors.py` is the only table from these classes to HTTP statuses, `mms/cli.py` the only one to exit codes.
"""


class MmsError(Exception):
    """Base of all: `message` is one line, fit to be shown to the user as it is.

    `replayed` is True where it is the stored answer to an earlier request with the same Idempotency-Key.
    """

    replayed = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


# --- what a client asked for ------------------------------------------------------------------------------------------


class BadInput(MmsError):
    """A parameter, body or URL is wrong; the message names it and what is expected."""


class InvalidModel(MmsError):
    """The archive cannot be served: its manifest or its files are wrong."""


class DownloadFailed(MmsError):
    """A model URL could not be fetched."""


class ModelNotFound(MmsError):
    """No model of that name, or no archive at that place in the model store."""


class ResourceNotFound(MmsError):
    """No such route."""


class MethodNotAllowed(MmsError):
    """The route exists, the method does not."""


class ModelConflict(MmsError):
    """A model of that name is registered already."""


class IdempotencyMismatch(MmsError):
    """An Idempotency-Key was used again with another request."""


class StillRunning(MmsError):
    """The first request with this Idempotency-Key has not finished."""


class RequestTimedOut(MmsError):
    """A management request ran out of its own time limit."""


class RequestTooLarge(MmsError):
    """The body is larger than `max_request_size`."""


# --- predictions ------------------------------------------------------------------------------------------------------


class NoWorkerAvailable(MmsError):
    """No worker is configured for the model, or its queue is full, or it is not in service."""


class PredictionFailed(MmsError):
    """The handler failed; `code` is the status that the handler's contract gives to this failure."""

    def __init__(self, message: str, code: int = 503) -> None:
        super().__init__(message)
        self.code = code


class WorkerDied(MmsError):
    """The worker ended, or was ended because it did not answer, with this request in its hands.

    `message` is what clients are told; `detail` says to operators how it ended. `environment` is True where the cause is
    not the model (the fork server went): never charged to the model.
    """

    def __init__(self, message: str = "Worker died.", *, detail: str = "", environment: bool = False) -> None:
        super().__init__(message)
        self.detail = detail
        self.environment = environment


class ResponseTooLarge(MmsError):
    """The answer of the handler is larger than `max_response_size`."""


class DeadlineExceeded(MmsError):
    """The request waited or ran longer than its deadline."""


# --- loading ----------------------------------------------------------------------------------------------------------


class LoadFailed(MmsError):
    """A worker could not load its model.

    `detail` is the handler's own error (several lines), `out_of_memory` is True where memory ran out,
    `environment` is True where the cause is not the model (disk full, fork server gone): never charged to the model.
    """

    def __init__(
        self, message: str, *, detail: str = "", out_of_memory: bool = False, environment: bool = False
    ) -> None:
        super().__init__(message)
        self.detail = detail
        self.out_of_memory = out_of_memory
        self.environment = environment


class MissingArchive(MmsError):
    """A stored registration names an archive that is nowhere to be had."""


class ChangedArchive(MmsError):
    """A stored registration names a directory whose content is no longer what was registered."""


# --- the store, while running -----------------------------------------------------------------------------------------


class NotCommitted(MmsError):
    """The store could not be written and certainly was not: the change has no effect."""


class OutcomeUnknown(MmsError):
    """The store did not say whether the change was committed: it may or may not have happened."""


class Fenced(NotCommitted):
    """Another server has claimed the store: this one must stop changing anything."""


class ServerStopping(NotCommitted):
    """The server is draining; no management change is accepted any more."""


class ManagementReadOnly(NotCommitted):
    """Management changes are closed: still recovering, or booted without its store."""


# --- the boot ---------------------------------------------------------------------------------------------------------


class BootError(MmsError):
    """The server cannot start; the message says what to do."""


class UsageError(BootError):
    """A flag, a configuration value or their combination is wrong."""


class StoreUnreachable(BootError):
    """The store did not answer within `boot_store_timeout`."""


class StoreInUse(BootError):
    """Another server holds the store's lock; the message names host, pid and epoch."""


class StoreDamaged(BootError):
    """The store is cut, changed or emptied, or has gone back in time."""


class StoreNewer(BootError):
    """The store was written by a newer version of the code."""


class StoreOutdated(BootError):
    """The store's schema is older than the code and may not be upgraded without being asked."""
