"""`ditto doctor`."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command's parser."""
    text = "Check what this machine can build, compile and run, with the reason for anything it cannot."
    parser = commands.add_parser("doctor", help="say what this machine can do", description=text)
    parser.add_argument(
        "--trtllm", action="store_true", help="compare the installed TensorRT-LLM's plugins with Ditto's tables"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print abilities, or differences between TensorRT-LLM and Ditto's tables."""
    if options.trtllm:
        return _trtllm()
    for ability, able, reason in abilities():
        print(f"{'yes' if able else 'no ':<4} {ability:<34} {reason}")
    return 0


def _trtllm() -> int:
    from ditto.bindings import load_plugins, plugins_version
    from ditto.targets.trtllm.doctor import differences
    from ditto.targets.trtllm.inferred import DEDUCTIONS

    installed = plugins_version()
    if installed is None:
        print("TensorRT-LLM is not installed here: there is nothing to compare")
        return 0
    found = differences(load_plugins(), installed)
    for line in found:
        print(line)
    if not found:
        print(f"the plugins of TensorRT-LLM {installed} are as Ditto's tables say")
    print("deduced, and for the eye (see TensorRT-LLM's sources of that version):")
    for deduction in DEDUCTIONS:
        print(f"  {deduction.fact}\n      check: {deduction.check}")
    return 1 if found else 0


def abilities() -> list[tuple[str, bool, str]]:
    """Abilities of this machine: (name, available, library or reason)."""
    from ditto.bindings import Library, load_native
    from ditto.engine import version_of
    from ditto.errors import MissingLibraryError
    from ditto.targets import target

    capture = f"torch {version_of('torch')}, transformers {version_of('transformers')}"
    found = [("capture and describe models", True, capture)]
    libraries: dict[str, Library] = {"tensorrt-rtx": "tensorrt_rtx", "tensorrt": "tensorrt"}
    for name, library in libraries.items():
        try:
            title, able = load_native(library).title, True
            if library == "tensorrt" and not _gpu():
                title, able = f"{title} compiles on a machine with a GPU only", False
        except MissingLibraryError as error:
            title, able = f"{error.cause} ({error.remedy})", False
        found.append((f"compile for {name}", able, title))
    missing = target("trtllm").cannot_compile
    found.append(("compile for trtllm", missing is None, missing or f"TensorRT-LLM {version_of('tensorrt_llm')}"))
    found.append(("run trees in PyTorch (reference)", True, "on the CPU"))
    gpu = _gpu()
    found.append(("GPU", bool(gpu), gpu or "no NVIDIA driver found"))
    return found


def _gpu() -> str:
    """Presence of the GPU driver, and the GPU's name if torch knows it.

    Empty without a GPU driver.
    """
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return "an NVIDIA driver; this torch is built without CUDA" if Path("/dev/nvidiactl").exists() else ""
