"""Language model with an engine's inputs and outputs: token ids → logits.

Logits are those of each row's last token.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from inspect import Parameter, signature
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn
from typing_extensions import override

from ditto import ops
from ditto.errors import CheckpointError, UnsupportedFeature
from ditto.ops.spans import SpanRule


@frozen
class StandIn:
    """A token whose embeddings others get instead of their own.

    Args:
        tokens: these tokens, beside image tokens, which get its further embeddings for each layer.
        token: the token.
    """

    tokens: tuple[int, ...]
    token: int


class LlmWrapper(nn.Module):
    """Wrapper of a causal language model.

    B batch, S sequence, V vocabulary, W hidden width.

    Args:
        model: accepts `inputs_embeds` [B, S, W], `attention_mask`, `use_cache`, maybe `position_ids`, and returns an
            object with `logits` [B, S, V]; may be a vision-language model that does so without an image.
        embedding: token ids below `vocab_size` → [B, S, W].
        vocab_size: ids from here on select rows of the prompt embedding table.
        deepstack: number of first layers after which further embeddings of an image token are added to its hidden
            state. They follow the token's own in its row of the table, and the model accepts `visual_pos_masks` and
            `deepstack_visual_embeds`.
        spans: how spans of tokens become the model's token types; None without spans.
        stand_in: the token whose embeddings others get; None if all have their own.
        before: the layers before which a row of the table is added to the hidden state of an image token, whose own
            embedding is 0. The row has a part for each, and the model is from `with_rows_before`.
    """

    def __init__(
        self,
        model: nn.Module,
        embedding: nn.Module,
        vocab_size: int,
        deepstack: int = 0,
        spans: SpanRule | None = None,
        stand_in: StandIn | None = None,
        before: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.model = model
        self.embedding = embedding
        self.vocab_size = vocab_size
        self.deepstack = deepstack
        self.spans = spans
        self.stand_in = stand_in
        self.before = before
        self.is_told_positions = _accepts_positions(model)
        self.has_layer_inputs = any(hasattr(part, "get_per_layer_inputs") for part in model.modules())

    @override
    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        last_token_ids: Tensor,
        prompt_embedding_table: Tensor | None = None,
        span_ids: Tensor | None = None,
    ) -> Tensor:
        """Logits of the last tokens.

        Args:
            input_ids: int32 [B, S].
            position_ids: int32 [B, S], or [axes, B, S] for multimodal rope.
            last_token_ids: int32 [B], the index of each row's last token.
            prompt_embedding_table: [rows, (1 + deepstack) W], or [rows, before W], floating; None for a text model.
            span_ids: int32 [B, S], see `ditto.ops.spans`, or None if all tokens are causal.
        Returns:
            float32 [B, V].
        """
        logits = self._logits(input_ids, position_ids, prompt_embedding_table, span_ids)
        return ops.last_tokens(logits, last_token_ids).squeeze(1).float()

    def _logits(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        prompt_embedding_table: Tensor | None,
        span_ids: Tensor | None = None,
    ) -> Tensor:
        """Logits of all tokens: [B, S, V]."""
        more: dict[str, Any] = {"position_ids": position_ids} if self.is_told_positions else {}
        if self.spans is not None and span_ids is not None:
            more[self.spans.input] = self.spans.types(span_ids)
        known = input_ids
        if self.stand_in is not None:
            for token in self.stand_in.tokens:
                known = torch.where(known == token, self.stand_in.token, known)
        if prompt_embedding_table is None:
            embedded = self.embedding(known)
        else:
            if self.has_layer_inputs and self.stand_in is None:
                raise UnsupportedFeature(
                    f"{type(self.model).__name__} has embeddings of its own for each layer, which image tokens lack",
                    remedy="build its language model alone, without images",
                )
            virtual = input_ids > self.vocab_size - 1
            known = torch.where(virtual, self.vocab_size - 1 if self.stand_in is None else self.stand_in.token, known)
            text = self.embedding(known)
            rows = ops.prompt_rows(input_ids, prompt_embedding_table, self.vocab_size)
            if self.deepstack:
                rows, *layers = rows.chunk(1 + self.deepstack, dim=-1)
                more["visual_pos_masks"] = virtual
                more["deepstack_visual_embeds"] = [torch.where(virtual.unsqueeze(-1), each, 0.0) for each in layers]
            if self.before:
                parts = [torch.where(virtual.unsqueeze(-1), part, 0.0) for part in rows.chunk(len(self.before), dim=-1)]
                more["rows_before"] = dict(zip(self.before, parts, strict=True))
                embedded = torch.where(virtual.unsqueeze(-1), 0.0, text)
            else:
                embedded = torch.where(virtual.unsqueeze(-1), rows, text)
        layer_inputs = self._layer_inputs(known) if self.has_layer_inputs else None
        if layer_inputs is not None:
            more["per_layer_inputs"] = layer_inputs
        result: Any = self.model(
            inputs_embeds=embedded,
            attention_mask=torch.ones_like(input_ids),  # no padding; also disables the detection of packed sequences
            use_cache=False,
            **more,
        )
        return result.logits

    def _layer_inputs(self, input_ids: Tensor) -> Tensor | None:
        """Further embeddings of each token for each layer: [B, S, layers, width], or None if the model has none.

        Given embeddings alone, models compute other values, or look each embedding up in the table.
        """
        (part,) = (part for part in self.model.modules() if hasattr(part, "get_per_layer_inputs"))
        config: Any = part.config
        if not config.hidden_size_per_layer_input:
            return None
        return part.get_per_layer_inputs(input_ids)  # type: ignore[operator]


class PackedLlmWrapper(LlmWrapper):
    """Wrapper for packed input: T tokens of all sequences, logits for N of them.

    The model receives one row of T tokens; the packed target restricts attention to each token's own sequence.
    """

    @override
    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        last_token_ids: Tensor,
        prompt_embedding_table: Tensor | None = None,
        span_ids: Tensor | None = None,
    ) -> Tensor:
        """Logits of the selected tokens.

        Args:
            input_ids: int32 [T].
            position_ids: int32 [T], each token's position in its own sequence.
            last_token_ids: int32 [N], index of each selected token, counted from 1.
            prompt_embedding_table: [rows, W], floating, or None for a text model.
            span_ids: int32 [T], see `ditto.ops.spans`, or None if all tokens are causal.
        Returns:
            float32 [N, V].
        """
        spans = None if span_ids is None else span_ids.unsqueeze(0)
        logits = self._logits(input_ids.unsqueeze(0), position_ids.unsqueeze(0), prompt_embedding_table, spans)
        return ops.packed_last_tokens(logits, last_token_ids).squeeze(0).float()


def _accepts_positions(model: nn.Module) -> bool:
    """Whether a model's forward has an input of token positions that count from 0.

    Models that make positions from their padding token count from another number: they count themselves.
    """
    parameters = signature(type(model).forward).parameters
    takes_any = any(parameter.kind == Parameter.VAR_KEYWORD for parameter in parameters.values())
    from_padding = any(hasattr(part, "create_position_ids_from_inputs_embeds") for part in model.modules())
    return ("position_ids" in parameters or takes_any) and not from_padding


class DecoderWithHead(nn.Module):
    """A bare decoder and its output embedding as one causal language model.

    For transformers 5, where `LlavaForConditionalGeneration` holds the two separately.
    """

    def __init__(self, decoder: nn.Module, lm_head: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder
        self.lm_head = lm_head

    @override
    def forward(self, **inputs: Any) -> Any:
        from transformers.modeling_outputs import CausalLMOutputWithPast

        hidden = self.decoder(**inputs).last_hidden_state
        return CausalLMOutputWithPast(logits=self.lm_head(hidden))


class _InnerModel(nn.Module):
    """Stand-in for the model inside a vision-language model: runs the language model with the inputs that are given."""

    rope_deltas = None

    def __init__(self, language_model: nn.Module) -> None:
        super().__init__()
        self.language_model = language_model

    def get_input_embeddings(self) -> Any:
        language_model: Any = self.language_model
        return language_model.get_input_embeddings()

    @override
    def forward(self, input_ids: Tensor | None = None, **inputs: Any) -> Any:
        given = {"input_ids": input_ids, **inputs}
        of_tower = ("vision_feature_layer", "vision_feature_select_strategy")
        found = self.language_model(
            **{name: value for name, value in given.items() if value is not None and name not in of_tower}
        )
        return _InnerOutputs(found)


class _InnerOutputs:
    """The language model's outputs; those of a tower are None."""

    def __init__(self, found: Any) -> None:
        self._found = found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._found, name, None)

    def __getitem__(self, index: int) -> Any:
        return self._found[index]


