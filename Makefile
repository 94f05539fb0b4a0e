# The two commands: `make demo` shows the product, `make test` proves it. Both set up everything they need in .venv.
# CONTRIBUTING.md explains the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes

.PHONY: demo test test-hardware lint bench fuzz docs lock lock-vm newer-qemu examples clean help

help: ## Show this list.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.examples ## Deploy a workload with a secret to an emulated machine; see a tampered one refused.
	@$(BIN)/python tools/demo.py

test: $(VENV)/.dev newer-qemu ## Run every test.
	@$(BIN)/python -m pytest -n auto --dist loadgroup $(PYTEST_ARGS)

test-hardware: $(VENV)/.dev ## On a machine with a TEE: TEE=snp, tdx, sev, sev-es, pef or vm-tpm.
	@$(BIN)/python -m pytest tests/hardware --tee=$(or $(TEE),$(error say which: make test-hardware TEE=snp)) $(PYTEST_ARGS)

newer-qemu: $(VENV)/.dev ## Unpack a QEMU for tests into build/qemu that knows SNP, TDX and PEF.
	@$(BIN)/python -m tools.newer_qemu || echo "tests of QEMU's options for SNP, TDX and PEF are skipped" >&2

lint: $(VENV)/.dev ## Check style, types and the trust zones.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(VENV)/.dev ## Measure, as ratios against named peers in the same run.
	@$(BIN)/python -m bench

fuzz: $(VENV)/.dev ## Fuzz every parser for FUZZ_SECONDS each.
	@$(BIN)/python -m fuzz --seconds $${FUZZ_SECONDS:-20}

examples: $(VENV)/.examples ## Build all example workloads into examples/build.
	@$(BIN)/python -m examples.build

docs: $(VENV)/.dev ## Regenerate the reference pages from the code.
	@$(BIN)/python tools/reference.py

lock: $(VENV)/.dev ## Resolve the dependencies anew and write the locks.
	@cd requirements && for name in keep run examples dev; do \
		../$(BIN)/uv pip compile --quiet --universal --upgrade --python-version 3.11 --generate-hashes --no-header \
			--annotation-style line $$name.in -o $$name.txt $$([ $$name = keep ] || echo -c keep.txt); \
	done

lock-vm: $(VENV)/.dev ## Take the newest Debian packages into the lock of the VM image.
	@$(BIN)/python -m tools.lock_vm

clean: ## Remove everything that is not source.
	rm -rf $(VENV) build dist examples/build .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	@sh tools/bootstrap.sh "$(PYTHON)" "$(VENV)"

$(VENV)/.run: requirements/run.txt pyproject.toml emulator/pyproject.toml | $(VENV)/bin/python
	@echo "installing the locked dependencies into $(VENV)" >&2
	@$(PIP) -r requirements/run.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . -e ./emulator
	@touch $@

$(VENV)/.examples: requirements/examples.txt $(VENV)/.run
	@echo "installing the compilers of the examples into $(VENV)" >&2
	@$(PIP) -r requirements/examples.txt
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.examples
	@echo "installing the development tools into $(VENV)" >&2
	@$(PIP) -r requirements/dev.txt
	@touch $@
