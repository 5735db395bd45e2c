from __future__ import annotations

from featcache.verbs.probe import pretraining_of


def test_names_and_what_the_registry_knows_of_them():
    assert pretraining_of("efficientnet_lite0") == "efficientnet_lite0; ImageNet-1k"
    joined = pretraining_of("clip_vitb16+timm:vit_base_patch16_224.augreg_in21k")
    assert joined == "clip_vitb16+timm:vit_base_patch16_224.augreg_in21k; WIT-400M"
    assert pretraining_of("random:resnet18") == "random:resnet18"
