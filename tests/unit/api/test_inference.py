"""The inference port's other routes, over real connections."""

import json

import pytest

from mms.api.wire import Cors
from mms.wishes import Readiness


@pytest.mark.parametrize(("method", "target"), [("GET", "/ping"), ("DELETE", "/ping/extra/segments")])
async def test_ping_answers_whatever_the_method_and_the_rest_of_the_path(client, method: str, target: str) -> None:
    answer = await client.ask(method, target)

    assert (answer.status, answer.reason, answer.body) == (200, "OK", b'{\n  "status": "Healthy"\n}\n')
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("method", "target"),
    [("OPTIONS", "/"), ("GET", "/api-description"), ("POST", "/api-description/"), ("OPTIONS", "*")],
)
async def test_the_port_describes_itself(client, method: str, target: str) -> None:
    document = json.loads((await client.ask(method, target)).body)

    assert "/predictions/{model_name}" in document["paths"]
    assert "/models" not in document["paths"]


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/", 405),
        ("POST", "/", 405),
        ("GET", "/api-description/more", 405),
        ("GET", "/nosuchroute", 404),
        ("GET", "/predictions", 404),
        ("POST", "/predictions/", 404),
        ("GET", "/models", 404),
        ("GET", "/models/noop", 404),
        ("OPTIONS", "/predictions/nobody", 404),
    ],
)
async def test_what_is_no_route_is_refused(client, method: str, target: str, status: int) -> None:
    assert (await client.ask(method, target)).status == status


@pytest.mark.parametrize(
    "target", ["/predictions/noop", "/invocations?model_name=noop", "/models/noop/invoke", "/noop/predict"]
)
async def test_options_describe_a_model(client, target: str) -> None:
    assert json.loads((await client.ask("OPTIONS", target)).body)["info"]["title"] == "RESTful API for: noop"


async def test_the_port_says_whether_it_is_ready(client, port) -> None:
    assert (await client.ask("GET", "/livez")).status == 200
    assert (await client.ask("GET", "/readyz")).status == 200
    port.status.answer = Readiness(False, "recovering", (), "ok")
    answer = await client.ask("GET", "/readyz")

    assert (answer.status, json.loads(answer.body)["reason"]) == (503, "recovering")


async def test_one_port_serves_both_and_a_model_may_be_called_predict(open_port) -> None:
    client = await (await open_port("both")).connect()

    for query in ("url=noop.mar", "url=noop.mar&model_name=predict"):
        assert (await client.ask("POST", f"/models?{query}")).status == 200
    assert (await client.ask("POST", "/models/noop/invoke", b"x")).body == b"OK"
    assert (await client.ask("GET", "/noop/predict")).body == b"OK"
    assert json.loads((await client.ask("GET", "/models/predict")).body)["modelName"] == "predict"
    paths = json.loads((await client.ask("OPTIONS", "/")).body)["paths"]
    assert {"/models", "/invocations"} <= set(paths)
    assert (await client.ask("PATCH", "/models")).status == 405


CORS = Cors("https://app.example.org", "GET, PUT", "X-Custom")


async def test_cors_headers_are_on_every_answer(open_port) -> None:
    port = await open_port("both", cors=CORS)
    for target in ("/ping", "/predictions/noop", "/predictions/nobody", "/models"):
        answer = await (await port.connect()).ask("GET", target)
        assert answer.headers["access-control-allow-origin"] == "https://app.example.org"
        assert answer.headers["access-control-allow-methods"] == "GET, PUT"
        assert answer.headers["access-control-allow-headers"] == "X-Custom"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://app.example.org", "Access_Control_Request_Method": "PUT"}, 200),
        (
            {
                "Origin": "https://app.example.org",
                "Access_Control_Request_Method": "POST",
                "Access_Control_Request_Headers": "content-type",
            },
            200,
        ),
        ({"Origin": "https://app.example.org", "Access_Control_Request_Method": "GET"}, 405),
        ({}, 405),
    ],
)
async def test_a_browsers_question_about_management_is_answered(open_port, headers, status: int) -> None:
    client = await (await open_port("management", cors=CORS)).connect()

    assert (await client.ask("OPTIONS", "/models/noop", **headers)).status == status


async def test_without_cors_there_is_nothing_to_ask(operator) -> None:
    headers = {"Origin": "https://app.example.org", "Access_Control_Request_Method": "PUT"}

    assert (await operator.ask("OPTIONS", "/models/noop", **headers)).status == 405
