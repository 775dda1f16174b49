"""Any assignment of the sources, for any option and any name of a model, against an order that is written down apart."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mms.config.options import MODEL_OPTIONS, SERVER_OPTIONS
from mms.config.properties import Entry
from mms.config.resolve import Source, resolve_model, resolve_server
from mms.config.sources import ConfigSources
from mms.config.values import parse_api

# Strongest first: the layer, then the source and scope that a value from there must be shown with.
PRECEDENCE = [
    ("override", "api", "model"),
    ("model variable", "environment", "model"),
    ("model key", "config", "model"),
    ("model file", "config", "model"),
    ("manifest", "manifest", "archive"),
    ("server variable", "environment", "server"),
    ("server key", "config", "server"),
]
LAYERS = [layer for layer, _, _ in PRECEDENCE]
BUILT_IN = {
    "batch_size": 1,
    "max_batch_delay": 100,
    "response_timeout": 120,
    "startup_timeout": 120,
    "min_workers": 0,
    "max_workers": 0,
    "job_queue_size": 100,
    "max_request_size": 6553500,
    "max_response_size": 6553500,
    "preload_model": False,
}
MANIFEST_KEYS = {
    "batch_size": "batchSize",
    "max_batch_delay": "maxBatchDelay",
    "response_timeout": "responseTimeout",
    "startup_timeout": "startupTimeout",
    "min_workers": "minWorkers",
    "max_workers": "maxWorkers",
    "job_queue_size": "jobQueueSize",
    "max_request_size": "maxRequestSize",
    "max_response_size": "maxResponseSize",
    "preload_model": "preloadModel",
}
VARIABLE_NAMES = {
    "resnet-18": "RESNET_18",
    "noop_v1.0": "NOOP_V1_0",
    "CamelCase": "CAMELCASE",
    "a.b-c D": "A_B_C_D",
    "größe": "GR__E",
    "batch_size": "BATCH_SIZE",
    "m{{n}}=x": "M__N___X",
}


def sources_of(option: str, model: str, said: dict[str, Any]) -> tuple[ConfigSources, dict[str, Any], dict[str, Any]]:
    environment, file, model_file, manifest, overrides = {}, {}, {}, {}, {}
    for layer, value in said.items():
        text = str(value).lower()
        if layer == "override":
            overrides[option] = value
        elif layer == "model variable":
            environment[f"MMS_MODEL__{VARIABLE_NAMES[model]}__{option.upper()}"] = text
        elif layer == "model key":
            file[f"{model}.{option}"] = Entry(f"{model}.{option}", text, "c:1")
        elif layer == "model file":
            model_file[option] = Entry(option, text, "m:1")
        elif layer == "manifest":
            manifest[MANIFEST_KEYS[option]] = value
        elif layer == "server variable":
            environment[f"MMS_{option.upper()}"] = text
        else:
            file[option] = Entry(option, text, "c:2")
    return ConfigSources(environment=environment, file=file, model_files={model: model_file}), overrides, manifest


def values_of(option: str) -> st.SearchStrategy[Any]:
    return st.booleans() if option == "preload_model" else st.integers(1, 4000)


@settings(max_examples=400)
@given(
    data=st.data(),
    option=st.sampled_from([option.name for option in MODEL_OPTIONS]),
    model=st.sampled_from(sorted(VARIABLE_NAMES)),
    layers=st.sets(st.sampled_from(LAYERS)),
)
def test_the_strongest_source_wins_and_the_others_are_listed_in_order(data, option, model, layers):
    said = {layer: data.draw(values_of(option), label=layer) for layer in layers}
    sources, overrides, manifest = sources_of(option, model, said)

    resolved = resolve_model(sources, model, overrides=overrides, manifest_settings=manifest, startup=False)

    expected = [(said[layer], source, scope) for layer, source, scope in PRECEDENCE if layer in said]
    expected.append((BUILT_IN[option], "default", "built-in"))
    explained = resolved.explained[option]
    shown = [(c.value, str(c.source), str(c.scope)) for c in (explained.chosen, *explained.beaten)]
    if option == "max_workers":  # its built-in value is min_workers, which is 0 here
        expected[-1] = (0, "default", "built-in")
    assert shown == expected
    assert getattr(resolved, option) == expected[0][0]
    others = [name for name in BUILT_IN if name != option and {name, option} != {"min_workers", "max_workers"}]
    assert {name: getattr(resolved, name) for name in others} == {name: BUILT_IN[name] for name in others}


@settings(max_examples=100)
@given(data=st.data(), option=st.sampled_from([option.name for option in MODEL_OPTIONS]))
def test_storing_an_override_and_reading_it_back_changes_nothing(data, option):
    row = next(row for row in MODEL_OPTIONS if row.name == option)
    value = parse_api(row, str(data.draw(values_of(option))))
    stored = json.loads(json.dumps({option: value}))

    first, replayed = (
        resolve_model(ConfigSources(), "m", overrides=o, override_seq={option: 7}, manifest_settings={}, startup=False)
        for o in ({option: value}, stored)
    )

    assert first == replayed
    assert first.explained[option].chosen.where == "journal entry 7"


workers = st.one_of(st.none(), st.integers(0, 6))


@settings(max_examples=300)
@given(
    low=st.lists(workers, min_size=7, max_size=7), high=st.lists(workers, min_size=7, max_size=7), startup=st.booleans()
)
def test_max_workers_is_never_below_min_workers_and_the_stronger_word_stays(low, high, startup):
    least = next(((i, v) for i, v in enumerate(low) if v is not None), (7, 3 if startup else 0))
    most = next(((i, v) for i, v in enumerate(high) if v is not None), (8, None))
    if most[0] == least[0] != 0 and most[1] < least[1]:
        return  # a contradiction of one source with itself: see test_resolve.py
    if low[4] is not None and high[4] is not None and high[4] < low[4]:
        return  # likewise, in the manifest
    sources, overrides, manifest = sources_of("min_workers", "resnet-18", dict_of(low))
    more, more_overrides, more_manifest = sources_of("max_workers", "resnet-18", dict_of(high))
    merged = ConfigSources(
        environment={**sources.environment, **more.environment},
        file={**sources.file, **more.file},
        model_files={"resnet-18": {**sources.model_files["resnet-18"], **more.model_files["resnet-18"]}},
    )

    resolved = resolve_model(
        merged,
        "resnet-18",
        overrides={**overrides, **more_overrides},
        manifest_settings={**manifest, **more_manifest},
        startup=startup,
        cores=3,
    )

    if most[1] is None:
        expected = (least[1], least[1])
    elif most[1] >= least[1]:
        expected = (least[1], most[1])
    elif most[0] < least[0]:
        expected = (most[1], most[1])
    else:
        expected = (least[1], least[1])
    assert (resolved.min_workers, resolved.max_workers) == expected


def dict_of(values: list[int | None]) -> dict[str, Any]:
    return {layer: value for layer, value in zip(LAYERS, values, strict=True) if value is not None}


@pytest.mark.parametrize("option", [row.name for row in MODEL_OPTIONS])
def test_a_value_equal_to_a_weaker_one_still_comes_from_the_stronger_source(option, tmp_path: Path):
    sources, _, manifest = sources_of(option, "CamelCase", {"manifest": BUILT_IN[option] or False})
    if option in ("min_workers", "max_workers"):
        manifest = {MANIFEST_KEYS[option]: 0}
    resolved = resolve_model(sources, "CamelCase", overrides={}, manifest_settings=manifest, startup=False)
    assert resolved.explained[option].chosen.source is Source.MANIFEST


# Keys of multi-model-server: there the environment beats the command line. For everything else it is the other way round.
ENVIRONMENT_FIRST = {"load_models", "default_service_handler", "unregister_model_timeout"}
SAMPLES = {
    "server_id": ["a", "b", "c"],
    "log_level": ["DEBUG", "WARNING", "ERROR"],
    "drain_timeout": [1, 2, 3],
    "default_service_handler": ["a:x", "b:x", "c:x"],
    "quarantine_after": [5, 6, 7],
    "batching": ["strict", "adaptive", "strict"],
    "unregister_model_timeout": [0, 1, 2],
    "load_models": ["http://h/a.mar", "http://h/b.mar", "http://h/c.mar"],
    "store_auto_upgrade": [True, False, True],
}


@settings(max_examples=200)
@given(option=st.sampled_from(sorted(SAMPLES)), said=st.sets(st.sampled_from(["flag", "variable", "key"])))
def test_the_strongest_source_wins_for_the_server_too(option, said):
    flag, variable, key = SAMPLES[option]
    sources = ConfigSources(
        flags={option: str(flag)} if "flag" in said else {},
        environment={f"MMS_{option.upper()}": str(variable)} if "variable" in said else {},
        file={option: Entry(option, str(key), "c:1")} if "key" in said else {},
    )
    texts = {"flag": ("command-line", flag), "variable": ("environment", variable), "key": ("config", key)}
    order = ["variable", "flag", "key"] if option in ENVIRONMENT_FIRST else ["flag", "variable", "key"]
    row = next(row for row in SERVER_OPTIONS if row.name == option)

    explained = resolve_server(sources).explained[option]

    candidates = (explained.chosen, *explained.beaten)
    shown = [(str(c.source), row.kind.show(c.value) if option == "load_models" else c.value) for c in candidates]
    assert shown[:-1] == [texts[layer] for layer in order if layer in said]
    assert shown[-1][0] == "default"
