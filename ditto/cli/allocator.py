"""Commands that compile in their own process begin it anew with jemalloc, where the system has it."""

from __future__ import annotations

import os
import sys

from ditto.allocator import with_jemalloc

COMPILING = ("build", "compile")


def take_jemalloc() -> None:
    """Begin this process anew if the command compiles and another allocator is to be had."""
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
    if command not in COMPILING:
        return
    environment = with_jemalloc(os.environ)
    if environment.get("LD_PRELOAD") != os.environ.get("LD_PRELOAD"):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
