"""Tiny models of open_clip, registered for a test and taken away again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
MODELS: dict[str, dict[str, Any]] = {
    "tiny-vit": {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16},
        "text_cfg": TEXT,
    },
    "tiny-rn": {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
        "text_cfg": TEXT,
    },
    "tiny-timm": {
        "embed_dim": 12,
        "vision_cfg": {
            "timm_model_name": "resnet10t",
            "timm_pool": "avg",
            "timm_proj": "linear",
            "image_size": 32,
        },
        "text_cfg": TEXT,
    },
    "tiny-timm-head": {
        "embed_dim": 12,
        "vision_cfg": {
            "timm_model_name": "resnet10t",
            "timm_pool": "avg",
            "timm_proj": "",
            "image_size": 32,
        },
        "text_cfg": TEXT,
    },
    "tiny-bias": {
        "embed_dim": 512,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "timm_model_name": "resnet10t",
            "timm_pool": "avg",
            "timm_proj": "none",
            "image_size": 32,
        },
        "text_cfg": {**TEXT, "width": 16},
    },
    "tiny-coca": {
        "embed_dim": 12,
        "custom_text": True,
        "vision_cfg": {
            "image_size": 32,
            "layers": 1,
            "width": 64,
            "patch_size": 16,
            "attentional_pool": True,
            "attn_pooler_heads": 2,
            "output_tokens": True,
        },
        "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {**TEXT, "attn_pooler_heads": 2},
    },
}


@contextmanager
def registered(folder: Path) -> Iterator[None]:
    """Make the tiny models known to open_clip."""
    import open_clip.factory as library

    paths, configs = list(library._MODEL_CONFIG_PATHS), dict(library._MODEL_CONFIGS)
    for name, config in MODELS.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    library.add_model_config(folder)
    try:
        yield
    finally:
        library._MODEL_CONFIG_PATHS[:] = paths
        library._MODEL_CONFIGS = configs
