"""Clients that change models and ask for predictions, all at once, and note what they were told."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Mapping
from typing import Any

import httpx

from chaos.history import Call, History, Outcome, Verb
from chaos.site import CONFIGURED, MODELS, Site, until

ANSWER_WITHIN = 30.0
LOAD_FAILED = '"Failed to start workers"'
"""Of a registration: its compensation is committed before this answer, so that nothing of it is left."""
_API_NAMES = {"min_workers": "min_worker", "max_workers": "max_worker"}
_REMOVABLE = ("batch_size", "max_request_size", "job_queue_size")


class Client:
    """One caller: sends, and classifies the answer as the contract allows a client to."""

    def __init__(self, name: str, site: Site, history: History, rng: random.Random) -> None:
        self._name = name
        self._site = site
        self._history = history
        self._rng = rng
        self._http = httpx.Client(timeout=ANSWER_WITHIN, trust_env=False)
        self.wrong: list[str] = []

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def step(self) -> Call:
        """One call, drawn at random."""
        model = self._rng.choice(MODELS)
        verb = self._rng.choices(
            (Verb.REGISTER, Verb.UPDATE, Verb.REMOVE, Verb.UNREGISTER, Verb.PREDICT), (5, 6, 2, 2, 5)
        )[0]
        if verb is Verb.PREDICT:
            return self.predict(model)
        return self.change(verb, model, self._draw(verb))

    def _draw(self, verb: Verb) -> dict[str, Any]:
        number = self._rng.randrange(2, 10_000)
        if verb is Verb.REGISTER:
            return {"min_workers": 1, "batch_size": 1 + number % 64, "max_batch_delay": 1 + number % 20}
        if verb is Verb.REMOVE:
            return {self._rng.choice(_REMOVABLE): None}
        if verb is Verb.UPDATE and self._rng.random() < 0.2:
            workers = self._rng.choice((1, 1, 2))
            return {"min_workers": workers, "max_workers": workers}
        if verb is Verb.UPDATE:  # two at once: both or neither
            return {"job_queue_size": 100 + number, "max_request_size": 10_000 + number}
        return {}

    def change(self, verb: Verb, model: str, values: Mapping[str, Any], *, again: Call | None = None) -> Call:
        """One change with an Idempotency-Key; `again` repeats a call whose outcome nobody knows."""
        key = again.key if again is not None else uuid.UUID(int=self._rng.getrandbits(128)).hex
        method, path = request_of(verb, model, values)
        repeats = None if again is None else again.number
        call = self._history.invoked(self._name, verb, model, values, key=key, repeats=repeats)
        try:
            answer = self._http.request(method, self._site.management_url + path, headers={"Idempotency-Key": key})
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            return self._history.ended(call, Outcome.REFUSED, text=f"never sent: {error!r}")
        except httpx.TransportError as error:
            return self._history.ended(call, Outcome.UNKNOWN, text=repr(error))
        replayed = answer.headers.get("idempotent-replayed") == "true"
        outcome = outcome_of(answer, verb)
        if outcome is Outcome.REFUSED and answer.status_code in (400, 422):
            self.wrong.append(f"{method} {path} was answered {answer.status_code}: {answer.text[:200]}")
        return self._history.ended(call, outcome, status=answer.status_code, replayed=replayed, text=answer.text)

    def predict(self, model: str) -> Call:
        """One prediction; an answer with another model's or request's output is wrong whatever happens to the server."""
        body = f"{self._name}-{self._rng.randrange(10**6)}"
        call = self._history.invoked(self._name, Verb.PREDICT, model)
        try:
            answer = self._http.post(f"{self._site.inference_url}/predictions/{model}", content=body)
        except httpx.TransportError as error:
            return self._history.ended(call, Outcome.UNKNOWN, text=repr(error))
        if answer.status_code == 200:
            if answer.text != f"{model}:{body}":
                self.wrong.append(f"the prediction of {model} for {body} answered {answer.text[:200]}")
            return self._history.ended(call, Outcome.OK, status=200)
        if answer.status_code not in (404, 408, 500, 503):
            self.wrong.append(f"the prediction of {model} answered {answer.status_code}: {answer.text[:200]}")
        return self._history.ended(call, Outcome.REFUSED, status=answer.status_code, text=answer.text)


def request_of(verb: Verb, model: str, values: Mapping[str, Any]) -> tuple[str, str]:
    """Method and path of a change."""
    query = "&".join(f"{_API_NAMES.get(name, name)}={value}" for name, value in values.items())
    if verb is Verb.REGISTER:
        url = f"{model}.mar" if model in ("cedar", "damson") else model
        return "POST", f"/models?url={url}&{query}"
    if verb is Verb.UPDATE:
        return "PUT", f"/models/{model}?{query}&synchronous=true"
    if verb is Verb.REMOVE:
        return "DELETE", f"/models/{model}/settings/{next(iter(values))}"
    return "DELETE", f"/models/{model}"


def outcome_of(answer: httpx.Response, verb: Verb) -> Outcome:
    """What the documentation lets a client conclude."""
    status = answer.status_code
    if 200 <= status < 300:
        return Outcome.OK
    if status == 409:
        return Outcome.CONFLICT if "already registered" in answer.text else Outcome.UNKNOWN
    if status == 404 or (status == 400 and verb is Verb.REMOVE and "has no override" in answer.text):
        return Outcome.ABSENT
    if status == 408:  # of an unregistration: the model stays, with no workers
        return Outcome.UNKNOWN
    if status == 500 and verb is Verb.REGISTER and LOAD_FAILED in answer.text:
        return Outcome.REFUSED
    if 400 <= status < 500 or (status == 503 and '"not-committed"' in answer.text):
        return Outcome.REFUSED
    return Outcome.UNKNOWN


class Load:
    """Several clients at once, each in a thread, until they are stopped."""

    def __init__(self, site: Site, history: History, seed: str, *, clients: int = 3, pause: float = 0.01) -> None:
        self._history = history
        self._pause = pause
        self._stop = threading.Event()
        self.clients = [
            Client(f"client-{number}", site, history, random.Random(f"{seed}/{number}")) for number in range(clients)
        ]
        self._threads = [threading.Thread(target=self._run, args=(client,), daemon=True) for client in self.clients]

    def start(self) -> Load:
        """Begin."""
        for thread in self._threads:
            thread.start()
        return self

    def wait_for(self, acknowledged: int, seconds: float = 30.0) -> None:
        """Wait until so many changes of this life have been acknowledged."""
        life = self._history.life
        until(
            lambda: (
                sum(call.outcome is Outcome.OK and bool(call.key) for call in self._history.calls(life)) >= acknowledged
            ),
            seconds,
            f"{acknowledged} acknowledged changes",
        )

    def stop(self) -> list[str]:
        """End all clients; returns answers that were wrong by themselves."""
        self._stop.set()
        for thread in self._threads:
            thread.join(ANSWER_WITHIN + 10)
        for client in self.clients:
            client.close()
        return [text for client in self.clients for text in client.wrong]

    def _run(self, client: Client) -> None:
        while not self._stop.is_set():
            call = client.step()
            lost = call.outcome in (Outcome.UNKNOWN, Outcome.REFUSED)
            self._stop.wait(0.05 if lost else self._pause)


def initial_states() -> dict[str, Mapping[str, Any]]:
    """What a manifest boot leaves: the configured model, with no override."""
    return {CONFIGURED: {}}
