import asyncio
from dataclasses import replace

import pytest

from mms.errors import LoadFailed, ModelNotFound, NoWorkerAvailable
from mms.inference.registry import Registry
from mms.inference.service import InferenceService
from mms.records import ModelKey
from mms.workers.engine import WorkerState
from tests.unit.inference.building import SETTINGS, Asked, Gate, ask, bodies, echo, served
from tests.unit.inference.memory_engine import MemoryEngine, MemoryWorker


def predict(service: InferenceService, name: str, body: bytes = b"x") -> Asked:
    asked = Asked(name, body)
    service.predict(asked.request)
    return asked


# --- names ------------------------------------------------------------------------------------------------------------


async def test_a_name_that_nobody_knows_is_not_found():
    with pytest.raises(ModelNotFound) as missing:
        predict(InferenceService(Registry()), "x")
    assert missing.value.message == "Model not found: x"


async def test_before_the_plan_nobody_is_told_that_a_model_is_unknown():
    registry = Registry()
    registry.await_plan(5.0)
    early, other = Asked("m", b"early"), Asked("x")
    for one in (early, other):
        registry.submit(one.request)
    assert registry.in_flight == 2
    model = served(MemoryEngine(echo))
    await model.scale(1, 1)
    registry.publish(model)
    registry.planned()
    assert await bodies([early]) == [b"early"]
    assert isinstance(await other.answer(), ModelNotFound)
    with pytest.raises(ModelNotFound):
        registry.submit(Asked("x").request)
    assert registry.in_flight == 0
    await model.close()


async def test_published_models_are_served_until_they_are_withdrawn():
    registry = Registry()
    service = InferenceService(registry)
    model = served(MemoryEngine(echo), "b")
    await model.scale(1, 1)
    registry.publish(model)
    assert await bodies([predict(service, "b")]) == [b"x"]
    assert registry.get("b") is model
    assert list(registry) == [model]
    assert service.known("b")
    assert registry.withdraw("b") is model
    with pytest.raises(ModelNotFound):
        predict(service, "b")
    await model.close()


async def test_a_model_that_is_held_back_answers_with_the_reason():
    registry = Registry()
    service = InferenceService(registry)
    registry.hold(ModelKey("m"), "Model m is quarantined: segmentation fault")
    with pytest.raises(NoWorkerAvailable) as refused:
        predict(service, "m")
    assert refused.value.message == "Model m is quarantined: segmentation fault"
    assert registry.get("m") is None
    assert registry.known("m")
    assert list(registry) == []
    assert service.max_request_size("m") is None
    registry.withdraw("m")
    assert not registry.known("m")


async def test_only_one_startup_model_stands_in_for_a_request_without_a_name():
    registry = Registry()
    assert registry.only_startup_model() is None
    registry.publish(served(MemoryEngine(echo), "a", startup=True))
    registry.publish(served(MemoryEngine(echo), "b"))
    assert registry.only_startup_model() == "a"
    registry.publish(served(MemoryEngine(echo), "c", startup=True))
    assert registry.only_startup_model() is None
    assert registry.names() == ["a", "b", "c"]
    assert len(registry) == 3


# --- models whose replay is still to come -----------------------------------------------------------------------------


async def test_a_prediction_waits_for_the_replay_of_its_model_and_moves_it_to_the_front():
    registry, wanted = Registry(), []
    service = InferenceService(registry)
    registry.expect(ModelKey("m"), wait=30, on_wanted=wanted.append)
    asked = [predict(service, "m", b"1"), predict(service, "m", b"2")]
    assert wanted == [ModelKey("m")]
    assert service.in_flight == 2
    model = served(MemoryEngine(echo))
    model.scale_soon(1, 1)
    registry.publish(model)
    assert await bodies(asked) == [b"1", b"2"]
    await model.close()


async def test_a_prediction_does_not_wait_for_a_replay_longer_than_allowed():
    registry = Registry()
    registry.expect(ModelKey("m"), wait=0.03, on_wanted=lambda _: None)
    first = predict(InferenceService(registry), "m")
    await asyncio.sleep(0.015)
    second = predict(InferenceService(registry), "m")
    assert isinstance(await first.answer(), NoWorkerAvailable)
    assert second.result is None
    assert isinstance(await second.answer(), NoWorkerAvailable)
    assert registry.in_flight == 0


async def test_without_a_wait_a_model_in_replay_refuses_at_once():
    registry = Registry()
    registry.expect(ModelKey("m"), wait=0, on_wanted=lambda _: pytest.fail("nobody waits"))
    with pytest.raises(NoWorkerAvailable, match="still being brought back"):
        predict(InferenceService(registry), "m")


async def test_a_replay_that_fails_answers_those_who_waited_with_the_reason():
    registry = Registry()
    registry.expect(ModelKey("m"), wait=30, on_wanted=lambda _: None)
    asked = predict(InferenceService(registry), "m")
    registry.hold(ModelKey("m"), "Model m is not in service: no archive")
    result = await asked.answer()
    assert isinstance(result, NoWorkerAvailable)
    assert result.message == "Model m is not in service: no archive"


async def test_a_model_that_will_not_come_back_is_not_found_by_those_who_waited():
    registry = Registry()
    registry.expect(ModelKey("m"), wait=30, on_wanted=lambda _: None)
    asked = predict(InferenceService(registry), "m")
    registry.withdraw("m")
    assert isinstance(await asked.answer(), ModelNotFound)


async def test_a_client_that_goes_while_it_waits_for_a_replay_costs_nothing():
    registry = Registry()
    registry.expect(ModelKey("m"), wait=30, on_wanted=lambda _: None)
    asked = predict(InferenceService(registry), "m")
    asked.request.cancelled = True
    model = served(MemoryEngine(echo))
    registry.publish(model)
    assert model.requests_seen == 0
    assert asked.calls == 0


