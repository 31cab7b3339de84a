# Ponton: the two commands are `make demo` and `make test`.
#
#   make build      the two static binaries, in target/<triple>/release
#   make demo       a tour on this machine: a private daemon, a web service, clean up
#   make test       all tests (root: real namespaces, cgroups, mounts, networks)
#   make test-vm    the runtime's and the engine's tests in an emulated machine: cgroup v2 and v1, systemd
#   make lint       rustfmt, clippy, the floors of the house, cargo deny where it is installed
#   make bench      side by side with dockerd, runc, crun and youki; prints tables of ratios
#   make fuzz       the fuzz targets, a minute each (needs cargo-fuzz and a nightly toolchain)
#   make fuzz-api   requests made from the API's published definition, for a quarter of an hour
#   make install    binaries, completions: PREFIX=/usr/local, DESTDIR=

TRIPLE  := $(shell rustc -vV | sed -n 's/^host: //p')
BIN     := target/$(TRIPLE)/release
PREFIX  ?= /usr/local
DESTDIR ?=

# Static binaries: nothing of the host's libraries is needed, and a start costs no dynamic linking.
# The flags are given for the target alone, since procedural macros cannot be static.
STATIC  := CARGO_TARGET_$(shell echo $(TRIPLE) | tr 'a-z-' 'A-Z_')_RUSTFLAGS="-C target-feature=+crt-static"

.PHONY: build demo test test-vm unit whole lint bench fuzz fuzz-api install deps-build clean

build: deps-build
	$(STATIC) cargo build --locked --release --target $(TRIPLE) -p ponton
	$(STATIC) cargo build --locked --profile runtime --target $(TRIPLE) -p ponton-runtime
	@install -m 755 target/$(TRIPLE)/runtime/ponton-runtime $(BIN)/ponton-runtime

deps-build:
	@scripts/install-deps.sh build

demo: build
	@scripts/install-deps.sh demo
	@scripts/demo.sh $(BIN)

test: build
	@scripts/install-deps.sh test clients
	@scripts/make-images.sh busybox
	PONTON_BIN_DIR=$(CURDIR)/$(BIN) cargo test --locked --workspace --no-fail-fast

test-vm: build
	@scripts/install-deps.sh test vm
	@scripts/make-images.sh busybox
	@scripts/make-vm.sh
	@scripts/test-vm.sh $(BIN)

unit:
	cargo test --locked --workspace --exclude ponton-testkit --no-fail-fast

whole: build
	@scripts/install-deps.sh test clients
	@scripts/make-images.sh busybox
	PONTON_BIN_DIR=$(CURDIR)/$(BIN) cargo test --locked -p ponton-testkit --no-fail-fast

lint:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo run --locked -q -p ponton-xtask -- tidy
	@if ! command -v cargo-deny >/dev/null; then echo "cargo-deny is not installed: licences and advisories are not checked"; \
	elif cargo deny fetch db >/dev/null 2>&1; then cargo deny check; \
	else echo "the advisory database cannot be fetched: advisories are not checked"; cargo deny check licenses bans sources; fi

bench: build
	@scripts/install-deps.sh test
	@scripts/install-deps.sh bench
	@scripts/make-images.sh busybox big
	$(STATIC) cargo build --locked --release --target $(TRIPLE) -p ponton-runtime --example bare
	@scripts/make-youki.sh
	cargo run --locked -q --release -p ponton-xtask -- bench $(BIN)

fuzz:
	scripts/fuzz.sh

fuzz-api: build
	@scripts/install-deps.sh test fuzz-api
	@scripts/make-images.sh busybox
	scripts/fuzz-api.sh $(BIN)

install: build
	install -D -m 755 $(BIN)/ponton $(DESTDIR)$(PREFIX)/bin/ponton
	install -D -m 755 $(BIN)/ponton-runtime $(DESTDIR)$(PREFIX)/bin/ponton-runtime
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	$(BIN)/ponton completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/ponton
	$(BIN)/ponton completion zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_ponton
	$(BIN)/ponton completion fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/ponton.fish

clean:
	cargo clean
	rm -rf .cache
