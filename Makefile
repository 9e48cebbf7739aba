# make demo [KEEP=1]   shows what leasehold does, on a real OpenBao and a real PostgreSQL
# make test            all that must hold before a change lands
# make soak            rotations under clients of all kinds, for SOAK_SECONDS (600)
# make chaos           faults in random order, ROUNDS (230) of them from SEED
# make clients         real clients of many languages, directly and through it, and what differs
# make fleet           what a fleet of sidecars asks of Vault, simulated; writes docs/fleet/
# make bench           how fast it is, beside a direct connection, PgBouncer and HAProxy
# make profile         where its cycles go
# make fmt             formats the code

.PHONY: demo test soak chaos clients fleet bench profile fmt install

demo:
	python3 tests/demo/demo.py

test: install
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings
	cargo test --locked --no-fail-fast

soak: install
	SOAK_SECONDS=$${SOAK_SECONDS:-600} cargo test --locked --test it -- soak:: --nocapture

chaos: install
	SEED=$${SEED:-$$(date +%s)} ROUNDS=$${ROUNDS:-230} cargo test --locked --test it -- chaos:: --nocapture

clients: install
	python3 tests/clients/run.py --write
	python3 tests/deploy/examples.py "$$(python3 tests/clients/run.py --print-binary)" go python node java

fleet:
	cargo build --release --locked --bin leasehold
	target/release/leasehold simulate --sidecars 10000 --span 48h --out docs/fleet

bench: install
	python3 benches/run.py

profile: install
	python3 benches/profile.py

fmt:
	cargo fmt

install:
	python3 tests/bench/install.py

export KEEP
