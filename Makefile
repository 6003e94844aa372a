# Every target works at a desk and in .ci/run alike. `make` prints this file's targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# A toolchain that scripts/need fetched comes before an older one on the path.
export PATH := $(CURDIR)/.cache/go/bin:$(PATH)

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LISTEN ?= 127.0.0.1:7070
DIR ?= /var/lib/mammoth
# How many rollouts follow each other in bench-endpoints.
ROLLOUTS ?= 50
# How many instances become healthy in it.
CHANGES ?= 100

# How many worlds are run by world, and how many hours of trouble each has.
SEEDS ?= 100
HOURS ?= 1

# The race detector runs on all but the packages whose tests are long because they move real containers, disks and networks,
# and cmd/mammoth, in whose tests it finds only races of the library that runs the scripts.
RACE = $$(go list ./... | grep -v -E '/(test|runtime/docker|runtime/process|cgroup|disk|network|cmd/mammoth)(/|$$)')

.PHONY: help
help: ## Print this list.
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: up
up: ## Start a zone on this machine, deploy the example app with three instances, print where they answer, through nginx too.
	@STARTED_FOR=$(DIR) scripts/need go docker nginx programs
	@$(MAKE) --no-print-directory build
	@DIR=$(DIR) LISTEN=$(LISTEN) scripts/up

.PHONY: down
down: ## Undo `make up`: end the zone and its instances, delete its folder.
	@DIR=$(DIR) scripts/down

.PHONY: build
build: ## Build bin/mammoth, one static binary.
	@mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/mammoth ./cmd/mammoth

.PHONY: test
test: ## Install what the tests need, and run them all.
	@scripts/need go docker programs servers
	MAMMOTH_CI=1 go test -timeout 30m ./...
	cd examples/framework && go test ./...

.PHONY: race
race: ## Run the race detector on all but the longest tests.
	@scripts/need go race servers
	@scripts/race $(RACE)

.PHONY: lint
lint: ## vet, staticcheck, gofumpt, go.mod tidy, generated code up to date.
	@scripts/need go
	@scripts/lint

.PHONY: imports
imports: ## Print how the packages import each other, and the ten longest types; with BASE=COMMIT before and after.
	@go run ./scripts/imports $(if $(BASE),-base '$(BASE)')

.PHONY: generate
generate: ## Regenerate protobuf code, the REST gateway, OpenAPI and the diagrams in docs/.
	@scripts/need go
	scripts/generate

.PHONY: world
world: ## Run simulated zones in which everything fails, and watch their laws (SEEDS, HOURS; SEED replays one).
	@scripts/need go
	go run ./test/world/cmd/world -seeds $(SEEDS) -hours $(HOURS) $(if $(SEED),-seed $(SEED))

.PHONY: bench-deploy
bench-deploy: build ## Time deployments, replacements, re-attachment and memory against bare Docker.
	@scripts/need go docker programs
	go run ./test/bench/deploy

.PHONY: bench-endpoints
bench-endpoints: ## Time how fast a change is told and routed, and count requests that fail while everything is moved.
	@scripts/need go docker programs servers
	@# What the first misses does not keep the second from being measured.
	go test -run '^$$' -bench . -benchtime 1x -timeout 60m ./test/integration/endpoints; first=$$?; \
	go test -run '^$$' -bench . -benchtime 1x -timeout 120m ./test/bench/endpoints -rollouts $(ROLLOUTS) -changes $(CHANGES) && exit $$first

.PHONY: bench-sim
bench-sim: build ## Put a real ResourceManager under 10,000 simulated nodes and 1,000 allocations/s; time lists and watchers meanwhile (SIM, READS hold more flags).
	@scripts/need go
	@# What the first misses does not keep the second from being measured.
	go run ./test/sim -mammoth bin/mammoth $(SIM); first=$$?; \
	go run ./test/bench/reads $(READS) && exit $$first

.PHONY: bench-scheduler
bench-scheduler: ## Time the scheduler core over nodes × apps × asks (BENCH_NODES, BENCH_APPS, BENCH_ASKS narrow it).
	@scripts/need go
	go run ./test/bench/scheduler

# Its module takes over what this one's go.mod requires since.
.PHONY: bench-peers
bench-peers: ## Run the scheduler core side by side with SwarmKit's and YuniKorn's (BENCH_PEER, BENCH_NODES, BENCH_APPS, BENCH_ASKS narrow it).
	@scripts/need go
	cd test/bench/peers && go run -mod=mod .
