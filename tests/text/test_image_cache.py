"""An image that comes again is not encoded again; answers stay Hugging Face's."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from ditto.errors import ConfigError, PromptError
from ditto.runtime.encoding import EncoderItem
from ditto.text.image_cache import ImageCache
from ditto.text.model import load

ROWS, WIDTH = 4, 8
ENTRY = ROWS * WIDTH * 4  # bytes


class Encoder:
    """A session whose embeddings of a batch are views of one tensor, as a vision engine's are."""

    device = torch.device("cpu")

    def __init__(self):
        self.encoded = []

    def embeddings(self, items):
        if any(item.inputs["pixel_values"].isnan().any() for item in items):
            raise PromptError("no image")
        self.encoded.append(len(items))
        values = [float(item.inputs["pixel_values"].sum()) for item in items]
        return list(torch.stack([torch.full((ROWS, WIDTH), value) for value in values]).unbind()) if values else []


def item(value, **more):
    return EncoderItem({"pixel_values": torch.full((3, 2, 2), float(value)), **more})


def values(found):
    return [float(rows[0, 0]) / 12 for rows in found]


def test_what_came_before_is_found_also_within_a_call():
    session = Encoder()
    cache = ImageCache(session, 100 * ENTRY)
    assert values(cache.embeddings([item(1), item(2), item(1)])) == [1, 2, 1]
    assert values(cache.embeddings([item(2), item(3), item(1)])) == [2, 3, 1]
    assert session.encoded == [2, 1]
    assert (cache.queries, cache.hits, cache.bytes) == (6, 3, 3 * ENTRY)


def test_the_oldest_makes_room_and_memory_is_bounded():
    session = Encoder()
    cache = ImageCache(session, 2 * ENTRY + 1)
    for value in (1, 2, 1, 3, 1, 2):
        assert values(cache.embeddings([item(value)])) == [value]
        assert cache.bytes <= 2 * ENTRY
    assert (cache.hits, sum(session.encoded)) == (2, 4)  # both of image 1; image 2 made room for image 3
    kept = {rows.untyped_storage().nbytes() for rows in cache._entries.values()}
    assert kept == {ENTRY}


def test_a_batch_of_views_keeps_only_its_own_rows():
    cache = ImageCache(Encoder(), 3 * ENTRY)
    cache.embeddings([item(value) for value in range(8)])
    assert sum(rows.untyped_storage().nbytes() for rows in cache._entries.values()) == cache.bytes == 3 * ENTRY


def test_what_is_too_large_or_fails_is_not_kept():
    small = ImageCache(Encoder(), ENTRY - 1)
    assert values(small.embeddings([item(1)])) == [1] and small.bytes == 0
    cache = ImageCache(Encoder(), 10 * ENTRY)
    with pytest.raises(PromptError):
        cache.embeddings([item(1), item(float("nan"))])
    assert (cache.bytes, cache.queries) == (0, 0)


def test_changed_results_do_not_change_the_cache():
    cache = ImageCache(Encoder(), 10 * ENTRY)
    for _ in range(2):  # computed, then known
        cache.embeddings([item(1)])[0].zero_()
    assert values(cache.embeddings([item(1)])) == [1]


def test_all_that_embeddings_depend_on_is_in_the_hash():
    pixels = torch.arange(12.0).reshape(3, 2, 2)
    different = [
        EncoderItem({"pixel_values": pixels}),
        EncoderItem({"pixel_values": pixels.reshape(3, 4, 1)}),
        EncoderItem({"pixel_values": pixels.view(torch.int32)}),
        EncoderItem({"pixel_values": pixels.to(torch.bfloat16)}),
        EncoderItem({"pixel_values": pixels.transpose(1, 2)}),
        EncoderItem({"patches": pixels}),
        EncoderItem({"pixel_values": pixels}, size=(2, 2)),
        EncoderItem({"pixel_values": pixels}, size=(4, 2)),
        EncoderItem({"pixel_values": pixels, "grid": torch.tensor([1, 2, 2])}),
        EncoderItem({"pixel_values": pixels, "grid": torch.tensor([1, 4, 1])}),
        EncoderItem({"pixel_values": pixels, "mask": torch.tensor(True)}),
    ]
    assert len({each.digest for each in different}) == len(different)
    again = EncoderItem({"pixel_values": pixels.transpose(1, 2).contiguous().transpose(1, 2)})
    assert again.digest == different[0].digest


def two_answers(shapes_tree, images, **settings):
    """Answers about two images, each twice, one of them with other metadata."""
    with load(shapes_tree, **settings) as model:
        encode, calls = model._pipeline.session.encode, []

        def count(inputs):
            calls.append(len(next(iter(inputs.values()))))
            return encode(inputs)

        model._pipeline.session.encode = count

        def answer(image):
            text = {"type": "text", "text": "Describe this image."}
            return model.chat([{"role": "user", "content": [{"type": "image", "image": image}, text]}]).text

        found = [answer(images[0]), answer(images[3]), answer(images[0]), answer(Image.open(images[3]).copy())]
        return found, sum(calls), model.image_cache


def wanted(hugging_face, images):
    texts = []
    for image in (images[0], images[3]):
        tokens = hugging_face.tokens(image, "USER: <image>\nDescribe this image. ASSISTANT:")
        texts.append(hugging_face.processor.tokenizer.decode(tokens, skip_special_tokens=True).strip())
    return texts * 2


@pytest.mark.parametrize(("size", "encoded", "hits"), [(1 << 28, 2, 2), (0, 4, 0)])
def test_answers_are_those_of_hugging_face(size, encoded, hits, shapes_tree, hugging_face, images):
    found, calls, cache = two_answers(shapes_tree, images, image_cache_bytes=size)
    assert found == wanted(hugging_face, images)
    assert (calls, cache.hits) == (encoded, hits)


def test_a_wrong_hash_would_be_seen(shapes_tree, hugging_face, images, monkeypatch):
    monkeypatch.setattr(EncoderItem, "digest", b"same")
    assert two_answers(shapes_tree, images)[0] != wanted(hugging_face, images)


def test_a_size_below_0_is_refused(shapes_tree):
    with pytest.raises(ConfigError, match="image_cache_bytes is -1"):
        load(shapes_tree, image_cache_bytes=-1)
