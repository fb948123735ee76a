# Every target makes its own virtual environment. The plain commands are in README.md.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check

.PHONY: demo test test-slow check bench soak clean

demo: $(VENV)/run.stamp
	$(BIN)/python ab_iou.py --sample twins --checkpoint checkpoints/fusion_tiny_fine.safetensors

test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest

test-slow: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -m slow

check: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest

bench: $(VENV)/dev.stamp
	$(BIN)/python benchmarks/speed.py

soak: $(VENV)/dev.stamp
	$(BIN)/python benchmarks/soak.py
	$(BIN)/python benchmarks/soak.py --arm 3am

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: requirements.txt | $(VENV)/bin/python
	$(PIP) "torch>=2.5.1" "torchvision>=0.20.1" setuptools wheel
	SAM2_BUILD_CUDA=0 $(PIP) --no-build-isolation -r requirements.txt
	touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp requirements-train.txt requirements-data.txt requirements-dev.txt
	$(PIP) -r requirements-train.txt -r requirements-data.txt -r requirements-dev.txt
	$(PIP) --no-deps vos-benchmark==0.1.0
	touch $@
