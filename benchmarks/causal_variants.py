"""Variants of the popular causal classes beside Hugging Face: heads, biases, windows, rope scalings, routing, float16.

    python -m benchmarks.causal_variants                       # every variant of every class, three seeds
    python -m benchmarks.causal_variants llama mixtral --seeds 1
    python -m benchmarks.causal_variants --dtype float16       # beside Hugging Face's own rounding

A variant is a tiny model of `benchmarks.tiny_models` with other settings, held as `benchmarks.causal_classes` says.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch

from benchmarks.causal_classes import Form, Outcome, answers, check_model, prompts_for
from benchmarks.tiny_models import HEAD_SIZE, INNER, tiny_model

Settings = Mapping[str, Any]

_SLIDING, _FULL = "sliding_attention", "full_attention"
_YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16}
_LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 3.0}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
_LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0 + index / 10 for index in range(HEAD_SIZE // 2)],
    "long_factor": [3.0] * (HEAD_SIZE // 2),
    "original_max_position_embeddings": 2048,
    "factor": 2.0,
}
_MQA, _MHA = {"num_key_value_heads": 1}, {"num_key_value_heads": 4}
VARIANTS: Mapping[str, Mapping[str, Settings]] = {
    "llama": {
        "one KV head": _MQA,
        "biases": {**_MHA, "attention_bias": True, "mlp_bias": True},
        "tied": {"tie_word_embeddings": True, "head_dim": 16},
        "llama3 rope": {"rope_parameters": _LLAMA3},
        "yarn rope": {"rope_parameters": _YARN},
        "linear rope": {"rope_parameters": _LINEAR},
    },
    "qwen2": {
        "one KV head, tied": {**_MQA, "tie_word_embeddings": True},
        "a head for each": _MHA,
        "windows": {"use_sliding_window": True, "sliding_window": 8, "layer_types": [_FULL, _SLIDING]},
        "yarn rope": {"rope_parameters": _YARN},
        "linear rope": {"rope_parameters": _LINEAR},
    },
    "qwen3": {
        "one KV head, tied": {**_MQA, "tie_word_embeddings": True},
        "biases": {"attention_bias": True},
        "wide heads": {"head_dim": 64},
        "windows": {"use_sliding_window": True, "sliding_window": 8, "layer_types": [_SLIDING, _FULL]},
        "yarn rope": {"rope_parameters": _YARN},
    },
    "gemma2": {
        "no caps": {"attn_logit_softcapping": None, "final_logit_softcapping": None},
        "full layers": {"layer_types": [_FULL, _FULL]},
        "windows": {"layer_types": [_SLIDING, _SLIDING], "sliding_window": 5},
        "one KV head": {**_MQA, "query_pre_attn_scalar": 48},
        "biases, untied": {"attention_bias": True, "tie_word_embeddings": False},
    },
    "gemma3_text": {
        "one KV head": _MQA,
        "full layers": {"layer_types": [_FULL, _FULL]},
        "windows": {"layer_types": [_SLIDING, _SLIDING], "sliding_window": 3},
        "caps": {"attn_logit_softcapping": 20.0, "final_logit_softcapping": 10.0},
        "scaled rope": {
            "rope_parameters": {
                _FULL: {**_LINEAR, "factor": 8.0},
                _SLIDING: {"rope_type": "default", "rope_theta": 1000.0},
            }
        },
    },
    "phi3": {
        "windows": {"sliding_window": 8},
        "one KV head": _MQA,
        "partial rope": {
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
        },
        "long rope": {"rope_parameters": _LONGROPE, "original_max_position_embeddings": 2048},
        "tied": {"tie_word_embeddings": True},
    },
    "mistral": {
        "no windows": {"sliding_window": None},
        "windows of 3": {"sliding_window": 3},
        "one KV head": _MQA,
        "wide heads, tied": {"head_dim": 64, "tie_word_embeddings": True},
        "yarn rope": {"rope_parameters": _YARN},
    },
    "mixtral": {
        "one expert": {"num_experts_per_tok": 1},
        "three of five experts": {"num_experts_per_tok": 3, "num_local_experts": 5},
        "windows": {"sliding_window": 8},
        "one KV head": _MQA,
        "tied": {"tie_word_embeddings": True},
    },
    "qwen3_moe": {
        "shares as they are": {"norm_topk_prob": False},
        "shares that sum to 1": {"norm_topk_prob": True, "num_experts_per_tok": 4},
        "a dense layer": {"mlp_only_layers": [0], "intermediate_size": INNER},
        "every other layer": {"decoder_sparse_step": 2},
        "one KV head, biases": {**_MQA, "attention_bias": True},
    },
    "gpt_oss": {
        "full layers": {"layer_types": [_FULL, _FULL]},
        "windows": {"layer_types": [_SLIDING, _SLIDING], "sliding_window": 5},
        "one expert": {"num_experts_per_tok": 1},
        "one KV head": _MQA,
        "default rope": {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
    },
    "deepseek_v3": {
        "queries of full rank": {"q_lora_rank": None},
        "one group": {"n_group": 1, "topk_group": 1},
        "shares as they are": {"norm_topk_prob": False, "routed_scaling_factor": 1.0},
        "two shared experts": {"n_shared_experts": 2, "first_k_dense_replace": 0},
        "rope of halves": {"rope_interleave": False},
        "yarn rope": {"rope_parameters": {**_YARN, "mscale": 1.0, "mscale_all_dim": 0.8}},
    },
}


def variant(model_type: str, name: str, seed: int = 0) -> Any:
    """The tiny model of a variant."""

    def edit(config: Any) -> Any:
        values = {**config.to_dict(), **VARIANTS[model_type][name]}
        values.pop("model_type", None)
        return type(config)(**values)

    return tiny_model(model_type, seed, edit)


def check_variant(model_type: str, name: str, form: Form = "combined", seed: int = 0) -> Outcome:
    """The outcome of a variant in float32."""
    model = variant(model_type, name, seed)
    prompts = prompts_for(model, seed)
    return check_model(model, prompts, answers(model, prompts), form)


def check_half(model_type: str, name: str, form: Form = "combined", seed: int = 0) -> Outcome:
    """The outcome of a variant in float16: at most twice as far from float32 as Hugging Face in float16.

    Where two experts are as good but for rounding, a token may take the other one; so judge by several seeds.
    """
    model = variant(model_type, name, seed)
    prompts = prompts_for(model, seed)
    wanted = answers(model, prompts)
    half = model.half()
    # Hugging Face's own rounding, after the tokens of float32.
    rounding = 0.0
    for prompt, rows in zip(prompts, wanted, strict=True):
        ids = torch.tensor([[*prompt, *rows.argmax(-1)[:-1].tolist()]])
        with torch.no_grad():
            logits = half(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 :].float()
        each = (logits - rows).abs().amax(-1) / rows.abs().amax(-1)
        rounding = max(rounding, float(each.max()))
    outcome = check_model(half, prompts, wanted, form)
    if outcome.verdict != "WRONG":
        return outcome
    is_close = outcome.difference <= max(2 * rounding, 2e-3)
    reason = f"Hugging Face in float16: {rounding:.1e}"
    return Outcome("verified" if is_close else "WRONG", outcome.difference, reason)


def main() -> int:
    """Print the outcome of each variant; the exit code is 1 if one is wrong or an exception."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("types", nargs="*", help="model types; all if omitted")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--form", choices=("combined", "separate", "packed"), default="combined")
    parser.add_argument("--dtype", choices=("float32", "float16"), default="float32")
    given = parser.parse_args()
    check = check_half if given.dtype == "float16" else check_variant
    counts: Counter[str] = Counter()
    for model_type in given.types or VARIANTS:
        for name in VARIANTS[model_type]:
            for seed in range(given.seeds):
                outcome = check(model_type, name, given.form, seed)
                counts[outcome.verdict] += 1
                print(f"{model_type:12s} {name:22s} {seed}  {outcome}", flush=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items())), file=sys.stderr)
    return 1 if counts["WRONG"] or counts["exception"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
