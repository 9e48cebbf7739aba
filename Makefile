# make demo [KEEP=1]   shows what leasehold does, on a real OpenBao and a real PostgreSQL
# make test            all that must hold before a change lands
# make soak            rotations under clients of all kinds, for SOAK_SECONDS (600)
# make chaos           faults in random order, ROUNDS (230) of them from SEED
# make clients         real clients of many languages, directly and through it, and what differs
# make regress         other people's suites, directly and through it, test by test
# make fleet           what a fleet of sidecars asks of Vault, simulated; writes docs/fleet/
# make bench           how fast it is, beside a direct connection, PgBouncer and HAProxy
# make dist         builds a release into dist/: binary, checksums, parts (SBOM), the image's context
# make fuzz            TARGETS (all), each for FUZZ_SECONDS (1800)
# make profile         where its cycles go
# make order       the functions that every run uses, for the linker
# make fmt             formats the code

.PHONY: demo test soak chaos clients regress fleet bench dist fuzz profile order fmt install

demo:
	python3 tests/demo/demo.py

test: install
	python3 deploy/supply.py
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings
	cargo clippy --lib --example traced --features otlp --locked -- -D warnings
	cargo build --locked --features otlp --example traced
	cargo test --locked --features otlp --lib -- otlp traces
	RUST_TEST_THREADS=$$(($$(nproc) + 1)) cargo test --locked --no-fail-fast

soak: install
	SOAK_SECONDS=$${SOAK_SECONDS:-600} cargo test --locked --test it -- soak:: --nocapture

chaos: install
	SEED=$${SEED:-$$(date +%s)} ROUNDS=$${ROUNDS:-230} cargo test --locked --test it -- chaos:: --nocapture

clients: install
	python3 tests/clients/run.py --write
	python3 tests/deploy/examples.py "$$(python3 tests/clients/run.py --print-binary)" go python node java

regress: install
	python3 tests/regress/run.py --write

fleet:
	cargo build --release --locked --bin leasehold
	target/release/leasehold simulate --sidecars 10000 --span 48h --out docs/fleet

bench: install
	python3 benches/run.py

dist:
	python3 deploy/dist.py

fuzz:
	python3 fuzz/run.py --seconds $${FUZZ_SECONDS:-1800} $(TARGETS)

profile: install
	python3 benches/profile.py

order: install
	cargo build --release --locked
	python3 benches/order.py

fmt:
	cargo fmt

install:
	python3 tests/bench/install.py

export KEEP
