"""Every instrument of the server in one place: what GET /metrics says, read from the parts' own counters when it is asked.

Nothing is counted here and nothing of it runs on the hot path; that is why it stands high among the layers, beside the API:
it reads the parts, they do not know it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

import mms
from mms.inference.registry import ServedModel
from mms.inference.stats import Histogram
from mms.records import StoreHealth
from mms.status import RecoveryReport, ServerStatus
from mms.store.store import Store
from mms.workers.engine import WorkerState

_MODEL = ("model", "version")

ENDS = (
    ("answered", "answered", "handler"),
    ("failed", "failed", "handler"),
    ("died", "failed", "worker_died"),
    ("expired", "failed", "no_free_worker_in_time"),
    ("dropped", "failed", "model_taken_out_of_service"),
    ("cancelled", "cancelled", "client_gone"),
    ("rejected", "refused", "no_worker_or_queue_full"),
)
"""How a request ends: the counter of ModelStats, and the labels `outcome` and `reason` that it is shown under."""


class Telemetry:
    """GET /metrics: call it for the text and its content type."""

    def __init__(
        self,
        *,
        models: Iterable[ServedModel],
        status: ServerStatus,
        store: Store,
        answers: Callable[[], Sequence[int]],
    ) -> None:
        """`models` is read anew at each call; `answers()[n]` is how many HTTP answers had a status of n hundred."""
        self._registry = CollectorRegistry()
        self._registry.register(ServerCollector(status, store, answers))
        self._registry.register(ModelCollector(models))
        ProcessCollector(registry=self._registry)

    def __call__(self) -> tuple[bytes, str]:
        """The metrics in Prometheus's text form, and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


class ModelCollector(Collector):
    """What each served model and its workers did; counters begin anew where a model is registered anew."""

    def __init__(self, models: Iterable[ServedModel]) -> None:
        self._models = models

    def describe(self) -> Iterator[Metric]:
        """Nothing beforehand: the registry need not ask for figures in order to learn names."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """One pass over the models that are served now."""
        models = [(served, (served.key.name, served.key.version)) for served in self._models]
        yield from _requests(models)
        yield from _queues(models)
        yield from _workers(models)


_Labelled = Sequence[tuple[ServedModel, tuple[str, str]]]


def _requests(models: _Labelled) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "mms_requests", "Predictions by how they ended.", labels=(*_MODEL, "outcome", "reason")
    )
    batches = CounterMetricFamily("mms_batches", "Batches that workers answered.", labels=_MODEL)
    rows = CounterMetricFamily("mms_rows", "Requests in the batches that workers answered.", labels=_MODEL)
    size = HistogramMetricFamily("mms_batch_rows", "Requests in a batch.", labels=_MODEL)
    waiting = HistogramMetricFamily(
        "mms_queue_seconds", "From a request's arrival to the moment its batch left for a worker.", labels=_MODEL
    )
    handling = HistogramMetricFamily(
        "mms_handler_seconds", "A batch's turn in its worker, with the way there and back.", labels=_MODEL
    )
    total = HistogramMetricFamily("mms_request_seconds", "From a request's arrival to its answer.", labels=_MODEL)
    for served, labels in models:
        stats = served.stats
        for counter, outcome, reason in ENDS:
            requests.add_metric((*labels, outcome, reason), getattr(stats, counter))
        batches.add_metric(labels, stats.batches)
        rows.add_metric(labels, stats.rows)
        for family, histogram in (
            (size, stats.size),
            (waiting, stats.wait),
            (handling, stats.turn),
            (total, stats.total),
        ):
            family.add_metric(labels, _buckets(histogram), histogram.total)
    yield from (requests, batches, rows, size, waiting, handling, total)


def _queues(models: _Labelled) -> Iterator[Metric]:
    depth = GaugeMetricFamily("mms_queue_depth", "Requests that no worker has begun.", labels=_MODEL)
    in_flight = GaugeMetricFamily("mms_requests_in_flight", "Accepted requests without a result.", labels=_MODEL)
    for served, labels in models:
        depth.add_metric(labels, served.queue_depth)
        in_flight.add_metric(labels, served.in_flight)
    yield from (depth, in_flight)


def _workers(models: _Labelled) -> Iterator[Metric]:
    wanted = GaugeMetricFamily("mms_workers_wanted", "Workers that the model shall have.", labels=_MODEL)
    workers = GaugeMetricFamily("mms_workers", "Workers by state.", labels=(*_MODEL, "state"))
    memory = GaugeMetricFamily("mms_workers_resident_bytes", "Resident memory of the workers, summed.", labels=_MODEL)
    restarts = CounterMetricFamily("mms_worker_restarts", "Workers that ended and were replaced.", labels=_MODEL)
    failures = CounterMetricFamily("mms_worker_load_failures", "Loads that failed.", labels=_MODEL)
    loads = SummaryMetricFamily(
        "mms_worker_load_seconds", "Loads that succeeded, process start included.", labels=_MODEL
    )
    for served, labels in models:
        pool = served.pool
        present = served.workers
        states = Counter(worker.state for worker in present)
        wanted.add_metric(labels, pool.target)
        for state in WorkerState:
            workers.add_metric((*labels, state.value), states[state])
        memory.add_metric(labels, sum(worker.memory_usage for worker in present))
        restarts.add_metric(labels, pool.restarts)
        failures.add_metric(labels, pool.load_failures)
        loads.add_metric(labels, pool.loads, pool.load_seconds)
    yield from (wanted, workers, memory, restarts, failures, loads)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Prometheus's form: upper bound as text, and everything up to it."""
    bounds = [*(repr(float(bound)) for bound in histogram.bounds), "+Inf"]
    return list(zip(bounds, accumulate(histogram.counts), strict=True))


