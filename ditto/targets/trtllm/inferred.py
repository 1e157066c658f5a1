"""What the contract deduces and nobody read: kept together, so that who has TensorRT-LLM can check it quickly.

Each entry names the contract's section and where to look in an installation. `ditto doctor --trtllm` compares the
plugin creators' field names; the rest is for the eye.
"""

from __future__ import annotations

import torch

# TensorRT's DataType enumeration, as plugins take it in `type_id` (contract, LLM engine 3.1 no. 33, 8.5).
# Check: int(tensorrt.DataType.HALF).
TYPE_ID = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 7}

# A block offset counts half-blocks of the whole pool: block * layers * 2 + (0 for keys, 1 for values), in units of one
# half-block's bytes; a layer's part begins at layer_in_pool * 2 half-blocks (contract 4.5).
# Check: KVBlockArray in cpp/tensorrt_llm/kernels/kvCacheUtils.h.
HALF_BLOCKS = 2

# Soft-capping comes after scaling and before the mask (contract 4.3).
SOFTCAP_BEFORE_MASK = True

# Query head h reads KV head h // (heads // kv_heads) (contract 4.1).
GROUPED_BY_DIVISION = True

# A vision engine's config.json with these keys satisfies every reader; max_beam_width protects versions after PR #5165
# (contract, multimodal 2.1 and 2.2).
VISION_MAX_BEAM_WIDTH = 1

# Fused context attention is for half precision; with float32 a build turns it off, and paged context attention with it.
# Check: the plugin's warning "Fall back to unfused MHA because of unsupported data type" in its C++ source.
FUSED_CONTEXT_DTYPES = ("float16", "bfloat16")

# The groupwise, dynamic-NTK and yarn paths are not used: rope of those kinds stays in the graph (contract 4.4).
ROPE_IN_PLUGIN = ("default", "linear", "llama3")
