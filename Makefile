# make demo   a real clip through the bundled model: overlay video and a picture in demo/
# make test   every test that this machine can run
# make lint   ruff and mypy
# make bench  the bundled model on every installed library, against PyTorch
# make models the bundled model again, from the published weights

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint bench models clean

demo: $(VENV)/.runtime
	$(BIN)/salstream demo "$$($(BIN)/python tests/clips.py bikes.mp4)" -o demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev
	$(BIN)/salstream bench unisal-dhf1k --against torch \
		--checkpoint "$$($(BIN)/salstream weights pull unisal)" \
		--source "$$($(BIN)/python tests/clips.py bikes.mp4)"

models: $(VENV)/.dev
	$(BIN)/salstream weights pull unisal
	$(BIN)/salstream export unisal --model unisal --domain dhf1k \
		--frames "$$($(BIN)/python tests/clips.py bikes.mp4)" \
		-o runtime/salstream/runtime/models/unisal-dhf1k.onnx

$(VENV)/.runtime: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e '.[cpu]'
	touch $@

# torch comes first and by its exact version: see constraints.txt.
$(VENV)/.dev: $(VENV)/.runtime
	$(PIP) torch==2.13.0
	$(PIP) -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .cache demo build dist
