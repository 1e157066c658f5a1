"""Images in native size: sizes that an engine accepts, token positions, both engine forms, and faults that show."""

from __future__ import annotations

import shutil
from typing import Any
from unittest.mock import patch

import pytest
import torch
from attrs import evolve, frozen
from transformers import LogitsProcessor, LogitsProcessorList

from ditto import EngineTree, MultimodalModel
from ditto.errors import CheckpointError, ConfigError, PromptError, TreeError
from ditto.families.native import NativePreprocessor, NativeSizeModel
from ditto.families.qwen2_vl import Qwen2VlModel
from ditto.families.registry import find_family
from ditto.reference import RELATIVE_ERROR, relative_error
from ditto.runtime import Batch, Request, Session, generate, open_session
from ditto.runtime.encoding import EncodedPrompt, EncoderItem, TokenPositions
from ditto.targets.tensorrt.target import NativeTarget
from ditto.text.pipeline import GenerationPipeline
from ditto.text.processing import Processor, image_tokens
from ditto.verify.check import verify
from ditto.verify.inputs import mixed, prompts
from ditto.verify.reference_outputs import look
from tests.support.families import FAMILIES, images
from tests.support.faults import planted
from tests.support.models import TRANSFORMERS_5

PLACEHOLDER = "<|image_pad|>"
NEW_TOKENS = 6


@frozen
class Built:
    """A tiny model of a family, built with prefill and decode as separate engines."""

    name: str
    model: Any
    tree: EngineTree
    builders: Any
    session: Session

    def encoded(self, count: int, *sizes: str) -> EncodedPrompt:
        text = "Is " + " or ".join([PLACEHOLDER] * count) + " new?"
        (encoded,) = Processor.of(self.tree).encode([text], images(*sizes))
        return encoded

    def request(self, encoded: EncodedPrompt) -> Request:
        return GenerationPipeline(self.session).requests([encoded])[0]

    @torch.no_grad()
    def tokens(self, encoded: EncodedPrompt, count: int = NEW_TOKENS) -> tuple[int, ...]:
        """Hugging Face's greedy tokens."""
        ids = torch.tensor([encoded.token_ids])
        kinds = {"mm_token_type_ids": (ids == self.model.config.image_token_id).long()} if encoded.inputs else {}
        found = self.model.generate(ids, **encoded.inputs, **kinds, max_new_tokens=count, do_sample=False)
        return tuple(found[0, ids.shape[1] :].tolist())

    @torch.no_grad()
    def features(self, encoded: EncodedPrompt) -> torch.Tensor:
        """Hugging Face's image embeddings."""
        return find_family(self.name).features(self.model, encoded.inputs)


