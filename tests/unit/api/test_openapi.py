import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from mms.api.openapi import FURTHER, document, inference_paths, management_paths, model_document
from mms.config.options import API_OPTIONS

GOLDEN = Path(__file__).parents[2] / "conformance" / "corpus" / "cases" / "open"


def summary(doc: dict[str, Any]) -> dict[str, Any]:
    paths = {
        f"{method.upper()} {path}": {
            "operationId": operation["operationId"],
            "responses": sorted(operation["responses"]),
            "path_params": sorted(p["name"] for p in operation["parameters"] if p["in"] == "path"),
        }
        for path, item in doc["paths"].items()
        for method, operation in item.items()
    }
    return {"openapi": doc["openapi"], "title": doc["info"]["title"], "version": doc["info"]["version"], "paths": paths}


@pytest.mark.parametrize(
    ("case", "paths"),
    [
        ("01-inference-routes", inference_paths()),
        ("02-management-routes", management_paths()),
        ("19-single-port", inference_paths() | management_paths()),
    ],
)
def test_the_documents_name_what_the_original_names(case: str, paths: dict[str, Any]) -> None:
    golden = json.loads((GOLDEN / f"{case}.golden.json").read_text())

    assert summary(document(paths)) == golden["options-root"]["body"]["json"]


def test_one_models_document_is_that_of_the_original() -> None:
    golden = json.loads((GOLDEN / "01-inference-routes.golden.json").read_text())

    assert model_document("noop") == golden["predictions-options"]["body"]["json"]


def test_a_registration_is_documented_with_the_parameter_that_is_read() -> None:
    names = {parameter["name"] for parameter in management_paths()["/models"]["post"]["parameters"]}

    assert "url" in names
    assert "model_url" not in names


def test_an_options_description_is_that_of_the_table() -> None:
    parameters = {p["name"]: p for p in management_paths()["/models"]["post"]["parameters"]}
    option = API_OPTIONS["batch_size"]

    assert parameters["batch_size"]["description"].startswith(option.help)
    assert parameters["batch_size"]["schema"] == option.kind.schema()


def test_every_option_of_a_model_is_described_where_it_can_be_given():
    def options(path: str, method: str) -> set[str]:
        operation = management_paths()[path][method]
        return {p["name"] for p in operation["parameters"] + operation[FURTHER]} & set(API_OPTIONS)

    assert options("/models", "post") == set(API_OPTIONS)
    live = {name for name, option in API_OPTIONS.items() if option.live}
    assert options("/models/{model_name}", "put") == live - {"initial_workers"}


@pytest.mark.parametrize("name", API_OPTIONS)
def test_a_parameters_description_says_unit_and_default(name: str) -> None:
    option = API_OPTIONS[name]
    operation = management_paths()["/models"]["post"]
    parameters = {p["name"]: p for p in operation["parameters"] + operation[FURTHER]}

    assert option.unit in parameters[name]["description"]
    assert f"Default: {option.shown_default}." in parameters[name]["description"]


def test_the_parameters_that_the_original_documents_are_all_that_is_in_its_place() -> None:
    corpus = yaml.safe_load((GOLDEN / "02-management-routes.yaml").read_text())
    wanted = next(step["want"]["json"] for step in corpus["steps"] if step["id"] == "documented-query-names")
    paths = management_paths()

    for route, names in wanted.items():
        method, path = route.split(" ")
        found = [p["name"] for p in paths[path][method.lower()]["parameters"] if p["in"] == "query"]
        assert sorted(found) == names
