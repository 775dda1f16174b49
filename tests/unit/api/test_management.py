"""The management routes, over real connections."""

import asyncio
import json

import pytest

from mms.errors import LoadFailed, NotCommitted
from mms.wishes import ChangeStatus, RegisterModel, UpdateModel

JSON = {"Content_Type": "application/json"}


async def test_a_registration_says_what_it_did(operator, management) -> None:
    answer = await operator.ask("POST", "/models?url=noop.mar&batch_size=8")

    assert (answer.status, answer.reason) == (200, "OK")
    assert answer.body == b'{\n  "status": "Model \\"noop\\" registered"\n}\n'
    wish, caller = management.manager.calls[0]
    assert wish == RegisterModel("noop.mar", overrides={"batch_size": 8})
    assert (caller.actor, caller.request_id) == ("anonymous@127.0.0.1", answer.headers["x-request-id"])


async def test_a_json_body_registers_too(operator, management) -> None:
    assert (await operator.ask("POST", "/models?url=x", b"{'url': 'noop.mar', batch_size: '4'}", **JSON)).status == 200
    assert management.manager.calls[0][0] == RegisterModel("noop.mar", overrides={"batch_size": 4})


@pytest.mark.parametrize(
    ("status", "code", "reason", "text"),
    [
        (ChangeStatus.PROCESSING, 202, "Accepted", "Processing worker updates..."),
        (ChangeStatus.SCALED, 200, "OK", "Workers scaled"),
        (ChangeStatus.PARTIAL, 210, "Partial Success", "Workers scaling in progress..."),
        (ChangeStatus.UPDATED, 200, "OK", 'Model "noop" updated'),
    ],
)
async def test_each_outcome_has_its_status_phrase_and_text(
    operator, management, status: ChangeStatus, code: int, reason: str, text: str
) -> None:
    await operator.ask("POST", "/models?url=noop.mar")
    management.manager.status = status
    answer = await operator.ask("PUT", "/models/noop?min_worker=2")

    assert (answer.status, answer.reason, json.loads(answer.body)) == (code, reason, {"status": text})


async def test_an_updates_body_is_not_read(operator, management) -> None:
    await operator.ask("POST", "/models?url=noop.mar")
    await operator.ask("PUT", "/models/noop?synchronous=true", b'{"min_worker": 3}', **JSON)

    assert management.manager.calls[1][0] == UpdateModel("noop", {}, scale=True, synchronous=True)


async def test_a_model_is_described_in_the_originals_key_order(operator) -> None:
    await operator.ask("POST", "/models?url=noop.mar")
    answer = await operator.ask("GET", "/models/noop")

    assert answer.body.decode() == (
        '{\n  "modelName": "noop",\n  "modelVersion": "1.0",\n  "modelUrl": "noop.mar",\n  "runtime": "python",\n'
        '  "minWorkers": 1,\n  "maxWorkers": 1,\n  "batchSize": 1,\n  "maxBatchDelay": 100,\n'
        '  "loadedAtStartup": false,\n  "workers": [\n    {\n      "id": "9000-1",\n'
        '      "startTime": "1970-01-01T00:00:00.500Z",\n      "status": "READY",\n      "gpu": false,\n'
        '      "memoryUsage": 1234\n    }\n  ]\n}\n'
    )


async def test_more_is_shown_where_it_is_asked_for(operator) -> None:
    await operator.ask("POST", "/models?url=noop.mar")
    shown = json.loads((await operator.ask("GET", "/models/noop?details=true")).body)

    assert (shown["state"], shown["lastError"], shown["queueDepth"]) == ("active", "", 0)


async def test_models_are_listed_page_by_page(operator) -> None:
    for name in ("b", "a", "c"):
        await operator.ask("POST", f"/models?url=noop.mar&model_name={name}")

    first = json.loads((await operator.ask("GET", "/models?limit=2")).body)
    assert [model["modelName"] for model in first["models"]] == ["a", "b"]
    rest = json.loads((await operator.ask("GET", f"/models/?limit=2&next_page_token={first['nextPageToken']}")).body)
    assert rest == {"models": [{"modelName": "c", "modelUrl": "noop.mar"}]}
    assert json.loads((await operator.ask("GET", "/models?limit=3")).body)["nextPageToken"] == "3"
    assert json.loads((await operator.ask("GET", "/models?state=quarantined")).body) == {"models": []}


async def test_a_model_is_unregistered(operator, management) -> None:
    await operator.ask("POST", "/models?url=noop.mar")
    answer = await operator.ask("DELETE", "/models/noop?synchronous=false")

    assert json.loads(answer.body) == {"status": 'Model "noop" unregistered'}
    assert (await operator.ask("GET", "/models/noop")).status == 404


