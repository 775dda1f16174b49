import pytest

from mms.api.routes import PredictionRoute, Router, segments


@pytest.mark.parametrize(
    ("path", "route"),
    [
        (b"/predictions/noop", PredictionRoute("noop", query=False)),
        (b"/predictions/noop/and/more", PredictionRoute("noop", query=False)),
        (b"/predictions/n%6fop", PredictionRoute("noop", query=False)),
        (b"/predictions/caf%C3%A9", PredictionRoute("caf\u00e9", query=False)),
        (b"/predictions", None),
        (b"/predictions/", None),
        (b"/invocations", PredictionRoute(None, query=True)),
        (b"/invocations/", PredictionRoute(None, query=True)),
        (b"/invocations/noop", None),
        (b"/models/noop/invoke", PredictionRoute("noop", query=True)),
        (b"/models//invoke", PredictionRoute("", query=True)),
        (b"/models/noop/invoke/more", None),
        (b"/models/noop", None),
        (b"/noop/predict", PredictionRoute("noop", query=True)),
        (b"/noop/predict/more", None),
        (b"/", None),
        (b"/%zz", None),
        (b"*", None),
    ],
)
def test_prediction_routes(path: bytes, route: PredictionRoute | None) -> None:
    assert Router(single_port=False).find(path) == route


def test_on_a_single_port_a_model_may_be_called_predict() -> None:
    assert Router(single_port=True).find(b"/models/predict") is None
    assert Router(single_port=False).find(b"/models/predict") == PredictionRoute("models", query=True)


def test_known_paths_do_not_grow_without_end() -> None:
    router = Router(single_port=False)
    for number in range(5000):
        router.find(b"/predictions/%d" % number)

    assert len(router._known) <= 1024


def test_empty_segments_at_the_end_do_not_count() -> None:
    assert segments("/models//") == ["models"]
    assert segments("/") == []
