"""The CLIP tower with TensorRT Edge-LLM's direct builder, in an environment of its own; benchmarks.peers runs it.

Edge-LLM has no CLIP: the tower is written here out of its own modules, as its InternVL3 tower is, and registered as a
family, which is how its documentation adds one. Everything after that is its own: reading, network, engine, identity.

Stand-ins, where nothing of the builder's work is replaced: TensorRT-RTX serves as `tensorrt`, which it is a drop-in
for; no plugin library is loaded, since the tower uses no plugin; and the GPU's compute capability, asked for to choose
workarounds for large TensorRT alone, is given.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import tensorrt_rtx

sys.modules["tensorrt"] = tensorrt_rtx

from experimental.builder.core import builder, bundle, contracts  # noqa: E402
from experimental.builder.core.artifacts import patch_external_weight_config  # noqa: E402
from experimental.builder.core.artifacts.runtime_artifacts import write_component_artifacts  # noqa: E402
from experimental.builder.models import registry  # noqa: E402
from experimental.builder.models.internvl3.modeling_internvl3_visual import (  # noqa: E402
    InternVLVisualAttention,
    InternVLVisualLayerNorm,
    InternVLVisualMLP,
)
from experimental.builder.ops import Module, NetworkModule  # noqa: E402
from experimental.builder.ops import functional as F  # noqa: E402

from benchmarks.report import Start  # noqa: E402

# Edge-LLM counts a square image as 256 tokens: 1 to 4 images, tuned for 2.
TOKENS_OF_A_IMAGE = 256
# Named, a kind of weight leaves the engine and no other does; this one the tower has none of.
NOTHING = ("int4_ffn",)


class Embeddings(Module):
    """Patches, class token and positions: [batch, 3, height, width] to [batch, patches + 1, width]."""

    def __init__(self, ctx: Any, config: dict[str, Any]) -> None:
        super().__init__(ctx)
        self.patch = config["patch_size"]
        self.shape = (0, config["hidden_size"], (config["image_size"] // self.patch) ** 2)

    def forward(self, pixels: Any) -> Any:
        found = self.weights.find_suffix
        patches = F.convolution(
            pixels, self.weights.f16(found("patch_embedding.weight")), None, stride=(self.patch, self.patch)
        )
        patches = patches.reshape(self.shape).transpose((0, 2, 1))
        token = F.batch_token(patches, self.weights.f16(found("class_embedding")))
        positions = self.weights.f16(found("position_embedding.weight"))[None]
        return F.concatenate((token, patches), 1) + F.constant(positions, "position_embedding")


class Layer(Module):
    """Attention and feed-forward, each after its norm."""

    def __init__(self, ctx: Any, prefix: str, config: dict[str, Any]) -> None:
        super().__init__(ctx, prefix)
        epsilon = config["layer_norm_eps"]
        self.norm1 = InternVLVisualLayerNorm(ctx, self.key("layer_norm1"), epsilon)
        self.norm2 = InternVLVisualLayerNorm(ctx, self.key("layer_norm2"), epsilon)
        self.attention = InternVLVisualAttention(
            ctx, self.key("self_attn"), config["hidden_size"], config["num_attention_heads"], epsilon, False
        )
        self.mlp = InternVLVisualMLP(ctx, self.key("mlp"), config["hidden_act"])

    def forward(self, hidden: Any) -> Any:
        hidden = hidden + self.attention(self.norm1(hidden))
        return hidden + self.mlp(self.norm2(hidden))


class Tower(NetworkModule):
    """CLIP's vision tower: pixels to the last hidden state."""

    def __init__(self, ctx: Any) -> None:
        super().__init__(ctx)
        config = ctx.bundle.component_dict(contracts.Component.VISUAL)
        self.pixels = (-1, config["num_channels"], config["image_size"], config["image_size"])
        self.embeddings = Embeddings(ctx, config)
        norm = self.weights.find_suffix("pre_layrnorm.weight").removesuffix(".weight")
        self.norm = InternVLVisualLayerNorm(ctx, norm, config["layer_norm_eps"])
        found = self.weights.layer_prefixes((r"(.*encoder\.layers\.\d+)\.layer_norm1\.weight$",))
        self.layers = [Layer(ctx, prefix, config) for prefix in found]

    def input_tensors(self) -> dict[str, Any]:
        return {"pixels": self.add_input("input", tensorrt_rtx.float16, self.pixels)}

    def forward(self, pixels: Any) -> dict[str, Any]:
        hidden = self.norm(self.embeddings(pixels))
        for layer in self.layers:
            hidden = layer(hidden)
        return {"output": hidden}


class Here(registry.ComponentDefinition):
    """A tower that no module of Edge-LLM's defines."""

    def load(self) -> type:
        return Tower


def register() -> None:
    """Make the tower a family, whose checkpoints are read as InternVL3's are."""
    visual = contracts.Component.VISUAL
    family = registry.ModelFamily(
        "clip",
        {"clip_vision_model": frozenset((visual,))},
        {visual: Here(__name__, "Tower")},
        configuration="internvl3.configuration",
        weight_conversion="internvl3.weights",
    )
    registry._BY_ROOT["clip_vision_model"] = (family, frozenset((visual,)))
    # Imported when a build first needs them; here, so that imports stay out of its time.
    registry.configuration_module_for("clip_vision_model")
    registry.weight_conversion_for("clip_vision_model")


def build(checkpoint: Path, out: Path, weights: str) -> Path:
    """What `tensorrt-edgellm-build --components visual` does for one component."""
    settings = builder.BuildArgs(
        model_dir=str(checkpoint),
        engine_dir=str(out),
        component="visual",
        max_batch_size=4,
        min_image_tokens=TOKENS_OF_A_IMAGE,
        max_image_tokens=4 * TOKENS_OF_A_IMAGE,
        max_image_tokens_per_image=TOKENS_OF_A_IMAGE,
        externalize_weights=NOTHING if weights == "embedded" else (),
    )
    source = bundle.BundleConfig.from_pretrained(str(checkpoint))
    made = builder.build_engine(settings, bundle=source, plugin_handle=object())
    write_component_artifacts(source, settings, str(out))
    if made.checkpoint_weight_bindings:
        config = contracts.component_spec(settings.resolved_component).config_path(str(out))
        bindings, identity = made.checkpoint_weight_bindings, made.checkpoint_identity
        patch_external_weight_config(config, bindings, identity, checkpoint_dir=made.checkpoint_dir)
    return Path(made.engine_path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", choices=("embedded", "external"), required=True)
    parser.add_argument("--report", type=Path, required=True)
    options = parser.parse_args()
    builder._active_cuda_compute_capability = lambda: (8, 9)
    register()
    start = Start.now()
    engine = build(options.checkpoint, options.out, options.weights)
    start.report([engine], "tensorrt-edgellm").write(options.report)


if __name__ == "__main__":
    main()
