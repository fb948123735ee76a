# Every target makes its own virtual environment. The plain commands are in README.md.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Exact versions of everything but torch, whose build depends on the machine: those CI last used.
PIP := $(BIN)/pip install --disable-pip-version-check --constraint constraints.txt
TORCH := "torch>=2.6" "torchvision>=0.21"
# Builds without CUDA, a tenth of the size; taken where there is no GPU and this index answers.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu

.PHONY: demo test test-slow check bench soak train-gpu constraints clean

demo: $(VENV)/run.stamp
	$(BIN)/python ab_iou.py --sample twins

# Everything but the slow tests; on all cores. CI runs `make check`, which ends with this.
test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest

test-slow: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -m slow

check: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest tests/test_architecture.py -n 0
	$(MAKE) test

bench: $(VENV)/dev.stamp
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/memories.py

soak: $(VENV)/dev.stamp
	$(BIN)/python benchmarks/soak.py
	$(BIN)/python benchmarks/soak.py --arm 3am

# The second generation of tiny models, on a machine with a GPU, in pieces of MINUTES; repeat it until
# it ends with exit code 0 (docs/training.md).
MINUTES ?= 9
train-gpu: $(VENV)/dev.stamp
	$(BIN)/python -m geometry_fusion.training.chain backbones --minutes $(MINUTES) --out outputs/chain $(SETTINGS)
	$(BIN)/python -m geometry_fusion.training.chain fusion --minutes $(MINUTES) --out outputs/chain $(SETTINGS)

# After upgrading by hand and `make check`: writes the versions in use to constraints.txt.
constraints: $(VENV)/dev.stamp
	$(BIN)/pip freeze --exclude-editable | $(BIN)/python .ci/constraints.py > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# Whether an index offers torch: exit code 0 if its page names a wheel.
define PROBE
import sys, urllib.request
try:
    page = urllib.request.urlopen(sys.argv[1], timeout=10).read()
except (OSError, ValueError):
    page = b""
sys.exit(b".whl" not in page)
endef
export PROBE

$(VENV)/run.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	if ! command -v nvidia-smi && $(BIN)/python -c "$$PROBE" $(TORCH_CPU_INDEX)/torch/; then \
		$(PIP) --index-url $(TORCH_CPU_INDEX) $(TORCH); \
	else \
		$(PIP) $(TORCH); \
	fi
	$(PIP) setuptools wheel hatchling editables
	SAM2_BUILD_CUDA=0 $(PIP) --no-build-isolation -e .
	touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp
	$(PIP) --no-build-isolation -e ".[dev]"
	$(PIP) --no-deps vos-benchmark==0.1.0
	touch $@