needs_5 = pytest.mark.skipif(not TRANSFORMERS_5, reason="the families follow transformers 5")


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=needs_5) for name in ("qwen2_5_vl", "qwen2_vl", "qwen3_vl")]
)
def built(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp(request.param)
    model = FAMILIES[request.param].save(directory / "checkpoint")
    builders = MultimodalModel.from_pretrained(str(directory / "checkpoint")).with_target("tensorrt-rtx")
    builders = builders.with_batch(2).with_max_images(2).with_max_image_size(84, 90)
    with patch.object(NativeTarget, "cannot_compile", "it takes longer than all else"):
        tree = builders.with_optimize("latency").build_all(directory / "tree")
    return Built(request.param, model, tree, builders, open_session(tree, "reference"))


@pytest.fixture(scope="module")
def qwen2_vl(tmp_path_factory):
    directory = tmp_path_factory.mktemp("qwen2_vl_alone")
    FAMILIES["qwen2_vl"].save(directory)
    return directory


def test_rows_join_and_leave_with_positions_of_their_own(built):
    """Separate engines; three requests share two rows, so that a row's positions change with its request."""
    assert "llm-decode" in built.tree.manifest.components
    encoded = [
        built.encoded(1, "square"),
        built.encoded(2, "strip", "tiny"),
        built.encoded(0),
        built.encoded(1, "strip"),
    ]
    counts = [2, NEW_TOKENS, NEW_TOKENS, NEW_TOKENS]
    with Batch(built.session, 2) as batch:
        sequences = [batch.join(built.request(each), count) for each, count in zip(encoded, counts, strict=True)]
        while batch.busy:
            batch.step()
    wanted = [built.tokens(each, count) for each, count in zip(encoded, counts, strict=True)]
    assert [tuple(sequence.made) for sequence in sequences] == wanted


def test_half_precision_verifies(built, tmp_path):
    with patch.object(NativeTarget, "cannot_compile", "it takes longer than all else"):
        tree = built.builders.with_dtype("float16").build_all(tmp_path / "tree")
    assert verify(tree, mixed(tree, 3), session="reference", new_tokens=3).passed


def test_random_items_are_inputs_of_the_model(built):
    """Also the inverse: what the model gets for the items of the engine."""
    found = prompts(built.tree, 2, 60, with_images=True)
    assert len(found.positions) == 2
    embeddings = torch.cat(built.session.embeddings(found.items))
    wanted = built.features(EncodedPrompt((), found.inputs))
    assert relative_error(embeddings, wanted) < RELATIVE_ERROR[torch.float32]


def test_a_transposed_grid_shows(built):
    def transposed(self: NativePreprocessor, patches: torch.Tensor, grid: torch.Tensor) -> EncoderItem:
        return item(self, patches, grid[:, [0, 2, 1]])

    item = type(find_family(built.name).preprocessor).item
    with patch.object(type(find_family(built.name).preprocessor), "item", transposed):
        encoded = built.encoded(1, "strip")
    found = torch.cat(built.session.embeddings(encoded.items))
    assert relative_error(found, built.features(encoded)) > 100 * RELATIVE_ERROR[torch.float32]


@pytest.mark.parametrize("name", ["windows", "order"])
def test_another_order_of_windows_shows(built, name):
    if built.name != "qwen2_5_vl":
        assert name not in built.session.encoder.inputs
        return
    encoded = built.encoded(1, "landscape")
    (item,) = encoded.items
    tokens = torch.arange(len(item.inputs[name]), dtype=torch.int32)
    found = built.session.encode({**item.inputs, name: tokens if name == "order" else tokens // 4})
    assert relative_error(found, built.features(encoded)) > 100 * RELATIVE_ERROR[torch.float32]


@pytest.mark.parametrize("fault", ["delta", "axes"])
def test_other_positions_show(built, fault):
    encoded = built.encoded(2, "strip", "landscape")
    request = built.request(encoded)
    right = request.positions
    wrong = TokenPositions(right.ids, 0) if fault == "delta" else TokenPositions(right.ids.flip(0), right.delta)
    assert right.delta < 0
    logits = [_logits(built.session, evolve(request, positions=each)) for each in (right, wrong)]
    assert relative_error(logits[1], logits[0]) > 100 * RELATIVE_ERROR[torch.float32]
    assert generate(built.session, [request], NEW_TOKENS)[0].ids == built.tokens(encoded)


@torch.no_grad()
def test_verification_takes_an_image_token_in_an_answer_for_text(built):
    """As `generate` does, which is made to give this answer."""
    found = prompts(built.tree, 1, 50, with_images=True)
    answer = (30, built.model.config.image_token_id, 32)

    class Forced(LogitsProcessor):
        def __call__(self, input_ids, scores):
            forced = torch.full_like(scores, -1e9)
            forced[:, answer[input_ids.shape[1] - found.ids.shape[1]]] = 0
            return forced

    given = {**found.inputs, **found.token_inputs, "max_new_tokens": len(answer), "do_sample": False}
    logged = {"output_logits": True, "return_dict_in_generate": True}
    wanted = built.model.generate(found.ids, **given, **logged, logits_processor=LogitsProcessorList([Forced()]))
    logits = look(built.model, found, answer).logits
    assert relative_error(logits, torch.cat(wanted.logits)) < RELATIVE_ERROR[torch.float32]


def _logits(session: Session, request: Request) -> torch.Tensor:
    """Logits after the prompt and one more token."""
    from ditto.verify.tree import logits

    return logits(session, request, (7, 8))


def test_requests_with_images_need_positions(built):
    request = built.request(built.encoded(1, "square"))
    with pytest.raises(
        PromptError, match="the positions of prompt 1 are the indices of its tokens, the engine expects"
    ):
        generate(built.session, [evolve(request, positions=None)], 1)
    cut = TokenPositions(request.positions.ids[:, 1:], 0)
    with pytest.raises(PromptError, match=r"are \[3, \d+\], the engine expects \[3, \d+\]"):
        generate(built.session, [evolve(request, positions=cut)], 1)


def test_larger_images_than_the_engine_accepts_are_refused(built):
    (profile,) = built.tree.component("vision").spec.profiles
    assert profile.ranges["image_tokens"].max == 6 * 7
    item = find_family(built.name).preprocessor.configured(built.tree.processor_directory)
    large = item.item(torch.zeros(4 * 43, 2 * 3 * 49), torch.tensor([[1, 2, 86]]))
    with pytest.raises(PromptError, match="an image becomes 43 image tokens, the vision engine accepts 42") as caught:
        built.session.embeddings([large])
    assert "--max-image-size" in str(caught.value)


def test_images_that_follow_each_other_directly_are_refused(built):
    """Hugging Face's own positions fail, too; `<|vision_end|><|vision_start|>` between them is enough."""
    processor, pixels = Processor.of(built.tree), images("square", "strip")
    with pytest.raises(PromptError, match="2 images become 1 spans of image tokens: some follow each other directly"):
        processor.encode([f"{PLACEHOLDER}{PLACEHOLDER}"], pixels)
    (encoded,) = processor.encode([f"{PLACEHOLDER}<|vision_end|><|vision_start|>{PLACEHOLDER}?"], pixels)
    assert generate(built.session, [built.request(encoded)], NEW_TOKENS)[0].ids == built.tokens(encoded)


def test_videos_are_refused(built):
    with pytest.raises(PromptError, match="has a place for video"):
        Processor.of(built.tree).encode(["a <|video_pad|>?"], [])


@needs_5
def test_limits_follow_from_the_size_of_images(qwen2_vl):
    builders = MultimodalModel.from_pretrained(str(qwen2_vl))
    assert isinstance(builders, Qwen2VlModel) and builders.max_image_tokens == 74 * 74
    builders = builders.with_max_image_size(28, 29).with_max_images(3)
    assert builders.llm.prompt_rows == 3 * 2 * 3
    assert [hint.shape[0].max for hint in builders.vision.inputs.values()] == [6, 6]
    assert builders.with_batch(2).llm.limits.max_prompt_embedding_table_size == 36


@needs_5
def test_settings_of_other_families_are_refused(qwen2_vl):
    builders = MultimodalModel.from_pretrained(str(qwen2_vl))
    with pytest.raises(ConfigError, match="do not cut images into tiles"):
        builders.with_max_tiles(2)
    with pytest.raises(ConfigError, match="takes one image in each call"):
        builders.with_vision_batch(2)
    with pytest.raises(ConfigError, match="height of the largest image is 0"):
        builders.with_max_image_size(0, 5)


@needs_5
def test_tokens_of_images_are_known_from_the_checkpoint(qwen2_vl):
    """`ditto plan` says them."""
    found = image_tokens(qwen2_vl, Qwen2VlModel.preprocessor, [(28, 28), (70, 14)])
    assert found == {(28, 28): 4, (70, 14): 5}


def test_a_model_in_memory_has_no_configuration_at_hand():
    with pytest.raises(TreeError, match="no config.json"):
        _ = NativePreprocessor().configured(None).config


def test_positions_follow_the_prompt():
    """Text after an image continues at the largest position of the image."""
    positions = TokenPositions(torch.tensor([[0, 1, 1], [0, 1, 1], [0, 1, 2]], dtype=torch.int32), 0)
    assert positions.continued(2).ids[0].tolist() == [0, 1, 1, 3, 4]
    assert positions.resized(2).tolist() == [[0, 1]] * 3


@pytest.mark.parametrize(
    "name", sorted(name for name in FAMILIES if issubclass(find_family(name) or object, NativeSizeModel))
)
def test_older_transformers_are_refused(name):
    with patch("transformers.__version__", "4.51.3"), pytest.raises(CheckpointError, match="need transformers 5"):
        find_family(name)._check_transformers()


def test_a_fault_behind_windows_is_located_where_it_is(built, tmp_path):
    if built.name != "qwen2_5_vl":
        return
    checkpoint = built.tree.manifest.checkpoint.directory

    def other_activation(nodes):
        found = next(
            node for node in nodes if node["module"].startswith("tower.merger") and "function" in node["layer"]
        )
        found["layer"]["function"] = "TANH"

    copy = EngineTree.open(shutil.copytree(built.tree.root, tmp_path / "broken"))
    broken = planted(copy, component="vision", node=other_activation)
    result = verify(broken, mixed(broken, 2, count=1), checkpoint, "reference", 2)
    (found,) = (each for each in result.divergences if each.component == "vision")
    assert found.port == "the output of `model.visual.merger.mlp.1`"
