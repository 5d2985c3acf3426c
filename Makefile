# The front door. `make demo` and `make test` are all a newcomer needs; both install what is missing.
SHELL := /bin/bash
JOBS  ?= $(shell nproc)
BUILD := build/release
RUN   := tools/setup.sh

.PHONY: demo demo-live demo-conv test build bench bench-demo bench-demo-conv bench-certify bench-local bench-train bench-serve bench-exchange bench-shrink bench-online stock-client sim soak test-chaos asan tsan fuzz format check clean help operators-table ready-models

help:            ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

demo: build      ## the main job on real images: train (first time), calibrate, decide, compare
	$(BUILD)/ganglion demo

demo-live: build ## four nodes on this machine, real images, each upper tier killed and brought back
	$(BUILD)/ganglion demo --live

demo-conv: build ## the demo with convolutional nets in region and global (trains a quarter of an hour, once)
	$(BUILD)/ganglion demo --conv --seed 7

test: build      ## every test
	cd $(BUILD) && ctest --output-on-failure -j $(JOBS)

build:           ## set up this machine if needed, configure, compile
	$(RUN) build
	cmake --preset release -Wno-dev
	cmake --build --preset release -j $(JOBS)

bench: bench-demo bench-certify bench-local bench-train bench-serve bench-shrink bench-online ## every goal table; figures in out/bench/*.json

bench-demo: build      ## ladder accuracy, certified share, and the ratios against everything in the cloud
	$(BUILD)/bench_demo
bench-demo-conv: build ## the same for the convolutional ladder (trains it first, if it must)
	$(BUILD)/bench_demo conv
bench-certify: build   ## 9,000 certifications against the exact loss of a real population, and three mutants
	$(BUILD)/bench_certify
bench-local: build     ## decide() against the bare runtime, paired in one process
	$(BUILD)/bench_local
bench-train: build     ## a training step against PyTorch, paired
	$(RUN) bench
	$(BUILD)/bench_train
	$(BUILD)/bench_exchange
	$(BUILD)/bench_sequence

bench-exchange: build  ## two processes against one, compressed traffic, a killed worker, a slow one
	$(BUILD)/bench_exchange
bench-shrink: build    ## distilled students, eight bits, pruned and slimmable nets on Fashion-MNIST
	$(BUILD)/bench_shrink

bench-serve: build     ## a node over the wire: against echoes, overload, reloads, dead parents, kills, memory
	$(RUN) bench-serve
	$(BUILD)/bench_serve
	$(BUILD)/bench_serve_life

bench-online: build    ## learning from streams: updates a second, loss against VW, predictions while learning
	test -x out/peers/bin/python || python3 -m venv out/peers || echo "skipped: no python3-venv"
	out/peers/bin/pip install -q vowpalwabbit || echo "vowpalwabbit could not be had"
	mkdir -p out/peers/node && npm install --silent --no-audit --no-fund --ignore-scripts --prefix out/peers/node \
	  hyparquet@1.31.5 hyparquet-compressors@1.1.2 vega-datasets@3.2.1 || echo "the flights could not be had"
	$(BUILD)/bench_online

stock-client: build    ## NVIDIA's tritonclient (from PyPI, in an environment of its own) against a node
	test -x out/peers/bin/python || python3 -m venv out/peers || { echo "skipped: no python3-venv"; exit 0; }
	out/peers/bin/pip install -q "tritonclient[http,grpc]" || echo "tritonclient could not be had"
	out/peers/bin/python bench/peers/stock_client.py

SEEDS ?= 20000
sim: build       ## the simulator over SEEDS seeds; the first that breaks an invariant is printed with its trace
	$(BUILD)/sim_seeds 1 $(SEEDS)

test-chaos: build ## demo-live again and again for CHAOS_ROUNDS rounds: kills under load, nothing lost
	for i in $$(seq $(or $(CHAOS_ROUNDS),5)); do $(BUILD)/ganglion demo --live || exit 1; done

soak: build      ## ten million requests; memory must stay flat
	$(BUILD)/bench_serve_life memory

asan:            ## every test under AddressSanitizer and UndefinedBehaviorSanitizer
	$(RUN) build
	cmake --preset asan -Wno-dev
	cmake --build --preset asan -j $(JOBS)
	cd build/asan && ctest --output-on-failure -j $(JOBS)

# ONNX Runtime is not instrumented: the atomics by which its threads agree are invisible, the malloc and memcpy that it
# calls are not, which looks like races between its own lines. These calls are left out; a race in our code is reported
# as ever, which the test race_bites watches.
TSAN_OPTIONS ?= ignore_noninstrumented_modules=1 suppressions=$(CURDIR)/tools/tsan.supp
tsan:            ## every test under ThreadSanitizer
	$(RUN) build
	cmake --preset tsan -Wno-dev
	cmake --build --preset tsan -j $(JOBS)
	cd build/tsan && TSAN_OPTIONS="$(TSAN_OPTIONS)" ctest --output-on-failure -j $(JOBS)

FUZZ_SECONDS ?= 60
fuzz: build      ## each parser of outside bytes under libFuzzer, FUZZ_SECONDS each
	$(RUN) fuzz
	cmake --preset fuzz -Wno-dev
	cmake --build --preset fuzz -j $(JOBS)
	tools/fuzz.sh build/fuzz $(FUZZ_SECONDS) $(BUILD)

format:          ## rewrite the sources in the project's style
	$(RUN) check
	git ls-files '*.h' '*.cc' '*.c' | xargs clang-format-14 -i

check:           ## style as a test, formatting, clang-tidy
	$(RUN) check
	tools/style.py .
	git ls-files '*.h' '*.cc' '*.c' | xargs clang-format-14 --dry-run --Werror
	cmake --preset release -Wno-dev
	cmake --build --preset release --target generated -j $(JOBS)
	tools/tidy.sh $(BUILD) $(JOBS)

operators-table: build ## docs/operators.md: operators, forms and their errors, from what the tests measure
	-$(BUILD)/gradient_test --gtest_brief=1 --gtest_output=json:out/operators.json
	tools/operators.py out/operators.json > out/operators.md
	mv out/operators.md docs/operators.md

ready-models:    ## models of others from npm into out/ready-models: gradient_test trains them
	tools/ready_models.sh

clean:           ## remove what was built (not the cache outside the tree)
	rm -rf build out