def without_tower(model: Any) -> nn.Module:
    """A vision-language model whose forward passes all inputs to its language model, deepstack embeddings included.

    What the model does with the logits (scales, caps) stays its own. `model` is not modified.
    """
    decoder = getattr(model.model, "language_model", None) or model.model.text_model
    outer = copy.copy(model)
    outer._modules = {**model._modules, "model": _InnerModel(decoder)}
    return outer


class _WithRowsBefore(nn.Module):
    """A layer of a decoder that first adds rows to its hidden states.

    Args:
        layer: the layer.
        index: its number in the decoder.
    """

    def __init__(self, layer: nn.Module, index: int) -> None:
        super().__init__()
        self.layer = layer
        self.index = index

    @override
    def forward(self, hidden: Tensor, *, rows_before: Mapping[int, Tensor], **inputs: Any) -> Any:
        own = rows_before.get(self.index)
        return self.layer(hidden if own is None else hidden + own, **inputs)


def with_rows_before(model: Any) -> nn.Module:
    """A vision-language model as from `without_tower` that adds `rows_before` to hidden states before its layers.

    Hugging Face adds them at image tokens alone; they are 0 for text here. `model` is not modified.
    """
    decoder = copy.copy(model.model.language_model)
    layers = nn.ModuleList(_WithRowsBefore(layer, index) for index, layer in enumerate(decoder.layers))
    decoder._modules = {**decoder._modules, "layers": layers}
    outer = copy.copy(model)
    outer._modules = {**model._modules, "model": _InnerModel(decoder)}
    return outer


def layers_with_rows(config: Any) -> tuple[int, ...]:
    """The layers before which a model with this configuration adds image embeddings, in the order of the embeddings.

    Raises:
        CheckpointError: the decoder does not have them, or one is named twice, of which the model takes the last alone.
    """
    if not hasattr(config, "deepstack_layer_map"):
        return ()
    stated = config.deepstack_layer_map
    found = (*(layer for _, layer in stated or ()), *config.spatial_target_layers)
    count = config.get_text_config().num_hidden_layers
    if stated is None or not found or len(set(found)) < len(found) or not all(0 <= layer < count for layer in found):
        raise CheckpointError(
            f"deepstack_layer_map is {stated} and spatial_target_layers {config.spatial_target_layers}, "
            f"the decoder has {count} layers",
            remedy=f"name different layers of it, from 0 to {count - 1} in config.json",
        )
    return found