# --- a served model ---------------------------------------------------------------------------------------------------


async def test_requests_are_accepted_while_the_first_worker_still_loads():
    loaded = asyncio.Event()

    async def loads(_: MemoryWorker) -> None:
        await loaded.wait()

    model = served(MemoryEngine(echo, loads))
    asked = ask(model, b"before scaling")
    model.scale_soon(1, 1)
    asked += ask(model, b"while loading")
    assert model.queue_depth == 2
    loaded.set()
    assert await bodies(asked) == [b"before scaling", b"while loading"]
    assert await model.first_outcome() is None
    assert model.requests_seen == 2
    await model.close()


async def test_the_first_outcome_of_workers_that_cannot_load_is_their_error():
    async def fails(_: MemoryWorker) -> None:
        raise LoadFailed("Failed to start workers", detail="ValueError: no weights")

    model = served(MemoryEngine(echo, fails))
    model.scale_soon(1, 1)
    error = await model.first_outcome()
    assert error is not None
    assert model.last_error == "ValueError: no weights"
    await model.close()


async def test_draining_answers_everything_with_all_the_workers_there_are():
    gate = Gate()
    engine = MemoryEngine(gate)
    model = served(engine, min_workers=2, max_workers=2)
    await model.scale(2, 2)
    asked = ask(model, *[b"%d" % number for number in range(12)])
    draining = asyncio.create_task(model.drain(5))
    await gate.entered()
    with pytest.raises(NoWorkerAvailable):
        ask(model, b"too late")
    gate.let(12)
    assert await draining
    await bodies(asked)
    assert all(len(worker.sizes) >= 5 for worker in engine.workers)
    assert [worker.state for worker in engine.workers] == [WorkerState.DEAD] * 2
    await model.close()


async def test_scaling_to_zero_under_load_answers_what_was_accepted():
    model = served(MemoryEngine(echo))
    await model.scale(1, 1)
    asked = ask(model, *[b"%d" % number for number in range(50)])
    await model.scale(0, 0)
    assert [one.calls for one in asked] == [1] * 50
    await bodies(asked)


async def test_requests_that_no_worker_will_ever_take_are_refused_at_once():
    async def never_loads(_: MemoryWorker) -> None:
        await asyncio.Event().wait()

    model = served(MemoryEngine(echo, never_loads))
    model.scale_soon(1, 1)
    asked = ask(model, b"1", b"2")
    await model.scale(0, 0)
    results = [await one.answer() for one in asked]
    assert [type(result) for result in results] == [NoWorkerAvailable] * 2
    assert model.stats.dropped == 2


async def test_closing_ends_what_waits_and_what_runs():
    gate = Gate()
    model = served(MemoryEngine(gate))
    await model.scale(1, 1)
    asked = ask(model, b"1", b"2")
    await gate.entered()
    async with asyncio.timeout(3):
        await model.close()
    results = [await one.answer() for one in asked]
    assert not any(isinstance(result, bytes) for result in results)
    assert model.in_flight == 0
    with pytest.raises(NoWorkerAvailable):
        ask(model, b"3")


async def test_live_settings_change_queue_and_workers():
    engine = MemoryEngine(echo)
    model = served(engine)
    await model.scale(1, 1)
    model.configure(replace(SETTINGS, batch_size=4, max_request_size=17))
    assert engine.workers[0].batch_size == 4
    assert model.settings.batch_size == 4
    registry = Registry()
    registry.publish(model)
    assert InferenceService(registry).max_request_size("m") == 17
    await model.close()


# --- the service ------------------------------------------------------------------------------------------------------


async def test_health_is_the_share_of_the_wanted_workers_that_are_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mms.workers.lifecycle.BACK_OFF_SECONDS", (0, 3600))
    registry = Registry()
    service = InferenceService(registry)
    assert service.health() == "Healthy"
    engine = MemoryEngine(echo)
    model = served(engine)
    registry.publish(model)
    assert service.health() == "Healthy"
    await model.scale(2, 2)
    assert service.health() == "Healthy"
    engine.workers[0].kill()
    await asyncio.sleep(0.01)
    assert service.health() == "Partial Healthy"
    engine.workers[1].kill()
    await asyncio.sleep(0.01)
    assert service.health() == "Unhealthy"
    await registry.close()
    assert service.health() == "Healthy"


async def test_draining_the_service_answers_all_models_and_accepts_no_more():
    gate = Gate()
    registry = Registry()
    service = InferenceService(registry)
    models = [served(MemoryEngine(gate), name) for name in ("a", "b")]
    for model in models:
        await model.scale(1, 1)
        registry.publish(model)
    asked = [predict(service, name) for name in ("a", "b", "a")]
    draining = asyncio.create_task(service.drain(5))
    await gate.entered()
    with pytest.raises(NoWorkerAvailable, match="stopping"):
        predict(service, "a")
    assert not draining.done()
    gate.let(3)
    assert await draining
    assert await bodies(asked) == [b"x"] * 3
    await registry.close()


async def test_draining_the_service_gives_up_when_its_time_is_over():
    registry = Registry()
    service = InferenceService(registry)
    model = served(MemoryEngine(Gate()))
    await model.scale(1, 1)
    registry.publish(model)
    asked = predict(service, "m")
    assert not await service.drain(0.02)
    await registry.close()
    assert asked.calls == 1


async def test_draining_the_service_waits_for_those_who_wait_for_a_replay():
    registry = Registry()
    service = InferenceService(registry)
    registry.expect(ModelKey("m"), wait=0.03, on_wanted=lambda _: None)
    asked = predict(service, "m")
    assert await service.drain(2)
    assert asked.calls == 1
