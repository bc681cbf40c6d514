# The few commands of every day. One profile and one set of features in every call of cargo, so that nothing is
# compiled twice; CARGO_TARGET_DIR is respected.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export LODE_CACHE ?= $(HOME)/.cache/lodestream
# In CI a clone is new each time; what was compiled outlives it.
ifeq ($(CI),true)
export CARGO_TARGET_DIR ?= $(LODE_CACHE)/target
endif
TARGET := $(or $(CARGO_TARGET_DIR),target)
PROGRAMS := $(abspath $(TARGET))/debug
export MODULES_TARGET_DIR ?= $(abspath $(TARGET))/wasm
export LODE_MODULES ?= $(abspath $(TARGET))/modules
# The end-to-end tests wait more than they compute.
TEST_THREADS ?= 3

CARGO := cargo
ALL := --workspace --features lodestream/failpoints
SUITE := $(CARGO) test $(ALL)

.PHONY: help setup setup-build build modules fmt check-fmt lint unit test test-spark test-stack stack stack-down e2e demo bench bench-e2e deny

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1	/p' Makefile | expand -t 12

setup: ## install what is missing: packages, toolchain, the checkers' Python
	@scripts/setup.sh

setup-build:
	@scripts/setup.sh build

build: setup-build ## compile the programs
	$(CARGO) build $(ALL) --bins

modules: setup-build ## compile the transform modules to WebAssembly
	scripts/build-modules.sh $(LODE_MODULES)

fmt: ## format the code
	$(CARGO) fmt --all
	$(CARGO) fmt --all --manifest-path transforms/Cargo.toml

check-fmt:
	$(CARGO) fmt --all --check
	$(CARGO) fmt --all --check --manifest-path transforms/Cargo.toml

lint:
	$(CARGO) clippy $(ALL) --all-targets -- -D warnings

unit:
	$(SUITE) --lib
	$(SUITE) --doc
	$(CARGO) test --manifest-path transforms/Cargo.toml --target-dir $(MODULES_TARGET_DIR)

test: setup check-fmt modules ## everything that must pass: format, lints, unit and end-to-end tests
	$(CARGO) build $(ALL) --bins --tests
	@$(MAKE) lint unit
	$(SUITE) --test it -- --test-threads $(TEST_THREADS)

e2e: setup modules ## end-to-end tests alone; ONLY=name picks
	$(CARGO) build $(ALL) --bins --tests
	$(SUITE) --test it -- --test-threads $(TEST_THREADS) $(ONLY)

test-spark: build ## Spark with Delta reads what lode wrote
	scripts/test-spark.sh $(PROGRAMS)/lode

test-stack: build ## two thousand transactions through a real MySQL, Debezium, Kafka and Azurite, with faults
	scripts/stack/install.sh
	$(LODE_CACHE)/stack/venv/bin/python tests/stack/lakes.py $(PROGRAMS)/lode
	$(LODE_CACHE)/stack/venv/bin/python tests/stack/run.py $(PROGRAMS)/lode

stack: build ## the online store for real: MySQL, Debezium, Kafka and Azurite, STACK_RATE transactions a second
	scripts/stack/install.sh
	scripts/stack/up.sh
	scripts/stack/register.sh $(PROGRAMS)/lode
	scripts/stack/up.sh shop

stack-down: ## end what `make stack` started; STACK_WIPE=1: its data goes too
	scripts/stack/down.sh $(if $(STACK_WIPE),--wipe)

demo: build modules ## the online store: simulator, broker, pipeline and lake; DEMO_SECONDS=30 checks itself and ends
	@scripts/demo.sh $(PROGRAMS) $(LODE_MODULES) $(abspath $(TARGET))/demo

bench: setup-build ## speed, in the release profile (the first build takes long)
	@scripts/bench.sh $(abspath $(TARGET))/bench

bench-e2e: setup-build ## from a real broker into Bronze and Silver: speed, memory, where the time goes, freshness
	$(CARGO) build --release -p lodestream --bins
	scripts/bench-e2e.sh $(abspath $(TARGET))/release/lode $(abspath $(TARGET))/bench-e2e

deny: setup-build ## licences, advisories and sources of the dependencies; installs cargo-deny where it is missing
	@scripts/deny.sh
