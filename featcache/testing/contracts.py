"""The laws as pytest classes: subclass one, override its fixture, and each law is a test.

`class TestMine(BackboneContract)` needs a fixture `backbone` that returns a backbone or its name,
`class TestMine(DatasetContract)` a fixture `dataset` that returns a dataset or its source.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from featcache.backbone import Backbone
from featcache.testing import backbone_laws, dataset_laws

_opened_once: Callable[[object], Backbone] = cache(backbone_laws.opened)


class BackboneContract:
    """Every law of backbones, for the one that the fixture `backbone` gives."""

    @pytest.fixture
    def backbone(self) -> object:
        """Return a backbone or its name; override it. A name is loaded once for all laws."""
        raise NotImplementedError("Override the fixture `backbone`: return a backbone or its name.")

    @pytest.mark.parametrize("law", backbone_laws.LAWS)
    def test_law(self, backbone: object, law: str) -> None:
        """Check one law."""
        backbone_laws.LAWS[law](_opened_once(backbone))


class DatasetContract:
    """Every law of datasets, for the one that the fixture `dataset` gives."""

    @pytest.fixture
    def dataset(self) -> object:
        """Return a dataset or its source; override it."""
        raise NotImplementedError("Override the fixture `dataset`: return a dataset or its source.")

    @pytest.mark.parametrize("law", dataset_laws.LAWS)
    def test_law(self, dataset: object, law: str) -> None:
        """Check one law."""
        dataset_laws.LAWS[law](dataset_laws.opened(dataset))
