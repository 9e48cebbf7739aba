//! The pure parts, one by one: `cargo bench`. What they cost beside a server is measured by `make bench`.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use leasehold::pure::{RenewedLease, ScramLogin, follow, messages, rewrite_startup, startup_packet};

/// The size of the relay's read buffer.
const CHUNK: usize = 32 * 1024;

fn framing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("framing");
    for (name, body) in [("rows of 30 bytes", 30), ("rows of 1 KiB", 1024), ("rows of 1 MiB", 1024 * 1024)] {
        let stream = messages(b'D', body, (8 * 1024 * 1024 / (body + 5)).max(1));
        group.throughput(Throughput::Bytes(stream.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| follow(black_box(&stream), CHUNK)));
    }
    let one = messages(b'D', 30, 1000);
    group.throughput(Throughput::Elements(1000));
    group.bench_function("a message", |bencher| bencher.iter(|| follow(black_box(&one), CHUNK)));
    group.finish();
}

fn login(criterion: &mut Criterion) {
    let packet = startup_packet();
    criterion
        .bench_function("startup packet", |bencher| bencher.iter(|| rewrite_startup(black_box(&packet))));
    let mut login = ScramLogin::default();
    criterion.bench_function("SCRAM, keys derived", |bencher| bencher.iter(|| login.with_derived_keys()));
    criterion.bench_function("SCRAM, keys known", |bencher| bencher.iter(|| login.with_known_keys()));
}

fn lease(criterion: &mut Criterion) {
    let mut lease = RenewedLease::default();
    criterion.bench_function("a renewal in the lease machine", |bencher| bencher.iter(|| lease.renew()));
}

criterion_group!(benches, framing, login, lease);
criterion_main!(benches);
