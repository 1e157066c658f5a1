"""Checkpoints that hold something other than a model's values are refused, the format named, by every command."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from ditto import LlavaModel, LlmBuilder
from ditto.checkpoint.formats import check_form
from ditto.cli.main import main
from ditto.errors import CheckpointError, ConfigError
from tests.support.models import llama, llava

QUANTISED = {
    "quark": ({"quant_method": "quark", "fmt": "e4m3", "group_size": 128}, "quark, fmt e4m3, group_size 128"),
    "bitsandbytes": ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "bitsandbytes, .*nf4"),
    "mxfp4": ({"quant_method": "mxfp4"}, "mxfp4"),
    "unknown": ({"odd": 1}, "a format without a name"),
}


def edit(path, **values):
    config = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**config, **values}))


@pytest.fixture
def directory(tmp_path):
    llama().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def llava_directory(tmp_path):
    llava().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("name", QUANTISED)
def test_a_quantised_checkpoint_is_refused_by_its_format(directory, name):
    stated, told = QUANTISED[name]
    edit(directory / "config.json", quantization_config=stated)
    with pytest.raises(CheckpointError, match=f"quantised: .*{told}") as caught:
        check_form(directory)
    assert caught.value.exit_code == 2
    assert "download" not in str(caught.value)


@pytest.mark.parametrize("part", ["text_config", "vision_config"])
def test_so_is_one_whose_part_is_quantised(llava_directory, part):
    config = json.loads((llava_directory / "config.json").read_text())
    config[part]["quantization_config"] = {"quant_method": "awq", "bits": 4}
    (llava_directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=rf"awq, .*`{part}\.quantization_config`"):
        LlavaModel.from_pretrained(str(llava_directory))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"compression_config": {"format": "int-quantized"}}, "int-quantized"),
        ({"quantization": {"bits": 4, "group_size": 64}}, "bits 4, group_size 64"),
        ({"quantization_config": "int8"}, "int8"),
        ({"quantization_config": {}}, "a format without a name"),  # transformers refuses it too
    ],
)
def test_other_keys_that_state_a_quantisation_count(directory, values, told):
    edit(directory / "config.json", **values)
    with pytest.raises(CheckpointError, match=told):
        check_form(directory)


def test_a_key_that_states_none_does_not_count(directory):
    edit(directory / "config.json", quantization_config=None, quantization="none")
    check_form(directory)


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("quantize_config.json", "GPTQ"),
        ("quant_config.json", "AWQ"),
    ],
)
def test_so_does_a_file_beside_the_configuration(directory, file, told):
    edit(directory / file, bits=4)
    with pytest.raises(CheckpointError, match=f"quantised: {told}"):
        check_form(directory)


@pytest.mark.parametrize("command", ["build", "plan"])
@pytest.mark.parametrize("fault", ["quantization_config", "hf_quant_config", "adapter"])
def test_every_command_refuses(directory, tmp_path, capsys, command, fault):
    if fault == "quantization_config":
        edit(directory / "config.json", quantization_config=QUANTISED["quark"][0])
    elif fault == "adapter":
        edit(directory / "adapter_config.json", peft_type="LORA", base_model_name_or_path="owner/base")
    else:
        edit(directory / "hf_quant_config.json", quantization={"quant_algo": "MIXED_PRECISION"})
    more = ["-o", str(tmp_path / "tree")] if command == "build" else []
    assert main(["-q", command, str(directory), "--target", "tensorrt-rtx", *more]) == 2
    told = {"adapter": "an adapter (LORA) for owner/base", "hf_quant_config": "'MIXED_PRECISION' is not read"}
    assert told.get(fault, "quantised") in capsys.readouterr().err
    assert not (tmp_path / "tree").exists()


def test_shapes_of_a_quantised_checkpoint_are_not_known_without_its_tensors(tmp_path, capsys):
    config = llama().config
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(tmp_path)
    edit(tmp_path / "config.json", quantization_config={"quant_method": "awq", "bits": 4, "group_size": 32})
    assert main(["-q", "plan", str(tmp_path), "--target", "tensorrt-rtx"]) == 2
    assert "quantised (AWQ), and its weights are not on this machine" in capsys.readouterr().err


def test_a_configuration_alone_tells_it(tmp_path, capsys):
    config = llama().config
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(tmp_path)
    edit(tmp_path / "config.json", quantization_config=QUANTISED["quark"][0])
    assert main(["-q", "plan", str(tmp_path), "--target", "tensorrt-rtx"]) == 2
    assert "quantised: quark" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.uint8, torch.int32])
@pytest.mark.parametrize(
    "layer", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight", "model.embed_tokens.weight"]
)
def test_a_tensor_in_a_storage_dtype_is_refused_without_any_configuration(directory, dtype, layer):
    tensors = load_file(directory / "model.safetensors")
    tensors[layer] = tensors[layer].to(dtype)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(CheckpointError, match=f"`{layer}` is stored as {name}: the checkpoint is quantised"):
        LlmBuilder.from_pretrained(str(directory)).with_target("tensorrt-rtx").build(directory.parent / "tree")


@pytest.mark.parametrize("part", ["vision", "llm"])
def test_so_it_is_in_a_shard_of_either_half(tmp_path, part):
    model = llava()
    model.save_pretrained(tmp_path / "model", max_shard_size="50KB")
    shards = sorted((tmp_path / "model").glob("model-*.safetensors"))
    assert len(shards) > 1
    wanted = "vision_tower" if part == "vision" else "language_model"
    for shard in shards:
        tensors = load_file(shard)
        chosen = [name for name in tensors if wanted in name and tensors[name].dim() == 2]
        if chosen:
            tensors[chosen[0]] = tensors[chosen[0]].to(torch.float8_e4m3fn)
            save_file(tensors, shard, metadata={"format": "pt"})
            break
    family = LlavaModel.from_pretrained(str(tmp_path / "model")).with_target("tensorrt-rtx")
    for build in (family.build_all, family.vision.build, family.llm.build):
        with pytest.raises(CheckpointError, match=f"`{chosen[0]}` is stored as float8_e4m3fn"):
            build(tmp_path / "tree")


def test_wider_values_are_values(directory):
    tensors = {name: tensor.double() for name, tensor in load_file(directory / "model.safetensors").items()}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    builder = LlmBuilder.from_pretrained(str(directory)).with_target("tensorrt-rtx")
    assert builder.source.load(torch.float16).weights


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_a_quantised_model_in_memory_is_refused(dtype):
    model = llama()
    weight = model.model.layers[0].mlp.up_proj
    weight.weight = torch.nn.Parameter(weight.weight.detach().to(dtype), requires_grad=False)
    with pytest.raises(ConfigError, match=r"`model.layers.0.mlp.up_proj.weight` is of .*: the model is quantised"):
        LlmBuilder.from_model(model).source.load(torch.float32)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("model_index.json", "diffusers"),
        ("params.json", "convert_llama_weights_to_hf"),
        ("manifest.json", "an engine tree"),
    ],
)
def test_a_directory_of_another_tool_is_named(tmp_path, name, told):
    (tmp_path / name).write_text("{}")
    with pytest.raises(CheckpointError, match=told):
        check_form(tmp_path)


def test_a_file_is_not_a_directory(tmp_path, capsys):
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert main(["-q", "plan", str(tmp_path / "model.safetensors")]) == 2
    assert "The model is a file" in capsys.readouterr().err


def test_build_names_what_nobody_reads(directory, tmp_path, capsys):
    tensors = load_file(directory / "model.safetensors")
    save_file(
        {**tensors, "model.extra.weight": torch.ones(3)}, directory / "model.safetensors", metadata={"format": "pt"}
    )
    assert main(["build", str(directory), "-o", str(tmp_path / "tree"), "--target", "tensorrt-rtx"]) == 0
    assert "not used by any engine: 1 tensor, e.g. model.extra.weight" in capsys.readouterr().out
