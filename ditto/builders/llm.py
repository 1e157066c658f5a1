"""Builder of a language model's engine."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any, ClassVar

from attrs import asdict, evolve, field, frozen
from loguru import logger
from torch import Tensor, nn
from typing_extensions import Self, override

from ditto.builders.decoder_config import (
    attention_layers,
    read_decoder_config,
    refuse_bidirectional,
    same_in_all_layers,
)
from ditto.builders.engine import Auto, EngineBuilder, itself
from ditto.builders.generation import tokens
from ditto.builders.in_memory import InMemory
from ditto.builders.positions import most_positions, why_no_more
from ditto.builders.quantize import Quantization, QuantizedLinears, parse_quantization
from ditto.builders.source import Pretrained
from ditto.configs import Limits
from ditto.configs.build import positive
from ditto.engine import PROMPT_LENGTH_STEP, Tokens, TreeLimits
from ditto.errors import ConfigError, ModelError, UnsupportedFeature, at
from ditto.ops.spans import SpanRule
from ditto.targets import LanguagePart, Target
from ditto.wrappers.features import features_owner
from ditto.wrappers.llm import (
    DecoderWithHead,
    LlmWrapper,
    PackedLlmWrapper,
    StandIn,
    layers_with_rows,
    with_rows_before,
    without_tower,
)

# Defaults: maximum sequence length, if the model supports it, and maximum tokens per call of packed targets.
_DEFAULT_SEQ_LEN = 4096
_DEFAULT_NUM_TOKENS = 8192
_TEXT_TOKENS_PER_PROMPT = 64
_TOKENS_BESIDE_IMAGES = 1024


@frozen(kw_only=True, slots=False)
class LlmBuilder(EngineBuilder):
    """Settings of a language model's engine.

    `auto` limits are derived from the model and the other limits.

    Args:
        max_input_len: tokens of a prompt, image tokens included; `auto`: half of max_seq_len, or more if images need
            it.
        max_seq_len: tokens of prompt and answer; `auto`: the model's positions, at most 4096 or what images need.
        max_num_tokens: tokens per call over the batch (packed targets); `auto`: 8192, or more if one prompt needs it.
        max_prompt_embedding_table_size: rows over the batch; `auto`: `prompt_rows` for each item of the batch.
        prompt_rows: image tokens per request; 0 for a text model.
        opt_input_len: tokens of a typical prompt. With specialized profiles, prompts of at most this length and not far
            below it run faster, and the build takes longer. 0 for no typical length; `auto`: image tokens and 64 text
            tokens, or 0 for a text model.
        spans: how its token types determine which tokens of a prompt with images attend to each other in both
            directions; None if all tokens are causal.
        masks_see_types: whether masks of the model may depend on the types of tokens.
        stand_in: the token whose embeddings image tokens and some others get; None if all have their own.
        language: function from the model to the language model inside it, with its output embedding.
    """

    name: ClassVar[str] = "llm"

    max_input_len: int | Auto = "auto"
    max_seq_len: int | Auto = "auto"
    max_num_tokens: int | Auto = "auto"
    max_prompt_embedding_table_size: int | Auto = "auto"
    prompt_rows: int = 0
    opt_input_len: int | Auto = "auto"
    quantization: Quantization = "none"
    spans: SpanRule | None = None
    masks_see_types: bool = True
    stand_in: StandIn | None = None
    language: Callable[[nn.Module], nn.Module] = field(default=itself)

    @classmethod
    def from_pretrained(cls, model: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Self:
        """Settings for a text model in a directory or on the hub.

        Its own code runs only if trusted.
        """
        return cls(source=Pretrained(str(model), "AutoModelForCausalLM", revision, trust_remote_code))

    @classmethod
    def from_model(cls, model: nn.Module, *, lm_head: nn.Module | None = None) -> Self:
        """Settings for a model in memory.

        Args:
            model: a causal language model; a vision-language model, whose language part is built; or a bare
                decoder together with its `lm_head`.
        Raises:
            ConfigError: a bare decoder without `lm_head`.
        """
        if lm_head is not None:
            whole = DecoderWithHead(model, lm_head)
            whole.config = model.config  # type: ignore[assignment]
            return cls(source=InMemory(whole, _name_of(model)))
        if getattr(model, "get_output_embeddings", lambda: None)() is None:
            raise ConfigError(
                f"{type(model).__name__} has no output embedding: it is a bare decoder",
                remedy="pass the whole model, or the decoder with lm_head=model.lm_head",
            )
        return cls(source=InMemory(model, _name_of(model)))

    def with_max_input_len(self, maximum: int) -> Self:
        """Accept prompts of up to `maximum` tokens, image tokens included."""
        return evolve(self, max_input_len=positive("max_input_len", maximum))

    def with_max_seq_len(self, maximum: int) -> Self:
        """Support up to `maximum` tokens per sequence, prompt and answer together."""
        return evolve(self, max_seq_len=positive("max_seq_len", maximum))

    def with_max_num_tokens(self, maximum: int) -> Self:
        """Accept up to `maximum` tokens per call over the whole batch (packed targets)."""
        return evolve(self, max_num_tokens=positive("max_num_tokens", maximum))

    def with_opt_input_len(self, typical: int) -> Self:
        """Optimize for prompts of at most `typical` tokens and not far below that.

        0 for no typical length.
        """
        return evolve(self, opt_input_len=typical if typical == 0 else positive("opt_input_len", typical))

    def with_prompt_table(self, rows: int) -> Self:
        """Accept `rows` image tokens over the whole batch; 0 for none."""
        return evolve(self, max_prompt_embedding_table_size=rows if rows == 0 else positive("prompt table", rows))

    def with_quantization(self, name: str) -> Self:
        """Round the weights of linear layers to integers: `int4`, `int8`, or `none`."""
        return evolve(self, quantization=parse_quantization(name))

    @property
    def limits(self) -> Limits:
        """All limits, derived ones included.

        Raises:
            ConfigError: they contradict each other or the model.
        """
        text = self.source.config.get_text_config()
        positions, most = same_in_all_layers(text, "max_position_embeddings"), most_positions(text)
        seq_len = self.max_seq_len
        if seq_len == "auto":
            with_images = self.prompt_rows + _TOKENS_BESIDE_IMAGES if self.prompt_rows else 0
            seq_len = min(positions or _DEFAULT_SEQ_LEN, max(_DEFAULT_SEQ_LEN, with_images))
        elif most is not None and seq_len > most:
            raise ConfigError(
                f"max_seq_len {seq_len} is more than the model's {most} positions{why_no_more(text)}",
                remedy=f"lower it to {most}",
            )
        input_len = self.max_input_len
        if input_len == "auto":
            with_images = min(self.prompt_rows + _TEXT_TOKENS_PER_PROMPT, seq_len - 1) if self.prompt_rows else 0
            input_len = max(seq_len // 2, with_images)
        rows = self.max_prompt_embedding_table_size
        if rows == "auto":
            rows = self.prompt_rows * self.max_batch_size
        typical = self.opt_input_len
        if typical == "auto":
            images = -(-self.prompt_rows // PROMPT_LENGTH_STEP) * PROMPT_LENGTH_STEP
            typical = min(images + _TEXT_TOKENS_PER_PROMPT, input_len) if self.prompt_rows else 0
        num_tokens = self.max_num_tokens
        if num_tokens == "auto":
            num_tokens = max(_DEFAULT_NUM_TOKENS, input_len)
        return Limits(
            max_batch_size=self.max_batch_size,
            max_input_len=input_len,
            max_seq_len=seq_len,
            max_num_tokens=num_tokens,
            max_prompt_embedding_table_size=rows,
            opt_input_len=typical,
        )

    def limits_for(self, target: Target) -> Limits:
        """All limits, as the engine of a target has them.

        Raises:
            ConfigError: they contradict each other or the model.
        """
        return target.adjusted(self.limits, self.resolved_dtype(target))

    @override
    def tree_limits(self, target: Target) -> TreeLimits:
        return TreeLimits(llm=self.limits_for(target))

    def _warn(self, limits: Limits) -> None:
        """Warn about settings that have no effect."""
        if self.max_num_tokens not in ("auto", limits.max_num_tokens):
            found, asked = limits.max_num_tokens, self.max_num_tokens
            logger.warning("max_num_tokens is {}, not {}: as trtllm-build would adjust it", found, asked)
        table = limits.max_prompt_embedding_table_size
        if limits.max_input_len <= self.prompt_rows or table < self.prompt_rows:
            logger.warning(
                "no prompt with an image fits: an image is {0} tokens and {0} rows of the prompt table, the engine "
                "accepts {1} and {2}",
                self.prompt_rows,
                limits.max_input_len,
                table,
            )
        settings = self.build_settings
        if self.opt_input_len not in ("auto", 0) and settings.profiles == "dynamic":
            logger.warning("opt_input_len is for specialized profiles: here it changes nothing")
        if settings.tuning not in ("auto", "none") and settings.engines == "combined":
            logger.warning("tuning is for separate engines of a language model: here it changes nothing")

    @override
    def part(self, target: Target) -> LanguagePart:
        limits = self.limits_for(target)
        target.check_limits(limits, self.prompt_rows)
        self._warn(limits)
        loaded = self.source.load(self.resolved_dtype(target))
        model = self.language(loaded.model)
        embedding = _embedding(model)
        vocab_size = int(embedding.weight.shape[0])
        has_images = bool(limits.max_prompt_embedding_table_size)
        deepstack = self._deepstack if has_images else 0
        wrapper_class = PackedLlmWrapper if target.packs_tokens else LlmWrapper
        with at(self.source.name):
            before = layers_with_rows(self.source.config) if has_images else ()
        captured = with_rows_before(model) if before else without_tower(model) if deepstack else model
        spans = self.spans if has_images else None
        if has_images and spans is None and self.masks_see_types:
            _refuse_masks_of_types(loaded.model)
        wrapper = wrapper_class(captured, embedding, vocab_size, deepstack, spans, self.stand_in, before)
        weight_of = loaded.weight_of(wrapper)
        if self.quantization != "none":
            weight_of = QuantizedLinears(self.quantization, wrapper, _head(model)).weight_of(loaded)
        with at(self.source.name):
            _check_vocabulary(model, vocab_size, self.tokens().vocab_size, has_images)
            config = self.source.config.get_text_config()
            decoder = read_decoder_config(config, vocab_size)
            attentions = attention_layers(config, decoder.num_hidden_layers)
            if not spans:
                refuse_bidirectional(config)
            axes = _position_axes(loaded.model) if has_images else 1
            width = decoder.hidden_size * (len(before) or 1 + deepstack)
        return LanguagePart(
            name=self.name,
            wrapper=wrapper,
            prefix="model.",
            inputs=target.llm_inputs(limits, width, loaded.dtype, axes, bool(spans)),
            output_names=("logits",),
            dtype=loaded.dtype,
            sizes=target.llm_sizes(limits),
            positions="position_ids",
            spans=spans,
            attentions=attentions,
            weight_of=weight_of,
            tensors=loaded.tensors,
            keeps_weights=self.source.checkpoint is None,
            decoder=decoder,
            limits=limits,
        )

    @property
    def _deepstack(self) -> int:
        """Layers after which further embeddings of image tokens are added to hidden states."""
        vision = getattr(self.source.config, "vision_config", None)
        return len(getattr(vision, "deepstack_visual_indexes", None) or ())

    @property
    @override
    def model_type(self) -> str:
        return str(self.source.config.model_type)

    @override
    def settings(self) -> dict[str, Any]:
        limits = asdict(self.limits_for(self.resolved_target()))
        return {**limits, "quantization": self.quantization, **super().settings()}

    @override
    def tokens(self) -> Tokens:
        config = self.source.config
        return tokens(config, self.source.generation_config, config.get_text_config().vocab_size)


def _refuse_masks_of_types(model: nn.Module) -> None:
    """Check that a model's masks do not depend on the types of tokens, e.g. on which of them are of an image.

    Raises:
        UnsupportedFeature: they do.
    """
    masks = getattr(type(model), "create_masks_for_generate", None)
    types = [] if masks is None else [name for name in signature(masks).parameters if name.endswith("token_type_ids")]
    if types:
        raise UnsupportedFeature(
            f"the masks of {type(model).__name__} depend on {types[0]}, which is known of no prompt here",
            remedy="build it with MultimodalModel, or without a prompt table for text alone",
        )


def _position_axes(model: nn.Module) -> int:
    """Positions of each token: in multimodal rope one for each of its sections, which are equal in text.

    A model that gives its images no positions of their own has one, whatever its language model could take.
    """
    owner = features_owner(model)
    if hasattr(owner, "get_image_features") and not hasattr(owner, "get_rope_index"):
        return 1
    counts = [1]
    for part in model.modules():
        sections: Any = getattr(part, "mrope_section", None)
        if sections:  # those of each kind of layers, in some models
            counts += [len(own) for own in (sections.values() if hasattr(sections, "values") else [sections])]
    return max(counts)


def _embedding(given: nn.Module) -> Any:
    """The token embedding module.

    Raises:
        UnsupportedFeature: the model has several embedding tables, or does not state which it uses.
    """
    model: Any = given.decoder if isinstance(given, DecoderWithHead) else given
    try:
        found = model.get_input_embeddings()
    except NotImplementedError:  # raised by transformers' models that do not define it
        found = None
    if not isinstance(getattr(found, "weight", None), Tensor):
        raise UnsupportedFeature(
            f"{type(model).__name__} has no single table of token embeddings",
            remedy="models with one embedding for each token id are supported",
        )
    return found


def _check_vocabulary(model: Any, rows: int, stated: int, has_images: bool) -> None:
    """Check that embedding, output and `vocab_size` agree.

    Ids from `vocab_size` on are virtual ids of image tokens. Without images the embedding may have further rows, which
    no prompt may use.
    """
    head = _head(model)
    chosen = rows if getattr(head, "weight", None) is None else int(head.weight.shape[0])
    fits = rows == stated if has_images else rows >= stated
    if not fits or chosen > stated:
        raise ModelError(
            f"the embedding has {rows} rows, the output {chosen}, and vocab_size is {stated}",
            remedy="resize the model with `resize_token_embeddings` and save it again",
        )


def _head(model: Any) -> Any:
    """The output embedding; None for a bare decoder, and for a model that does not define it."""
    try:
        return model.lm_head if isinstance(model, DecoderWithHead) else model.get_output_embeddings()
    except (AttributeError, NotImplementedError):
        return None


def _name_of(model: nn.Module) -> str:
    config = getattr(model, "config", None)
    return getattr(config, "_name_or_path", "") or type(model).__name__
