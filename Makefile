# The four commands. Each does all of its own set-up on a fresh Debian machine with Rust.

CARGO ?= cargo
export CARGO_TERM_COLOR ?= never

.PHONY: demo test bench verify packages build lint docs

demo: ## the platform on this machine: no root, nothing installed
	$(CARGO) run --quiet --release -p relais -- demo

test: packages lint ## everything a change must pass
	$(CARGO) build --workspace --all-targets
	packaging/nextest run --workspace

bench: ## Relais beside HAProxy and nginx: CPU per request, latency, memory
	packaging/packages bench
	$(CARGO) build --profile dist -p relais
	bench/run.py

verify: packages ## the long runs: drills 20 times, 10,000 seeds many times over, the torture suite
	$(CARGO) build --release -p relais
	packaging/verify

packages:
	packaging/packages test

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

docs: ## regenerate what is made from the directive table
	UPDATE=1 $(CARGO) test -p relais-config
