"""Decoder configuration with the names of TensorRT-LLM's config.json.

It is derived from Hugging Face's configuration.
"""

from __future__ import annotations

from typing import Any

from ditto.errors import CheckpointError, UnsupportedFeature
from ditto.targets import DecoderConfig

# Default that a native build writes for Qwen configurations without `seq_length` (contract, LLM engine 9).
_QWEN_SEQ_LENGTH = 8192


def read_decoder_config(config: Any, vocab_size: int) -> DecoderConfig:
    """The decoder configuration of a text model.

    Args:
        config: Hugging Face's configuration of the language model.
        vocab_size: number of rows of the embedding.
    Raises:
        CheckpointError: it lacks a size that every decoder has, or its attention head counts are invalid.
        UnsupportedFeature: its layers differ in something other than attention heads and inner widths.
    """

    def largest(name: str) -> Any:
        return max((value for value in by_layer(config, name) if value is not None), default=None)

    def known(*names: str, otherwise: Any = None) -> Any:
        for name in names:
            value = largest(name) if name in _MAY_DIFFER else same_in_all_layers(config, name)
            if value is not None:
                return value
        if otherwise is None:
            raise CheckpointError(f"the configuration of {config.model_type} has no `{names[0]}`")
        return otherwise

    hidden, layers = known("hidden_size"), known("num_hidden_layers")
    attends = attention_layers(config, layers) > 0
    heads = known("num_attention_heads") if attends else known("num_attention_heads", "num_heads", otherwise=1)
    head_size = known("head_dim", otherwise=hidden // heads)
    kv_heads = known("num_key_value_heads", otherwise=heads)
    of_queries, of_keys = (by_layer(config, name) for name in ("num_attention_heads", "num_key_value_heads"))
    for index in range(max(len(of_queries), len(of_keys))):
        queries, keys = of_queries[index % len(of_queries)], of_keys[index % len(of_keys)]
        if queries and queries % (keys or queries):
            raise CheckpointError(
                f"num_attention_heads {queries} is not a multiple of num_key_value_heads {keys}",
                remedy="check config.json: every KV head serves the same number of query heads",
            )
    rope = rope_parameters(config)
    rotary = int(head_size * float(known("partial_rotary_factor", otherwise=1.0))) if rope else 0
    if rotary == head_size and head_size % 2:
        raise CheckpointError(
            f"heads are {head_size} wide, and rotary embedding turns pairs of columns",
            remedy="check head_dim, hidden_size and num_attention_heads in config.json",
        )
    return DecoderConfig(
        architecture=_architecture(config),
        vocab_size=vocab_size,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_size=head_size,
        intermediate_size=known("intermediate_size", otherwise=4 * hidden),
        hidden_act=str(known("hidden_act", "hidden_activation", otherwise="gelu")),
        norm_epsilon=float(known("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", otherwise=1e-5)),
        max_position_embeddings=known("max_position_embeddings", otherwise=2048),
        position_embedding_type="rope_gpt_neox" if rope else "learned_absolute",
        rotary_embedding_dim=rotary,
        qk_layernorm=config.model_type in ("qwen3", "qwen3_moe"),
        extra={**_rotary(rope), **_required_keys(config)},
    )


# Sizes that may differ between layers. A decoder's configuration has the largest of them.
_MAY_DIFFER = ("num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size")


def by_layer(config: Any, name: str) -> list[Any]:
    """A value of a configuration in each layer; one item if it is stated once, None if missing."""
    try:
        value = getattr(config, name, None)
    except RuntimeError:  # transformers 5: the configurations of single layers differ
        layers = range(config.num_hidden_layers)
        return [getattr(config.per_layer_config[layer], name) for layer in layers]
    return list(value) if isinstance(value, (list, tuple)) else [value]


def same_in_all_layers(config: Any, name: str) -> Any:
    """A value of a configuration.

    The common value of a list with one value per layer; None if missing.

    Raises:
        UnsupportedFeature: layers have different values.
    """
    try:
        value = getattr(config, name, None)
    except RuntimeError as error:  # transformers 5: the configurations of single layers differ
        raise _different(config, name) from error
    if not isinstance(value, (list, tuple)):
        return value
    if len({str(part) for part in value}) > 1:
        raise _different(config, name)
    return value[0] if value else None


def _different(config: Any, name: str) -> UnsupportedFeature:
    return UnsupportedFeature(
        f"the layers of {config.model_type} differ in `{name}`",
        remedy="models whose layers have different sizes are not supported",
    )


# Kinds of layers by their names in configurations: without attention, with a recurrence, with state that no operator
# keeps.
_WITHOUT_ATTENTION = frozenset({"conv", "linear_attention", "mamba", "mlp", "moe", "recurrent"})
_RECURRENT = frozenset({"hybrid", "linear_attention", "mamba", "recurrent"})
_OTHER_STATE = {
    "compressed_sparse_attention": "compressed keys",
    "heavily_compressed_attention": "compressed keys",
    "indexed_attention": "the keys of an index",
}


def attention_layers(config: Any, layers: int) -> int:
    """Number of a decoder's self-attention layers.

    Cross-attention layers, which attend to an image only, do not run without one and are not counted.

    Raises:
        UnsupportedFeature: some layers keep state that no operator of Ditto keeps.
    """
    names = ("layer_types", "layers_block_type", "block_types")
    kinds: Any = next((found for name in names if (found := getattr(config, name, None))), ())
    for index, kind in enumerate(kinds):
        if kind in _RECURRENT and not _has_recurrences():
            raise UnsupportedFeature(
                f"layer {index} of {config.model_type} is of the kind `{kind}`: it keeps the state of a recurrence",
                remedy="build with transformers 5, whose models say where their recurrences are",
            )
        if kind in _OTHER_STATE:
            raise UnsupportedFeature(
                f"layer {index} of {config.model_type} is of the kind `{kind}`: it keeps {_OTHER_STATE[kind]}",
                remedy="layers that keep keys and values, or the state of a convolution or a linear recurrence, are "
                "supported",
            )
    crossed = len(getattr(config, "cross_attention_layers", None) or ())
    return layers - crossed - sum(kind in _WITHOUT_ATTENTION for kind in kinds)


def refuse_bidirectional(config: Any) -> None:
    """Check that a decoder's tokens do not see those behind them.

    The models' masks do not say so in every implementation of attention of transformers.

    Raises:
        UnsupportedFeature: they do.
    """
    mode = getattr(config, "use_bidirectional_attention", None)
    if mode in (True, "all"):
        raise UnsupportedFeature(
            f"use_bidirectional_attention is {mode!r}: the tokens of this {config.model_type} see those behind them",
            remedy="use a model that generates text",
        )


def _has_recurrences() -> bool:
    """Whether transformers has the functions that `ditto.capture.recurrences` captures."""
    import transformers

    return int(transformers.__version__.split(".")[0]) >= 5


def rope_parameters(config: Any) -> dict[str, Any]:
    """Parameters of rotary embedding by their names in transformers 5.

    They include `rope_theta`; empty without rope.
    """
    stated = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    theta = stated.get("rope_theta", getattr(config, "rope_theta", None))
    return {} if theta is None else {**stated, "rope_theta": float(theta)}


def _rotary(rope: dict[str, Any]) -> dict[str, Any]:
    return {"rotary_base": rope["rope_theta"], "rotary_scaling": _scaling(rope)} if rope else {}


def _required_keys(config: Any) -> dict[str, Any]:
    """Keys required or written by TensorRT-LLM's configuration class.

    Source: contract, LLM engine 1.4 and 9.
    """
    found: dict[str, Any] = {}
    if config.model_type.startswith("qwen"):
        found["qwen_type"] = config.model_type
        found["seq_length"] = getattr(config, "seq_length", _QWEN_SEQ_LENGTH)
    if getattr(config, "query_pre_attn_scalar", None) is not None:
        found["query_pre_attn_scalar"] = config.query_pre_attn_scalar
    for name in ("attn_logit_softcapping", "final_logit_softcapping"):
        if hasattr(config, name):
            found[name] = getattr(config, name)
    return found


def _scaling(rope: dict[str, Any]) -> dict[str, Any] | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    return {**{key: value for key, value in rope.items() if key not in ("rope_theta", "rope_type")}, "type": kind}


def _architecture(config: Any) -> str:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    if isinstance(known, (tuple, list)):
        known = known[0]
    return known or (getattr(config, "architectures", None) or [f"{config.model_type}ForCausalLM"])[0]


def image_token_id(config: Any) -> int | None:
    """Id of the image token, which stands for one row of an image embedding.

    None for a text model.
    """
    image = getattr(config, "image_token_index", None)
    return image if image is not None else getattr(config, "image_token_id", None)
