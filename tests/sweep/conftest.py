import pytest

from fastsnn import data

from . import tiny


@pytest.fixture(autouse=True)
def few_digits(monkeypatch):
    monkeypatch.setitem(data.DATASETS, "few", tiny.load)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """A cache of weights of the test's own."""
    monkeypatch.setenv("FASTSNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"
