"""Vision towers of images in their native size, captured on the patches of one image.

T image tokens, U patches that become one token. Patches of a token follow each other, and all patches attend to each
other, except where a tower says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from ditto.wrappers.features import features_owner


class NativeFeatures(nn.Module):
    """A vision tower that takes packed patches, and the tensors that follow from their grid as inputs.

    Args:
        model: a model of transformers with such a tower.
    """

    tower_name: ClassVar[str] = "visual"
    """Where the model has its tower."""

    projector_name: ClassVar[str | None] = None
    """Where it has the projector behind the tower; None if that is a part of the tower."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        owner: Any = features_owner(model)
        self.tower: Any = getattr(owner, self.tower_name)
        self.projector: Any = None if self.projector_name is None else getattr(owner, self.projector_name)

    @override
    def forward(self, pixel_values: Tensor, position_ids: Tensor) -> Tensor:
        """Image embeddings.

        Args:
            pixel_values: floating [T, U, values], normalised patches.
            position_ids: int32 [T, U, 2], row and column of each patch.
        Returns:
            [T, width], in the model's dtype.
        """
        return self._run(pixel_values, position_ids=position_ids).pooler_output

    def _run(self, pixel_values: Tensor, **of_grid: Tensor) -> Any:
        """The tower's outputs; all of its inputs are by token."""
        tensors = {name: tensor.flatten(0, 1) for name, tensor in of_grid.items()}
        # One segment: its boundaries have no effect in the captured attention, and neither has its length.
        segment = torch.zeros(2, dtype=torch.int32)
        return self.tower(pixel_values.flatten(0, 1), grid_thw=None, cu_seqlens=segment, max_seqlen=0, **tensors)

    def _blocks(self, hidden: Tensor, position_ids: Tensor) -> Tensor:
        """The tower's transformer blocks."""
        positions = self.tower.rotary_pos_emb(hidden, position_ids.flatten(0, 1))
        return _through(self.tower.blocks, hidden, positions)


class WindowFeatures(NativeFeatures):
    """The same where most blocks attend within windows (Qwen2.5-VL)."""

    @override
    def forward(  # type: ignore[override]
        self, pixel_values: Tensor, position_ids: Tensor, windows: Tensor, order: Tensor
    ) -> Tensor:
        """Image embeddings, as in `NativeFeatures`.

        Args:
            pixel_values, position_ids: as there, with the tokens of a window after each other.
            windows: int32 [T], the window of each token.
            order: int32 [T], where each token of the image is among those in windows.
        """
        tower, unit = self.tower, pixel_values.shape[1]
        hidden = tower.patch_embed(pixel_values.flatten(0, 1))
        positions = tower.rotary_pos_emb(hidden, position_ids.flatten(0, 1))
        segments = windows[:, None].expand(-1, unit).flatten()
        for index, block in enumerate(tower.blocks):
            within = {} if index in tower.fullatt_block_indexes else {"segments": segments}
            hidden = block(hidden, cu_seqlens=None, max_seqlen=0, position_embeddings=positions, **within)
        return tower.merger(hidden).index_select(0, order)


class ProjectedWindowFeatures(WindowFeatures):
    """The same with a linear layer behind the tower (HyperCLOVA X)."""

    tower_name = "vision_model"
    projector_name = "projector"

    @override
    def forward(  # type: ignore[override]
        self, pixel_values: Tensor, position_ids: Tensor, windows: Tensor, order: Tensor
    ) -> Tensor:
        """Image embeddings, as in `WindowFeatures`."""
        return self.projector(super().forward(pixel_values, position_ids, windows, order))


class InterpolatedFeatures(NativeFeatures):
    """The same with interpolated position embeddings (Qwen3.5)."""

    @override
    def forward(  # type: ignore[override]
        self, pixel_values: Tensor, position_ids: Tensor, interp_indices: Tensor, interp_weights: Tensor
    ) -> Tensor:
        """Image embeddings, as in `NativeFeatures`.

        Args:
            interp_indices: int32 [T, U, taps], rows of the position table for each patch.
            interp_weights: float32 [T, U, taps], their shares.
        """
        of_grid = {"position_ids": position_ids, "interp_indices": interp_indices, "interp_weights": interp_weights}
        return self._embeddings(self._run(pixel_values, **of_grid))

    def _embeddings(self, found: Any) -> Tensor:
        return found.pooler_output


class DeepstackFeatures(InterpolatedFeatures):
    """The same with embeddings of several layers side by side, [T, (1 + layers) * width] (Qwen3-VL)."""

    @override
    def _embeddings(self, found: Any) -> Tensor:
        return torch.cat([found.pooler_output, *found.deepstack_features], dim=-1)


