"""The encoding half of a latent diffusion model, from a folder in diffusers' layout."""

import json
import sys

import diffusers
import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from featcache.backbones.diffusion_source import PROMPT
from featcache.backbones.factory import load_backbone
from featcache.errors import BackboneError, MissingDependencyError

NAME = "stable_diffusion_v1"
BYTES = [chr(code) for code in range(ord("a"), ord("z") + 1)]


def tokenizer(folder):
    """A vocabulary of single letters, in the files that CLIP's tokenizer reads."""
    words = [*BYTES, *(f"{letter}</w>" for letter in BYTES), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    made = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    made.model_max_length = 16
    made.save_pretrained(folder)
    return len(words)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A folder with a tiny model of Stable Diffusion's make, and its whole parts."""
    folder = tmp_path_factory.mktemp("diffusion") / "model"
    folder.mkdir()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        vae = diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(4, 4, 8, 8),
            layers_per_block=1,
            norm_num_groups=2,
        )
        unet = diffusers.UNet2DConditionModel(
            block_out_channels=(4, 8, 8, 8),
            layers_per_block=1,
            cross_attention_dim=12,
            attention_head_dim=2,
            norm_num_groups=2,
            sample_size=64,
        )
        n_words = tokenizer(folder / "tokenizer")
        tower = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=n_words,
                hidden_size=12,
                intermediate_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=16,
            )
        )
    vae.save_pretrained(folder / "vae")
    unet.save_pretrained(folder / "unet")
    tower.save_pretrained(folder / "text_encoder")
    return folder, vae.eval(), unet.eval(), tower.eval()


def test_taps_are_what_the_whole_model_computes_on_its_way(parts):
    folder, vae, unet, tower = parts
    backbone = load_backbone(NAME, checkpoint=folder)
    images = torch.randint(0, 256, (2, *backbone.transform.input_shape), dtype=torch.uint8)
    found = backbone.embed(images, ["pooled", "down1", "down4"])
    kept = {}
    for name, block in (("down1", unet.down_blocks[0]), ("down4", unet.down_blocks[3])):
        block.register_forward_hook(lambda _b, _i, out, name=name: kept.update({name: out[0]}))
    unet.mid_block.register_forward_hook(lambda _b, _i, out: kept.update(pooled=out))
    tokens = CLIPTokenizer.from_pretrained(folder / "tokenizer")(
        PROMPT, padding="max_length", max_length=16, truncation=True, return_tensors="pt"
    )
    with torch.inference_mode():
        latent = vae.encode(images / 127.5 - 1).latent_dist.mode() * vae.config.scaling_factor
        text = tower(tokens.input_ids).last_hidden_state.expand(2, -1, -1)
        unet(latent, 0, encoder_hidden_states=text)
    for tap, value in found.items():
        torch.testing.assert_close(value, kept[tap].mean(dim=(2, 3)), rtol=1e-4, atol=1e-4)
    assert backbone.taps == {
        "pooled": (8,), "down1": (4,), "down2": (8,), "down3": (8,), "down4": (8,)
    }  # fmt: skip
    assert backbone.identity.options == {"prompt": PROMPT, "timestep": 0}


def test_the_prompt_is_part_of_what_is_hashed(parts, monkeypatch):
    folder = parts[0]
    first = load_backbone(NAME, checkpoint=folder).identity
    monkeypatch.setattr("featcache.backbones.diffusion_source.PROMPT", "something else")
    assert load_backbone(NAME, checkpoint=folder).identity.weights != first.weights


def test_a_folder_of_another_layout_is_refused(tmp_path):
    with pytest.raises(BackboneError, match=r"folder in diffusers' layout.*is none"):
        load_backbone(NAME, checkpoint=tmp_path)


def test_weights_that_are_not_here_say_so():
    with pytest.raises(BackboneError, match=NAME):
        load_backbone(NAME)


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingDependencyError, match=r"featcache\[diffusion\]"):
        load_backbone(NAME)


@pytest.mark.slow
def test_the_twin_has_the_shapes_of_the_real_model():
    twin = load_backbone(f"random:{NAME}")
    assert twin.taps["pooled"] == (1280,)
    assert twin.taps["down1"] == (320,)
