"""The values of a manifest have ranges, and agree with each other."""

from __future__ import annotations

import pytest
from attrs import evolve

from ditto.arguments import DynamicDimension
from ditto.engine.digest import FileRecord
from ditto.engine.manifest import Checkpoint
from ditto.engine.profile import Phase, Profile
from ditto.engine.valid import faults


def of_llm(**changes):
    def change(manifest):
        llm = evolve(manifest.components["llm"], **changes)
        return evolve(manifest, components={**manifest.components, "llm": llm})

    return change


def of_spec(**changes):
    return lambda manifest: of_llm(spec=evolve(manifest.components["llm"].spec, **changes))(manifest)


def of_limits(**changes):
    return lambda manifest: evolve(manifest, limits=evolve(manifest.limits, **changes))


def of_settings(**changes):
    def change(manifest):
        return evolve(manifest, settings={**manifest.settings, "llm": {**manifest.settings["llm"], **changes}})

    return change


def of_files(name, **changes):
    record = {"bytes": 1, "sha256": "0" * 64, **changes}
    return lambda manifest: evolve(manifest, files={**manifest.files, name: FileRecord(**record)})


def profile(**most):
    return Profile(Phase.PREFILL, {name: DynamicDimension.up_to(name, size) for name, size in most.items()})


DIGEST = "SHA-256"
CHANGES = {
    "an unknown target": (lambda manifest: evolve(manifest, target="onnx"), "target 'onnx' is not one of"),
    "an unknown component": (
        lambda manifest: evolve(manifest, components={"audio": manifest.components["llm"]}),
        "the spec of 'audio' is of 'llm'",
    ),
    "an unknown part": (of_spec(part="audio"), "'llm' runs 'audio', which is not one of vision, llm"),
    "no first engine": (
        lambda manifest: evolve(
            manifest,
            components={
                "llm-decode": evolve(
                    manifest.components["llm"], spec=evolve(manifest.components["llm"].spec, name="llm-decode")
                )
            },
        ),
        "the first engine of 'llm' is missing",
    ),
    "a dtype": (of_spec(dtype="int4"), "dtype 'int4' is not one of"),
    "a directory outside": (of_llm(directory=".."), "not a path inside the tree"),
    "an engine twice": (of_llm(engines=[["rank0.engine"] * 2]), "is named twice"),
    "an engine that is not listed": (of_llm(engines=[["more"]]), "'more' is not among the files"),
    "a rank without an engine": (of_llm(engines=[[]]), "a rank has no engine file"),
    "two ranks": (
        of_llm(engines=[["rank0.engine"], ["rank1.engine"]]),
        "there are engines of 2 ranks, and engines of one rank are supported",
    ),
    "weights that are not listed": (of_llm(weights="more"), "'more' is not among the files"),
    "a spec": (of_llm(inputs={"a": "float16[batch"}), "not a type and shape of 'a'"),
    "a spec of a dtype": (of_llm(outputs={"a": "float17[2]"}), "not a type and shape of 'a'"),
    "what is shared": (of_llm(shared={"logits": "nothing"}), "shares the memory of an input"),
    "a count of layers": (of_llm(layers={"Fill": -1}), "-1 is not a number of layers"),
    "a huge range": (of_spec(profiles=[profile(batch=2**31)]), "a range up to more than"),
    "a dimension without a range": (of_spec(profiles=[profile(batch=3)]), "has no sizes of"),
    "no profile": (of_spec(profiles=[]), "there is no profile"),
    "a step": (of_spec(kv_length_step=0), "kv_length_step is 0"),
    "no limits of the language model": (of_limits(llm=None), "the limits of llm are not stated @ $.limits"),
    "no limit of the vision engine": (of_limits(max_images=None), "the limits of vision are not stated"),
    "a limit too large": (of_limits(max_images=2**31), "a limit is out of range @ $.limits.max_images"),
    "no sizes of the language model": (
        lambda manifest: evolve(manifest, decoder=None),
        "the sizes of llm are not stated @ $.decoder",
    ),
    "a size of the language model": (
        lambda manifest: evolve(manifest, decoder=evolve(manifest.decoder, head_size=0)),
        "a size is out of range @ $.decoder.head_size",
    ),
    "a limit": (of_settings(max_seq_len=-1), "a limit is out of range"),
    "a limit that is text": (of_settings(max_seq_len="64"), "'64' is not of type int"),
    "a compute capability": (of_settings(compute_capabilities=["new"]), "are not compute capabilities"),
    "a preset": (of_settings(optimize="speed"), "optimize"),
    "a tuning": (of_settings(tuning="new"), "settings of llm: 'new' is not a value of tuning"),
    "a tuning of an engine": (of_spec(tuning="new"), "'new' is not a value of tuning @ $.components['llm']"),
    "a setting of TensorRT": (
        of_settings(tensorrt={"builder_config": {"builder_optimization_level": 9}}),
        "builder_optimization_level is 9",
    ),
    "a size": (of_files("a", bytes=-1), "-1 is not a size in bytes"),
    "a huge size": (of_files("a", bytes=2**63), "a number is out of range"),
    "a digest": (of_files("a", sha256="0" * 63), DIGEST),
    "a name outside": (of_files("../a"), "not a path inside the tree"),
    "a name of another form": (of_files("llm//a"), "is not a file of a tree"),
    "the manifest itself": (of_files("ditto.json"), "is not a file of a tree"),
    "a checkpoint": (
        lambda manifest: evolve(manifest, checkpoint=Checkpoint(directory="x", identity="new")),
        DIGEST,
    ),
    "a vocabulary": (lambda manifest: evolve(manifest, tokens=evolve(manifest.tokens, vocab_size=0)), "vocab_size"),
    "an end token": (lambda manifest: evolve(manifest, tokens=evolve(manifest.tokens, end=[2**31])), "tokens.end"),
    "an image token": (lambda manifest: evolve(manifest, tokens=evolve(manifest.tokens, image=-1)), "tokens.image"),
    "a stage": (lambda manifest: evolve(manifest, stages=[{"name": "a"}]), "of a stage @ $.stages[0]"),
    "a time": (
        lambda manifest: evolve(manifest, stages=[{"name": "a", "detail": "", "seconds": -1.0, "peak_bytes": 1}]),
        "the duration of a stage is negative",
    ),
}


def test_a_tree_that_was_built_has_no_fault(llava_tree, llama_tree):
    assert [*faults(llava_tree.manifest), *faults(llama_tree.manifest)] == []


@pytest.mark.parametrize("name", CHANGES)
def test_a_fault_is_named(name, llava_tree):
    change, message = CHANGES[name]
    found = list(faults(change(llava_tree.manifest)))
    assert any(message in fault for fault in found), found
