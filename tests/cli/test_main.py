"""Commands: results on stdout, everything else on stderr; errors in up to three lines, with their exit codes."""

from __future__ import annotations

import gc
import io
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
from attrs import evolve

import ditto
from ditto.bindings import is_installed
from ditto.cli.main import main, parser, program
from ditto.cli.tree import next_command
from ditto.engine import EngineTree
from ditto.errors import DittoError
from ditto.units import size_text

DESCRIBE = "USER: <image>\nDescribe this image. ASSISTANT:"


@pytest.fixture(scope="module")
def tree(shapes_tree, tmp_path_factory):
    return shutil.copytree(shapes_tree.root, tmp_path_factory.mktemp("cli") / "a tree with späces")


def test_build_prints_the_tree(shapes_checkpoint, tmp_path, capsys):
    out = tmp_path / "tree"
    arguments = ["build", str(shapes_checkpoint), "-o", str(out), "--dtype", "float32", "--max-seq-len", "128"]
    assert main([*arguments, "--target", "tensorrt-rtx", "--compute-capability", "8.9", "12.0"]) == 0
    shown = capsys.readouterr()
    assert "llm/rank0.engine and 4 more" in shown.out and "rank0.part1.engine" not in shown.out
    assert "vision/model.engine and 4 more" in shown.out
    size = sum(path.stat().st_size for path in (out / "llm").glob("*.engine"))
    assert re.search(rf"rank0\.engine and 4 more +{re.escape(size_text(size))}$", shown.out, re.MULTILINE)
    assert "tensorrt_rtx" in shown.out
    assert "export LlmWrapper" in shown.err
    config = json.loads((out / "llm" / "config.json").read_text())
    assert config["pretrained_config"]["dtype"] == "float32"
    assert config["build_config"]["max_seq_len"] == 128


def test_build_prints_one_json_object(tree, shapes_checkpoint, capsys):
    """Built again, both engines are taken over."""
    assert main(["-q", "build", str(shapes_checkpoint), "-o", str(tree), "--batch", "2", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert {name: ranks[0][0] for name, ranks in record["engines"].items()} == {
        "vision": "model.engine",
        "llm": "rank0.engine",
    }
    assert {name: list(map(len, ranks)) for name, ranks in record["engines"].items()} == {"vision": [5], "llm": [5]}
    assert record["reused"] == ["vision", "llm"]
    assert record["peak_bytes"] > 10**7 and record["seconds"] > 0
    assert record["files"]["llm/rank0.engine"] == (tree / "llm" / "rank0.engine").stat().st_size
    assert record["next"].startswith("ditto run '")


def test_auto_says_which_target_it_takes(tmp_path, capsys):
    from tests.support.models import llama

    llama().save_pretrained(tmp_path / "model")
    main(["build", str(tmp_path / "model"), "-o", str(tmp_path / "tree")])
    assert "target tensorrt-rtx: the first whose library is installed" in capsys.readouterr().err


def test_run_prints_an_answer_per_prompt(tree, images, capsys):
    images = [part for path in images[2:4] for part in ("--image", str(path))]
    assert main(["run", str(tree), *images, "--prompt", DESCRIBE, DESCRIBE]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        "A large purple diamond at the top and a large purple circle at the bottom.",
        "A large green cross at the top.",
    ]
    assert len([line for line in shown.err.splitlines() if "reference session" in line]) == 1


def test_run_prints_one_json_object(tree, images, capsys):
    assert main(["-q", "run", str(tree), "--image", str(images[3]), "--prompt", DESCRIBE, "--json"]) == 0
    reply = json.loads(capsys.readouterr().out)
    assert set(reply) == {"answers", "tokens", "finish_reasons", "prompt_tokens", "session", "seconds"}
    assert reply["finish_reasons"] == ["stop"]
    assert reply["answers"] == ["A large green cross at the top."]
    assert reply["session"] == "reference"
    assert reply["tokens"][0][-1] == 2


def test_run_writes_plain_prompts_with_the_chat_template(tree, images, tmp_path, monkeypatch, capsys):
    """The same answers as to prompts in the model's own form; with -v, the command says what it passes."""
    wanted = ["A large green cross at the top."]
    run = ["run", str(tree), "--image", str(images[3])]
    assert main(["-v", *run, "--prompt", "Describe this image."]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == wanted
    assert f"prompt 1: written as {DESCRIBE!r}" in shown.err
    assert main(["-v", *run, "--prompt", DESCRIBE]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == wanted
    assert "prompt 1: raw, passed as it is" in shown.err
    (tmp_path / "prompt.txt").write_text("Describe this image.\n")
    assert main([*run, "--prompt-file", str(tmp_path / "prompt.txt")]) == 0
    assert capsys.readouterr().out.splitlines() == wanted
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"Describe this image.\n")))
    assert main([*run, "--prompt-file", "-"]) == 0
    assert capsys.readouterr().out.splitlines() == wanted


def test_run_streams_answers(tree, images, capsys):
    images = [part for path in images[2:4] for part in ("--image", str(path))]
    arguments = ["-q", "run", str(tree), *images, "--prompt", DESCRIBE, DESCRIBE, "--stream", "--stop", " and"]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.strip() for line in lines] == ["A large purple diamond at the top", "A large green cross at the top."]
    assert main([*arguments, "--json"]) == 0
    *told, reply = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert "".join(piece["piece"] for piece in told if piece["number"] == 1).strip() == reply["answers"][1]


