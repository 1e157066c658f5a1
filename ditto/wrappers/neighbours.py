"""Vision towers of images in their native size that bring neighbouring patches together between layers.

T image tokens, U patches that become one token.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from typing_extensions import override

from ditto.wrappers.features import features_owner
from ditto.wrappers.native import NativeFeatures


class MiniCpmFeatures(NativeFeatures):
    """A tower where windows of patches are merged between layers of the tower, and again behind it (MiniCPM-V)."""

    tower_name = "vision_tower"
    projector_name = "merger"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        config: Any = features_owner(model).config
        self.merges_after = None if config.downsample_mode == "4x" else config.vision_config.insert_layer_id

    @override
    def forward(self, pixel_values: Tensor, entries: Tensor) -> Tensor:  # type: ignore[override]
        """Image embeddings, as in `NativeFeatures`.

        Args:
            pixel_values: floating [T, U, channels, height, width], those of a window after each other.
            entries: int32 [T, U], the row of the position table for each patch.
        """
        tower, tokens = self.tower, pixel_values.shape[0]
        patches = tower.embeddings.patch_embedding(pixel_values.flatten(0, 1)).flatten(1)
        hidden = (patches + tower.embeddings.position_embedding(entries.flatten()))[None]
        for index, layer in enumerate(tower.encoder.layers):
            hidden = layer(hidden, None, cu_seqlens=None, max_seqlen=0)
            if index == self.merges_after:
                hidden = self._merged(tower.vit_merger, hidden[0])[None]
        return self.projector.mlp[0](tower.post_layernorm(hidden).view(tokens, -1))

    def _merged(self, merger: Any, hidden: Tensor) -> Tensor:
        """Windows of patches [patches, width], which attend to each other, as one patch each."""
        windows = hidden.unflatten(0, (-1, merger.window_kernel_size[0] ** 2))
        found, _ = merger.self_attn(hidden_states=merger.layer_norm1(windows), cu_seqlens=None, max_seqlen=0)
        windows = windows + found
        merged = merger.linear_2(merger.act(merger.linear_1(merger.pre_norm(windows.flatten(1)))))
        return merged + windows.mean(dim=1)


class ConvolvedFeatures(NativeFeatures):
    """A tower with layers that convolve the image of patches, and a projector behind the tower (LFM3-VL)."""

    tower_name = "vision_tower"
    projector_name = "multi_modal_projector"

    @override
    def forward(self, pixel_values: Tensor, position_ids: Tensor, neighbours: Tensor) -> Tensor:  # type: ignore[override]
        """Image embeddings, as in `NativeFeatures`.

        Args:
            neighbours: int32 [T, U, taps], the patch that each tap of a convolution reads, counted from 1; 0 for none.
        """
        tower, around = self.tower, neighbours.flatten(0, 1)
        hidden = tower.embedding_norm(tower.patch_embed(pixel_values.flatten(0, 1)))
        positions = tower.rotary_pos_emb(hidden, position_ids.flatten(0, 1))
        for layer in tower.layers:
            if layer.is_attention_layer:
                hidden = layer(hidden, cu_seqlens=None, max_seqlen=0, position_embeddings=positions)
            else:
                hidden = hidden + self._convolved(layer.conv, layer.operator_norm(hidden), around)
                hidden = hidden + layer.feed_forward(layer.ffn_norm(hidden))
        return self.projector(hidden)

    def _convolved(self, conv: Any, hidden: Tensor, around: Tensor) -> Tensor:
        """The gated convolution of a layer, tap by tap in float32: [patches, width]."""
        before, behind, inner = conv.in_proj(hidden).chunk(3, dim=-1)
        padded = nn.functional.pad(before * inner, (0, 0, 1, 0))
        taps = conv.spatial_conv.weight.flatten(1).float().unbind(1)
        rows = (nn.functional.embedding(around[:, tap], padded).float() * weight for tap, weight in enumerate(taps))
        total = next(rows)
        for each in rows:
            total = total + each
        return conv.out_proj(behind * total.to(hidden.dtype))
