"""Images whose tokens see each other in both directions: both engine forms, and faults that show."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import patch

import pytest
import torch
from attrs import evolve, frozen

from ditto import EngineTree, LlmBuilder, MultimodalModel
from ditto.errors import PromptError, UnsupportedFeature
from ditto.families.registry import find_family
from ditto.ops.spans import SPAN_IDS, SpanRule
from ditto.reference import RELATIVE_ERROR, relative_error
from ditto.runtime import Batch, Request, Session, generate, open_session
from ditto.runtime.encoding import EncodedPrompt
from ditto.targets.tensorrt.target import NativeTarget
from ditto.text.pipeline import GenerationPipeline
from ditto.text.processing import Processor
from ditto.verify.check import verify
from ditto.verify.inputs import mixed, prompts
from ditto.verify.tree import logits
from tests.support.families import FAMILIES, images
from tests.support.models import TRANSFORMERS_5

NEW_TOKENS = 6
pytestmark = pytest.mark.skipif(not TRANSFORMERS_5, reason="the families follow transformers 5")


@frozen
class Built:
    """A tiny model of a family, built in one form of engines."""

    name: str
    model: Any
    checkpoint: Any
    tree: EngineTree
    session: Session

    def encoded(self, count: int, *sizes: str) -> EncodedPrompt:
        text = FAMILIES[self.name].placeholder * count + "Is it new?"
        (encoded,) = Processor.of(self.tree).encode([text], images(*sizes))
        return encoded

    def request(self, encoded: EncodedPrompt) -> Request:
        return GenerationPipeline(self.session).requests([encoded])[0]

    @property
    def rule(self) -> SpanRule:
        rule = find_family(self.model.config.model_type).preprocessor.spans
        assert rule is not None
        return rule

    def types(self, encoded: EncodedPrompt) -> dict[str, torch.Tensor]:
        return {} if encoded.spans is None else {self.rule.input: self.rule.types(encoded.spans[None])}

    @torch.no_grad()
    def tokens(self, encoded: EncodedPrompt, count: int = NEW_TOKENS) -> tuple[int, ...]:
        """Hugging Face's greedy tokens."""
        ids = torch.tensor([encoded.token_ids])
        found = self.model.generate(ids, **encoded.inputs, **self.types(encoded), max_new_tokens=count, do_sample=False)
        return tuple(found[0, ids.shape[1] :].tolist())

    @torch.no_grad()
    def logits(self, encoded: EncodedPrompt) -> torch.Tensor:
        """Hugging Face's logits after a prompt."""
        ids = torch.tensor([encoded.token_ids])
        return self.model(ids, **encoded.inputs, **self.types(encoded)).logits[0, -1]

    def error(self, encoded: EncodedPrompt, request: Request) -> float:
        """Of the logits of a request, relative to Hugging Face's after a prompt."""
        return relative_error(logits(self.session, request, (7,))[0], self.logits(encoded))


def _build(name, directory, engines):
    model = FAMILIES[name].save(directory / "checkpoint")
    builders = MultimodalModel.from_pretrained(str(directory / "checkpoint")).with_target("tensorrt-rtx")
    builders = builders.with_batch(2).with_max_images(2).with_engines(engines)
    with patch.object(NativeTarget, "cannot_compile", "it takes longer than all else"):
        tree = builders.build_all(directory / "tree")
    return Built(name, model, directory / "checkpoint", tree, open_session(tree, "reference"))


NAMES = ["gemma3", "paligemma", "paligemma2"]


@pytest.fixture(scope="module", params=[(name, form) for name in NAMES for form in ("combined", "separate")], ids=str)
def built(request, tmp_path_factory):
    name, engines = request.param
    return _build(name, tmp_path_factory.mktemp(name), engines)


def test_span_ids_are_an_input_of_prompts_only(built):
    components = built.tree.manifest.components
    assert components["llm"].inputs[SPAN_IDS] == "int32[batch, sequence]"
    assert SPAN_IDS not in components.get("llm-decode", components["vision"]).inputs


def test_rows_join_and_leave_with_spans_of_their_own(built):
    """Three or four requests of different lengths share two rows."""
    most = max(FAMILIES[built.name].images)
    encoded = [built.encoded(1, "square"), built.encoded(most, *["strip", "tiny"][:most]), built.encoded(1, "strip")]
    counts = [2, NEW_TOKENS, NEW_TOKENS]
    if 0 in FAMILIES[built.name].images:
        encoded.append(built.encoded(0))
        counts.append(NEW_TOKENS)
    with Batch(built.session, 2) as batch:
        sequences = [batch.join(built.request(each), count) for each, count in zip(encoded, counts, strict=True)]
        while batch.busy:
            batch.step()
    wanted = [built.tokens(each, count) for each, count in zip(encoded, counts, strict=True)]
    assert [tuple(sequence.made) for sequence in sequences] == wanted


