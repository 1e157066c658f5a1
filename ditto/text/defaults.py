"""Generation defaults of a model, applied as in Hugging Face's `generate`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from attrs import evolve, frozen
from loguru import logger
from torch import Tensor

from ditto.engine import EngineTree
from ditto.errors import ConfigError, PromptError
from ditto.runtime import GREEDY, LogitsProcessor, Sampling
from ditto.text.penalties import NO_PENALTIES, Penalties

_NEW_TOKENS = 128  # where a model states no limit
_NO_LIMIT = 20  # `max_length` of models that state none, in transformers 4
_TOP_K = 50  # of `generate`, where a model that samples states none
_LEAVE_OUT = "leave the model's defaults out with --no-generation-defaults"

# Settings that `generate` turns into logits processors.
_PROCESSORS = (
    "bad_words_ids",
    "begin_suppress_tokens",
    "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "min_length",
    "min_new_tokens",
    "no_repeat_ngram_size",
    "remove_invalid_values",
    "renormalize_logits",
    "repetition_penalty",
    "sequence_bias",
    "suppress_tokens",
    "watermarking_config",
)
# Settings that apply only when sampling, after temperature.
_WARPERS = ("epsilon_cutoff", "eta_cutoff", "min_p", "top_h", "typical_p")
# Settings whose processors must run after the sampling filters.
_LAST = ("renormalize_logits", "watermarking_config")

# Unsupported settings that change answers, with the values at which they have no effect.
_UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "constraints": (),
    "diversity_penalty": (0,),
    "dola_layers": (),
    "force_words_ids": (),
    "forced_decoder_ids": (),
    "guidance_scale": (1,),
    "max_time": (),
    "num_beam_groups": (0, 1),
    "num_beams": (1,),
    "num_return_sequences": (1,),
    "penalty_alpha": (0,),
    "token_healing": (False,),
}


@frozen
class GenerationDefaults:
    """Generation defaults of a model, without its special tokens.

    Args:
        settings: the settings that the model states, by Hugging Face's names.
        vocab_size: vocabulary size of the model.
        end: token ids that end an answer.
    """

    settings: Mapping[str, Any]
    vocab_size: int
    end: tuple[int, ...]

    @staticmethod
    def of(tree: EngineTree, wanted: bool = True) -> GenerationDefaults:
        """The defaults of a tree's model.

        Args:
            wanted: False to ignore all defaults but the end tokens, and decode greedily.
        Raises:
            ConfigError: they contain unsupported settings.
        """
        tokens = tree.manifest.tokens
        assert tokens is not None
        settings = tree.manifest.generation if wanted else {}
        unsupported = [
            f"{name} {value}"
            for name, value in settings.items()
            if name in _UNSUPPORTED and value is not None and value not in _UNSUPPORTED[name]
        ]
        if unsupported:
            raise ConfigError(
                f"The model's generation defaults ask for {', '.join(unsupported)}, which is not supported.",
                where=str(tree.root),
                remedy=_LEAVE_OUT,
            )
        for name in ("max_length", "max_new_tokens"):
            if not isinstance(settings.get(name, 1), int):
                raise ConfigError(
                    f"The model's generation defaults state {name} {settings[name]!r}.", remedy=_LEAVE_OUT
                )
        samples, stops = settings.get("do_sample"), settings.get("stop_strings")
        if samples is not None and not isinstance(samples, bool):
            raise ConfigError(f"The model's generation defaults state do_sample {samples!r}.", remedy=_LEAVE_OUT)
        texts = stops if isinstance(stops, (list, tuple)) else [stops]
        if stops is not None and not (texts and all(isinstance(stop, str) and stop for stop in texts)):
            raise ConfigError(f"The model's generation defaults state stop_strings {stops!r}.", remedy=_LEAVE_OUT)
        if settings:
            shown = ", ".join(f"{name} {value}" for name, value in settings.items())
            logger.debug("generation defaults of the model: {}", shown)
        return GenerationDefaults(settings, tokens.vocab_size, tuple(tokens.end))

    def sampling(
        self,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
    ) -> Sampling:
        """Sampling settings: the caller's, else the model's, else those of `generate`.

        A temperature above 0, `top_k` or `top_p` switches sampling on if the model does not; a seed, or a value that
        excludes no token, does not.

        Raises:
            ConfigError: a setting is out of range.
        """
        asked = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
        own = {name: self.settings[name] for name in ("temperature", "top_k", "top_p") if name in self.settings}
        try:
            checked = Sampling(**{name: value for name, value in asked.items() if value is not None})
            wanted = bool(top_k) or top_p not in (None, 1) or self.settings.get("do_sample") is True
            if temperature == 0 or (temperature is None and not wanted):
                return GREEDY
            given = {name: value for name, value in asked.items() if value is not None}
            return evolve(checked, **{"top_k": _TOP_K, **own, **given})
        except TypeError as error:
            raise ConfigError(
                f"The model's generation defaults state {own}, which are not all numbers.", remedy=_LEAVE_OUT
            ) from error

    @property
    def stops(self) -> tuple[str, ...]:
        """Strings that end an answer."""
        stated = self.settings.get("stop_strings") or ()
        return (stated,) if isinstance(stated, str) else tuple(stated)

    def new_tokens(self, number: int, length: int, room: int) -> int:
        """Maximum number of new tokens where the caller sets no limit.

        Args:
            number: number of the prompt, from 1.
            length: length of the prompt, in tokens.
            room: number of new tokens that the engine's limit leaves.
        Raises:
            PromptError: the prompt alone reaches the model's limit for prompt and answer.
        """
        longest = self.settings.get("max_length")
        count = self.settings.get("max_new_tokens")
        if count is None and longest not in (None, _NO_LIMIT):
            count = longest - length
            if count < 1:
                raise PromptError(
                    f"Prompt {number} has {length} tokens; the model's generation defaults allow {longest} with the "
                    "answer.",
                    remedy="ask for new tokens with --max-new-tokens",
                )
        return max(1, min(_NEW_TOKENS if count is None else count, room))

    def processed(
        self, prompt: Sequence[int], new_tokens: int, sampling: Sampling, penalties: Penalties = NO_PENALTIES
    ) -> tuple[LogitsProcessor | None, Sampling]:
        """Logits processor (None if not needed) and matching sampling settings.

        Args:
            prompt: token ids as Hugging Face's processor returns them, image tokens included.
            new_tokens: maximum number of new tokens.
            penalties: of this answer; they take precedence over the model's own.
        Raises:
            ConfigError: Hugging Face rejects the settings, or the penalties do not fit.
        """
        penalties.check(new_tokens, self.vocab_size)
        names = _PROCESSORS if sampling.is_greedy else (*_PROCESSORS, *_WARPERS)
        own = {name: self.settings[name] for name in names if self.settings.get(name) is not None}
        stated = own | penalties.settings
        if not stated and not penalties.counts and not penalties.logit_bias:
            return None, sampling
        warps = not sampling.is_greedy and any(name in stated for name in (*_WARPERS, *_LAST))
        if warps:
            stated |= {
                "do_sample": True,
                "temperature": sampling.temperature,
                "top_k": sampling.top_k,
                "top_p": sampling.top_p,
            }
            sampling = Sampling(seed=sampling.seed)

        def counted(ids: Tensor, logits: Tensor) -> Tensor:
            return penalties.counted(ids[0, len(prompt) :], logits[0])[None]

        further = [counted] if penalties.counts else []
        found = _translated(
            lambda: _processors(stated, prompt, new_tokens, self.end, self.vocab_size, further), bool(own)
        )
        if not found and not penalties.logit_bias:
            return None, sampling

        def process(new_ids: Sequence[int], logits: Tensor) -> Tensor:
            ids = torch.tensor([[*prompt, *new_ids]])
            return _translated(lambda: found(ids, penalties.biased(logits)[None])[0], bool(own))

        return process, sampling


def warn_of_idle_options(sampling: Sampling, asked: Mapping[str, object]) -> None:
    """Warn about options of sampling that have no effect, as the most likely token is taken.

    Args:
        asked: options by name, None where one is not given.
    """
    idle = [f"--{name.replace('_', '-')}" for name, value in asked.items() if value is not None]
    idle = [name for name in idle if name != "--temperature"]
    if idle and sampling.is_greedy:
        effect = "have no effect" if len(idle) > 1 else "has no effect"
        logger.warning("{} {}: the most likely token is taken.", " and ".join(idle), effect)


def _processors(
    settings: Mapping[str, Any],
    prompt: Sequence[int],
    new_tokens: int,
    end: Sequence[int],
    vocab_size: int,
    further: Sequence[Callable[[Tensor, Tensor], Tensor]],
) -> Any:
    """Logits processors that transformers' `generate` creates, in its order: `further` come before temperature."""
    from transformers import GenerationConfig, GenerationMixin
    from transformers.generation.logits_process import LogitsProcessorList

    config = GenerationConfig()
    unknown = [name for name in settings if not hasattr(config, name)]
    if unknown:
        raise ValueError(f"the installed transformers does not know {', '.join(unknown)}")
    config = GenerationConfig(**settings)
    config.max_length = len(prompt) + new_tokens
    if config.min_new_tokens is not None:  # takes precedence over `min_length`
        config.min_length = len(prompt) + config.min_new_tokens
    config._eos_token_tensor = torch.tensor(end) if end else None
    mixin: Any = GenerationMixin()
    text: Any = SimpleNamespace(is_encoder_decoder=False, vocab_size=vocab_size)
    text.get_text_config = lambda: text
    mixin.config = text
    return mixin._get_logits_processor(
        generation_config=config,
        input_ids_seq_length=len(prompt),
        encoder_input_ids=torch.tensor([list(prompt)]),
        prefix_allowed_tokens_fn=None,
        logits_processor=LogitsProcessorList(further),
        device="cpu",
        model_kwargs={},
    )


def _translated(work: Callable[[], Any], has_defaults: bool) -> Any:
    try:
        return work()
    except Exception as error:
        lines = str(error).strip().splitlines() or [repr(error)]
        if not has_defaults:
            raise ConfigError(f"The penalties cannot be applied: {lines[0]}", remedy="leave them out") from error
        raise ConfigError(
            f"The model's generation defaults cannot be honoured: {lines[0]}", remedy=_LEAVE_OUT
        ) from error