class ServerCollector(Collector):
    """What the server says of itself: HTTP answers, store, boot decision, recovery, readiness."""

    def __init__(self, status: ServerStatus, store: Store, answers: Callable[[], Sequence[int]]) -> None:
        self._status = status
        self._store = store
        self._answers = answers

    def describe(self) -> Iterator[Metric]:
        """Nothing beforehand, as above."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Everything that is not of one model."""
        info = GaugeMetricFamily("mms_info", "Always 1; the version of the server.", labels=("version",))
        info.add_metric((mms.__version__,), 1)
        yield info
        answers = CounterMetricFamily("mms_http_answers", "HTTP answers by class of their status.", labels=("status",))
        for hundreds, count in enumerate(self._answers()[1:6], 1):
            answers.add_metric((f"{hundreds}xx",), count)
        yield answers
        yield from self._of_store()
        yield from _of_boot(self._status.recovery())
        readiness = self._status.readiness()
        yield GaugeMetricFamily("mms_ready", "1 where /readyz answers 200.", value=int(readiness.ready))
        yield GaugeMetricFamily("mms_models_degraded", "Wanted models not in service.", value=len(readiness.degraded))

    def _of_store(self) -> Iterator[Metric]:
        counts = self._store.counts
        commits = SummaryMetricFamily("mms_store_commit_seconds", "Durable commits, the witness included.")
        commits.add_metric((), counts.commits, counts.seconds)
        yield commits
        failures = CounterMetricFamily("mms_store_failures", "Store transactions that failed.", labels=("kind",))
        for kind, count in dict(counts.failures).items():
            failures.add_metric((str(kind),), count)
        yield failures
        health = GaugeMetricFamily("mms_store_health", "1 for how the store answered last.", labels=("health",))
        for value in StoreHealth:
            health.add_metric((value.value,), int(self._store.health is value))
        yield health
        yield GaugeMetricFamily("mms_journal_seq", "The newest journal number.", value=self._store.last_seq)
        yield GaugeMetricFamily("mms_store_epoch", "The number of this life of the server.", value=self._store.epoch)
        yield GaugeMetricFamily("mms_generation", "The generation of registrations.", value=self._store.generation)


def _of_boot(report: RecoveryReport) -> Iterator[Metric]:
    decision = GaugeMetricFamily(
        "mms_boot_decision", "Always 1; what this boot decided.", labels=("decision", "safe_mode")
    )
    decision.add_metric((report.decision.decision.value, str(report.decision.safe_mode).lower()), 1)
    yield decision
    yield GaugeMetricFamily("mms_recovery_complete", "1 once each model has its outcome.", value=int(report.complete))
    yield GaugeMetricFamily(
        "mms_recovery_seconds", "From the claim to the last model's first outcome, or until now.", value=report.seconds
    )
    outcomes = GaugeMetricFamily("mms_recovery_models", "Models of the boot's plan by outcome.", labels=("outcome",))
    for outcome, count in sorted(Counter(model.outcome.value for model in report.models).items()):
        outcomes.add_metric((outcome,), count)
    yield outcomes
