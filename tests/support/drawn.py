"""Small models and builds, drawn at random: text models and LLaVAs with sizes, activations, norms, rope kinds and
towers as real ones have them, and as none has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from attrs import frozen
from hypothesis import strategies as st
from transformers import (
    CLIPVisionConfig,
    Dinov2Config,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SiglipVisionConfig,
    ViTConfig,
)
from transformers.activations import ACT2FN

from tests.support.models import made, rope

FAMILIES: Mapping[str, tuple[Any, Any]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "gemma2": (Gemma2Config, Gemma2ForCausalLM),
    "phi3": (Phi3Config, Phi3ForCausalLM),
}
TOWERS: Mapping[str, Any] = {
    "clip": CLIPVisionConfig,
    "siglip": SiglipVisionConfig,
    "vit": ViTConfig,
    "dinov2": Dinov2Config,
}


@frozen
class Text:
    """A text model's configuration.

    Args:
        theta, scaling: of rotary embedding, in the words of transformers 5.
        settings: the rest.
    """

    family: str
    theta: float
    scaling: Mapping[str, Any]
    settings: Mapping[str, Any]

    def config(self) -> Any:
        """Hugging Face's object for it."""
        return FAMILIES[self.family][0](**rope(self.theta, **self.scaling), **self.settings)

    @property
    def ends(self) -> tuple[int, ...]:
        """Tokens that end an answer."""
        stated = self.settings["eos_token_id"]
        return () if stated is None else tuple(stated) if isinstance(stated, list) else (stated,)

    def made(self, seed: int) -> Any:
        """A random model of it."""
        return made(FAMILIES[self.family][1], self.config(), seed)


@frozen
class Llava:
    """A LLaVA's configuration.

    Args:
        vision: the tower's settings.
        settings: those that are neither of the tower nor of the text model.
    """

    tower: str
    vision: Mapping[str, Any]
    text: Text
    settings: Mapping[str, Any]

    def made(self, seed: int) -> Any:
        """A random model of it."""
        config = LlavaConfig(
            vision_config=TOWERS[self.tower](**self.vision), text_config=self.text.config(), **self.settings
        )
        return made(LlavaForConditionalGeneration, config, seed)


@frozen
class Build:
    """What is asked of Ditto.

    Args:
        stored, dtype: of the checkpoint, and of the engine.
        in_memory: whether the model is handed over itself, not as a checkpoint.
        max_seq_len, max_input_len: None for Ditto's own choice.
        compiled: whether TensorRT-RTX compiles the engines; else they are described only.
    """

    target: str
    stored: torch.dtype
    dtype: torch.dtype
    weights: str
    batch: int
    max_seq_len: int | None
    max_input_len: int | None
    in_memory: bool
    compiled: bool


@frozen
class Drawn:
    """A model, a build of it, and the seed of all its numbers."""

    model: Text | Llava
    build: Build
    seed: int

    @property
    def max_seq_len(self) -> int:
        """As asked for, or as Ditto chooses it."""
        return self.build.max_seq_len or int(self.text.settings["max_position_embeddings"])

    @property
    def text(self) -> Text:
        """The text model, or that of the LLaVA."""
        return self.model.text if isinstance(self.model, Llava) else self.model


def _seldom(draw: st.DrawFn, times: int = 20) -> bool:
    """True once in so many times; hypothesis shrinks to false."""
    return draw(st.integers(1, times)) == times


# The usual ones most of the time: of the others, some are refused.
ACTIVATIONS = st.sampled_from(["silu", "gelu", "gelu_pytorch_tanh", "relu", "quick_gelu"] * 12 + sorted(ACT2FN))
EPSILONS = st.sampled_from([1e-5, 1e-6, 1e-12, 1e-3, 0.25])
WINDOWS = st.integers(1, 12)