class Glm4vFeatures(NativeFeatures):
    """The same with position embeddings interpolated over 16 neighbours (GLM-4.1V)."""

    @override
    def forward(  # type: ignore[override]
        self, pixel_values: Tensor, position_ids: Tensor, interp_indices: Tensor, interp_weights: Tensor
    ) -> Tensor:
        """Image embeddings, as in `InterpolatedFeatures`."""
        tower = self.tower
        hidden = tower.post_conv_layernorm(tower.patch_embed(pixel_values.flatten(0, 1)))
        table = tower.embeddings.position_embedding.weight
        hidden = hidden + _interpolated(table, interp_indices.flatten(0, 1), interp_weights.flatten(0, 1))
        hidden = tower.post_layernorm(self._blocks(hidden, position_ids))
        side = tower.spatial_merge_size
        merged = tower.downsample(hidden.view(-1, side, side, hidden.shape[-1]).permute(0, 3, 1, 2))
        return tower.merger(merged.view(-1, tower.config.out_hidden_size))


class PaddleOcrFeatures(NativeFeatures):
    """The same where a projector behind the tower merges patches (PaddleOCR-VL)."""

    projector_name = "projector"

    @override
    def forward(  # type: ignore[override]
        self, pixel_values: Tensor, position_ids: Tensor, interp_indices: Tensor, interp_weights: Tensor
    ) -> Tensor:
        """Image embeddings, as in `Glm4vFeatures`.

        Args:
            pixel_values: floating [T, U, channels, height, width].
        """
        tower, projector = self.tower.vision_model, self.projector
        taps = {"interp_indices": interp_indices.flatten(0, 1), "interp_weights": interp_weights.flatten(0, 1)}
        hidden = tower.embeddings(pixel_values.flatten(0, 1)[None], **taps)
        positions = tower.encoder.rotary_pos_emb(hidden, position_ids.flatten(0, 1))
        hidden = _through(tower.encoder.layers, hidden, positions)
        tokens = projector.pre_norm(tower.post_layernorm(hidden)).view(pixel_values.shape[0], -1)
        return projector.linear_2(projector.act(projector.linear_1(tokens)))


class VideoLlama3Features(NativeFeatures):
    """The same where each patch becomes a token, by a projector behind the tower (VideoLLaMA3)."""

    tower_name = "vision_model"
    projector_name = "projector"

    @override
    def forward(self, pixel_values: Tensor, position_ids: Tensor) -> Tensor:
        """Image embeddings, as in `NativeFeatures`."""
        tower = self.tower
        hidden = tower.embeddings(pixel_values.flatten(0, 1))
        positions = tower.rotary_pos_emb(hidden, position_ids.flatten(0, 1))
        hidden = _through(tower.encoder.layers, hidden, positions)
        return self.projector(tower.post_layernorm(hidden))


class Cosmos3EdgeFeatures(NativeFeatures):
    """The same with position embeddings that are sums over a whole table (Cosmos 3 Edge)."""

    projector_name = "projector"

    @override
    def forward(self, pixel_values: Tensor, position_weights: Tensor) -> Tensor:  # type: ignore[override]
        """Image embeddings, as in `NativeFeatures`.

        Args:
            position_weights: float32 [T, U, entries], the share of each entry of the table in a patch's embedding.
        """
        tower = self.tower
        patches = tower.embeddings.patch_embedding(pixel_values.flatten(0, 1))
        table = tower.embeddings.position_embedding.weight
        hidden = patches + _weighted_sums(table, position_weights.flatten(0, 1), patches.dtype)
        for layer in tower.encoder.layers:
            hidden = layer(hidden, cu_seqlens=None, max_seqlen=0)
        return self.projector(tower.post_layernorm(hidden))


class MuseGlimmerFeatures(NativeFeatures):
    """The same with windows, interpolated position embeddings, and an adapter behind the tower (Muse Glimmer)."""

    tower_name = "vision_tower"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        owner: Any = features_owner(model)
        self.behind = nn.ModuleList([owner.vision_adapter, owner.vision_projection, owner.perception_emb_norm])
        self.kinds = owner.config.vision_config.layer_types

    @override
    def forward(  # type: ignore[override]
        self,
        pixel_values: Tensor,
        position_ids: Tensor,
        interp_indices: Tensor,
        interp_weights: Tensor,
        windows: Tensor,
        order: Tensor,
    ) -> Tensor:
        """Image embeddings, as in `DeepstackFeatures` and `WindowFeatures`, without further layers."""
        tower, unit = self.tower, pixel_values.shape[1]
        embedder = tower.patch_embedder
        hidden = embedder.patch_embedding(pixel_values.flatten(0, 1))
        taps = interp_indices.flatten(0, 1), interp_weights.flatten(0, 1)
        hidden = tower.ln_pre(hidden + _interpolated(embedder.position_embedding_table.weight, *taps))
        rows, columns = position_ids.flatten(0, 1).unbind(-1)
        positions = tower.rotary_emb(hidden, torch.stack([columns, rows], dim=-1) + 1)
        segments = windows[:, None].expand(-1, unit).flatten()
        for kind, block in zip(self.kinds, tower.layers, strict=True):
            within = {} if kind == "full_attention" else {"segments": segments}
            hidden = block(hidden, cu_seqlens=None, max_seqlen=0, position_embeddings=positions, **within)
        tokens = tower.ln_post(hidden).unflatten(0, (-1, unit)).transpose(1, 2).flatten(1)
        for part in self.behind:
            tokens = part(tokens)
        return tokens.index_select(0, order)


