# Every target is one line; longer ones call scripts/. `make` alone lists the targets.
.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-milvus crash check docs diagrams format lint types layers wording links container-files reference bench lock containers clean
.DELETE_ON_ERROR:
BIN := .venv/bin
# Keep compiled modules in .venv, so that they are not compiled at every start.
unexport PYTHONDONTWRITEBYTECODE

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | expand -t 18

demo: .venv/demo.stamp ## set up, index the sample gallery (or IMAGES=folder), serve it (PORT=8000); ONCE=1 stops after the queries
	@$(BIN)/lookalike demo $(if $(IMAGES),--images "$$IMAGES") $(if $(PORT),--port "$$PORT") $(if $(filter-out 0,$(ONCE)),--once)

test: .venv/dev.stamp ## set up and run all tests (ARGS="-k text" for pytest)
	@OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(or $(JOBS),auto) --maxprocesses 4 --dist loadfile --no-loadscope-reorder --ignore=tests/slow $(ARGS)

test-slow: .venv/dev.stamp .milvus/stamp ## tests that take minutes: training, servers of other projects, the page's map and editing
	@OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 3 --dist loadfile --no-loadscope-reorder tests/slow $(ARGS)

test-milvus: .venv/dev.stamp .milvus/stamp ## the tests on a Milvus server alone
	@OMP_NUM_THREADS=1 $(BIN)/pytest -q tests/slow/test_milvus_server.py $(ARGS)

crash: .venv/dev.stamp ## kill a writable service under load, 200 times (ARGS="--kills 1000 --seed 2"): no acknowledged write may be lost
	@$(BIN)/python -m tests.crash $(ARGS)

check: lint types layers wording links container-files ## all checks that do not run the code

lint: .venv/dev.stamp ## formatting and lint
	@$(BIN)/ruff format --check -q . && $(BIN)/ruff check -q .

types: .venv/dev.stamp ## mypy, strict
	@$(BIN)/mypy

wording: .venv/dev.stamp ## words that the project does not use, and sentences that are too long
	@$(BIN)/python scripts/check_wording.py && $(BIN)/python scripts/check_sentences.py

links: docs ## links between pages, files and headings
	@$(BIN)/mdlinkcheck --quiet --no-detect-sites . && $(BIN)/python scripts/check_site_links.py

layers: .venv/dev.stamp ## import contracts
	@$(BIN)/lint-imports --no-logo

container-files: .venv/dev.stamp ## Dockerfile, compose files and Kubernetes manifests
	@$(BIN)/hadolint Dockerfile && $(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml docker-compose.gpu.yml && $(BIN)/kubernetes-validate --strict --quiet deploy/kubernetes/*.yaml

format: .venv/dev.stamp ## format the code and apply safe fixes
	@$(BIN)/ruff format -q . && $(BIN)/ruff check -q --fix .

docs: .venv/dev.stamp ## build the documentation site: site/index.html
	@$(BIN)/zensical build --clean --strict

diagrams: ## draw docs/images/*.svg from the .dot files beside them; needs Graphviz, which nothing else does
	@for file in docs/images/*.dot; do dot -Tsvg "$$file" -o "$${file%.dot}.svg" || exit; done

reference: .venv/dev.stamp ## write docs/openapi.json and the generated pages of docs/reference
	@$(BIN)/python -m scripts.reference

bench: .venv/dev.stamp ## measure: encoders, indexing, index (20 minutes and more)
	@$(BIN)/python -m benchmarks

lock: .venv/uv.stamp ## resolve requirements/*.txt again; UPGRADE=1 takes newer versions
	@scripts/lock.sh

containers: ## build the image, index, serve and query it in real containers (CONTAINERS=script in place of Docker)
	@scripts/containers.sh

clean: ## remove the environment, caches and the demo's collections
	@rm -rf .venv .milvus .lookalike .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist site .cache && find . -name __pycache__ -prune -exec rm -rf {} +

.milvus/stamp: requirements/milvus-server.txt .venv/dev.stamp # the server has older dependencies than the project
	@rm -rf .milvus && $(BIN)/python -m venv .milvus && .milvus/bin/python -m pip install -qq --require-hashes -r $< && touch $@

.venv/%.stamp: requirements/%.txt requirements/uv.txt pyproject.toml clients/python/pyproject.toml scripts/environment.sh
	@scripts/environment.sh $* && touch $@
