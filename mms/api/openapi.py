"""Describes both ports in OpenAPI 3.0.1, as MMS does, for `OPTIONS /` and `/api-description`; and one model's prediction route."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mms.config.options import API_OPTIONS

_JSON = "application/json"
_NAME = "Name of the model."
FURTHER = "x-further-parameters"
"""Where an operation describes the parameters that the original does not know, in the form of `parameters`."""

Document = dict[str, Any]


def _object(*names: tuple[str, str, str]) -> Document:
    """A schema of required properties, each given as (name, type, description)."""
    return {
        "type": "object",
        "required": [name for name, _, _ in names],
        "properties": {name: {"type": kind, "description": text} for name, kind, text in names},
    }


_ERROR = _object(
    ("code", "integer", "Error code."), ("type", "string", "Error type."), ("message", "string", "Error message.")
)
_STATUS = _object(("status", "string", "What was done."))


def _json(description: str, schema: Mapping[str, Any]) -> Document:
    return {"description": description, "content": {_JSON: {"schema": schema}}}


_ERRORS = {
    "400": "Bad request",
    "404": "Model or resource not found",
    "408": "The workers did not end in time",
    "409": "A model of that name is registered already",
    "500": "Internal Server Error",
    "503": "No worker is available to serve the request",
}


def _responses(good: Mapping[str, Document], *bad: str) -> Document:
    return {**good, **{code: _json(_ERRORS[code], _ERROR) for code in bad}}


def _parameter(where: str, name: str, text: str, schema: Mapping[str, Any], *, required: bool = False) -> Document:
    return {"in": where, "name": name, "description": text, "required": required, "schema": dict(schema)}


def _query(name: str, text: str, kind: str = "string", *, required: bool = False) -> Document:
    return _parameter("query", name, text, {"type": kind}, required=required)


def _option(name: str) -> Document:
    """A parameter whose meaning, range and default stand in the table of options."""
    option = API_OPTIONS[name]
    unit = f" ({option.unit})" if option.unit else ""
    return _parameter("query", name, f"{option.help}{unit} Default: {option.shown_default}.", option.kind.schema())


def _with_further(operation: Document, names: list[str]) -> Document:
    """The options of `names` that MMS does not have, beside its own parameters: the list of those is compared by scripts."""
    known = {parameter["name"] for parameter in operation["parameters"]}
    return {**operation, FURTHER: [_option(name) for name in names if name not in known]}


_MODEL_NAME = _parameter("path", "model_name", _NAME, {"type": "string"}, required=True)


def _operation(
    operation_id: str, text: str, parameters: list[Document], responses: Document, body: Document | None = None
) -> Document:
    made: Document = {"description": text, "operationId": operation_id, "parameters": parameters}
    if body is not None:
        made["requestBody"] = body
    return {**made, "responses": responses}


_DOCUMENT = _json("OpenAPI 3.0.1 document", {"type": "object"})
_ANSWER = {
    "description": "What the model's handler answers; its content type is the handler's own",
    "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}},
}
_ANY_BODY: Document = {
    "description": "Input in the form that the model's handler expects.",
    "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}},
    "required": True,
}


def _root() -> Document:
    text = "Describe the routes of this port."
    return {"options": _operation("apiDescription", text, [], _responses({"200": _DOCUMENT}, "500"))}


def inference_paths() -> Document:
    """The routes of the inference port."""
    described = _operation("apiDescription", "The same as OPTIONS /.", [], _responses({"200": _DOCUMENT}, "500"))
    health = _operation("ping", "Health of the server.", [], _responses({"200": _json("Health", _STATUS)}, "500"))
    one = {"200": _ANSWER}
    invoked = _responses(one, "400", "404", "500", "503")
    predicted = _responses(one, "404", "500", "503")
    by_query = [_query("model_name", f"{_NAME} Not needed where there is just one start-up model.")]
    describe_text = "Describe a model's prediction route."
    return {
        "/": _root(),
        "/api-description": {"get": described},
        "/invocations": {"post": _operation("invocations", "Predict.", by_query, invoked, _ANY_BODY)},
        "/ping": {"get": health},
        "/predictions/{model_name}": {
            "post": _operation("predictions", "Predict with a model.", [_MODEL_NAME], predicted, _ANY_BODY),
            "options": _operation("predictionsApi", describe_text, [_MODEL_NAME], {"200": _DOCUMENT}),
        },
        # without a path parameter, as the original has it: generated clients depend on the signature
        "/models/{model_name}/invoke": {"post": _operation("invocations", "Predict.", [], invoked, _ANY_BODY)},
        "/{model_name}/predict": {
            "post": _operation("predict", "Predict (older form).", [_MODEL_NAME], predicted, _ANY_BODY)
        },
    }


def _list_operation() -> Document:
    parameters = [
        _query("limit", "Most models in one answer: 1 to 100, default 100.", "integer"),
        _query("next_page_token", "Where to go on: `nextPageToken` of the answer before.", "integer"),
        _query("model_name_pattern", "Accepted and without effect."),
    ]
    item = _object(("modelName", "string", _NAME), ("modelUrl", "string", "Where it was registered from."))
    listed = {
        "type": "object",
        "required": ["models"],
        "properties": {
            "nextPageToken": {"type": "string", "description": "Where to go on, if there is more."},
            "models": {"type": "array", "items": item},
        },
    }
    return _operation(
        "listModels", "List models by name.", parameters, _responses({"200": _json("Models", listed)}, "500")
    )


def _register_operation() -> Document:
    synchronous = "Answer when the workers are up (default) or at once."
    parameters = [
        _query("url", "Archive or folder in the model store, or an http(s) URL of an archive.", required=True),
        _query("model_name", f"{_NAME} Default: what the archive's manifest says."),
        _query("handler", "Entry point, module:function. Default: what the manifest says."),
        _parameter(
            "query",
            "runtime",
            "Default: what the manifest says.",
            {"type": "string", "enum": ["python", "python2", "python3"]},
        ),
        *(_option(name) for name in ("batch_size", "max_batch_delay", "initial_workers")),
        _query("synchronous", synchronous, "boolean"),
        *(_option(name) for name in ("response_timeout", "preload_model")),
    ]
    good = {
        "200": _json("Model registered", _STATUS),
        "202": _json("Registered; workers are being started", _STATUS),
        "210": _json("Registered; some workers are up", _STATUS),
    }
    responses = _responses(good, "400", "404", "409", "500")
    operation = _operation("registerModel", "Register a model.", parameters, responses)
    return _with_further(operation, list(API_OPTIONS))


def _scale_operation() -> Document:
    parameters = [
        _MODEL_NAME,
        _option("min_worker"),
        _option("max_worker"),
        _query("number_gpu", "Accepted and without effect.", "integer"),
        _query("synchronous", "Answer when the workers are up, or at once (default).", "boolean"),
        _query("timeout", "Accepted and without effect.", "integer"),
    ]
    good = {
        "200": _json("Workers scaled", _STATUS),
        "202": _json("Workers are being started or stopped", _STATUS),
        "210": _json("Some workers are up", _STATUS),
    }
    text = "Scale a model's workers, or change other settings of the running model."
    operation = _operation("setAutoScale", text, parameters, _responses(good, "400", "404", "500"))
    live = [name for name, option in API_OPTIONS.items() if option.live and name != "initial_workers"]
    return _with_further(operation, live)


def management_paths() -> Document:
    """The routes of the management port that MMS documents."""
    described: Document = {
        "type": "object",
        "properties": {
            **{name: {"type": "string"} for name in ("modelName", "modelVersion", "modelUrl", "engine", "runtime")},
            **{name: {"type": "integer"} for name in ("minWorkers", "maxWorkers", "batchSize", "maxBatchDelay")},
            "loadedAtStartup": {"type": "boolean"},
            "workers": {"type": "array", "items": {"type": "object"}},
        },
    }
    describe = _operation(
        "describeModel", "Describe a model.", [_MODEL_NAME], _responses({"200": _json("The model", described)}, "500")
    )
    unregister_parameters = [
        _MODEL_NAME,
        _query("synchronous", "Accepted and without effect.", "boolean"),
        _query("timeout", "Accepted and without effect.", "integer"),
    ]
    good = {"200": _json("Model unregistered", _STATUS), "202": _json("Being unregistered", _STATUS)}
    unregister = _operation(
        "unregisterModel",
        "Unregister a model; what was accepted is answered first.",
        unregister_parameters,
        _responses(good, "404", "408", "500"),
    )
    return {
        "/": _root(),
        "/models": {"get": _list_operation(), "post": _register_operation()},
        "/models/{model_name}": {"get": describe, "put": _scale_operation(), "delete": unregister},
    }


def document(paths: Document) -> Document:
    """A whole document."""
    return {"openapi": "3.0.1", "info": {"title": "Model Server APIs", "version": "1.0.0"}, "paths": paths}


def model_document(model: str) -> Document:
    """What `OPTIONS /predictions/{model}` answers; the path's singular is MMS's own."""
    responses = {"200": {"description": "OK"}, "500": _json("Internal Server Error", _ERROR)}
    return {
        "openapi": "3.0.1",
        "info": {"title": f"RESTful API for: {model}", "version": "1.0.0"},
        "paths": {
            f"/prediction/{model}": {
                "post": {
                    "description": f"A predict entry point for model: {model}.",
                    "operationId": model,
                    "parameters": [],
                    "responses": responses,
                }
            }
        },
    }
