# The two commands of the README: `make demo` and `make test`. Both set up all they need in .venv.
PYTHON ?= python3
BIN := $(abspath .venv/bin)
VARIANT ?= classifier
DEMO := demo/digit-reader
RUN := runs/demo
VARIANTS = $(shell $(PYTHON) -c 'import json; print(*json.load(open("cookiecutter.json"))["variant"])')

# What does not name the model; the rest of templates/common is written against the classifier's.
ANYWHERE := templates/common/engine templates/common/tests/conftest.py

.PHONY: demo test chromium lint bench cuda attack docs clean

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: .venv/ready
	rm -rf $(DEMO)
	$(BIN)/cookiecutter . --no-input --output-dir demo project_name='Digit Reader' variant=$(VARIANT)
	cd $(DEMO) && $(BIN)/python -m pip install --quiet --editable '.[demo,dev]'
	cd $(DEMO) && $(BIN)/python prepare_data.py
	cd $(DEMO) && $(BIN)/python train.py --run_dir $(RUN)
	cd $(DEMO) && $(BIN)/python test.py --path_to_checkpoint $(RUN)/checkpoints/best.pt
	@echo
	@echo "The project is in $(DEMO): read its README.md, then train.py."
	@echo "Curves and pictures:  $(BIN)/tensorboard --logdir $(DEMO)/runs"
	@echo "Pictures of the test: $(DEMO)/$(RUN)/test"

# Two tests at a time, and two threads in each, would be in each other's way.
test: export OMP_NUM_THREADS = 1
test: lint chromium
	$(BIN)/python -m pytest -m 'not slow' --numprocesses 2
	$(BIN)/python -m pytest -m slow --numprocesses 2 --dist worksteal

# The tests that open pages in a browser need Debian's; without it they are skipped.
chromium:
	@if command -v chromium > /dev/null && command -v chromedriver > /dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null && apt-get update -qq \
		&& DEBIAN_FRONTEND=noninteractive apt-get install -qq -y chromium chromium-driver; then :; \
	else echo "To test pages in a browser, install chromium and chromedriver."; fi

lint: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python -m mypy hooks/*.py tests benchmarks docs
	@test -n "$(VARIANTS)" || { echo "$(PYTHON) lists no variants: name one that runs by PYTHON="; exit 2; }
	for variant in $(VARIANTS); do \
		common=templates/common; \
		test $$variant = classifier || common="$(ANYWHERE)"; \
		MYPYPATH=templates/common:templates/$$variant $(BIN)/python -m mypy \
			$$common templates/$$variant || exit 1; done

bench: .venv/ready
	$(BIN)/python benchmarks/training_loop.py

cuda: .venv/ready
	$(BIN)/python benchmarks/on_cuda.py

attack: .venv/ready
	$(BIN)/python tests/faults/attack.py

docs: .venv/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "Open build/site/index.html."

clean:
	rm -rf .venv demo build *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
