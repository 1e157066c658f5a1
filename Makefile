# make demo: build the bundled LLaVA's engines and let them describe images.
# make test: linters, types, import layers, tests. make test-slow: many more cases. make docs: the documentation
# site. make dist: wheel and source distribution, tried in a new environment. All set up their own environment; nothing
# but Python and pip is needed.

SHELL := /bin/bash
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
OLD_VENV := .venv-transformers-4.51
DIST_VENV := build/venv-dist
DEMO := build/shapes-llava
EXAMPLE := examples/shapes_llava
# A process per core, with neighbouring tests, for what files build once; who has finished takes over from the other.
SPREAD := --numprocesses auto --dist worksteal
PROMPT := $$'USER: <image>\nDescribe this image. ASSISTANT:'

.PHONY: demo test test-slow test-old check docs dist clean
.DELETE_ON_ERROR:

# torch first and pinned: otherwise pip may bring gigabytes of another build of it.
$(VENV)/.demo: pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check '$(TORCH)'
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable '.[rtx,cli]'
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable '.[rtx,cli,serve,dev]'
	touch $@

# The transformers of TensorRT-LLM 0.19.
$(OLD_VENV)/.dev: pyproject.toml
	test -x $(OLD_VENV)/bin/python || $(PYTHON) -m venv $(OLD_VENV)
	$(OLD_VENV)/bin/pip install --quiet --disable-pip-version-check '$(TORCH)'
	$(OLD_VENV)/bin/pip install --quiet --disable-pip-version-check --editable '.[rtx,cli,serve,dev]' 'transformers==4.51.3'
	touch $@

demo: $(VENV)/.demo
	$(VENV)/bin/ditto build $(EXAMPLE)/checkpoint -o $(DEMO) --batch 4
	$(VENV)/bin/ditto run $(DEMO) $(foreach n,1 2 3 4,--image $(EXAMPLE)/pictures/$(n).png) --prompt $(foreach n,1 2 3 4,$(PROMPT))

check: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/basedpyright
	$(VENV)/bin/lint-imports

test: check
	$(VENV)/bin/python -m pytest -q $(SPREAD)

test-slow: $(VENV)/.dev
	$(VENV)/bin/python -m pytest -q $(SPREAD) -m slow

test-old: $(OLD_VENV)/.dev
	$(OLD_VENV)/bin/python -m pytest -q $(SPREAD)

# The documentation site, in build/site. Warnings are errors: a link that leads nowhere is one.
docs: $(VENV)/.demo
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet --strict

# Wheel and source distribution, in dist; the wheel has to work on its own.
dist: $(VENV)/.dev
	rm -rf dist $(DIST_VENV)
	$(VENV)/bin/python -m build --outdir dist . > /dev/null
	$(PYTHON) -m venv $(DIST_VENV)
	$(DIST_VENV)/bin/pip install --quiet --disable-pip-version-check '$(TORCH)'
	$(DIST_VENV)/bin/pip install --quiet --disable-pip-version-check "$$(ls dist/*.whl)[rtx]"
	cd $(DIST_VENV) && bin/ditto --version && bin/ditto doctor

clean:
	rm -rf build dist $(VENV) $(OLD_VENV)