@st.composite
def scalings(draw: st.DrawFn, family: str, width: int, positions: int) -> dict[str, Any]:
    """A rope kind with its settings, for heads of `width`."""
    kinds = ["default", "linear", "llama3", "yarn", "longrope"] + (["dynamic"] if width > 2 else [])
    kind = draw(st.sampled_from(["default", "longrope"] if family == "phi3" else kinds))
    if kind == "default":
        return {}
    found: dict[str, Any] = {"rope_type": kind}
    factors = st.sampled_from([1.0, 1.5, 2.0, 4.0, 8.0])
    original = st.integers(8, positions) | st.just(positions)
    if kind == "longrope":
        each = st.lists(st.sampled_from([1.0, 1.25, 2.0, 5.0]), min_size=width // 2, max_size=width // 2)
        found.update(short_factor=draw(each), long_factor=draw(each))
        if family == "phi3":  # the original length is a setting of the model
            return {"type": kind, "short_factor": found["short_factor"], "long_factor": found["long_factor"]}
        found.update(factor=draw(factors), original_max_position_embeddings=draw(original))
        return found
    found["factor"] = draw(factors)
    if kind == "llama3":
        low = draw(st.sampled_from([0.5, 1.0, 2.0]))
        found.update(low_freq_factor=low, high_freq_factor=low * draw(st.sampled_from([2.0, 4.0])))
        found["original_max_position_embeddings"] = draw(original)
    if kind == "yarn":
        found["original_max_position_embeddings"] = draw(original)
        more = {
            "beta_fast": st.sampled_from([8.0, 32.0]),
            "beta_slow": st.sampled_from([0.5, 1.0]),
            "attention_factor": st.sampled_from([0.7, 1.0, 1.3]),
            "mscale": st.sampled_from([0.7, 1.0]),
            "mscale_all_dim": st.sampled_from([0.5, 1.0]),
            "truncate": st.booleans(),
        }
        found.update({name: draw(values) for name, values in more.items() if draw(st.booleans())})
    return found


@st.composite
def texts(draw: st.DrawFn, positions: int, families: tuple[str, ...] = tuple(FAMILIES), layers: int = 3) -> Text:
    """A text model of at most so many layers, for sequences of at least `positions` tokens."""
    family = draw(st.sampled_from(("llama", *families)))
    heads = draw(st.integers(1, 6))
    divisors = [count for count in range(1, heads + 1) if heads % count == 0]
    kv_heads = draw(st.integers(1, heads)) if _seldom(draw) else draw(st.sampled_from(divisors))
    hidden = heads * draw(st.integers(2 if heads == 1 else 1, 6)) * 2
    positions = draw(st.integers(positions, positions + 64))
    settings: dict[str, Any] = {
        "hidden_size": hidden,
        "intermediate_size": draw(st.integers(1, 80)),
        "num_hidden_layers": draw(st.sampled_from([1, 1, 1, 2, layers])),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": draw(st.integers(16, 200)),
        "max_position_embeddings": positions,
        "rms_norm_eps": draw(EPSILONS),
        "tie_word_embeddings": draw(st.booleans()),
        "eos_token_id": draw(st.sampled_from([2, [2, 5], None])),
        "pad_token_id": draw(st.sampled_from([0, None])),
        "bos_token_id": 1,
        "hidden_activation" if family == "gemma2" else "hidden_act": draw(ACTIVATIONS),
    }
    own = hidden // heads
    explicit = family in ("qwen3", "gemma2") or draw(st.booleans())
    if explicit and family != "phi3":
        settings["head_dim"] = draw(st.integers(1, 12)) * 2
        if _seldom(draw, 30):
            settings["head_dim"] += 1
    if "head_dim" in settings and family in ("mistral", "qwen2", "qwen3"):  # the others have heads of a whole width
        settings["hidden_size"] += draw(st.integers(0, 3))
    width = settings.get("head_dim", own)
    if family in ("llama", "qwen3", "gemma2"):
        settings["attention_bias"] = draw(st.booleans())
    if family == "llama":
        settings["mlp_bias"] = draw(st.booleans())
    if family in ("mistral", "phi3", "gemma2"):
        settings["sliding_window"] = draw(WINDOWS if family == "gemma2" else st.none() | WINDOWS)
    if family in ("qwen2", "qwen3"):
        settings["use_sliding_window"] = draw(st.booleans())
        settings["sliding_window"] = draw(WINDOWS)
        settings["max_window_layers"] = draw(st.integers(0, settings["num_hidden_layers"]))
    if family == "gemma2":
        settings["query_pre_attn_scalar"] = draw(st.sampled_from([width, 7, 64]))
        settings["attn_logit_softcapping"] = draw(st.sampled_from([None, 1.0, 50.0]))
        settings["final_logit_softcapping"] = draw(st.sampled_from([None, 1.0, 30.0]))
    if family == "phi3":
        factor = draw(st.sampled_from([1.0, 0.5, 0.75]))
        if int(width * factor) % 2 == 0 and int(width * factor):
            settings["partial_rotary_factor"] = factor
            width = int(width * factor)
        settings["original_max_position_embeddings"] = draw(st.integers(8, positions) | st.just(positions))
    scaling = draw(scalings(family, width, positions))
    return Text(family, draw(st.sampled_from([10000.0, 10.0, 500000.0])), scaling, settings)


@st.composite
def llavas(draw: st.DrawFn) -> Llava:
    """A LLaVA; at most 17 rows of features for an image."""
    tower = draw(st.sampled_from(["clip", "clip", "siglip", "siglip", "vit", "dinov2"]))
    heads, layers = draw(st.integers(1, 4)), draw(st.sampled_from([1, 1, 2, 3]))
    patch, grid = draw(st.integers(1, 9)), draw(st.integers(1, 4))
    vision = {
        "hidden_size": heads * draw(st.integers(4, 16)),
        **(
            {"mlp_ratio": draw(st.integers(1, 3))}
            if tower == "dinov2"
            else {"intermediate_size": draw(st.integers(1, 64))}
        ),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_channels": draw(st.sampled_from([3, 3, 1, 4])),
        "patch_size": patch,
        "image_size": patch * grid + draw(st.integers(0, patch - 1)),
        "hidden_act": draw(ACTIVATIONS),
        "layer_norm_eps": draw(EPSILONS),
    }
    text = draw(texts(64, layers=2))
    vocabulary = text.settings["vocab_size"]
    beyond = layers + 1 + draw(st.integers(1, 3)) if _seldom(draw, 30) else 0
    layer = st.integers(-layers - 1, layers)
    single = layer.filter(bool)  # transformers 5.24 takes 0 for no layer at all
    settings = {
        "image_token_index": draw(st.sampled_from([vocabulary - 1, 3, vocabulary // 2])),
        "projector_hidden_act": draw(ACTIVATIONS),
        "multimodal_projector_bias": draw(st.booleans()),
        "vision_feature_layer": beyond or draw(single | st.lists(layer, min_size=1, max_size=3)),
        "vision_feature_select_strategy": draw(st.sampled_from(["default", "full"])),
    }
    return Llava(tower, vision, text, settings)


DTYPES = st.sampled_from([torch.float32] * 6 + [torch.float16, torch.bfloat16])


@st.composite
def builds(draw: st.DrawFn, text: Text) -> Build:
    """A build of a model with that text model."""
    target = draw(st.sampled_from(["tensorrt-rtx"] * 4 + ["trtllm"]))
    positions = text.settings["max_position_embeddings"]
    seq_len = draw(st.none() | st.integers(40, positions + (8 if _seldom(draw) else 0)))
    input_len = draw(st.none() | st.integers(32, (seq_len or positions) - (0 if _seldom(draw) else 1)))
    stored = draw(DTYPES)
    return Build(
        target=target,
        stored=stored,
        dtype=draw(st.just(stored) | DTYPES),
        weights=draw(
            st.sampled_from(
                ["embedded", "embedded", "external"] if target != "trtllm" or _seldom(draw) else ["embedded"]
            )
        ),
        batch=draw(st.integers(1, 4)),
        max_seq_len=seq_len,
        max_input_len=input_len,
        in_memory=_seldom(draw, 5),
        compiled=_seldom(draw, 10),
    )


@st.composite
def drawn(draw: st.DrawFn, models: st.SearchStrategy[Any]) -> Drawn:
    """One of the models and a build of it."""
    model = draw(models)
    text = model.text if isinstance(model, Llava) else model
    return Drawn(model, draw(builds(text)), draw(st.integers(0, 2**16)))