@pytest.mark.parametrize(
    ("method", "target", "status", "message"),
    [
        ("POST", "/models", 400, "Parameter url is required."),
        ("GET", "/models/nobody", 404, "Model not found: nobody"),
        ("PUT", "/models/nobody", 404, "Model not found: nobody"),
        ("DELETE", "/models/nobody", 404, "Model not found: nobody"),
        ("GET", "/models/nobody/settings", 404, "Model not found: nobody"),
        ("PUT", "/models", 405, "Requested method is not allowed, please refer to API document."),
        ("OPTIONS", "/models", 405, "Requested method is not allowed, please refer to API document."),
        ("POST", "/models/noop", 405, "Requested method is not allowed, please refer to API document."),
        ("PUT", "/models/noop/1", 404, "Requested resource is not found, please refer to API document."),
        ("GET", "/ping", 404, "Requested resource is not found, please refer to API document."),
        ("POST", "/predictions/noop", 404, "Requested resource is not found, please refer to API document."),
        ("GET", "/docs", 404, "Requested resource is not found, please refer to API document."),
        ("GET", "/openapi.json", 404, "Requested resource is not found, please refer to API document."),
        ("POST", "/restore", 404, "Requested resource is not found, please refer to API document."),
    ],
)
async def test_refusals_are_the_originals(operator, method: str, target: str, status: int, message: str) -> None:
    answer = await operator.ask(method, target)

    assert (answer.status, json.loads(answer.body)["message"]) == (status, message)
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("error", "status", "outcome"),
    [
        (NotCommitted("The store is away."), 503, "not-committed"),
        (LoadFailed("no", out_of_memory=True), 507, None),
        (RuntimeError("a bug"), 500, None),
    ],
)
async def test_what_the_manager_raises_is_told(operator, management, error, status: int, outcome: str | None) -> None:
    management.manager.error = error
    answer = await operator.ask("POST", "/models?url=noop.mar")

    assert (answer.status, json.loads(answer.body).get("outcome")) == (status, outcome)


async def test_an_idempotency_key_is_bound_to_method_path_query_and_body(operator, management) -> None:
    for target, body in (("url=a", b""), ("url=a", b""), ("url=b", b""), ("url=a", b"x")):
        await operator.ask(
            "POST", f"/models?{target}&model_name=m{len(management.manager.calls)}", body, Idempotency_Key="k"
        )
    await operator.ask("POST", "/models?url=z")

    keys = [caller.idempotency_key for _, caller in management.manager.calls]
    assert keys == ["k", "k", "k", "k", None]
    digests = [caller.request_digest for _, caller in management.manager.calls]
    assert len(set(digests)) == 5
    again = management.manager.calls
    again.clear()
    for _ in range(2):
        await operator.ask("DELETE", "/models/m0", Idempotency_Key="k")
    assert len({caller.request_digest for _, caller in again}) == 1


async def test_settings_are_shown_with_their_sources(operator) -> None:
    await operator.ask("POST", "/models?url=noop.mar")

    assert json.loads((await operator.ask("GET", "/models/noop/settings")).body) == {
        "modelName": "noop",
        "settings": {
            "batch_size": {
                "value": 8,
                "unit": "requests",
                "source": "api",
                "scope": "model",
                "where": "journal entry 7",
                "live": True,
                "beaten": [{"value": 4, "source": "manifest", "scope": "archive", "where": "model.batchSize"}],
            }
        },
    }


async def test_an_override_is_taken_back_by_either_name(operator, management) -> None:
    answer = await operator.ask("DELETE", "/models/noop/settings/min_worker")

    assert answer.status == 200
    assert management.manager.calls[0][0] == ("noop", "min_workers")
    assert (await operator.ask("DELETE", "/models/noop/settings/colour")).status == 400


async def test_the_boot_tells_its_story(operator) -> None:
    story = json.loads((await operator.ask("GET", "/recovery")).body)

    assert (story["decision"], story["reason"]) == ("REPLAY", "the last incarnation crashed")
    assert story["previous"]["epoch"] == 7
    assert (story["state"], story["generation"]) == ("complete", 3)
    assert story["models"][1]["error"] == "no such file"


async def test_readiness_names_what_is_degraded(operator) -> None:
    answer = await operator.ask("GET", "/readyz")

    assert json.loads(answer.body) == {"ready": True, "reason": "degraded", "degraded": ["broken"], "store": "ok"}
    assert (await operator.ask("GET", "/livez")).status == 200


async def test_the_journal_is_read_page_by_page(operator, management) -> None:
    page = json.loads((await operator.ask("GET", "/journal?model=noop&after=1&limit=1")).body)

    assert management.journal.asked == [("noop", 1, 1)]
    assert page["next"] == 2
    entry = page["entries"][0]
    assert (entry["seq"], entry["at"], entry["operation"]) == (2, "2026-01-31T12:00:00.123Z", "update")
    assert entry["after"]["overrides"] == {"batch_size": 8}
    assert json.loads((await operator.ask("GET", "/journal")).body)["next"] is None
    assert (await operator.ask("GET", "/journal?after=-1")).status == 400


async def test_lives_are_listed_newest_first(operator) -> None:
    lives = json.loads((await operator.ask("GET", "/incarnations?limit=5")).body)["incarnations"]

    assert [one["epoch"] for one in lives] == [8, 7]


async def test_metrics_are_passed_on(operator) -> None:
    answer = await operator.ask("GET", "/metrics")

    assert (answer.body, answer.headers["content-type"]) == (b"up 1\n", "text/plain")


async def test_a_bug_is_logged_once_and_a_client_that_goes_is_not_logged_at_all(open_port, caplog) -> None:
    port = await open_port("management")
    port.manager.error = RuntimeError("a bug")
    assert (await (await port.connect()).ask("POST", "/models?url=noop.mar")).status == 500
    assert [record.message for record in caplog.records] == ["A management request failed."]
    caplog.clear()

    gone = await port.connect()
    await gone.send(b"POST /models HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    await gone.close()
    async with asyncio.timeout(5):
        await port.site.closed.wait()
        await asyncio.gather(*port.listener._server.server_state.tasks)
    assert not caplog.records
