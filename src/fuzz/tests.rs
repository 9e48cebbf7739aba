//! The short run of each target: its corpus, and mutations of it in an order that a seed decides.

use std::fs;
use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

use super::*;

/// So many inputs for each target beside its corpus. A fuzzer that knows what is covered needs minutes for more.
const MUTATIONS: usize = 3_000;
const LONGEST: usize = 4_096;

/// Says what was fed when a target panics.
struct Fed<'a>(&'a str, &'a [u8]);

impl Drop for Fed<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let name = std::env::temp_dir().join(format!("leasehold-fuzz-{}", self.0));
            fs::write(&name, self.1).unwrap_or_default();
            println!("{}: what was fed is in {}", self.0, name.display());
        }
    }
}

fn feed(name: &str, target: fn(&[u8]), bytes: &[u8]) {
    let _fed = Fed(name, bytes);
    target(bytes);
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut paths: Vec<_> = fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Changes some of the bytes, and now and then takes a part of another input in.
fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut StdRng) {
    for _ in 0..random.random_range(1..6) {
        let at = random.random_range(0..=bytes.len());
        match random.random_range(0..7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = random.random(),
            2 => bytes.truncate(at),
            3 => bytes.insert(at, random.random()),
            4 if at + 4 <= bytes.len() => {
                let numbers = [0, 1, 3, 4, 5, 255, 65_535, 0x7fff_ffff, 0x8000_0000, u32::MAX];
                let number: u32 = numbers[random.random_range(0..numbers.len())];
                bytes[at..at + 4].copy_from_slice(&number.to_be_bytes());
            }
            5 => {
                let from = random.random_range(0..=other.len());
                let until = random.random_range(from..=other.len());
                bytes.splice(at..at, other[from..until].iter().copied());
            }
            _ => {
                let mut more = [0; 8];
                random.fill_bytes(&mut more);
                bytes.extend(more);
            }
        }
        bytes.truncate(LONGEST);
    }
}

#[test]
fn no_target_panics_on_its_corpus_or_on_mutations_of_it() {
    for (seed, (name, target)) in (0..).zip(TARGETS) {
        let corpus = corpus(name);
        assert!(corpus.len() > 3, "{name} has {} inputs", corpus.len());
        for bytes in &corpus {
            feed(name, target, bytes);
        }
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..MUTATIONS {
            let mut bytes = corpus[random.random_range(0..corpus.len())].clone();
            let other = &corpus[random.random_range(0..corpus.len())];
            mutate(&mut bytes, other, &mut random);
            feed(name, target, &bytes);
        }
    }
}
