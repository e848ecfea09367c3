# `make` alone lists the targets. The work is done by the scripts of deploy/dev.

TOOLCHAIN := $(shell deploy/dev/toolchain 2>/dev/null)
ifneq ($(TOOLCHAIN),)
export RUSTUP_TOOLCHAIN := $(TOOLCHAIN)
endif

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

.PHONY: rust
rust:
	@deploy/dev/toolchain >/dev/null

.PHONY: deps
deps: rust ## bring what the machine lacks: into .dev, and as named Debian packages
	@deploy/dev/stack deps

.PHONY: demo
demo: rust ## build, publish and pull the example of examples/hello
	@deploy/dev/stack run deploy/dev/demo

.PHONY: up
up: rust ## the whole stack on this machine until Ctrl-C; TRUST=1: trust its authority
	@deploy/dev/stack run deploy/dev/up $(if $(TRUST),--trust)

.PHONY: test
test: rust ## all tests, on real servers; ARGS="--package slipway-oci" for some
	@deploy/dev/stack run --s3 deploy/dev/test $(ARGS)

.PHONY: check
check: rust ## format, lints, documentation, crate arrows, scripts
	@deploy/dev/check

.PHONY: bench
bench: rust ## time builds beside docker buildx, pulls beside skopeo, and storms of jobs beside bare NATS
	@deploy/dev/stack run deploy/dev/bench
	@deploy/dev/stack run deploy/dev/bench-pulls
	@deploy/dev/stack run deploy/dev/bench-load

.PHONY: clean
clean: ## stop the dev stack, remove .dev and target
	@deploy/dev/stack clean
	cargo clean
