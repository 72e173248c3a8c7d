# One file drives everything; CI calls the same targets. `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOCKS := locks/dev.txt
REQUIRE_TOOLS ?=
ONLY ?=
COMPILE := uv pip compile -q --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header
JOBS ?= auto

.DEFAULT_GOAL := help
.PHONY: help demo test lint interop-tools system soak bench docs reference audit lock dist clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

$(STAMP): $(LOCKS) pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "missing: Python 3.11 ($(PYTHON)); install it, e.g. Debian package python3.11-venv"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "missing: the venv module of $(PYTHON); install e.g. Debian package python3.11-venv"; exit 1; }
	@command -v git >/dev/null || { echo "missing: git"; exit 1; }
	@PATH=$$PATH:/usr/sbin:/sbin command -v mkfs.ext4 >/dev/null || { echo "missing: mkfs.ext4; install e.g. Debian package e2fsprogs"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r $(LOCKS)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP) ## the main job: upstream, gateway, nodes (ONCE=1 ends; JSON=FILE writes figures; LAN=1 leaves loopback)
	$(BIN)/fieldrelay demo $(if $(ONCE),--once) $(if $(JSON),--json-file $(JSON)) $(if $(LAN),--lan)

test: $(STAMP) ## unit, contract, property and interop tests (REQUIRE_TOOLS=1: an absent tool fails)
	REQUIRE_TOOLS=$(REQUIRE_TOOLS) $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -m "not soak and not system" --cov --cov-report=term

interop-tools: $(STAMP) ## real hawkBit, wfx, RAUC's hawkBit client and tuspy for the interop tests, in build/interop (Maven, a JDK, Go, gcc, PyGObject)
	$(BIN)/python -m tests.interop.servers.install

lint: $(STAMP) ## ruff, mypy strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

system: $(STAMP) ## QEMU and the like
	REQUIRE_TOOLS=$(REQUIRE_TOOLS) $(BIN)/python -m pytest -m system --timeout 480 tests/system

soak: $(STAMP) ## the full counts of the acceptance lines (long)
	REQUIRE_TOOLS=1 $(BIN)/python -m pytest -m soak --timeout 7200 -s

bench: $(STAMP) ## side by side with the real peers, JSON in build/bench (ONLY=formats|node|planner|polling|relay|serving)
	$(BIN)/python -m tests.benchmarks.run $(if $(ONLY),--only $(ONLY))

docs: $(STAMP) ## the documentation, warnings are errors, in build/docs
	$(BIN)/sphinx-build -W --keep-going -q docs build/docs

reference: $(STAMP) ## write the drawn pages of docs/reference anew
	$(BIN)/python -m tests.docs.pages

audit: $(STAMP) ## known vulnerabilities of what is locked; fails where one cannot be asked for
	$(BIN)/pip-audit --strict --progress-spinner off --require-hashes --disable-pip -r locks/dev.txt

lock: ## resolve pyproject.toml again into locks/ (needs uv)
	$(COMPILE) --upgrade -o locks/node.txt pyproject.toml
	$(COMPILE) --upgrade -c locks/node.txt --extra gateway --extra publisher --extra dbus --extra devices --extra media --extra speed --extra test --extra docs -o locks/dev.txt pyproject.toml
	$(COMPILE) -c locks/dev.txt --extra gateway -o locks/gateway.txt pyproject.toml
	$(COMPILE) -c locks/dev.txt --extra media -o locks/media.txt pyproject.toml
	$(COMPILE) -c locks/dev.txt --extra publisher -o locks/publisher.txt pyproject.toml

dist: $(STAMP) ## the wheel, in dist/
	$(BIN)/python -m build --wheel --no-isolation

clean: ## forget what was built
	rm -rf build dist $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
