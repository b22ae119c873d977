# The short way to everything; each target is one line of a script or of cmake.
# A fresh Debian 12 needs git and make only: what is missing is installed first.
BUILD := build/release
PROGRAMS := isoscan-server isoscan-admin isoscan-client isoscan-sandbox

# One job per core, but only as many as have 2 GB of memory each: that is what LibTorch's headers take.
JOBS ?= $(shell awk -v cores="$$(nproc)" '/^MemAvailable/ { fit = int($$2 / 2e6); \
	print fit < 1 ? 1 : (fit < cores ? fit : cores) }' /proc/meminfo)

.DEFAULT_GOAL := help
.PHONY: help packages configure build demo test test-all bench format check clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

packages:
	@deploy/dev/bootstrap

configure: packages
	@cmake --preset release --log-level=WARNING

build: configure ## Build the programs into build/release/bin, without tests
	@cmake --build $(BUILD) --parallel $(JOBS) --target $(PROGRAMS)

demo: build ## Three simulated hospitals train one model; ends with the path of the report
	@deploy/sandbox/demo $(BUILD)/bin demo

test: configure ## Build and run the tests, but for the slow ones
	@cmake --build $(BUILD) --parallel $(JOBS)
	@deploy/dev/run-tests $(BUILD)

test-all: configure ## Build and run all tests
	@cmake --build $(BUILD) --parallel $(JOBS)
	@deploy/dev/run-tests $(BUILD) --all

bench: packages ## Compare imaging, metrics and network with the Python environment PEERS=..., exchange with EXCHANGE_PEERS=...; lgg in ISOSCAN_DATA=...
	@deploy/dev/bootstrap libbenchmark-dev
	@cmake --preset release --log-level=WARNING -DISOSCAN_BENCHMARKS=ON
	@cmake --build $(BUILD) --parallel $(JOBS) --target imaging_bench sliding_window_bench training_bench \
		isoscan-server isoscan-admin exchange_site exchange_limit
	@for name in normalise mask n4 nyul white_stripe kde fcm metrics $(if $(ISOSCAN_DATA),pipeline); do \
		tests/benchmarks/beside $$name $(if $(PEERS),--peers $(PEERS)) || exit 1; done
	@tests/benchmarks/beside sliding_window --windows 64 $(if $(PEERS),--peers $(PEERS))
	@tests/benchmarks/beside train_step $(if $(PEERS),--peers $(PEERS))
	@for name in exchange tiny_rounds; do \
		tests/benchmarks/beside $$name $(if $(EXCHANGE_PEERS),--peers $(EXCHANGE_PEERS)) || exit 1; done

format: ## Format the C++ files
	@deploy/dev/bootstrap clang-format-14
	@deploy/dev/format

check: ## Check formatting, and who may include what
	@deploy/dev/bootstrap clang-format-14
	@deploy/dev/format --check
	@deploy/dev/layers

clean: ## Remove what was built, and the demonstration's output
	@rm -rf build demo