def test_run_samples_with_a_seed(tree, images, capsys):
    arguments = ["-q", "run", str(tree), "--image", str(images[0]), "--prompt", DESCRIBE, "--max-new-tokens", "8"]
    made = set()
    for seed in ("1", "1", "2"):
        assert main([*arguments, "--temperature", "8", "--top-k", "50", "--top-p", "0.99", "--seed", seed]) == 0
        made.add(capsys.readouterr().out)
    assert len(made) == 2
    assert main([*arguments, "--top-p", "0"]) == 2
    assert "top-p 0.0 is out of range" in capsys.readouterr().err


def test_doctor_says_what_this_machine_can_do(capsys):
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("yes  compile for tensorrt-rtx") for line in lines)
    assert all(line.startswith(("yes", "no ")) for line in lines)


@pytest.mark.skipif(is_installed("tensorrt_llm"), reason="TensorRT-LLM is installed")
def test_doctor_compares_tensorrt_llm_where_it_is(capsys):
    assert main(["doctor", "--trtllm"]) == 0
    assert capsys.readouterr().out == "TensorRT-LLM is not installed here: there is nothing to compare\n"


@pytest.mark.skipif(is_installed("tensorrt_llm"), reason="TensorRT-LLM is installed")
def test_a_tree_for_tensorrt_llm_says_how_it_is_compiled(shapes_checkpoint, tmp_path, capsys):
    out = tmp_path / "tree"
    choices = ["--trtllm-version", "0.20", "--tokens-per-block", "64", "--no-gemm-plugin", "--no-paged-context"]
    assert main(["build", str(shapes_checkpoint), "-o", str(out), "--target", "trtllm", *choices]) == 0
    assert f"next: ditto compile {out}  # where the target's library is" in capsys.readouterr().out
    settings = EngineTree.open(out).manifest.settings["trtllm"]
    assert list(settings.values()) == ["0.20", 64, False, False]
    assert main(["compile", str(out)]) == 2
    assert "engines for trtllm cannot be compiled here" in capsys.readouterr().err


