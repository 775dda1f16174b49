"""What a worker process runs: a blocking loop from frame to frame, with no event loop and nothing of the server's front rooms.

It must never import the HTTP stack or the database; a test sees to it.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from mms.request import Result
from mms.workers import frames, messages
from mms.workers.handler import Model
from mms.workers.loading import LoadOrder, load
from mms.workers.progress import Progress

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_POLLRDHUP = 0x2000
_OOM_SCORE = b"800"
_TOGETHER = 0.0002  # seconds of work after which answers leave, whether more calls follow or not
_ORPHANED = 86  # exit status of a worker that found its parent gone

logger = logging.getLogger("mms.worker")


def die_with(parent: int) -> None:
    """Let the kernel kill this process when the thread that started it ends; leave at once if `parent` is gone already."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(_ORPHANED)


def set_name(name: str) -> None:
    """Name this process for `ps` and `/proc` (15 bytes)."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def outlive_signals() -> None:
    """Ctrl-C in a terminal and a service manager's SIGTERM reach the whole group: the server decides when workers end.

    A function rather than SIG_IGN, which the handler's own subprocesses would inherit.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _do_nothing)


def _do_nothing(_number: int, _frame: Any) -> None:
    return None


def main(descriptors: Sequence[int], parent: int) -> NoReturn:
    """Serve one model until told to stop or the server is gone; never returns.

    `descriptors` are this process's own: the socket to the server, the pipes that become stdout and stderr, the file of its
    progress. `parent` is the process that started this one.
    """
    status = 1
    try:
        number, stdout, stderr, shared = descriptors
        sock = socket.socket(fileno=number)
        progress = Progress(shared)
        os.close(shared)
        set_name("mms-worker")
        die_with(parent)
        outlive_signals()
        _take_over_output(stdout, stderr)
        _offer_to_oom_killer()
        _leave_precedence_to_the_server()
        threading.Thread(target=_watch, args=(sock,), name="watch", daemon=True).start()
        _serve(sock, progress)
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except (BrokenPipeError, ConnectionResetError):
        status = _ORPHANED
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        # A normal C exit can hang or abort once onnxruntime has been imported before the fork.
        os._exit(status)


def _take_over_output(stdout: int, stderr: int) -> None:
    with open(os.devnull, "rb") as null:  # noqa: PTH123 - a descriptor is what is wanted
        os.dup2(null.fileno(), 0)
    for source, target in ((stdout, 1), (stderr, 2)):
        os.dup2(source, target)
        os.close(source)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
    faulthandler.enable(sys.stderr)
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s", force=True)


def _offer_to_oom_killer() -> None:
    """Where memory runs out, let it be a worker that goes and not the server."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_bytes(_OOM_SCORE)


def _leave_precedence_to_the_server() -> None:
    """Wake up without pushing whoever runs off its processor: that is mostly the server, with answers in its hands.

    The share of time stays what it was (sched(7), SCHED_BATCH). An operator who chose another policy keeps it.
    """
    with suppress(OSError):  # a container may forbid it, and then all is as it would be without
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _watch(sock: socket.socket) -> None:
    """End this process when the server is gone, even while a handler is busy and nobody reads the socket."""
    poll = select.poll()
    poll.register(sock.fileno(), _POLLRDHUP)
    while True:
        for _, event in poll.poll():
            if event & (select.POLLHUP | select.POLLERR | select.POLLNVAL | _POLLRDHUP):
                os._exit(_ORPHANED)


def _serve(sock: socket.socket, progress: Progress) -> None:
    arriving = frames.read_frames(sock)
    first = next(arriving, None)
    if first is None:
        return
    order = LoadOrder(**frames.decode_control(first))
    model = _load(sock, order)
    if model is None:
        raise SystemExit(1)
    for frame in arriving:
        kind = frames.kind_of(frame)
        if kind == frames.BATCH:
            progress.begin(messages.requests_in(frame))
            frames.write_all(sock, messages.encode_results(*model.predict(messages.decode_batch(frame))))
        elif kind == frames.CALLS:
            _answer_one_by_one(sock, model, frame, progress)
        elif kind == frames.CONFIGURE:
            model.configure(**frames.decode_control(frame))
        elif kind == frames.STOP:
            return


def _answer_one_by_one(sock: socket.socket, model: Model, frame: bytes | memoryview, progress: Progress) -> None:
    """One handler call a request; the answers of calls that take microseconds leave together."""
    progress.begin(1)  # before anything is looked at: what cannot even be read must not be tried again and again
    results: list[Result] = []
    metrics: list[bytes] = []
    since = time.perf_counter()
    for index, request in enumerate(messages.decode_batch(frame)):
        if index:
            progress.begin(1)
        answers, lines = model.predict((request,))
        results += answers
        metrics.append(lines)
        if time.perf_counter() - since >= _TOGETHER:
            frames.write_all(sock, messages.encode_results(results, b"".join(metrics)))
            results, metrics = [], []
            since = time.perf_counter()
    if results:
        frames.write_all(sock, messages.encode_results(results, b"".join(metrics)))


def _load(sock: socket.socket, order: LoadOrder) -> Model | None:
    """Load the model and report; None where it failed."""
    try:
        _settle(order)
        service = load(order)
    except BaseException as error:
        if isinstance(error, SystemExit | KeyboardInterrupt):
            traceback.print_exc()
        report = {
            "message": f"{type(error).__name__}: {' '.join(str(error).split())}"[:1000],
            "detail": traceback.format_exc()[-16_000:],
            "out_of_memory": isinstance(error, MemoryError),
        }
        frames.write_all(sock, [frames.encode_control(frames.LOAD_FAILED, report)])
        return None
    gc.collect()
    gc.freeze()  # what the model holds stays: no collection need look at it again
    frames.write_all(sock, [frames.encode_control(frames.LOADED, {"pid": os.getpid()})])
    return Model(service, decode=order.decode, max_response_size=order.max_response_size)


def _settle(order: LoadOrder) -> None:
    """Environment, folder and random numbers of this worker's own."""
    if order.threads > 1:
        os.environ["OMP_NUM_THREADS"] = str(order.threads)
    os.environ["MMS_DECODE_INPUT_REQUEST"] = "true" if order.decode else "false"
    os.environ.update(order.environment or {})
    os.chdir(order.model_dir)
    sys.dont_write_bytecode = True  # a directory that is served in place stays as it was registered
    sys.argv = ["mms-worker", order.model]
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        # numpy was imported before the fork: without this, every worker would draw the same numbers.
        numpy_random.seed()
