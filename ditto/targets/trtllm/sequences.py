"""Assignment of packed tokens to sequences, from the attention plugin's inputs.

The lengths are bound several times, for the host and for the GPU, with meanings that differ between prompts ("context")
and generation. The plugin does not check them; this module checks that they agree.

Source: contract, LLM 4.1 and 4.2.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen
from torch import Tensor

from ditto.errors import ShapeError

CONTEXT, GENERATION = 0, 1


@frozen
class Sequence:
    """Tokens of one sequence in a call.

    Args:
        start: row of the first token among the packed tokens.
        count: number of tokens.
        total: number of tokens of the sequence up to and including these.
    """

    start: int
    count: int
    total: int

    @property
    def past(self) -> int:
        """Number of earlier tokens of the sequence, and position of the first token here."""
        return self.total - self.count


def sequences(given: Mapping[str, Tensor], tokens: int, continues_prompts: bool) -> list[Sequence]:
    """Sequences of a call, in the order of their tokens.

    Args:
        given: the plugin's inputs by name.
        tokens: number of packed tokens.
        continues_prompts: whether a prompt may be split over calls, which requires paged context attention.
    Raises:
        ShapeError: the inputs contradict each other or the contract.
    """
    kinds = given["host_request_types"].tolist()
    names = ("sequence_length", "host_past_key_value_lengths", "context_lengths", "host_context_lengths")
    columns = [given[name].tolist() for name in names]
    _require(all(len(column) == len(kinds) for column in columns), f"{', '.join(names)} are not all of {len(kinds)}")
    _require(set(kinds) <= {CONTEXT, GENERATION}, f"host_request_types {kinds} are not all context 0 or generation 1")
    _require(kinds == sorted(kinds), f"host_request_types {kinds} have a context request after a generation request")
    found: list[Sequence] = []
    start = 0
    for number, (kind, total, past, length, host_length) in enumerate(zip(kinds, *columns, strict=True)):
        where = f"sequence {number}: "
        _require(length == host_length, f"{where}context_lengths {length} is not host_context_lengths {host_length}")
        _require(length > 0, f"{where}a prompt of {length} tokens")
        if kind == CONTEXT:
            _require(
                past == total, f"{where}host_past_key_value_lengths {past} is not sequence_length {total} of a prompt"
            )
            _require(total >= length, f"{where}sequence_length {total} is less than its {length} tokens")
            _require(continues_prompts or total == length, f"{where}a part of a prompt without paged context attention")
        else:
            _require(
                past == total - 1,
                f"{where}host_past_key_value_lengths {past} is not one less than sequence_length {total}",
            )
            _require(past >= length, f"{where}{past} tokens are less than the prompt's {length}")
        found.append(Sequence(start, length if kind == CONTEXT else 1, total))
        start += found[-1].count
    _require(start == tokens, f"the lengths add up to {start} tokens, there are {tokens}")
    _check_offsets(given)
    return found


def _check_offsets(given: Mapping[str, Tensor]) -> None:
    device, host = (given[f"{where}kv_cache_block_offsets"] for where in ("", "host_"))
    _require(device.equal(host), "kv_cache_block_offsets differ between host and device")
    _require(not int(given["host_sink_token_length"][0]), "sink tokens are not part of this meaning of the plugin")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ShapeError(f"attention over packed tokens: {otherwise}")
