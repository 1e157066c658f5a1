"""Network passes as plain data, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cattrs import Converter

from ditto.engine.spec import PassSpec
from ditto.passes.bias_halves import BiasHalves
from ditto.passes.column_blocks import ColumnBlocks
from ditto.passes.cse import CommonSubexpressions
from ditto.passes.dead_layers import DeadLayers
from ditto.passes.fold_shuffles import FoldShuffles
from ditto.passes.network_pass import NetworkPass
from ditto.passes.rope_halves import RopeHalves
from ditto.passes.split_k import SplitK
from ditto.passes.transpose_chains import TransposeChains

PASSES: Mapping[str, type[NetworkPass]] = {
    kind.__name__: kind
    for kind in (
        BiasHalves,
        ColumnBlocks,
        CommonSubexpressions,
        DeadLayers,
        FoldShuffles,
        RopeHalves,
        SplitK,
        TransposeChains,
    )
}
_CONVERTER = Converter(forbid_extra_keys=True)


def specs_of(passes: Iterable[NetworkPass]) -> tuple[PassSpec, ...]:
    """Passes as plain data."""
    return tuple(PassSpec(type(each).__name__, _CONVERTER.unstructure(each)) for each in passes)


def passes_of(specs: Iterable[PassSpec]) -> tuple[NetworkPass, ...]:
    """The passes that plain data describes."""
    return tuple(_CONVERTER.structure(each.parameters, PASSES[each.kind]) for each in specs)
