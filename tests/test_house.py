"""The house is in order: mirrors, surface, light imports, rooms that keep to their language, files of readable size."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ditto
from ditto.families import registry

ROOT = Path(__file__).parent.parent
MODULES = sorted(path.relative_to(ROOT / "ditto") for path in (ROOT / "ditto").rglob("*.py"))
# What has no test file of its own: re-exports and entry points, tested through what they open.
UNMIRRORED = {
    Path("__main__.py"),
    Path("cli/bench.py"),
    Path("cli/build.py"),
    Path("cli/compiling.py"),
    Path("cli/console.py"),
    Path("cli/doctor.py"),
    Path("cli/first_token.py"),
    Path("cli/generation.py"),
    Path("cli/page.py"),
    Path("cli/run.py"),
    Path("cli/serve.py"),
    Path("cli/tree.py"),
}


# Families are rows of the table of tests/families/test_families.py.
FAMILY_MODULES = {place.partition(":")[0] for place in registry._OWN.values()}


@pytest.mark.parametrize("module", [path for path in MODULES if path.name != "__init__.py"], ids=str)
def test_every_module_has_its_test_file(module):
    mirror = ROOT / "tests" / module.parent / f"test_{module.name}"
    is_family = module.parent == Path("families") and module.stem in FAMILY_MODULES
    assert mirror.exists() or module in UNMIRRORED or is_family, f"{mirror} is missing"


def test_the_surface_is_complete_and_lazy():
    for name in ditto.__all__:
        assert getattr(ditto, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'ditto' has no attribute 'nothing'"):
        _ = ditto.nothing


def test_importing_ditto_loads_no_torch_and_says_nothing():
    heavy = "('torch', 'transformers', 'tensorrt_rtx')"
    code = f"import sys, ditto, ditto.cli.main; print([name for name in {heavy} if name in sys.modules])"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout.strip() == "[]"
    assert made.stderr == ""


# Prints what differs in a process after all of Ditto has been imported; what it imports changes things itself.
IMPORTS = """
import gc, os, signal, sys, threading, warnings
import loguru, torch, transformers, torch.export._trace, torch._dynamo, tensorrt_rtx
from torch.fx import proxy
from torch.fx.experimental import proxy_tensor
from transformers import AttentionInterface
def state():
    linear = torch.ops.aten.linear.default
    return {
        "garbage": (gc.get_threshold(), gc.isenabled(), gc.get_freeze_count()),
        "bytecode": (sys.dont_write_bytecode, sys.pycache_prefix),
        "threads": [thread.name for thread in threading.enumerate()],
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "environment": dict(os.environ),
        "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook, warnings.filters[:]),
        "limits": (sys.getrecursionlimit(), sys.getswitchinterval()),
        "torch": (
            torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads(),
            torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark, torch.cuda.is_initialized(),
            dict(linear.py_kernels), proxy_tensor._extract_tensor_metadata, proxy.CapturedTraceback,
        ),
        "attention": sorted(AttentionInterface().valid_keys()),
        "log": (list(loguru.logger._core.handlers), loguru.logger._core.activation_list),
    }
before = state()
import importlib
for name in sys.argv[1:]:
    importlib.import_module(name)
after = state()
before["log"] = (before["log"][0], [("ditto.", False)])
print({key: (before[key], after[key]) for key in before if before[key] != after[key]})
"""


def test_importing_ditto_changes_nothing_in_the_process():
    names = [".".join(("ditto", *path.with_suffix("").parts)) for path in MODULES if path != Path("__main__.py")]
    names = [name.removesuffix(".__init__") for name in names]
    made = subprocess.run([sys.executable, "-c", IMPORTS, *names], capture_output=True, text=True, check=False)
    assert (made.stdout, made.returncode) == ("{}\n", 0), made.stderr


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_files_hold_one_idea_in_at_most_400_lines(module):
    assert len((ROOT / "ditto" / module).read_text().splitlines()) <= 400


BACK_ROOMS = [path for path in MODULES if path.parts[0] in ("network", "engine", "reference")]


@pytest.mark.parametrize("module", BACK_ROOMS, ids=str)
def test_the_back_rooms_do_not_know_torch_fx(module):
    text = (ROOT / "ditto" / module).read_text()
    assert not re.search(r"torch\.fx|from torch import [^\n]*\bfx\b|torch\.export", text)


# Words that only TensorRT-LLM's own room may use; config.json's form (engine/config.py) names its keys.
TRTLLM_WORDS = re.compile(r"GPTAttention|\btensorrt_llm\b|host_max_attention_window|kv_cache_block_offsets")
ALLOWED = {Path("engine/config.py"), Path("bindings.py"), Path("targets/registry.py"), Path("cli/doctor.py")}


@pytest.mark.parametrize("module", [path for path in MODULES if path.parts[:2] != ("targets", "trtllm")], ids=str)
def test_only_one_room_speaks_of_tensorrt_llm(module):
    if module not in ALLOWED:
        assert not TRTLLM_WORDS.search((ROOT / "ditto" / module).read_text())


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_modules_and_public_names_are_documented(module):
    tree = ast.parse((ROOT / "ditto" / module).read_text())
    assert ast.get_docstring(tree) or module.name == "__init__.py", "the module has no docstring"
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"


DOCUMENTS = ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_between_documents_lead_somewhere(document):
    for target in re.findall(r"\]\((?!http)([^)#]+)", (ROOT / document).read_text()):
        assert ((ROOT / document).parent / target).exists(), f"{document} links to {target}"


def test_the_readme_names_commands_that_exist():
    text = (ROOT / "README.md").read_text()
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for command in re.findall(r"`make ([a-z-]+)`", text):
        assert command in targets


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_in_documents_are_understood(document):
    from ditto.cli.main import parser

    for line in re.findall(r"^ditto .*$", (ROOT / document).read_text(), re.MULTILINE):
        parser().parse_args(re.findall(r"'[^']*'|\"[^\"]*\"|\S+", line)[1:])


def test_nothing_depends_on_a_machine():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in files:
        path = ROOT / name
        if (
            name
            and path.suffix in (".py", ".md", ".toml", ".json", "")
            and path.is_file()
            and name != "tests/test_house.py"
        ):
            assert not re.search(r"/work/|/tmp/|\.\./shared", path.read_text(errors="ignore")), name


def _imported(path):
    """The names that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ("." * node.level + f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("room", ["tests", "benchmarks"])
def test_no_file_imports_a_test_file(room):
    """What tests share is in tests/support, so that each test file can be moved, split or run alone."""
    files = list((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        wrong = [name for name in _imported(path) if re.match(r"tests\.(?!support\.)|\.", f"{name}.")]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"
