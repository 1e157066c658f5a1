"""The target refuses what no TensorRT-LLM engine can be, and describes the rest without TensorRT-LLM."""

from __future__ import annotations

import pytest
import torch

from ditto import LlavaModel, LlmBuilder
from ditto.bindings import is_installed
from ditto.configs import Limits, TensorRTBuilderConfig, TensorRTConfig, TensorRTNetworkCreationFlags, TrtllmConfig
from ditto.configs.build import BuildSettings
from ditto.errors import ConfigError
from ditto.network import Network
from ditto.targets.trtllm.target import TrtllmTarget, check_machine
from ditto.targets.trtllm.versions import version
from tests.support.models import llama, llava

TARGET = TrtllmTarget("trtllm", TrtllmConfig())


def _limits(rows, batch=4):
    return Limits(
        max_batch_size=batch, max_input_len=8, max_seq_len=16, max_num_tokens=8, max_prompt_embedding_table_size=rows
    )


def test_an_unknown_version_is_refused_before_any_work():
    with pytest.raises(ConfigError, match=r"TensorRT-LLM 3\.0 is not known"):
        TrtllmTarget("trtllm", TrtllmConfig(version="3.0")).check(BuildSettings())


def test_an_engine_is_for_one_kind_of_gpu():
    TARGET.check(BuildSettings(compute_capabilities=("8.9",)))
    with pytest.raises(ConfigError, match=r"for one kind of GPU, not 8\.9, 9\.0"):
        TARGET.check(BuildSettings(compute_capabilities=("8.9", "9.0")))


@pytest.mark.parametrize("flag", ["fp16", "bf16"])
def test_a_weakly_typed_wish_is_stated_as_a_dtype(flag):
    flags = TensorRTNetworkCreationFlags(strongly_typed=False)
    config = TensorRTConfig(
        network_creation_flags=flags, builder_config=TensorRTBuilderConfig(fp16=flag == "fp16", bf16=flag == "bf16")
    )
    assert TARGET.explicit_dtype(config) == {"fp16": torch.float16, "bf16": torch.bfloat16}[flag]
    assert TARGET.explicit_dtype(TensorRTConfig()) is None


def test_each_request_has_an_equal_part_of_the_table():
    TARGET.check_limits(_limits(24), 6)
    TARGET.check_limits(_limits(0), 0)
    with pytest.raises(ConfigError, match="23 rows gives each of 4 requests 5; an image needs 6") as caught:
        TARGET.check_limits(_limits(23), 6)
    assert "give at least 24" in str(caught.value)
    with pytest.raises(ConfigError, match="3 rows gives each of 4 requests 0"):
        TARGET.check_limits(_limits(3), 0)


def test_a_table_too_small_for_the_batch_stops_a_build(tmp_path):
    model = LlavaModel.from_model(llava()).with_batch(4).with_prompt_table(16).with_target("trtllm")
    with pytest.raises(ConfigError, match="a prompt table of 16 rows gives each of 4 requests 4; an image needs 16"):
        model.build_all(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_builds_tokens_of_a_step_are_those_of_trtllm_build():
    """Contract, LLM 9: whole sequences of a full batch at most; a prompt at least, where it cannot come in parts."""
    builder = LlmBuilder.from_model(llama()).with_batch(2).with_target("trtllm")
    for dtype, asked, found in (
        ("float16", None, 128),
        ("float16", 20, 32),
        ("float32", 20, 40),
        ("float16", 100, 100),
    ):
        chosen = builder.with_dtype(dtype).with_max_input_len(40)
        part = (chosen if asked is None else chosen.with_max_num_tokens(asked)).part(TARGET)
        (spec,) = TARGET.specs(part, BuildSettings())
        (profile,) = spec.profiles
        range_, written = profile.ranges["num_tokens"], TARGET.config(part, Network("llm")).build_config
        assert (range_.min, range_.opt, range_.max) == (1, 2, found)
        assert (written.max_num_tokens, written.opt_num_tokens) == (found, 2)


@pytest.mark.parametrize(("number", "name"), [("0.18.2", "output"), ("0.19.0", "encoder_output")])
def test_the_vision_output_has_the_versions_name(number, name, tmp_path):
    model = LlavaModel.from_model(llava()).with_target("trtllm").with_trtllm(TrtllmConfig(version=number))
    tree = model.vision.build(tmp_path / "out")
    assert list(tree.component("vision").outputs) == [name]
    assert tree.config("vision")["builder_config"]["output_shape"] == [-1, 16, 64]


@pytest.mark.parametrize("installed", [None, "0.19.0", "0.19.1"])
@pytest.mark.parametrize("capabilities", [(), ("8.9",)])
def test_engines_are_compiled_where_they_are_meant_to_run(installed, capabilities):
    check_machine(version("0.19"), capabilities, installed, "8.9")


def test_another_version_or_another_gpu_is_named():
    with pytest.raises(ConfigError, match=r"wanted for TensorRT-LLM 0\.19\.0, 0\.20\.0 is installed") as caught:
        check_machine(version("0.19"), (), "0.20.0", "8.9")
    assert "--trtllm-version" in str(caught.value)
    with pytest.raises(ConfigError, match=r"wanted for compute capability 9\.0, this GPU has 8\.9"):
        check_machine(version("0.19"), ("9.0",), "0.19.0", "8.9")


@pytest.mark.skipif(is_installed("tensorrt_llm"), reason="TensorRT-LLM is installed")
def test_where_the_library_is_not_engines_are_described_only():
    assert TARGET.cannot_compile == "TensorRT-LLM is not installed here"
