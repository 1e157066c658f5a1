"""What the engines of LLaVA-1.5-7B's shape hold, layer by layer, beside the least that the mathematics needs, and, for
the target `trtllm`, beside what TensorRT-LLM's own Llama holds.

    python -m benchmarks.layers

Prints the tables of benchmarks/LAYERS.md. Nothing is compiled and no weights are needed.
"""

from __future__ import annotations

import re
from collections import Counter

from benchmarks.described import llava_7b
from ditto import LlavaModel, LlmBuilder, VisionBuilder
from ditto.builders import EngineBuilder
from ditto.builders.describe import Described, describe
from ditto.network import Network

# A block's layers as the formulas need them, in TensorRT's kinds. Norms: cast to float32, square, mean, + epsilon,
# root, quotient, cast back, * weight.
DECODER_NEEDS = {
    "MatrixMultiply": (4, "query/key/value, output, gate/up, down"),
    "Attention": (1, "softmax(q k^T) v"),
    "KVCacheUpdate": (2, "keys, values"),
    "RotaryEmbedding": (2, "queries, keys"),
    "ElementWise": (13, "two norms of 4, query scale, gating 2, residual sums 2"),
    "Cast": (4, "two norms of 2"),
    "Reduce": (2, "two norms"),
    "Unary": (2, "two norms"),
    "Activation": (1, "sigmoid of the gate"),
    "Slice": (5, "query, key, value; gate, up"),
    "Shuffle": (4, "heads of query, key, value; heads together"),
}
VISION_NEEDS = {
    "MatrixMultiply": (4, "query/key/value, output, up, down"),
    "Attention": (1, "softmax(q k^T) v"),
    "Normalization": (2, "two norms"),
    "ElementWise": (9, "biases 4, query scale, quick GELU 2, residual sums 2"),
    "Activation": (1, "sigmoid of quick GELU"),
    "Slice": (3, "query, key, value"),
    "Shuffle": (4, "heads of query, key, value; heads together"),
}
# A block of TensorRT-LLM's own LlamaForCausalLM in float16 on one GPU, by what its functional layers create (read in
# its Python sources of 2025): rms_norm, the fused MLP, SwiGLU by chunk, two residual sums.
TRTLLM_OWN = {
    "ElementWise": (12, "two norms of 4, gating 2, residual sums 2"),
    "Gemm": (4, "query/key/value, output, gate/up, down"),
    "Cast": (4, "two norms of 2"),
    "Slice": (2, "gate, up"),
    "Reduce": (2, "two norms"),
    "Unary": (2, "two norms"),
    "GPTAttention": (1, "rope, KV cache, softmax(q k^T) v"),
    "Activation": (1, "sigmoid of the gate"),
    "Shape": (1, "sizes of the chunks; here once per network"),
    "Gather": (1, "sizes of the chunks; here once per network, as a slice"),
    "Concatenation": (1, "sizes of the chunks; here once per network"),
}


def block_layers(network: Network, block: str) -> Counter[str]:
    """Layers that come from a block of the model, constants aside."""
    pattern = re.compile(rf"\b{re.escape(block)}(\.|$)")
    found = (type(node.layer).__name__ for node in network.nodes if pattern.search(node.place.module))
    return Counter(kind for kind in found if kind != "Constant")


def table(have: Counter[str], needs: dict[str, tuple[int, str]], other: str = "least") -> str:
    """A Markdown table: kind, layers, least (or `other`), what for."""
    lines = [f"| kind | layers | {other} | what for |", "|---|---|---|---|"]
    for kind in sorted(set(have) | set(needs), key=lambda kind: (-have[kind], kind)):
        least, why = needs.get(kind, (0, ""))
        lines.append(f"| {kind} | {have[kind]} | {least} | {why} |")
    lines.append(f"| **all** | **{sum(have.values())}** | **{sum(least for least, _ in needs.values())}** | |")
    return "\n".join(lines)


def networks() -> dict[str, Network]:
    """The networks of LLaVA-1.5-7B's shape."""
    source = llava_7b()
    encoder = LlavaModel.encoder(source.config)
    common = {"source": source, "target": "tensorrt-rtx", "max_batch_size": 4}
    llm = LlmBuilder(**common, prompt_rows=encoder.rows or 0)
    builders = {
        "vision": VisionBuilder(**common, family="llava", inputs=encoder.inputs, wrap=encoder.module).with_batch(4),
        "llm": llm,
        "llm of trtllm": llm.with_target("trtllm"),
    }
    made = {name: described(builder)[0].network for name, builder in builders.items()}
    for builder in (
        builders["vision"].with_optimize("latency").with_tuning("9.0"),
        llm.with_optimize("latency").with_tuning("9.0"),
    ):
        made.update((f"{engine.spec.name}, external weights", engine.network) for engine in described(builder))
    return made


def described(builder: EngineBuilder) -> tuple[Described, ...]:
    """The engines of a builder."""
    target = builder.resolved_target()
    return describe(builder.part(target), target, builder.build_settings)


def main() -> None:
    made = networks()
    parts = {
        "Decoder block": (made["llm"], "layers.7", DECODER_NEEDS),
        "Vision block": (made["vision"], "layers.7", VISION_NEEDS),
    }
    for title, (network, block, needs) in parts.items():
        print(f"\n### {title}\n\n{table(block_layers(network, block), needs)}")
    packed = block_layers(made["llm of trtllm"], "layers.7")
    print(f"\n### Decoder block for TensorRT-LLM\n\n{table(packed, TRTLLM_OWN, 'its own')}")
    print(
        "\n### Whole networks\n\n| network | layers of a block | all, with constants | constants |\n|---|---|---|---|"
    )
    for name, network in made.items():
        kinds = Counter(type(node.layer).__name__ for node in network.nodes)
        block = sum(block_layers(network, "layers.7").values())
        print(f"| {name} | {block} | {len(network.nodes)} | {kinds['Constant']} |")


if __name__ == "__main__":
    main()