BAD_INPUT = {
    "an unknown version of TensorRT-LLM": (
        ["build", "{model}", "-o", "{out}", "--target", "trtllm", "--trtllm-version", "7"],
        2,
        "TensorRT-LLM 7 is not known",
    ),
    "a block of an odd size": (
        ["build", "{model}", "-o", "{out}", "--target", "trtllm", "--tokens-per-block", "24"],
        2,
        "tokens_per_block is 24",
    ),
    "a prompt table too small for the batch": (
        ["build", "{model}", "-o", "{out}", "--target", "trtllm", "--batch", "4", "--prompt-table", "64"],
        2,
        "a prompt table of 64 rows gives each of 4 requests 16; an image needs 64",
    ),
    "GPUs of two kinds": (
        ["build", "{model}", "-o", "{out}", "--target", "trtllm", "--compute-capability", "8.9", "9.0"],
        2,
        "for one kind of GPU",
    ),
    "compiling what is no tree": (["compile", "{empty}"], 2, "no engine tree here"),
    "a missing checkpoint directory": (["build", "./nowhere", "-o", "{out}"], 2, "no such checkpoint directory"),
    "a directory without weights": (["build", "{empty}", "-o", "{out}"], 2, "no config.json"),
    "an unsupported model type": (["build", "{vit}", "-o", "{out}"], 2, "'vit' is not supported"),
    "an unsupported dtype": (["build", "{model}", "-o", "{out}", "--dtype", "int4"], 2, "dtype int4 is not supported"),
    "an unsupported compute capability": (
        ["build", "{model}", "-o", "{out}", "--compute-capability", "5.0"],
        2,
        "does not build for compute capability 5.0",
    ),
    "a batch of none": (["build", "{model}", "-o", "{out}", "--batch", "0"], 2, "the batch limit is 0"),
    "an output that is a file": (["build", "{model}", "-o", "{file}"], 2, "the output is a file"),
    "an output below a file": (["build", "{model}", "-o", "{file}/tree"], 2, "cannot be written"),
    "an output with something else in it": (["build", "{model}", "-o", "{full}"], 2, "is not an engine tree"),
    "a tree that is not there": (["run", "{out}", "--prompt", "x"], 2, "there is no such directory"),
    "a directory that is no tree": (["run", "{empty}", "--prompt", "x"], 2, "no engine tree here"),
    "an image that is none": (["run", "{tree}", "--image", "{file}", "--prompt", DESCRIBE], 2, "is not an image"),
    "a missing image": (["run", "{tree}", "--image", "{out}", "--prompt", DESCRIBE], 2, "no such image"),
    "a prompt without a place": (["run", "{tree}", "--image", "{image}", "--raw", "--prompt", "x"], 2, "no <image>"),
    "a prompt file that is not there": (["run", "{tree}", "--prompt-file", "{out}"], 2, "No such file or directory"),
    "too long a prompt": (
        ["run", "{tree}", "--image", "{image}", "--prompt", DESCRIBE + " long" * 300],
        2,
        "the engine accepts 256",
    ),
    "too large a batch": (
        ["run", "{tree}", "--image", "{image}", "--prompt", *[DESCRIBE] * 3],
        2,
        "more than the engine's batch of 2",
    ),
    "a text option for a vision model only": (
        ["build", "{llama}", "-o", "{out}", "--vision-batch", "2"],
        2,
        "--vision-batch is for vision-language models",
    ),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_gets_one_clear_message_and_writes_nothing(name, tree, tmp_path, shapes_checkpoint, images, capsys):
    from tests.support.models import llama

    places = {key: tmp_path / key for key in ("out", "empty", "full", "file", "vit", "llama")}
    for key in ("empty", "full", "vit"):
        places[key].mkdir()
    places["file"].write_text("text")
    (places["full"] / "thesis.tex").write_text("years")
    (places["vit"] / "config.json").write_text('{"model_type": "vit"}')
    if name.startswith("a text option"):
        llama().save_pretrained(places["llama"])
    capsys.readouterr()
    before = sorted(tmp_path.rglob("*"))
    places |= {"tree": tree, "model": shapes_checkpoint, "image": images[0]}
    arguments, code, message = BAD_INPUT[name]
    assert main(["-q", *(argument.format(**places) for argument in arguments)]) == code
    shown = capsys.readouterr()
    lines = [line for line in shown.err.splitlines() if line]
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert len(lines) <= 3
    assert all(line.startswith(("error: ", "   at: ", " hint: ")) for line in lines)
    assert shown.out == ""
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_output_is_refused(shapes_checkpoint, tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert main(["-q", "build", str(shapes_checkpoint), "-o", str(tmp_path / "tree")]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_session_without_a_gpu_is_refused(tree, images, capsys):
    assert main(["-q", "run", str(tree), "--session", "tensorrt", "--image", str(images[0]), "--prompt", "x"]) == 2
    first, hint = capsys.readouterr().err.splitlines()
    assert first.startswith(("error: torch", "error: there is no GPU"))
    assert "run with --session reference" in hint


USAGE = [[], ["build"], ["build", "x"], ["run", "x"], ["cook"], ["build", "x", "-o", "y", "--target", "onnx"]]


@pytest.mark.parametrize("arguments", USAGE)
def test_usage_errors_exit_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: ditto" in capsys.readouterr().err


def test_a_failure_of_ours_exits_with_1(monkeypatch, tree, capsys):
    import ditto.cli.run

    def fail(options):
        raise DittoError("it broke", remedy="mend it")

    monkeypatch.setattr(ditto.cli.run, "run", fail)
    options = parser().parse_args(["run", str(tree), "--prompt", "x"])
    assert options.run is fail
    assert main(["run", str(tree), "--prompt", "x"]) == 1
    assert capsys.readouterr().err.endswith("error: it broke\n hint: mend it\n")


HELP = ([], ["build"], ["run"], ["doctor"], ["bench"], ["plan"], ["verify"], ["compile"], ["chat"], ["serve"])


@pytest.mark.parametrize("command", HELP)
def test_help_is_as_recorded(command, golden, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    if sys.version_info[:2] != (3, 11):
        pytest.skip("argparse lays help out differently in each Python version")
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    assert capsys.readouterr().out == golden(name=" ".join(["ditto", *command]))


def test_the_module_is_a_program_whose_exit_code_is_that_of_the_command(tmp_path):
    command = [sys.executable, "-m", "ditto", "plan", str(tmp_path / "none")]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 2
    assert "there is no such checkpoint directory" in made.stderr


def test_the_program_seldom_searches_for_garbage(monkeypatch):
    before = gc.get_threshold()
    try:
        monkeypatch.setattr(sys, "argv", ["ditto", "doctor"])
        with pytest.raises(SystemExit, match="0"):
            program()
        assert gc.get_threshold()[0] > 10 * before[0]
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


def test_a_reader_that_has_seen_enough_ends_the_command(tree):
    command = f"{sys.executable} -m ditto -q inspect '{tree}' | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] in ("0", "141")  # it may have printed all before


def test_output_that_nobody_reads_is_no_failure(tree, monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as nobody:
        monkeypatch.setattr(sys, "stdout", nobody)
        assert main(["-q", "inspect", str(tree)]) == 141
        nobody.flush()  # as Python does at the end


def test_the_version_is_told_and_known(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"ditto {ditto.__version__}\n"
    assert re.fullmatch(r"\d+\.\d+\S*", ditto.__version__)


def test_a_quiet_build_is_silent(tree, shapes_checkpoint, capsys):
    assert main(["build", "-q", str(shapes_checkpoint), "-o", str(tree), "--batch", "2"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("arguments", [["-q", "doctor"], ["doctor", "-q"], ["doctor", "--quiet"]])
def test_quiet_may_come_before_the_command_and_after(arguments):
    assert parser().parse_args(arguments).quiet is True


@pytest.mark.parametrize("arguments", [["-v", "doctor"], ["doctor", "-v"], ["doctor", "--verbose"]])
def test_loudness_may_come_before_the_command_and_after(arguments):
    assert parser().parse_args(arguments).verbose == 1
    assert parser().parse_args(["-v", "doctor"]).quiet is False
    assert parser().parse_args(["doctor", "-vv"]).verbose == 2


@pytest.mark.parametrize(
    "command", ["build", "plan", "compile", "inspect", "run", "chat", "serve", "bench", "verify", "doctor"]
)
def test_every_command_may_be_told_to_be_quiet(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert "-q, --quiet" in capsys.readouterr().out


def test_compiling_a_compiled_tree_changes_nothing(tree, capsys):
    before = (tree / "ditto.json").read_bytes()
    assert main(["compile", str(tree)]) == 0
    assert "next: ditto run '" in capsys.readouterr().out
    assert (tree / "ditto.json").read_bytes() == before


@pytest.mark.parametrize("engines", [[], [["rank0.engine"]]])
def test_what_is_next_can_be_pasted(engines, llava_tree, tmp_path):
    """A shell takes it apart as it is meant: one path, and no words that belong to no command."""
    out = tmp_path / "it's a tree; with $HOME & (brackets)"
    components = {name: evolve(part, engines=engines) for name, part in llava_tree.manifest.components.items()}
    hint = next_command(EngineTree(out, evolve(llava_tree.manifest, components=components)), out)
    script = f"ditto() {{ printf '%s\\n' \"$@\"; }}\n{hint}"
    told = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert told.stderr == ""
    assert told.stdout.splitlines()[1] == str(out)
    parser().parse_args(told.stdout.splitlines())


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_figures_that_cannot_be_written_are_refused_before_anything_is_measured(tree, tmp_path, option, capsys):
    assert main(["-q", "bench", str(tree), option, str(tmp_path / "nowhere" / "file")]) == 2
    assert "there is no such directory to write to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench", "--repeats", "0"], "0 repeats of 128 new tokens are nothing to measure"),
        (["bench", "--new-tokens", "0"], "5 repeats of 0 new tokens are nothing to measure"),
        (["verify", "--prompt", "Who is it?"], "--prompt is asked about images, and there is none"),
        (["verify", "--max-new-tokens", "100000"], "that is more than the engine's"),
        (["verify", "--image", "{image}", "--prompt", "hi"], "prompt 1 has no <image> token"),
        (["verify", "--image", "{image}", "--prompt", "<image><image>"], "places for images in the prompts: 2"),
        (["run", "--prompt", "hi", "--temperature", "inf"], "temperature inf is out of range"),
    ],
)
def test_what_makes_no_sense_is_refused(tree, images, arguments, message, capsys):
    command, *options = (part.format(image=images[0]) for part in arguments)
    assert main(["-q", command, str(tree), *options]) == 2
    assert message in capsys.readouterr().err


def test_a_tree_for_tensorrt_llm_is_measured(packed_shapes_tree):
    """In a process of its own: here somebody else may have made the target's layers known."""
    root = str(packed_shapes_tree.root)
    command = [sys.executable, "-m", "ditto", "-q", "bench", root, "--context", "8", "--new-tokens", "2"]
    done = subprocess.run([*command, "--repeats", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "decode after 8 tokens" in done.stdout
