# make setup · check · test · test-real · demo · demo-quick · bench · campaign · lock · pins · docs · pictures · wheel · gpu-e2e   (needs Python ≥ 3.10 and make)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PYTHONDONTWRITEBYTECODE :=  # a container may have it set: each of some hundred controllers would compile all modules
STACK ?= guide
HOSTS := tests/e2e tests/inventories tests/package tests/testbed  # files side by side: most of their time is spent waiting for hosts
# The tests without hosts, in three parts that take equally long; the third is what stands in none of these.
PART_1 := tests/facts tests/flash tests/network
PART_2 := tests/data tests/doctor tests/plan tests/job tests/training

.PHONY: setup check test hosts-ready test-1 test-2 test-3 test-real demo demo-quick bench campaign lock pins docs pictures wheel gpu-e2e gpu-e2e-kit clean

setup: $(VENV)/.done

$(VENV)/.done: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "qwen-rig needs Python 3.10 or newer: make PYTHON=python3.11 …"; exit 1; }
	@sh scripts/saying.sh "setup: makes $(VENV)" $(PYTHON) -m venv $(VENV) || { echo "no venv in $(PYTHON): apt-get install python3-venv"; exit 1; }
	@sh scripts/saying.sh "setup: installs the package and its tools" $(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@

check: setup
	$(BIN)/ruff check .
	$(BIN)/mypy qwen_rig inventories testbed benchmarks scripts gpu_e2e campaign
	$(BIN)/lint-imports --no-logo
	$(BIN)/shellcheck $$(git ls-files '*.sh')
	$(BIN)/python -m scripts.sizes
	$(BIN)/python -m scripts.words  # phrases that sentences do without
	$(BIN)/python -m pytest -q tests/test_programs.py tests/security/test_fixed_names.py  # no splice, no fixed name in /tmp

test: setup  # gevent, which the parts load, and xdist don't agree: so they are side by side as processes of their own
	@echo "test: the checks and the tests without hosts, three at a time; each is printed when it ends"
	@$(MAKE) --no-print-directory -j 3 $(if $(filter output-sync,$(.FEATURES)),-Otarget) check hosts-ready test-1 test-2 test-3
	$(BIN)/python -m pytest -m 'not real' -n 5 --dist loadfile --no-loadscope-reorder $(HOSTS)

hosts-ready: setup  # what hosts are made of, which the tests wait for; who can't have it is told by them
	-@$(BIN)/python -m testbed ready >/dev/null

test-1: setup
	$(BIN)/python -m pytest -m 'not real' $(PART_1)

test-2: setup
	$(BIN)/python -m pytest -m 'not real' $(PART_2)

test-3: setup
	$(BIN)/python -m pytest -m 'not real' $(addprefix --ignore=,$(PART_1) $(PART_2) $(HOSTS))

test-real: setup
	$(BIN)/python -m pytest -m real -s

demo: setup
	@$(BIN)/python -m testbed.demo

demo-quick: setup
	@$(BIN)/python -m testbed.demo --quick

bench: setup
	@$(BIN)/python -m benchmarks.noop

SEED ?= 1
INPUTS ?= 1500
FAULTS ?= 0
MINUTES ?= 60

campaign: setup  # bad inputs, and with FAULTS=n (root on Linux) random faults on a host; SEED brings the same ones again
	@$(BIN)/python -m campaign --seed $(SEED) --inputs $(INPUTS) --faults $(FAULTS) --minutes $(MINUTES)

lock: setup
	@$(BIN)/python scripts/lock.py $(STACK)

pins: setup
	@$(BIN)/python scripts/pins.py

docs: setup
	@$(BIN)/python -m scripts.docs

pictures: setup
	@$(BIN)/python -m scripts.pictures

wheel: setup
	@$(BIN)/uv build --out-dir dist .  # the wheel out of the sdist, so that nothing that lies about here gets into it

gpu-e2e-kit: setup  # what a machine with a card and without a network needs, in .kit
	@$(BIN)/python -m gpu_e2e kit

gpu-e2e:  # on that machine; PARTS="ready apply": these alone
	@$(PYTHON) -m gpu_e2e run $(PARTS)

clean:
	rm -rf $(VENV) *.egg-info build dist
