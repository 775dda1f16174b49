"""The only table from the server's errors to HTTP: status, MMS's name for the type, and the JSON body that says so."""

from __future__ import annotations

from typing import Any, NamedTuple

from mms import errors
from mms.api.json_text import json_text

RESOURCE_NOT_FOUND = "Requested resource is not found, please refer to API document."
METHOD_NOT_ALLOWED = "Requested method is not allowed, please refer to API document."
INVALID_MESSAGE = "Invalid HTTP message."
FAILED_TO_START = "Failed to start workers"
INTERNAL_ERROR = "Internal server error, see the server's log."


class Row(NamedTuple):
    """One error class as clients see it; `outcome` says of a management change whether it may have happened."""

    status: int
    type: str
    outcome: str = ""


_INTERNAL = "InternalServerException"
_UNAVAILABLE = "ServiceUnavailableException"
_NOT_COMMITTED = Row(503, _UNAVAILABLE, "not-committed")

TABLE: dict[type[errors.MmsError], Row] = {
    errors.MmsError: Row(500, _INTERNAL),
    errors.BadInput: Row(400, "BadRequestException"),
    errors.InvalidModel: Row(400, "InvalidModelException"),
    errors.DownloadFailed: Row(400, "DownloadModelException"),
    errors.ModelNotFound: Row(404, "ModelNotFoundException"),
    errors.ResourceNotFound: Row(404, "ResourceNotFoundException"),
    errors.MethodNotAllowed: Row(405, "MethodNotAllowedException"),
    errors.ModelConflict: Row(409, "ConflictStatusException"),
    errors.IdempotencyMismatch: Row(422, "IdempotencyMismatchException"),
    errors.StillRunning: Row(409, "ConflictStatusException"),
    errors.RequestTimedOut: Row(408, "RequestTimeoutException"),
    errors.RequestTooLarge: Row(413, "RequestTooLargeException"),
    errors.NoWorkerAvailable: Row(503, _UNAVAILABLE),
    errors.PredictionFailed: Row(503, _INTERNAL),  # its own `code` beats this
    errors.WorkerDied: Row(500, _INTERNAL),
    errors.ResponseTooLarge: Row(500, _INTERNAL),
    errors.DeadlineExceeded: Row(503, _UNAVAILABLE),
    errors.LoadFailed: Row(500, _INTERNAL),  # 507 where memory ran out
    errors.MissingArchive: Row(404, "ModelNotFoundException"),
    errors.ChangedArchive: Row(409, "ConflictStatusException"),
    errors.NotCommitted: _NOT_COMMITTED,
    errors.Fenced: _NOT_COMMITTED,
    errors.ServerStopping: _NOT_COMMITTED,
    errors.ManagementReadOnly: _NOT_COMMITTED,
    errors.OutcomeUnknown: Row(503, _UNAVAILABLE, "unknown"),
    errors.BootError: Row(500, _INTERNAL),
    errors.UsageError: Row(500, _INTERNAL),
    errors.StoreUnreachable: Row(503, _UNAVAILABLE),
    errors.StoreInUse: Row(503, _UNAVAILABLE),
    errors.StoreDamaged: Row(500, _INTERNAL),
    errors.StoreNewer: Row(500, _INTERNAL),
    errors.StoreOutdated: Row(500, _INTERNAL),
}


def row_of(error: BaseException) -> Row:
    """The row of an error's own class, else of the nearest class above it; any stranger is an internal error."""
    for cls in type(error).__mro__:
        if cls in TABLE:
            return TABLE[cls]
    return TABLE[errors.MmsError]


def error_answer(error: BaseException) -> tuple[int, bytes]:
    """Status and JSON body; an exception that is not ours tells the client nothing but that it happened."""
    row = row_of(error)
    status = row.status
    message = error.message if isinstance(error, errors.MmsError) else INTERNAL_ERROR
    if isinstance(error, errors.PredictionFailed) and 400 <= error.code <= 999:
        status = error.code
    elif isinstance(error, errors.LoadFailed):
        status = 507 if error.out_of_memory else row.status
        message = FAILED_TO_START  # the reason, often pages long, is in the log and in the model's last error
    body: dict[str, Any] = {"code": status, "type": row.type, "message": message}
    if row.outcome:
        body["outcome"] = row.outcome
    return status, json_text(body)
