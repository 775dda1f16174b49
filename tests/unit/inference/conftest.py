import pytest


@pytest.fixture
def quick_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dead workers are replaced after 10 ms instead of a second."""
    monkeypatch.setattr("mms.workers.lifecycle.BACK_OFF_SECONDS", (0, 0.01))
