"""What of a drawn configuration may be refused, why, and in which words. All else has to be built."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from attrs import frozen

from ditto.errors import DittoError
from tests.support.drawn import Drawn, Llava

# Activations with operators that no lowering knows, one of them for each.
UNKNOWN_ACTIVATIONS: Mapping[str, str] = {
    "hardswish": "hardswish",
    "leaky_relu": "leaky_relu",
    "mish": "mish",
    "prelu": "prelu",
    "relu6": "hardtanh",
    "sqrtsoftplus": "softplus",
    "xielu": "softplus",
}


@frozen
class Refusal:
    """A reason to refuse.

    Args:
        told: for a configuration that has the reason, the words of its message, a regular expression; else None.
    """

    name: str
    told: Callable[[Drawn], str | None]


def _activations(drawn: Drawn) -> Iterator[str]:
    yield str(drawn.text.settings.get("hidden_act") or drawn.text.settings.get("hidden_activation"))
    if isinstance(drawn.model, Llava):
        yield drawn.model.vision["hidden_act"]
        yield drawn.model.settings["projector_hidden_act"]


def _activation(drawn: Drawn) -> str | None:
    operators = [UNKNOWN_ACTIVATIONS[name] for name in _activations(drawn) if name in UNKNOWN_ACTIVATIONS]
    return rf"aten\.({'|'.join(operators)})\.default.*at: .*act" if operators else None


def _long_rope(drawn: Drawn) -> str | None:
    scaling, settings = drawn.text.scaling, drawn.text.settings
    original = scaling.get("original_max_position_embeddings", settings.get("original_max_position_embeddings", 0))
    is_long = "longrope" in (scaling.get("rope_type"), scaling.get("type"))
    if not is_long or original >= drawn.max_seq_len:
        return None
    return f"longrope rope changes its frequencies in sequences of more than {original} tokens, .* {drawn.max_seq_len}"


def _positions(drawn: Drawn) -> str | None:
    positions, scaling = drawn.text.settings["max_position_embeddings"], drawn.text.scaling
    if scaling.get("rope_type", scaling.get("type")) in ("linear", "llama3", "yarn"):
        original = scaling.get("original_max_position_embeddings", positions)
        positions = max(positions, int(original * scaling["factor"]))
    more = drawn.max_seq_len > positions
    return f"max_seq_len {drawn.max_seq_len} is more than the model's {positions} positions" if more else None


def _no_answer(drawn: Drawn) -> str | None:
    prompt = drawn.build.max_input_len
    full = prompt is not None and prompt >= drawn.max_seq_len
    return f"max_input_len {prompt} leaves no room for an answer" if full else None


def _heads(drawn: Drawn) -> str | None:
    heads, kv_heads = (drawn.text.settings[f"num_{kind}_heads"] for kind in ("attention", "key_value"))
    if not heads % kv_heads:
        return None
    return f"num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}"


def _odd(drawn: Drawn) -> str | None:
    width = drawn.text.settings.get("head_dim", 0)
    return f"heads are {width} wide, and rotary embedding turns pairs" if width % 2 else None


def _feature_layer(drawn: Drawn) -> str | None:
    if not isinstance(drawn.model, Llava):
        return None
    layer, count = drawn.model.settings["vision_feature_layer"], drawn.model.vision["num_hidden_layers"]
    beyond = isinstance(layer, int) and layer > count
    return f"vision_feature_layer is {layer}, the tower has {count} layers" if beyond else None


def _no_features(drawn: Drawn) -> str | None:
    if not isinstance(drawn.model, Llava):
        return None
    none = drawn.model.tower == "siglip" and drawn.model.settings["vision_feature_select_strategy"] == "default"
    one = drawn.model.vision["image_size"] < 2 * drawn.model.vision["patch_size"]
    return "an image becomes no features.*'default' drops" if none and one else None


def _weights(drawn: Drawn) -> str | None:
    both = drawn.build.target == "trtllm" and drawn.build.weights == "external"
    return "target trtllm embeds the weights in its engines" if both else None


REFUSALS = (
    Refusal("an activation without a lowering", _activation),
    Refusal("sequences longer than where longrope changes", _long_rope),
    Refusal("sequences longer than the model's positions", _positions),
    Refusal("prompts that leave no room for an answer", _no_answer),
    Refusal("images without features", _no_features),
    Refusal("external weights for TensorRT-LLM", _weights),
    Refusal("KV heads that do not divide the heads", _heads),
    Refusal("heads of odd width", _odd),
    Refusal("a feature layer that is not there", _feature_layer),
)


def the_reason(drawn: Drawn, error: DittoError) -> Refusal:
    """Why a build was refused.

    Raises:
        AssertionError: it ought to have been built, or the message does not name the reason.
    """
    reasons = {refusal: told for refusal in REFUSALS if (told := refusal.told(drawn)) is not None}
    for refusal, told in reasons.items():
        if re.search(told, str(error), re.DOTALL):
            return refusal
    known = f"its reasons are {[refusal.name for refusal in reasons]}" if reasons else "it ought to be built"
    raise AssertionError(f"refused, but {known}:\n{error}") from error
