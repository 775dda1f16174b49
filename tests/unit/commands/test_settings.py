"""The sentence that explains one setting."""

import pytest

from mms.commands.settings import known_option, sentence
from mms.errors import UsageError


def said(value, unit, source, scope, where, *beaten):
    one = {"value": value, "source": source, "scope": scope, "where": where}
    return {**one, "unit": unit, "live": True, "beaten": [said(*other) for other in beaten]}


def test_value_unit_source_and_everything_beaten_are_in_one_sentence():
    shown = {
        "batch_size": said(
            16, "requests", "api", "model", "journal entry 3",
            (4, "", "environment", "model", "MMS_MODEL__M__BATCH_SIZE"),
            (8, "", "manifest", "archive", "model.batchSize"),
            (1, "", "default", "built-in", "built-in"),
        )
    }  # fmt: skip

    assert sentence("m", "batch_size", shown) == (
        "batch_size of m is 16 requests, from the management API (journal entry 3); it beats"
        " 4, from the environment, for this model (MMS_MODEL__M__BATCH_SIZE);"
        " 8, from the archive's manifest (model.batchSize); and 1, the built-in default."
    )


def test_a_default_that_nobody_contradicts_says_so():
    shown = {"min_workers": said(1, "processes", "default", "built-in", "built-in: cores")}

    assert sentence("m", "min_workers", shown) == (
        "min_workers of m is 1 process, the built-in default (cores); no other source names it."
    )


def test_an_option_may_be_named_as_the_api_names_it_and_a_wrong_name_is_met_with_the_nearest():
    shown = {"min_workers": said(1, "processes", "default", "built-in", "built-in")}

    assert known_option("initial_workers", shown) == "min_workers"
    with pytest.raises(UsageError, match=r"^There is no setting min_worker_s. Did you mean min_workers\?$"):
        known_option("min_worker_s", shown)
