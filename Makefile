# Everything starts here: `make demo` and `make test` set up .venv first (python3.11 and make are enough).
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

PAPER ?= lgap
SCALE ?= miniature
LAUNCHER ?= local
OUTPUTS ?= outputs
PYTHONS ?= python3.11 python3.12 python3.13

SCENES := $(addprefix scenes-,clip detr yolos superpoint blip inpaint)

.PHONY: help install demo fetch tables times test test-fast test-slurm lint bench lock zoo zoo-scenes zoo-figures wheel wheel-test reference docs clean

help:
	@echo "make demo   LGAP against ever better attackers, in miniature (about two minutes after the install)"
	@echo "make tables PAPER=lgap   every table of a paper, in miniature (lgap: a quarter of an hour, coup: 45 minutes, N=16 for half)"
	@echo "                         SCALE=paper  LAUNCHER=slurm  SLOW=1 for the rows that take hours"
	@echo "make fetch TABLE=lgap/1   the models and data of a table at paper scale: from where, how large; fetched once"
	@echo "make test   the test suite        make lint   ruff, mypy and the layers of imports"
	@echo "make test-slurm  sweeps on a real SLURM, which is brought up for it (ten minutes; skipped where none is installed)"
	@echo "make test-fast   the same without what takes more than ten seconds"
	@echo "make docs   the tables of docs/ from docs/records/; OUTPUTS=outputs gathers these from your records first"
	@echo "make bench  what it costs, beside plain scripts (about twenty minutes): outputs/bench/bench.md"
	@echo "make zoo    train the miniature's weights anew (under an hour and a half of CPU; make zoo-scenes for those of scenes)"
	@echo "make wheel-test  the wheel alone, beside current neighbours, on PYTHONS=\"$(PYTHONS)\""
	@echo "make lock   pin every dependency with hashes in requirements.lock"

install: $(STAMP)

# uv is taken from PATH, or installed into the virtual environment.
$(STAMP): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: install Python 3.11 or newer and call make PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	command -v uv >/dev/null || test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	UV=$$(command -v uv || echo $(BIN)/uv); \
	  $$UV pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock && \
	  $$UV pip install --quiet --python $(BIN)/python --no-deps -e .
	touch $@

demo: install
	$(BIN)/lgap-bench demo

# Every table of a paper, with the published values beside the measured ones. SCALE=paper needs the paper's data and models;
# SLOW=1 adds the rows that take hours (unreduced AutoAttack on purifiers, PGD-200 + EOT 20); N= sets the images of all.
tables: install
	$(BIN)/lgap-bench tables $(PAPER) $(if $(filter miniature,$(SCALE)),dataset=$(if $(filter conditioned_denoising%,$(PAPER)),scenes,digits)) $(if $(SLOW),slow=true) \
	  $(if $(N),n=$(N)) hydra/launcher=$(LAUNCHER) outputs=$(OUTPUTS) $(WORDS)

# What a paper's table (or all tables of a paper, TABLE=lgap) needs at its own scale; WORDS=offline=true lists it alone.
fetch: install
	$(BIN)/lgap-bench fetch $(or $(TABLE),$(PAPER)) $(WORDS)

# COUP's table 4 is seconds, not robustness: alone on the machine, so not among the others.
times: install
	$(BIN)/python -m scripts.coup.times dataset=digits outputs=$(OUTPUTS)

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-fast: install
	$(BIN)/python -m pytest -m "not slow and not slurm"

# On a SLURM that is brought up for it (as root; Debian: slurmctld slurmd slurm-client munge slurmdbd mariadb-server).
# Where there is none, the tests say so and are skipped. Not in `make test`: nobody expects daemons of that.
test-slurm: install
	$(BIN)/python -m pytest -m slurm tests/slurm

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Contestants in turns, one thread each; `BENCH="--parts bpda --repetitions 3"` for less, `BENCH=--quick` to try it out.
bench: install
	$(BIN)/python -m scripts.bench.run $(BENCH)

# No uv.lock: it names download hosts. Hashes pin the content wherever it is downloaded from.
lock:
	UV=$$(command -v uv || echo $(BIN)/uv); \
	  $$UV pip compile --quiet --universal --generate-hashes --extra dev --python-version 3.11 \
	  --custom-compile-command "make lock" pyproject.toml -o requirements.lock

# Two components train side by side, one thread each; a killed training resumes. Delete a folder to train it anew.
zoo: install
	$(MAKE) -j2 $(addprefix zoo-,standard blip adversarial pixel unet $(SCENES))
	$(MAKE) zoo-figures

# The scenes' components alone, beside the digits' as they are.
zoo-scenes: install
	$(MAKE) -j2 $(addprefix zoo-,$(SCENES))
	$(BIN)/python -m lgap_bench.zoo scenes-figures

zoo-unet: zoo-vae
zoo-scenes-vae: zoo-vae
zoo-scenes-yolos zoo-scenes-blip: zoo-scenes-clip
zoo-scenes-unet: zoo-scenes-vae zoo-unet
zoo-scenes-inpaint: zoo-scenes-unet
zoo-%:
	$(BIN)/python -m lgap_bench.zoo $*

# The model cards and SHA256SUMS, from weights as they are.
zoo-figures: install
	$(BIN)/python -m lgap_bench.zoo figures
	$(BIN)/python -m lgap_bench.zoo scenes-figures

# docs/reference.md, from conf/.
reference: install
	$(BIN)/python -m scripts.reference

# The tables of docs/, and the figures that the package draws, from docs/records/. OUTPUTS=outputs gathers these anew first.
docs: install
	$(BIN)/python -m scripts.docs $(if $(filter command line,$(origin OUTPUTS)),gather $(OUTPUTS))

wheel: install
	$(BIN)/python -m build --wheel

# The wheel's core, without extras, beside current requests, timm and setuptools, in a fresh environment of every interpreter.
wheel-test: wheel
	$(BIN)/python -m scripts.wheel_test dist/*.whl --pythons $(PYTHONS)

clean:
	rm -rf dist build .mypy_cache .ruff_cache .pytest_cache