def test_padding_changes_nothing(built):
    encoded = built.encoded(1, "square")
    request = built.request(encoded)
    longer = evolve(request, ids=(*request.ids, 30, 31, 32), spans=torch.nn.functional.pad(request.spans, (0, 3)))
    found = [answer.ids for answer in generate(built.session, [longer, request], NEW_TOKENS)]
    assert found[1] == built.tokens(encoded)


@pytest.mark.parametrize("fault", ["dropped", "merged", "one token short"])
def test_other_spans_show(built, fault):
    if fault == "merged" and built.rule.cover != "image":
        pytest.skip("the whole prompt is one span")
    encoded = built.encoded(*(2, "strip", "landscape") if fault == "merged" else (1, "strip"))
    request = built.request(encoded)
    inside = (request.spans > 0).int()
    last = int(inside.nonzero().max())
    wrong = {"dropped": 0 * inside, "merged": inside, "one token short": inside.index_fill(0, torch.tensor(last), 0)}
    least = RELATIVE_ERROR[torch.float32]
    assert built.error(encoded, request) < least
    assert built.error(encoded, evolve(request, spans=wrong[fault])) > 100 * least


def test_requests_with_images_need_spans(built):
    request = built.request(built.encoded(1, "square"))
    with pytest.raises(PromptError, match="prompt 1 has span ids of no tokens, the engine expects"):
        generate(built.session, [evolve(request, spans=None)], 1)


def test_processors_that_do_not_return_token_types_are_refused(built):
    processor = Processor.of(built.tree)
    inner = type(processor.inner)
    call = inner.__call__

    def without_types(self, *args, **kwargs):
        found = call(self, *args, **kwargs)
        return {name: tensor for name, tensor in found.items() if name != built.rule.input}

    with patch.object(inner, "__call__", without_types), pytest.raises(PromptError, match="does not return"):
        processor.encode([FAMILIES[built.name].placeholder], images("square"))


def test_random_prompts_are_inputs_of_the_model(built):
    found = prompts(built.tree, 1, 40, with_images=True)
    assert found.spans is not None and bool(found.spans.any())
    assert verify(built.tree, [found], session="reference", new_tokens=2).passed


def test_verification_notices_dropped_spans(built):
    """And searches for the layer without running tokens alone that earlier ones attend to."""
    found = mixed(built.tree, 2, count=1)
    dropped = [evolve(each, spans=torch.zeros_like(each.spans)) for each in found]
    assert verify(built.tree, found, session="reference", new_tokens=2).passed
    result = verify(built.tree, dropped, session="reference", new_tokens=2)
    assert not result.passed and any(each.component == "llm" for each in result.divergences)


@pytest.mark.parametrize("name", NAMES)
def test_a_language_model_alone_with_a_prompt_table_is_refused(name, tmp_path):
    FAMILIES[name].save(tmp_path / "checkpoint")
    model = MultimodalModel.from_pretrained(str(tmp_path / "checkpoint")).llm
    alone = evolve(model, spans=None).with_target("tensorrt-rtx")
    with pytest.raises(UnsupportedFeature, match=r"the masks of \w+ depend on \w*token_type_ids, which is known of no"):
        alone.build(tmp_path / "tree")
    with pytest.raises(UnsupportedFeature, match="attend to each other in both directions, which .* TensorRT-LLM"):
        model.with_target("trtllm").build(tmp_path / "tree")


@pytest.mark.parametrize("name", ["gemma3"])
def test_a_language_model_for_text_alone_has_no_spans(name, tmp_path):
    model = FAMILIES[name].save(tmp_path / "checkpoint")
    builder = LlmBuilder.from_model(model).with_target("tensorrt-rtx").with_prompt_table(0)
    with patch.object(NativeTarget, "cannot_compile", "it takes longer than all else"):
        tree = builder.build(tmp_path / "tree")
    assert SPAN_IDS not in tree.component("llm").inputs
    ids = torch.arange(5, 12)[None]
    wanted = model.generate(ids, max_new_tokens=4, do_sample=False)[0, 7:].tolist()
    assert list(generate(open_session(tree, "reference"), [Request(tuple(ids[0].tolist()))], 4)[0].ids) == wanted


def test_pan_and_scan_is_not_asked_for(tmp_path):
    """Also where the settings of the image processor do."""
    FAMILIES["gemma3"].save(tmp_path)
    settings = json.loads((tmp_path / "processor_config.json").read_text())
    settings["image_processor"].update(do_pan_and_scan=True, pan_and_scan_min_crop_size=8)
    (tmp_path / "processor_config.json").write_text(json.dumps(settings))
    processor, family = FAMILIES["gemma3"].load_processor(tmp_path), find_family("gemma3").preprocessor
    assert processor.image_processor.do_pan_and_scan
    encoded = family.encode(processor, "<start_of_image>", images("strip"))
    assert (len(encoded.items), int(encoded.spans.max())) == (1, 1)
