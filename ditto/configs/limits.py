"""Size limits of an LLM engine."""

from __future__ import annotations

from attrs import frozen

from ditto.errors import ConfigError


@frozen(kw_only=True)
class Limits:
    """Maximum sizes that an LLM engine accepts.

    Args:
        max_batch_size: sequences per call.
        max_input_len: tokens of one prompt, image tokens included.
        max_seq_len: tokens of one sequence, prompt and answer together: the capacity of the KV cache.
        max_num_tokens: tokens per call over the whole batch, without padding (packed targets only).
        max_prompt_embedding_table_size: rows of the prompt embedding table over the whole batch; 0 for none.
        opt_input_len: typical prompt length in tokens, for which engines may be tuned; 0 for none in particular.
    Raises:
        ConfigError: a limit is below 1, the prompt table has less than 0 rows or more than TensorRT can address, the
            prompt limit leaves no room for an answer, or the typical prompt length exceeds the prompt limit.
    """

    max_batch_size: int
    max_input_len: int
    max_seq_len: int
    max_num_tokens: int
    max_prompt_embedding_table_size: int = 0
    opt_input_len: int = 0

    def __attrs_post_init__(self) -> None:
        for name in ("max_batch_size", "max_input_len", "max_seq_len", "max_num_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", remedy="give a number of at least 1")
        if not 0 <= self.max_prompt_embedding_table_size < 1 << 31:
            raise ConfigError(
                f"max_prompt_embedding_table_size is {self.max_prompt_embedding_table_size}",
                remedy="give the number of rows, or 0 for a model without images",
            )
        if self.max_input_len >= self.max_seq_len:
            raise ConfigError(
                f"max_input_len {self.max_input_len} leaves no room for an answer in max_seq_len {self.max_seq_len}",
                remedy="raise max_seq_len or lower max_input_len",
            )
        if not 0 <= self.opt_input_len <= self.max_input_len:
            raise ConfigError(
                f"opt_input_len {self.opt_input_len} is not between 0 and max_input_len {self.max_input_len}",
                remedy="lower it, or raise max_input_len",
            )
