"""Files of a checkpoint that its tokenizer and its processor need."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ditto.errors import CheckpointError
from ditto.files import read_json

# Files of a checkpoint directory, other than weights, that running needs.
_FILES = (
    "added_tokens.json",
    "chat_template.*",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer*",
    "vocab.*",
    "*_tokenizer/*.*",  # further tokenizers, such as a Q-Former's
)


def copy_files(checkpoint: Path, directory: Path) -> None:
    """Copy the files, as far as there are any, into a new directory."""
    directory.mkdir()
    for pattern in _FILES:
        for file in checkpoint.glob(pattern):
            if file.is_file():
                copy = directory / file.relative_to(checkpoint)
                copy.parent.mkdir(exist_ok=True)
                shutil.copyfile(file, copy)


def image_settings(checkpoint: Path) -> dict[str, Any]:
    """Settings of the image processor, which one of two files holds; empty without one.

    Raises:
        CheckpointError: a file is damaged.
    """
    stated: dict[str, Any] = {}
    for name in ("preprocessor_config.json", "processor_config.json"):
        path = checkpoint / name
        if not path.is_file():
            continue
        try:
            data = read_json(path)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot read {name}: {error}", where=str(path), remedy="check the file") from error
        if isinstance(data, dict):
            own = data.get("image_processor")
            stated |= data | (own if isinstance(own, dict) else {})
    return stated
