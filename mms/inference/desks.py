"""The ready workers of one model as the dispatcher sees them: who is free, who holds what, and in which order."""

from __future__ import annotations

from collections import deque

from mms.request import Batch, InferenceRequest
from mms.workers.engine import Worker


class Desk:
    """One ready worker and what is in its hands, oldest first: `rows` requests in `calls` calls of its handler.

    `ahead` of the requests stand behind the oldest call; `turn_began` is when that one became the worker's only task.
    """

    __slots__ = ("ahead", "batches", "calls", "leaving", "rows", "turn_began", "worker")

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.batches: deque[Batch] = deque()
        self.calls = 0
        self.rows = 0
        self.ahead = 0
        self.turn_began = 0.0
        self.leaving = False


class Desks:
    """All desks of a model.

    `free` are those with nothing in hand; the last one used goes first, its caches are warm. `in_hand` counts requests with
    workers, `ahead` those of them that stand behind a worker's oldest call: most likely nobody has begun them.
    """

    __slots__ = ("_by_worker", "ahead", "free", "in_hand")

    def __init__(self) -> None:
        self._by_worker: dict[Worker, Desk] = {}
        self.free: list[Desk] = []
        self.in_hand = 0
        self.ahead = 0

    def __len__(self) -> int:
        return len(self._by_worker)

    def __contains__(self, worker: Worker) -> bool:
        return worker in self._by_worker

    def add(self, worker: Worker) -> None:
        """A worker is ready."""
        desk = Desk(worker)
        self._by_worker[worker] = desk
        self.free.append(desk)

    def get(self, worker: Worker) -> Desk | None:
        """The worker's desk; None once it is gone."""
        return self._by_worker.get(worker)

    def hand(self, desk: Desk, batch: Batch, now: float) -> None:
        """A batch has been sent."""
        rows = len(batch.requests)
        if not desk.batches:
            self.free.remove(desk)
            desk.turn_began = now
        desk.batches.append(batch)
        desk.calls += batch.calls
        desk.rows += rows
        self.in_hand += rows
        self._count_ahead(desk)

    def answered(self, worker: Worker, batch: Batch, now: float) -> tuple[Desk, float]:
        """The oldest batch is answered, or `batch` as the first part of it: the desk, and how long each of its calls took."""
        desk = self._by_worker[worker]
        oldest = desk.batches[0]
        rows = len(batch.requests)
        calls = batch.calls
        if oldest is batch:
            desk.batches.popleft()
        desk.calls -= calls
        desk.rows -= rows
        self.in_hand -= rows
        self._count_ahead(desk)
        turn = (now - desk.turn_began) / calls
        desk.turn_began = now
        if not desk.batches and not desk.leaving:
            self.free.append(desk)
        return desk, turn

    def _count_ahead(self, desk: Desk) -> None:
        ahead = 0
        if desk.batches:
            oldest = desk.batches[0]
            ahead = desk.rows - (1 if oldest.apart else len(oldest.requests))
        self.ahead += ahead - desk.ahead
        desk.ahead = ahead

    def least_loaded(self, most: int, ripe: float, longest_turn: float, now: float) -> Desk | None:
        """The desk with the fewest calls, below `most`, whose turn is at least `ripe` and at most `longest_turn` seconds old.

        Among several the one whose turn is the oldest: it is the next to come free.
        """
        least: Desk | None = None
        since, until = now - longest_turn, now - ripe
        for desk in self._by_worker.values():
            held, began = desk.calls, desk.turn_began
            if desk.leaving or not since <= began <= until:
                continue
            if held < most or (held == most and least is not None and began < least.turn_began):
                most = held
                least = desk
        return least

    def next_ripe(self, ripe: float, now: float) -> float:
        """When the next turn of a desk with nothing ahead becomes `ripe` seconds old; 0.0 where none will."""
        moments = [desk.turn_began + ripe for desk in self._by_worker.values() if desk.calls == 1 and not desk.leaving]
        return min((moment for moment in moments if moment > now), default=0.0)

    def set_aside(self, desk: Desk) -> None:
        """Give it no further batch; what it holds is still its own."""
        if not desk.leaving:
            desk.leaving = True
            if not desk.batches:
                self.free.remove(desk)

    def remove(self, worker: Worker) -> tuple[list[InferenceRequest], list[InferenceRequest]] | None:
        """The worker has ended: the requests that it had begun, and those that it had not; None if it was gone already."""
        desk = self._by_worker.pop(worker, None)
        if desk is None:
            return None
        self.set_aside(desk)
        self.ahead -= desk.ahead
        self.in_hand -= desk.rows
        held = [request for batch in desk.batches for request in batch.requests]
        begun = worker.begun
        return held[:begun], held[begun:]
