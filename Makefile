# Two commands do everything on a fresh machine with Python 3.11+: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c deploy/constraints.txt
WORKERS ?= 2
DATA ?= $(or $(CONSERVATOR_DATA),../shared/data)
NEED_DATA := bench_deconvolution.py bench_gan.py bench_motion.py

.PHONY: demo test lint types layers bench install clean

demo: $(VENV)/.installed-demo
	$(BIN)/python -P -m pipelines.demo --folder demo

test: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-test
	$(BIN)/mypy

layers: $(VENV)/.installed-test
	$(BIN)/python -m pytest -q tests/test_layers.py

bench: $(VENV)/.installed-test
	@missed=; \
	run() { echo "== $$*"; $(BIN)/python "tests/benchmarks/$$@" || missed="$$missed $$1"; }; \
	for script in $(filter-out $(NEED_DATA),$(notdir $(wildcard tests/benchmarks/bench_*.py))); do run $$script; done; \
	run bench_deconvolution.py --data $(DATA)/BSD100 $(DATA)/Set14 --model DCNN=dcnn-disk7 ODCNN=odcnn-disk7; \
	run bench_gan.py models/zoo/dcgan-faces.onnx $(DATA)/CelebA10k; \
	run bench_motion.py --model models/zoo/motion-patches.onnx --data $(DATA)/BSD100 --calibration $(DATA)/T91; \
	if [ -n "$$missed" ]; then echo "missed a bar or failed:$$missed"; exit 1; fi

install: $(VENV)/.installed-test

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-demo: pyproject.toml deploy/constraints.txt | $(VENV)/bin/python
	$(PIP) -e '.[demo]'
	touch $@

$(VENV)/.installed-test: pyproject.toml deploy/constraints.txt | $(VENV)/bin/python
	$(PIP) 'torch' -e '.[demo,train,s3,test]'
	touch $@ $(VENV)/.installed-demo

clean:
	rm -rf demo build *.egg-info
