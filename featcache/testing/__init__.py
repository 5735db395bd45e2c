"""Contracts that your own backbone or dataset can be held to, in a script or in your tests.

    from featcache.testing import check_backbone, check_dataset

    check_backbone("mynet:build")
    check_dataset("imagefolder:photos")

With pytest, subclass `featcache.testing.contracts.BackboneContract` or `DatasetContract`: each law
is then a test of its own.
"""

from __future__ import annotations

from featcache.testing.laws import ContractError as ContractError


def check_backbone(backbone: object) -> None:
    """Hold a backbone, or the backbone of a name, to every law of `backbone_laws`.

    Raises:
        ContractError: With a line for each law that is broken.
        FeatcacheError: If a name cannot be opened.
    """
    from featcache.testing.backbone_laws import LAWS, opened
    from featcache.testing.laws import check

    check(opened(backbone), LAWS)


def check_dataset(dataset: object) -> None:
    """Hold a dataset, or that of a source such as `csv:FILE`, to every law of `dataset_laws`.

    Raises:
        ContractError: With a line for each law that is broken.
        FeatcacheError: If a source cannot be opened.
    """
    from featcache.testing.dataset_laws import LAWS, opened
    from featcache.testing.laws import check

    check(opened(dataset), LAWS)
