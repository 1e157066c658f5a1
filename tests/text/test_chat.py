"""Chat templates write what Hugging Face's `apply_chat_template` writes; what they lose or lack is refused."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest
from attrs import evolve
from PIL import Image
from transformers import AutoProcessor, AutoTokenizer

from ditto.engine import Tokens
from ditto.errors import PromptError
from ditto.families.llava import LlavaPreprocessor
from ditto.text.chat import ChatTemplate, is_raw, read_messages, with_template
from ditto.text.processing import Processor, RenderedPrompt, load_processor

TOKENS = Tokens(vocab_size=512, end=[2], pad=0, image=4)
IMAGE = Image.new("RGB", (80, 50), "red")
SEE = {"type": "image", "image": IMAGE}
TALK = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": [SEE, {"type": "text", "text": "What is this?"}]},
    {"role": "assistant", "content": "A cross."},
    {"role": "user", "content": "Which color?"},
]
# Templates of text alone, as those of many language models.
OF_TEXT = "{{ bos_token }}{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}\n{% endfor %}"


@pytest.fixture
def directory(shapes_checkpoint, tmp_path):
    return shutil.copytree(shapes_checkpoint, tmp_path / "hf", ignore=shutil.ignore_patterns("*.safetensors"))


def processor(directory, template=None, sees=True):
    family = LlavaPreprocessor() if sees else None
    inner = load_processor(directory, family)
    if template is not None:
        inner.chat_template = template
    return Processor(inner, TOKENS if sees else evolve(TOKENS, image=None), str(directory), family)


def test_a_conversation_is_encoded_as_hugging_face_does(directory):
    own = processor(directory)
    rendered, images = ChatTemplate.of(own).render(TALK)
    assert images == [IMAGE]
    parts = [
        {"role": turn["role"], "content": [{"type": "text", "text": turn["content"]}]}
        if isinstance(turn["content"], str)
        else turn
        for turn in TALK
    ]
    hugging_face = AutoProcessor.from_pretrained(directory)
    wanted = hugging_face.apply_chat_template(
        parts, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    (encoded,) = own.encode([rendered], images)
    assert list(encoded.token_ids) == wanted["input_ids"][0].tolist()
    assert encoded.inputs["pixel_values"].equal(wanted["pixel_values"])


def test_a_template_of_text_writes_its_own_first_token_once(directory):
    own = processor(directory, OF_TEXT, sees=False)
    talk = [{"role": "user", "content": [{"type": "text", "text": "Which "}, {"type": "text", "text": "color?"}]}]
    rendered, _ = ChatTemplate.of(own).render(talk)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    wanted = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Which color?"}], chat_template=OF_TEXT, add_generation_prompt=True, tokenize=False
    )
    (encoded,) = own.encode([rendered], [])
    assert list(encoded.token_ids) == tokenizer(wanted, add_special_tokens=False)["input_ids"]
    assert list(encoded.token_ids).count(tokenizer.bos_token_id) == 1


def test_a_processor_whose_template_writes_the_first_token_adds_no_other(directory):
    parts = "{{ bos_token }}{% for part in messages[0].content %}{{ part.text or '<image>' }}{% endfor %}"
    own = processor(directory, parts)
    rendered, images = ChatTemplate.of(own).render([{"role": "user", "content": [SEE, {"type": "text", "text": "a"}]}])
    (encoded,) = own.encode([rendered], images)
    assert list(encoded.token_ids).count(own.tokenizer.bos_token_id) == 1


USER = {"role": "user", "content": "What?"}


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("What?", "the messages are a str"),
        ([], "the messages are an empty list"),
        (["What?"], "message 1 has no role and content"),
        ([{"role": "user"}], "message 1 has no role and content"),
        ([USER | {"name": "me"}], "message 1 has 'name', which is not supported"),
        ([USER | {"role": "tool"}], "the role of message 1 is 'tool'"),
        ([USER | {"content": None}], "the content of message 1 is a NoneType"),
        ([USER | {"content": []}], "the content of message 1 is an empty list"),
        (
            [USER | {"content": [{"type": "audio", "audio": "a"}]}],
            "message 1 has a part that is not supported: 'audio'",
        ),
        ([USER | {"content": [{"type": "text", "text": "a", "x": 1}]}], "message 1 has a part that is not supported"),
        ([USER | {"content": [{"type": "text", "text": 3}]}], "a text of message 1 is a int"),
        ([USER, {"role": "assistant", "content": "A cross."}], "the last message is the assistant's"),
        ([{"role": "system", "content": [SEE]}, USER], "message 1 of the system has images"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # the same in each process
)
def test_messages_that_are_not_valid_are_refused(messages, message):
    with pytest.raises(PromptError, match=message) as caught:
        read_messages(messages)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("template", "messages", "message"),
    [
        (None, [USER | {"content": "Is <image> here?"}], "the text of message 1 holds the image token <image>"),
        (OF_TEXT, [USER | {"content": [SEE, {"type": "text", "text": "a"}]}], "no place for the images of message 1"),
        ("{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}", [USER | {
            "content": [SEE, {"type": "text", "text": "a"}]}], "writes 0 image tokens for 1 images"),
        ("{{ messages[-1].content }}", TALK[:1] + [USER], "leaves out the text of message 1"),
        ("{{ raise_exception('Roles must alternate') }}", [USER], "refuses the messages: Roles must alternate"),
        ("{{ messages.x.y }}", [USER], "the model's chat template refuses the messages"),
    ],
)  # fmt: skip
def test_what_a_template_loses_or_cannot_express_is_refused(template, messages, message, directory):
    with pytest.raises(PromptError, match=message):
        ChatTemplate.of(processor(directory, template)).render(messages)


def test_without_a_template_there_is_none(directory):
    (directory / "chat_template.jinja").unlink()
    assert ChatTemplate.of(processor(directory)) is None


@pytest.mark.parametrize(
    ("prompt", "raw"), [("What is this?", False), ("USER: <image>\nWhat?", True), ("<s>What?", True), ("a < b", False)]
)
def test_a_prompt_with_special_tokens_is_raw(prompt, raw, directory):
    assert is_raw(processor(directory), prompt) == raw


RAW = "USER: <image>\nWhat? ASSISTANT:"
SEEN, UNSEEN = RenderedPrompt(RAW, True), RenderedPrompt("USER: What? ASSISTANT:", True)
TWO = RenderedPrompt("USER: <image>\n<image>\nWhat? ASSISTANT:", True)


@pytest.mark.parametrize(
    ("prompts", "images", "written", "order"),
    [
        (["What?"], "", [UNSEEN], ""),
        (["What?"], "a", [SEEN], "a"),
        (["What?"], "ab", [TWO], "ab"),
        (["What?", "What?"], "a", [SEEN, SEEN], "a"),
        (["What?", "What?"], "ab", [SEEN, SEEN], "ab"),
        ([RAW, "What?"], "a", [RAW, SEEN], "a"),
        ([RAW, "What?"], "ab", [RAW, SEEN], "ab"),
        (["What?", RAW], "abc", [TWO, RAW], "abc"),
        ([RAW, RAW], "ab", [RAW, RAW], "ab"),
        (["What?", "What?"], "abc", None, "3 images cannot be divided among 2 prompts"),
        (["What?", RAW], "", None, "0 images cannot be divided"),
    ],
)
def test_images_are_divided_among_plain_and_raw_prompts(prompts, images, written, order, directory, monkeypatch):
    own = processor(directory)
    template = ChatTemplate.of(own)
    if written is None:
        with pytest.raises(PromptError, match=order):
            with_template(own, template, prompts, list(images))
    else:
        assert with_template(own, template, prompts, list(images)) == (written, list(order))


def test_prompts_stay_raw_without_a_template():
    own = SimpleNamespace(image_token="<image>", tokenizer=SimpleNamespace(all_special_tokens=[]), family=None)
    assert with_template(own, None, ["What?"], []) == (["What?"], [])
