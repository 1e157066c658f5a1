"""`ditto build`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ditto.cli.console import show_json
from ditto.configs import AUTO, TARGETS, TrtllmConfig
from ditto.configs.build import CHOICES, PRESETS

if TYPE_CHECKING:
    from ditto.builders import LlmBuilder
    from ditto.families.multimodal import MultimodalModel


# The later ones replace what follows from the earlier ones.
_LIMITS = (
    "max_images",
    "max_tiles",
    "max_image_size",
    "max_input_len",
    "opt_input_len",
    "max_seq_len",
    "max_num_tokens",
    "prompt_table",
    "vision_batch",
)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "build", help="build the engines of a model", description="Build the engines of a model."
    )
    parser.add_argument(
        "-o", "--output", metavar="OUT", required=True, type=Path, help="the directory to become the tree"
    )
    add_settings(parser)
    parser.add_argument("--force", action="store_true", help="build engines even if the tree there has the same")
    parser.add_argument(
        "--dump", type=Path, metavar="DIR", help="write the graph after every stage into a new directory"
    )
    parser.add_argument("--json", action="store_true", help="print one object: files, sizes, seconds, what was reused")
    parser.set_defaults(run=run)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the options that `ditto build` and `ditto plan` share."""
    parser.add_argument("model", metavar="MODEL", help="a checkpoint directory, a GGUF file or a hub id")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="requests per call, at most (default 1)")
    parser.add_argument("--target", choices=(AUTO, *TARGETS), default=AUTO, help="what to build for (default auto)")
    parser.add_argument(
        "--dtype",
        default="auto",
        help="auto, float32 (fp32), float16 (fp16) or bfloat16 (bf16); default: the model's own",
    )
    parser.add_argument(
        "--quantize",
        choices=("int4", "int8"),
        help="round the weights of the language model's linear layers to integers",
    )
    parser.add_argument(
        "--compute-capability",
        nargs="+",
        action="extend",
        default=[],
        metavar="CC",
        help="GPUs to build for, e.g. 8.9; none: portable",
    )
    parser.add_argument("--max-input-len", type=int, metavar="N", help="tokens of a prompt, images included")
    parser.add_argument(
        "--opt-input-len", type=int, metavar="N", help="tokens of a usual prompt, to be fast for; 0: none (specialized)"
    )
    parser.add_argument("--max-seq-len", type=int, metavar="N", help="tokens of a prompt and its answer")
    parser.add_argument(
        "--max-num-tokens", type=int, metavar="N", help="tokens per call over the batch (packed targets)"
    )
    parser.add_argument("--max-images", type=int, metavar="N", help="images of a request, at most (default 1)")
    parser.add_argument(
        "--max-tiles",
        type=int,
        metavar="N",
        help="tiles of an image, at most (default: the processor's setting)",
    )
    parser.add_argument(
        "--max-image-size",
        type=_height_and_width,
        metavar="HxW",
        help="pixels of an image, at most, for models of images in native size (default 1024x1024)",
    )
    parser.add_argument("--prompt-table", type=int, metavar="ROWS", help="rows of image features over the batch")
    parser.add_argument("--vision-batch", type=int, metavar="N", help="images per call of the vision engine")
    parser.add_argument(
        "--optimize",
        choices=tuple(PRESETS),
        default="portable",
        help="what for: a preset of the next four options (default portable)",
    )
    parser.add_argument(
        "--weights",
        choices=CHOICES["weights"],
        help="external: engines take large weights as inputs, bound from the checkpoint",
    )
    parser.add_argument(
        "--engines", choices=CHOICES["engines"], help="separate: an engine each for prefill and for decode"
    )
    parser.add_argument(
        "--profiles",
        choices=CHOICES["profiles"],
        help="specialized: static shapes for batch sizes and typical prompts",
    )
    parser.add_argument(
        "--tuning", metavar="CC", help="forms that are fast on a compute capability, e.g. 9.0; auto; none"
    )
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run Python code that comes with a text model's checkpoint"
    )
    parser.add_argument("--revision", metavar="REV", help="of a hub id")
    packed = parser.add_argument_group("target trtllm")
    packed.add_argument("--trtllm-version", metavar="V", help="of TensorRT-LLM, which compiles and runs the tree")
    packed.add_argument("--tokens-per-block", type=int, metavar="N", help="of the paged KV cache (default 32)")
    packed.add_argument("--no-gemm-plugin", action="store_true", help="matrix products by TensorRT's own layer")
    packed.add_argument("--no-paged-context", action="store_true", help="no KV reuse and no chunked context")


def run(options: argparse.Namespace) -> int:
    """Build the tree; print it and the next command to run."""
    from ditto.cli.tree import build_record, next_command, tree_text, unused_line
    from ditto.dumps import dumping
    from ditto.families.multimodal import MultimodalModel
    from ditto.units import size_text

    builder = configured(options)
    build = builder.build_all if isinstance(builder, MultimodalModel) else builder.build
    start = time.perf_counter()
    source = builder.llm.source if isinstance(builder, MultimodalModel) else builder.source
    with dumping(options.dump, {**source.places, "the new tree": options.output}):
        tree = build(options.output, force=options.force)
    record = build_record(tree, options.output, time.perf_counter() - start)
    if options.json:
        show_json(record)
    elif not options.quiet:
        print(tree_text(tree))
        if tree.manifest.unused:
            print(unused_line(tree.manifest.unused))
        print(f"{record['seconds']:.1f} s, peak {size_text(record['peak_bytes'])}{_reused(record['reused'])}")
        print(f"next: {next_command(tree, options.output)}")
    return 0


def _reused(names: list[str]) -> str:
    return f", reused from the old tree: {', '.join(names)}" if names else ""


def configured(options: argparse.Namespace) -> MultimodalModel | LlmBuilder:
    """Builders of the model, configured from the command line."""
    from ditto.families.registry import family_of

    builder: Any = family_of(options.model, options.revision, options.trust_remote_code).with_batch(options.batch)
    builder = builder.with_target(options.target).with_dtype(options.dtype)
    builder = builder.with_compute_capabilities(*options.compute_capability).with_optimize(options.optimize)
    builder = builder.with_trtllm(_trtllm(options)).with_quantization(options.quantize or "none")
    settings = ("weights", "engines", "profiles", "tuning")
    for name in (*settings, *_LIMITS):
        value = getattr(options, name)
        if value is not None:
            builder = _with(builder, name, value)
    return builder


def _trtllm(options: argparse.Namespace) -> TrtllmConfig:
    given = {"version": options.trtllm_version, "tokens_per_block": options.tokens_per_block}
    return TrtllmConfig(
        **{name: value for name, value in given.items() if value is not None},
        gemm_plugin=not options.no_gemm_plugin,
        use_paged_context_fmha=not options.no_paged_context,
    )


def _with(builder: Any, name: str, value: Any) -> Any:
    from ditto.errors import ConfigError

    method = getattr(builder, f"with_{name}", None)
    if method is None:
        kind = "models of images in native size" if name == "max_image_size" else "vision-language models"
        raise ConfigError(f"--{name.replace('_', '-')} is for {kind}", remedy="leave it out")
    return method(*value) if isinstance(value, tuple) else method(value)


def _height_and_width(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return int(height), int(width)
