# A fresh machine needs Python 3.10 or newer (3.11 is tested) and make; ffmpeg comes with the packages.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
INSTALLED_FROM := pyproject.toml constraints.txt
# numba compiles the renderer in the first film and keeps that.
FIRST_FILM := $(BIN)/python inference.py --image examples/grace_hopper.jpg --audio examples/austen_0870.wav --duration 2 \
	--output $(VENV)/first.mp4 --quiet > /dev/null

# Packages with an environment of their own: their frameworks want other versions than constraints.txt. Pinned for Python 3.11.
INTEGRATIONS ?= integrations/pipecat-kdtalker integrations/livekit-plugins-kdtalker

.PHONY: demo app test abuse browser integrations lint bench bench-live docs soak

demo: $(VENV)/.run
	mkdir -p results
	$(BIN)/python inference.py --image examples/grace_hopper.jpg --audio examples/austen_0870.wav --output results/demo.mp4

app: $(VENV)/.app
	$(BIN)/python app.py

test: lint browser integrations
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

abuse: $(VENV)/.dev
	PYTHONPATH=tests $(BIN)/python -m abuse

soak: $(VENV)/.dev
	$(BIN)/python -m pytest -m soak

browser: $(VENV)/.dev
	tests/browser.sh $(BIN)/python

integrations: $(VENV)/.dev $(INTEGRATIONS:%=%/.venv/.dev)
	for folder in $(INTEGRATIONS); do (cd $$folder && .venv/bin/python -m mypy && .venv/bin/python -m pytest) || exit 1; done

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy --strict kdtalker train app.py app_widgets.py

bench: $(VENV)/.dev
	$(BIN)/python -m train.bench

bench-live: browser
	$(BIN)/python -m train.bench live

docs: $(VENV)/.docs  # README.md is the site's first page
	rm -rf build/docs && mkdir -p build && cp -r docs build/docs
	sed 's|(docs/|(|g' README.md > build/docs/index.md
	sed 's|(docs/|(|g' CONTRIBUTING.md > build/docs/CONTRIBUTING.md
	for page in build/docs/*.md; do sed 's|(../CONTRIBUTING|(CONTRIBUTING|g' "$$page" > build/page && mv build/page "$$page"; done
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

$(VENV)/.run: $(INSTALLED_FROM) | $(BIN)/python
	$(INSTALL) -e .
	$(FIRST_FILM)
	touch $@

$(VENV)/.app: $(INSTALLED_FROM) | $(BIN)/python
	$(INSTALL) -e '.[app,tts]'
	$(FIRST_FILM)
	touch $@ $(VENV)/.run

$(VENV)/.dev: $(INSTALLED_FROM) | $(BIN)/python
	$(INSTALL) -e '.[app,dev,train,tts,webrtc]'
	$(FIRST_FILM)
	touch $@ $(VENV)/.run $(VENV)/.app

integrations/%/.venv/.dev: integrations/%/pyproject.toml integrations/%/constraints.txt
	$(PYTHON) -m venv integrations/$*/.venv
	cd integrations/$* && .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps \
		-r constraints.txt
	cd integrations/$* && .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--no-build-isolation -e ../.. -e .
	touch $@

$(VENV)/.docs: $(INSTALLED_FROM) | $(BIN)/python
	$(INSTALL) -e '.[docs]'
	touch $@ $(VENV)/.run

$(BIN)/python:
	@echo "installing into $(VENV): about 2 GB, which takes a few minutes without a word"
	$(PYTHON) -m venv $(VENV)
