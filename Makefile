# `make help` says what there is. Every target works in a clean clone on a
# Debian 12 machine that has Go, make, git and root: what is missing, the target
# installs and names (build/deps.sh).

SHELL := /bin/bash

# SEED and STEPS choose a run of the simulator; when SEED does not, DURATION or
# EVENTS bounds the runs, the first of which is that of seed FIRST; a run that fails
# prints what was violated and how to replay it (see test/sim/doc.go). SEED and
# ROUNDS choose the rounds of `make robustness`, CANARY a bug of test/canaries that
# they must notice instead. SABOTAGE is a step of `make demo` or `make postgres` that
# must then fail. RUN chooses among the tests of `make
# test`, `make robustness` and `make e2e` and the bugs of `make canaries`, PKG the
# packages of the first. CONFIG and SET choose what `make explore` visits. ONLY and
# SAMPLES choose what `make reliability` measures, DURATION how long it keeps CPUs busy,
# OUTPUT is table, json or markdown.
SEED     ?=
ROUNDS   ?=
CANARY   ?=
STEPS    ?=
CONFIG   ?=
SET      ?=
DURATION ?= 1m
EVENTS   ?=
FIRST    ?=
ONLY     ?=
SAMPLES  ?=
OUTPUT   ?=
SABOTAGE ?=
RUN      ?=
BENCH    ?=
PKG      ?= ./...

.DEFAULT_GOAL := help

.PHONY: help
help: ## Explain every target
	@echo "Holdfast: replicated block storage for Kubernetes. Start with: make test, make demo."
	@echo
	@awk -F ':.*## ' '/^##@/ { printf "\n%s\n", substr($$0, 5) } /^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "Variables"
	@echo "  SEED=7 STEPS=15000    make sim:   replay one run, of that many steps"
	@echo "  ROUNDS=10             make robustness: that many rounds of some 50 s (default 2)"
	@echo "  CANARY=r08-no-journal make robustness: plant that bug; the rounds must notice it"
	@echo "  DURATION=10m          make sim:   try new seeds for that long (default 1m)"
	@echo "  EVENTS=100000000      make sim:   or until so many events were played; FIRST=<seed>"
	@echo "  CONFIG=lease,loss     make explore: only these configurations"
	@echo "  SET=writes=2,links=1  make explore: with other bounds"
	@echo "  SABOTAGE=<step>       make demo, make postgres: break that step; it must then fail"
	@echo "  PKG=./engine/...      make test, make fuzz: only these packages"
	@echo "  RUN=TestName          make test, make e2e: only these tests"
	@echo "  ONLY=attach SAMPLES=9 make reliability: only that line, that many samples"
	@echo "  BENCH='-quick'        make bench, bench-*, profile: its flags; '-h' explains them"
	@echo "  HOLDFAST_CACHE=<dir>  where guest kernels and tools are kept (default ~/.cache/holdfast)"

##@ Every day

.PHONY: test
test: ## Run the whole test suite with the race detector (installs what it needs)
	@build/deps.sh test
	@build/test.sh '$(PKG)' $(if $(RUN),-run '$(RUN)')

.PHONY: demo
demo: ## Show the main job on this machine: three daemons, a database, crashes, recovery
	@build/deps.sh demo
	@go build -o bin/demo ./test/demo
	@SABOTAGE='$(SABOTAGE)' exec bin/demo

.PHONY: build
build: ## Build the static binaries into bin/
	CGO_ENABLED=0 go build -trimpath -o bin/ ./cmd/...

.PHONY: lint
lint: ## Run the linters chosen in .golangci.yml (first run builds them: two minutes)
	@build/lint.sh

##@ Generated code

.PHONY: generate
generate: ## Generate the Go code of proto/
	@build/deps.sh generate
	@build/generate.sh

.PHONY: verify
verify: ## Generate again and fail if that changes anything
	@build/deps.sh generate
	@build/verify.sh

##@ Deeper

.PHONY: sim
sim: ## Run the protocol simulator: SEED= STEPS= replay a run, DURATION= or EVENTS= bounds many
	@go test ./test/sim -run '^TestSim$$' -count 1 -v -timeout 0 -sim.workers $$(nproc) -sim.duration $(DURATION) \
		$(if $(EVENTS),-sim.events $(EVENTS)) $(if $(FIRST),-sim.first $(FIRST)) \
		$(if $(SEED),-sim.seed $(SEED)) $(if $(STEPS),-sim.steps $(STEPS))

.PHONY: explore
explore: ## Visit every state that small configurations reach: CONFIG= SET= choose
	@go run ./test/explore/cmd/explore $(if $(CONFIG),-config $(CONFIG)) $(if $(SET),-set $(SET))

