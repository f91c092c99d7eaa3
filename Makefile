# The commands a newcomer needs; each installs what it lacks into .venv first.
PYTHON ?= python3
BIN := .venv/bin
VARIANT ?= cpu
PROFILE ?= cpu
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
REVISION = $(shell git rev-parse HEAD)

.PHONY: run test check bench evaluate bench-train fuzz soak licences sbom demo up image image-check \
	lock clean

run: .venv/run  ## Start the service on http://127.0.0.1:8000, for this machine alone and without keys
	FACEID_AUTH__DISABLED=true $(BIN)/faceid serve

test: .venv/dev  ## Run every test
	$(BIN)/python -m pytest -n 3 --dist worksteal -m "not alone"
	$(BIN)/python -m pytest -m alone

check: .venv/dev  ## Formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/dev  ## Measure speed and accuracy against their limits (needs wrk; LFW if at hand)
	$(BIN)/python -m tests.benchmarks.bench_identify
	$(BIN)/python -m tests.benchmarks.bench_store
	$(BIN)/python -m tests.benchmarks.bench_transfer
	$(BIN)/python -m tests.benchmarks.bench_decision
	$(BIN)/python -m tests.benchmarks.bench_start
	$(BIN)/python -m tests.benchmarks.bench_security
	$(BIN)/python -m tests.benchmarks.bench_lfw
	$(BIN)/python -m tests.benchmarks.bench_service

evaluate: .venv/dev  ## Evaluate a service of its own on LFW, into evaluation/ (ten minutes)
	$(BIN)/python -m tests.benchmarks.bench_service

bench-train: .venv/dev  ## Measure the training loop against bare forward and backward
	$(BIN)/python -m tests.benchmarks.bench_train

fuzz: .venv/dev  ## Try the service with made-up requests and mutated images, 5 minutes
	$(BIN)/python -m tests.abuse.schema
	$(BIN)/python -m tests.abuse.images

soak: .venv/dev  ## Wear, overload, kill, starve and stop the service, 40 minutes
	$(BIN)/python -m tests.abuse.soak
	$(BIN)/python -m tests.abuse.overload
	$(BIN)/python -m tests.abuse.crash
	$(BIN)/python -m tests.abuse.disks
	$(BIN)/python -m tests.abuse.outage
	$(BIN)/python -m tests.abuse.shutdown

licences: .venv/dev  ## What the service depends on and under which licences
	@$(BIN)/python -m tests.dependencies licences

sbom: .venv/dev  ## The same as a CycloneDX document, on standard output
	@$(BIN)/python -m tests.dependencies sbom

demo: .venv/run  ## Enrol two people and recognise them in a group photo, without a server
	@set -e; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	mkdir -p "$$folder/people/grace-hopper" "$$folder/people/eileen-collins"; \
	cp tests/photos/grace_hopper.jpg "$$folder/people/grace-hopper"; \
	cp tests/photos/astronaut.png "$$folder/people/eileen-collins"; \
	export FACEID_STORE__PATH="$$folder/store"; \
	$(BIN)/faceid enrol --local "$$folder/people"; \
	$(BIN)/faceid identify --local tests/photos/group.jpg

up:  ## Start the service, Qdrant, Prometheus and Grafana in containers (PROFILE=cpu or gpu)
	deploy/secrets.sh
	VERSION=$(VERSION) REVISION=$(REVISION) docker compose --profile $(PROFILE) up --build --detach --wait

image:  ## Build the image (VARIANT=cpu or cuda)
	docker build --build-arg VARIANT=$(VARIANT) --build-arg VERSION=$(VERSION) \
		--build-arg REVISION=$(REVISION) --tag faceid:$(VARIANT) .

image-check:  ## Build and run the image without a container engine (root; VARIANT=cpu or cuda)
	deploy/image/check.sh $(VARIANT)

lock: export UV_CUSTOM_COMPILE_COMMAND = make lock
lock: .venv/dev  ## Lock the image's packages anew (uv from PyPI)
	$(BIN)/pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile --quiet --upgrade --generate-hashes --python-version 3.11 --universal \
		--override deploy/image/cpu-overrides.txt --no-emit-package onnxruntime-gpu \
		--no-emit-package colorama --extra tracing pyproject.toml \
		--output-file deploy/image/requirements-cpu.txt
	$(BIN)/uv pip compile --quiet --upgrade --generate-hashes --python-version 3.11 \
		--python-platform x86_64-manylinux_2_28 --extra cuda --extra tracing pyproject.toml \
		--output-file deploy/image/requirements-cuda.txt

clean:
	rm -rf .venv build *.egg-info

.venv/run: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "faceid needs Python 3.11 or newer; run make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/dev: .venv/run
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
