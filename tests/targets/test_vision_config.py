"""vision/config.json holds what a native build saves (contract, multimodal 2.1 and 2.2)."""

from __future__ import annotations

import torch

from ditto.network import Spec
from ditto.network.dims import symbol
from ditto.targets.vision_config import vision_config


def test_the_vision_file_has_builder_config_alone():
    assert vision_config("llava", 4, Spec((symbol("batch"), 576, 4096), torch.float16)).to_json() == {
        "builder_config": {
            "precision": "float16",
            "model_type": "llava",
            "max_batch_size": 4,
            "output_shape": [-1, 576, 4096],
            "tensor_parallel": 1,
            "use_refit": False,
            "int8": False,
            "force_num_profiles": None,
            "strongly_typed": True,
            "use_strip_plan": False,
            "model_name": "multiModal",
            "max_beam_width": 1,
        }
    }