class KimiFeatures(NativeFeatures):
    """The same with position embeddings over 16 neighbours, and a projector that merges patches (Kimi K2.5)."""

    tower_name = "vision_tower"
    projector_name = "mm_projector"

    @override
    def forward(  # type: ignore[override]
        self, pixel_values: Tensor, position_ids: Tensor, interp_indices: Tensor, interp_weights: Tensor
    ) -> Tensor:
        """Image embeddings, as in `PaddleOcrFeatures`."""
        tower = self.tower
        table = tower.patch_embed.pos_emb.position_embeddings.flatten(0, 1)
        hidden = tower.patch_embed.proj(pixel_values.flatten(0, 1)).flatten(1)
        hidden = hidden + _interpolated(table, interp_indices.flatten(0, 1), interp_weights.flatten(0, 1))
        positions = tower.rotary_emb(hidden, position_ids.flatten(0, 1))
        hidden = _through(tower.layers, hidden, positions)
        patches = tower.final_layernorm(hidden).unflatten(0, (-1, pixel_values.shape[1]))
        return self.projector(patches).squeeze(1)


class HunYuanFeatures(NativeFeatures):
    """The same with embeddings between those of the tokens (HunYuan-VL)."""

    tower_name = "vision_tower"

    @override
    def forward(  # type: ignore[override]
        self, pixel_values: Tensor, interp_indices: Tensor, interp_weights: Tensor, order: Tensor
    ) -> Tensor:
        """Image embeddings.

        Args:
            pixel_values, interp_indices, interp_weights: as in `DeepstackFeatures`.
            order: int32 [R], the token of each embedding, or T for the end of a row, T + 1 and T + 2 for the begin and
                the end of the image.
        Returns:
            [R, width], in the model's dtype.
        """
        tower, merger = self.tower, self.tower.patch_merger
        embeddings = tower.embeddings
        sides = embeddings.patch_embedding.weight.shape[1:]
        patches = embeddings.patch_embedding(pixel_values.flatten(0, 1).unflatten(1, sides)).flatten(1)
        table = embeddings.position_embedding.weight[1:]  # the first is that of a class token
        taps = interp_indices.flatten(0, 1), interp_weights.flatten(0, 1)
        hidden = (patches + _interpolated(table, *taps))[None]
        for layer in tower.layers:
            hidden = layer(hidden, cu_seqlens=None, max_seqlen=0, attention_mask=None)
        side = merger.spatial_merge_size
        cells = merger.before_rms(hidden[0]).unflatten(0, (-1, side, side)).permute(0, 3, 1, 2)
        cells = merger.proj_out(merger.proj_act(merger.proj_conv(cells))).flatten(1)
        tokens = merger.mlp(torch.cat([cells, merger.image_newline[None]]))
        rows = torch.cat([tokens, merger.image_begin[None], merger.image_end[None]])
        return merger.after_rms(rows).index_select(0, order)


def _through(layers: Iterable[Any], hidden: Tensor, positions: Any) -> Tensor:
    """The states of patches that all attend to each other, after some layers."""
    for layer in layers:
        hidden = layer(hidden, cu_seqlens=None, max_seqlen=0, position_embeddings=positions)
    return hidden


def _weighted_sums(table: Tensor, shares: Tensor, dtype: torch.dtype) -> Tensor:
    """Sums over a whole table by shares of its entries, in float32, then in `dtype`: [patches, width]."""
    return (shares @ table.float()).to(dtype)


def _interpolated(table: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of rows of a table, in float32, then in its dtype: [patches, taps] → [patches, width].

    Tap by tap, so that not all rows are in memory at once.
    """
    taps = range(indices.shape[1])
    rows = (nn.functional.embedding(indices[:, tap], table).float() * weights[:, tap, None] for tap in taps)
    total = next(rows)
    for each in rows:
        total = total + each
    return total.to(table.dtype)


class NaflexFeatures(NativeFeatures):
    """SigLIP 2's tower of images of any size, and a projector that merges the patches of a token (LFM2-VL)."""

    tower_name = "vision_tower"
    projector_name = "multi_modal_projector"

    @override
    def forward(self, pixel_values: Tensor, position_shares: Tensor) -> Tensor:  # type: ignore[override]
        """Image embeddings, as in `NativeFeatures`.

        Args:
            position_shares: float32 [T, U, entries], of each entry of the position table for each patch.
        """
        tower, (tokens, unit, _) = self.tower, pixel_values.shape
        hidden = tower.embeddings.patch_embedding(pixel_values.flatten(0, 1))
        table = tower.embeddings.position_embedding.weight
        hidden = hidden + _weighted_sums(table, position_shares.flatten(0, 1), hidden.dtype)
        hidden = tower.encoder(inputs_embeds=hidden[None], attention_mask=None).last_hidden_state
        hidden = tower.post_layernorm(hidden)
        side = int(unit**0.5)
        # The projector takes an image of patches: one with a single row of tokens.
        rows = hidden.view(tokens, side, side, hidden.shape[-1]).permute(1, 0, 2, 3).flatten(1, 2)
        return self.projector(rows[None]).flatten(0, 2)
