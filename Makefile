# make demo: set up, train on the built-in data, evaluate, write pictures and curves to outputs/demo
# make test: set up, run the tests
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
SEED ?= 1

.PHONY: demo test lint clean

demo: $(VENV)/.ready
	$(BIN)/python -m tools.demo --output_dir outputs/demo --seed $(SEED)

test: $(VENV)/.ready-dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

$(VENV)/.ready: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -r requirements.txt
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready requirements-dev.txt
	$(BIN)/python -m pip install -q -r requirements-dev.txt
	@touch $@

lint: $(VENV)/.ready-dev
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

clean:
	rm -rf $(VENV) outputs .pytest_cache .ruff_cache
