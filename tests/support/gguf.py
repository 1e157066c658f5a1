"""GGUF files, written with the format's own library, and the models that transformers reads from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

HEADS, KV_HEADS, HIDDEN, MIDDLE, VOCAB = 4, 2, 64, 96, 32


def tensors(layers: int = 1) -> dict[str, torch.Tensor]:
    """Random weights of a llama by GGUF's names."""
    torch.manual_seed(7)
    kv = HIDDEN // HEADS * KV_HEADS
    shapes = {"token_embd.weight": (VOCAB, HIDDEN), "output_norm.weight": (HIDDEN,), "output.weight": (VOCAB, HIDDEN)}
    for layer in range(layers):
        block = {
            "attn_norm": (HIDDEN,),
            "ffn_norm": (HIDDEN,),
            "attn_output": (HIDDEN, HIDDEN),
            "attn_q": (HIDDEN, HIDDEN),
            "attn_k": (kv, HIDDEN),
            "attn_v": (kv, HIDDEN),
            "ffn_gate": (MIDDLE, HIDDEN),
            "ffn_up": (MIDDLE, HIDDEN),
            "ffn_down": (HIDDEN, MIDDLE),
        }
        shapes.update({f"blk.{layer}.{name}.weight": shape for name, shape in block.items()})
    return {name: torch.randn(shape) / 8 + (len(shape) == 1) for name, shape in shapes.items()}


def write(file: Path, kind: str, architecture: str = "llama", **metadata: Any) -> Path:
    """Write a llama whose matrices are stored as `kind`, e.g. `Q4_1`; returns the file."""
    import gguf

    writer = gguf.GGUFWriter(str(file), architecture)
    writer.add_name("tiny")
    writer.add_context_length(64)
    writer.add_block_count(1)
    writer.add_feed_forward_length(MIDDLE)
    writer.add_embedding_length(HIDDEN)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_rope_freq_base(50000.0)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCAB)
    for key, value in metadata.items():
        add = writer.add_uint32 if isinstance(value, int) else writer.add_string
        add(key.replace("__", "."), value)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz", "ab", "cd", "ef", "gh"])
    writer.add_token_types([3, 3, *[1] * (VOCAB - 2)])
    writer.add_token_merges(["a b", "c d", "e f", "g h"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    for name, tensor in tensors().items():
        stored = gguf.GGMLQuantizationType[kind if tensor.dim() == 2 else "F32"]
        writer.add_tensor(name, gguf.quantize(tensor.numpy(), stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def meaning(file: Path) -> Any:
    """The model of a file, dequantised by transformers to float32."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, torch_dtype=torch.float32)
