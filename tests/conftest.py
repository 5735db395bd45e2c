"""Fixtures for all tests; every test has a cache of its own."""

import pytest

from featcache.store import layout
from featcache.store.cache import Cache


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATCACHE_CACHE", str(tmp_path / "default-cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


@pytest.fixture
def small_chunks(monkeypatch):
    """Make chunks of 256 bytes, so that a thousand rows fill several shards."""
    monkeypatch.setattr(layout, "CHUNK_BYTES", 256)
