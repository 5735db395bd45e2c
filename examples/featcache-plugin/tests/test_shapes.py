import pytest

from featcache.testing.contracts import BackboneContract, DatasetContract


class TestEdges(BackboneContract):
    @pytest.fixture
    def backbone(self):
        return "edges"


class TestShapes(DatasetContract):
    @pytest.fixture
    def dataset(self):
        return "shapes"
