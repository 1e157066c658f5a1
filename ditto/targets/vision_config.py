"""vision/config.json, which is the same for all targets."""

from __future__ import annotations

from ditto.engine.config import VisionConfig
from ditto.network.spec import Spec


def vision_config(model_type: str, max_images: int, output: Spec) -> VisionConfig:
    """Content of vision/config.json, which holds only `builder_config`.

    Args:
        output: spec of the engine's output.
    """
    return VisionConfig(
        precision=str(output.dtype).removeprefix("torch."),
        model_type=model_type,
        max_batch_size=max_images,
        output_shape=[dim if isinstance(dim, int) else -1 for dim in output.shape],
    )
