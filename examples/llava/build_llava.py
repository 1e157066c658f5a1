"""Builds TensorRT engines for LLaVA 1.5 with the functional API: the language model and the vision encoder one by one.

`device_map` asks for the package accelerate. The object-oriented way is one line, and needs no more than Ditto:

    LlavaModel.from_pretrained(MODEL_ID).with_batch(MAX_BATCH_SIZE).build_all(OUTPUT_DIR)
"""

import torch
from transformers import LlavaForConditionalGeneration

from ditto.api import build_llm_engine, build_multimodal_engine
from ditto.arguments import DynamicDimension, TensorTypeHint
from ditto.configs import TensorRTBuilderConfig, TensorRTConfig, TensorRTNetworkCreationFlags

# Configuration
MODEL_ID = "llava-hf/llava-1.5-7b-hf"
OUTPUT_DIR = "engines/llava-1.5-7b-hf"
MAX_BATCH_SIZE = 4
VISION_FEATURE_SIZE = 576
IMAGE_SIZE = 336


class LlavaVisionWrapper(torch.nn.Module):
    """Vision tower and projector as one module that takes just the image tensor."""

    def __init__(self, model: LlavaForConditionalGeneration):
        super().__init__()
        parts = getattr(model, "model", model)  # transformers 5 keeps the parts one level deeper
        self.tower = parts.vision_tower
        self.projector = parts.multi_modal_projector
        self.feature_layer = model.config.vision_feature_layer
        self.dtype = self.tower.dtype
        self.device = self.tower.device

    def forward(self, input):  # noqa: A002
        all_hidden_states = self.tower(input, output_hidden_states=True).hidden_states
        features = all_hidden_states[self.feature_layer][:, 1:]
        return self.projector(features)


def main() -> None:
    model = LlavaForConditionalGeneration.from_pretrained(MODEL_ID, torch_dtype=torch.float16, device_map="auto")
    vision_wrapper = LlavaVisionWrapper(model)

    # In transformers 4.51 `model.language_model` is a causal LM and can be passed as well; in transformers 5 it is a
    # bare decoder (`model.model.language_model`), to be passed with `lm_head=model.lm_head`.
    build_llm_engine(
        model,
        f"{OUTPUT_DIR}/llm",
        max_batch_size=MAX_BATCH_SIZE,
        max_prompt_embedding_table_size=VISION_FEATURE_SIZE * MAX_BATCH_SIZE,
    )

    input_spec = TensorTypeHint(
        shape=(
            DynamicDimension(name="vl_batch_size", min=1, opt=max(1, MAX_BATCH_SIZE // 2), max=MAX_BATCH_SIZE),
            3,  # RGB channels
            IMAGE_SIZE,  # height
            IMAGE_SIZE,  # width
        ),
        dtype=vision_wrapper.dtype,
    )
    build_multimodal_engine(
        vision_wrapper,
        f"{OUTPUT_DIR}/vision",
        max_batch_size=MAX_BATCH_SIZE,
        input_specs=[input_spec],
        input_names=["input"],
        output_names=["encoder_output"],
        model_type="llava",
        trt_config=TensorRTConfig(
            network_creation_flags=TensorRTNetworkCreationFlags(strongly_typed=False),
            builder_config=TensorRTBuilderConfig(fp16=True),
        ),
    )


if __name__ == "__main__":
    main()
