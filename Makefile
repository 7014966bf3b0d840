# `make demo` and `make test` set everything up in .venv by themselves; `make help` lists the rest.
#   make PYTHON=python3.12 ...      interpreter of a new environment (3.10 or newer)
#   make ROS_DISTRO=kilted ...      ROS 2 release of the wheels (jazzy, kilted)
#   make VENV=folder ...            another environment; a torch that it has is kept
#   make TORCH_BACKEND=cpu ...      build of torch: auto (by the driver of the GPU), cpu, cu128, ...; auto is the default
#   make LOCKED=1 ...               libraries exactly as requirements/ has them, each file checked by its hash
#   make test ARGS='-k turns'       further arguments of the command behind demo, test and colcon
.DEFAULT_GOAL := help
.PHONY: help setup demo live test lint format docs colcon colcon-build mini synth-tools clean distclean

VENV ?= .venv
ARGS ?=
export TORCH_INDEX TORCH_BACKEND

# An interpreter named on the command line wins, then that of the environment, then the machine's.
ifneq ($(origin PYTHON),command line)
PYTHON := $(or $(wildcard $(VENV)/bin/python),python3)
endif
# A ROS 2 that happens to be sourced neither chooses the wheels' release nor mixes with them.
ifneq ($(origin ROS_DISTRO),command line)
ROS_DISTRO :=
endif
unexport ROS_DISTRO AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH PYTHONPATH PYTHONHOME VIRTUAL_ENV
# Without compiled files every process, such as a graph's nodes, would compile its libraries anew: two to three times
# the time of a start.
unexport PYTHONDONTWRITEBYTECODE

SET_UP = $(PYTHON) scripts/set_up.py $(VENV) $(addprefix --distro ,$(ROS_DISTRO)) $(if $(LOCKED),--locked) --for
ACTIVATE = . $(abspath $(VENV))/setup.sh &&

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22
	@sed -n 's/^#   \(make .*\)/  \1/p' $(MAKEFILE_LIST)

setup:  ## the environment alone
	@$(SET_UP) run

demo:  ## the whole ROS graph on the sample conversation; results in out/demo/
	@$(SET_UP) run
	@$(ACTIVATE) timar demo $(ARGS)

live:  ## see the head live in the browser: the sample conversation, or your own voice
	@$(SET_UP) run
	@$(ACTIVATE) timar live $(ARGS)

test:  ## all tests
	@$(SET_UP) test
	@$(ACTIVATE) python -m pytest -n 2 --dist loadgroup $(ARGS)

lint:  ## ruff (rules and format) and mypy
	@$(SET_UP) lint
	@$(ACTIVATE) ruff check . && ruff format --check . && mypy

format:  ## let ruff put the sources into form
	@$(SET_UP) lint
	@$(ACTIVATE) ruff check --fix . ; ruff format .

docs:  ## the documentation site in build/docs/ (Python 3.11 or newer)
	@$(SET_UP) docs
	@$(ACTIVATE) python -m sphinx -q -W --keep-going -j auto -d build/doctrees -b html docs build/docs
	@echo "open build/docs/index.html"

# The same package as in a ROS 2 workspace, with the wheels in place of /opt/ros.
COLCON = build/colcon
colcon: colcon-build  ## colcon build and colcon test, with the wheels as underlay
	$(ACTIVATE) colcon --log-base $(COLCON)/log test --paths . --build-base $(COLCON)/build \
	  --install-base $(COLCON)/install --event-handlers console_direct+ --return-code-on-test-failure $(ARGS)
	@$(ACTIVATE) colcon --log-base $(COLCON)/log test-result --test-result-base $(COLCON)/build

# Links instead of copies: make colcon-build COLCON=build/colcon-links BUILD_ARGS=--symlink-install
colcon-build:
	@$(SET_UP) test --for colcon
	@mkdir -p $(COLCON)
	$(ACTIVATE) colcon --log-base $(COLCON)/log build --paths . --build-base $(COLCON)/build \
	  --install-base $(COLCON)/install --event-handlers console_direct- $(BUILD_ARGS) \
	  --cmake-args -DCMAKE_BUILD_TYPE=Release

synth-tools:  ## the speech synthesisers that `timar synth` uses (Debian, Ubuntu; as root)
	@set -e; missing=; for tool in espeak-ng flite; do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	if [ -z "$$missing" ]; then echo "espeak-ng and flite are installed"; exit 0; fi; \
	if ! command -v apt-get >/dev/null; then echo "install with this system's package manager:$$missing" >&2; exit 1; fi; \
	if [ "$$(id -u)" != 0 ]; then echo "not root: run 'sudo apt-get install$$missing'" >&2; exit 1; fi; \
	apt-get update -qq && apt-get install -qq -y --no-install-recommends $$missing >/dev/null && echo "installed:$$missing"

# The whole way in minutes: make mini MINI=out/mini MINI_DATA=out/synth MINI_MODEL=out/mini-model MINI_CONVERSATIONS=20 \
#   MINI_ARGS='--steps 4 --set speech.filterbank_steps=4'
MINI ?= runs/timar-mini
MINI_DATA ?= data/synth
MINI_MODEL ?= models/timar-mini
MINI_CONVERSATIONS ?= 320
# Must divide the batch (6 clips). Each process computes on one core.
MINI_PROCESSES ?= 2
MINI_ARGS ?=
mini: synth-tools  ## train the model that ships from nothing (an hour or two); goes on where it stopped
	@$(SET_UP) run
	@$(ACTIVATE) [ -e $(MINI_DATA).done ] || { rm -rf $(MINI_DATA) && mkdir -p $(dir $(MINI_DATA)) && \
	  timar synth $(MINI_DATA) --conversations $(MINI_CONVERSATIONS) --seed 1 && touch $(MINI_DATA).done; }
	@$(ACTIVATE) OMP_NUM_THREADS=1 torchrun --standalone --nproc_per_node $(MINI_PROCESSES) -m timar_ros.cli.main \
	  train config/train/timar_mini.yaml --data $(MINI_DATA) --folder $(MINI) --threads 1 \
	  --export $(MINI_MODEL) $$([ ! -d $(MINI) ] || echo --resume) $(MINI_ARGS)

clean:  ## remove what was built and written; the environment stays
	rm -rf build dist out install log *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find timar_ros test scripts launch -name __pycache__ -prune -exec rm -rf {} +

distclean: clean  ## remove the environment as well
	rm -rf $(VENV) $(VENV).lock