.PHONY: cuts
cuts: ## Make and drop many snapshots of one replica in any order: CUTS= SEED= choose
	@go test ./replica/store -run '^TestManyCuts$$' -count 1 -v -timeout 0 -cuts $(or $(CUTS),10000) $(if $(SEED),-cuts.seed $(SEED))

.PHONY: crash
crash: ## Cut the power of a store at every sync it makes, losing all that a disk may lose
	@go test ./test/crash -run '^Test(EverySync|Wander)$$' -count 1 -v -timeout 0 \
		-crash.few 10 -crash.samples 200 -crash.each 0 -crash.torn -crash.seeds 100 $(if $(SEED),-crash.seed $(SEED))

.PHONY: fuzz
fuzz: ## Fuzz every decoder and parser for a while each: FUZZTIME=10s PKG=./internal/wire
	@build/fuzz.sh $(or $(FUZZTIME),10s) $(PKG)

.PHONY: canaries
canaries: ## Show that each planted bug is caught: RUN= chooses among them
	@go run ./test/canaries/cmd/canaries $(if $(RUN),-run '$(RUN)')

.PHONY: bench
bench: ## Compare with the raw file and qemu-nbd, as ratios in one run (BENCH=-quick)
	@build/deps.sh bench
	@go run ./test/bench $(BENCH)

.PHONY: profile
profile: ## Say where the CPU of a request goes: BENCH='-replicas 3 -only randwrite-16 -flames FILE'
	@build/deps.sh bench
	@go run ./test/bench profile $(BENCH)

.PHONY: bench-idle
bench-idle: ## Measure what 500 attached volumes cost while nobody uses them (BENCH='-volumes 50')
	@build/deps.sh bench
	@go run ./test/bench idle $(BENCH)

.PHONY: bench-scrub
bench-scrub: ## Measure what a scrub does to the latency of writes at half load (BENCH='-rounds 3')
	@build/deps.sh bench
	@go run ./test/bench scrub $(BENCH)

.PHONY: bench-store
bench-store: ## Compare a store with a file on its disk, as ratios in one run (BENCH=-quick)
	@build/deps.sh bench
	@go run ./test/bench store $(BENCH)

.PHONY: bench-frontend
bench-frontend: ## Compare our NBD server with nbdkit, both on memory, as ratios (BENCH=-quick)
	@build/deps.sh bench
	@go run ./test/bench frontend $(BENCH)

.PHONY: bench-postgres
bench-postgres: ## Compare PostgreSQL on volumes and on files behind the same device (BENCH=-quick)
	@build/deps.sh bench postgres
	@go build -o bin/bench ./test/bench
	@exec bin/bench postgres $(BENCH)

.PHONY: reliability
reliability: ## Measure what is promised for bad times: ONLY= SAMPLES= DURATION=1h OUTPUT=
	@build/deps.sh test e2e
	@test/e2e/vm/setup
	@go build -o bin/reliability ./test/reliability
	@exec bin/reliability $(if $(ONLY),-only '$(ONLY)') $(if $(SAMPLES),-samples $(SAMPLES)) \
		$(if $(filter-out file,$(origin DURATION)),-duration $(DURATION)) $(if $(OUTPUT),-o $(OUTPUT))

.PHONY: robustness
robustness: ## Make trouble for real daemons under a verified load: ROUNDS= SEED= choose
	@build/deps.sh test
	@cd test/robustness && go test -tags robust -count 1 -timeout 0 -v \
		-run '$(or $(RUN),$(if $(CANARY),^TestCanary$$,^Test(Rounds|FlippedByte|PutBackDisk)$$))' . \
		$(if $(CANARY),-robust.canary $(CANARY)) $(if $(SEED),-robust.seed $(SEED)) \
		$(if $(ROUNDS),-robust.rounds $(ROUNDS) -robust.canary-rounds $(ROUNDS))

.PHONY: postgres
postgres: ## Run PostgreSQL on a volume while daemons and disks fail, then check everything
	@build/deps.sh postgres
	@go build -o bin/postgres ./test/postgres
	@SABOTAGE='$(SABOTAGE)' exec bin/postgres

.PHONY: e2e
e2e: ## Run the tests that need a real kernel, in a guest (test/e2e/vm)
	@build/deps.sh e2e
	@test/e2e/vm/setup
	@go test -tags e2e -count 1 -timeout 40m -v $(if $(RUN),-run '$(RUN)') ./test/e2e/...

##@ Housekeeping

.PHONY: deps
deps: ## Install the Debian packages of all targets, saying what and why
	@build/deps.sh test demo bench postgres e2e generate && echo "deps: everything is here"

.PHONY: clean
clean: ## Remove what was built in the tree (caches outside of it stay)
	rm -rf bin
