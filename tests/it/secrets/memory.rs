//! What the memory of the process holds of a secret whose time is over.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::num::NonZeroU32;
use std::os::unix::fs::FileExt as _;

use aws_lc_rs::{hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::harness::{Database, Forwarded, Leasehold, SOON, Spec, eventually, same};

#[tokio::test(flavor = "multi_thread")]
async fn a_password_its_key_and_a_token_leave_the_memory_when_their_time_is_over() {
    let backends = Forwarded::new(Spec::new("app")).await;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    if !may_look(&leasehold) {
        return;
    }
    let name = backends.db.name();
    drop(leasehold.connect("app", name).await);
    let first = Secrets::so_far(&backends);
    let key = client_key(&backends.db, &first.one_password()).await;
    // A search that finds nothing while there is something proves nothing.
    first.are_found(&leasehold);
    assert!(count(&leasehold, &key) > 0, "SCRAM's key is kept while its password is current");

    let rotated = leasehold.command(&["rotate", "--drain=0s"]).await;
    assert!(rotated.status.success(), "{rotated:?}");
    drop(leasehold.connect("app", name).await);
    let second = Secrets::so_far(&backends).without(&first);
    for password in &first.passwords {
        gone(&leasehold, name, "password", password.as_bytes()).await;
    }
    gone(&leasehold, name, "SCRAM's key", &key).await;
    second.are_found(&leasehold);

    for token in &first.tokens {
        backends.vault.write("auth/token/revoke", json!({ "token": token })).await;
    }
    let rotated = leasehold.command(&["rotate", "--drain=0s"]).await;
    assert!(rotated.status.success(), "{rotated:?}");
    drop(leasehold.connect("app", name).await);
    let third = Secrets::so_far(&backends).without(&first).without(&second);
    assert!(!third.tokens.is_empty(), "it has logged in again");
    for (what, secrets) in [("token", &first.tokens), ("password", &second.passwords)] {
        for secret in secrets {
            gone(&leasehold, name, what, secret.as_bytes()).await;
        }
    }
    third.are_found(&leasehold);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_use_rests_in_locked_memory() {
    let backends = Forwarded::new(Spec::new("app")).await;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    if !may_look(&leasehold) {
        return;
    }
    let secrets = Secrets::so_far(&backends);
    secrets.are_found(&leasehold);
    let status = fs::read_to_string(format!("/proc/{}/status", leasehold.pid())).unwrap();
    assert!(status.contains("VmLck:\t      64 kB\n"), "{status}");
    for secret in secrets.tokens.iter().chain(&secrets.passwords) {
        // The connection to Vault, which has another copy, is closed after some seconds.
        eventually(SOON * 3, async || {
            let regions = memory(&leasehold).unwrap();
            let locked = |region: &&Region| region.is_locked;
            let in_locked: usize =
                regions.iter().filter(locked).map(|region| region.count(secret.as_bytes())).sum();
            same((in_locked > 0, count(&leasehold, secret.as_bytes()) - in_locked), (true, 0))
        })
        .await;
    }
}

/// What has passed between leasehold and Vault.
struct Secrets {
    tokens: BTreeSet<String>,
    passwords: BTreeSet<String>,
}

impl Secrets {
    fn so_far(backends: &Forwarded) -> Self {
        let secret_id = fs::read_to_string(backends.setup.secret_id_file()).unwrap();
        let secrets = backends.fault.secrets().into_iter().filter(|secret| secret != secret_id.trim());
        let is_token = |secret: &String| secret.starts_with("s.") || secret.starts_with("hvs.");
        let (tokens, passwords) = secrets.partition(is_token);
        Self { tokens, passwords }
    }

    fn without(self, others: &Self) -> Self {
        Self { tokens: &self.tokens - &others.tokens, passwords: &self.passwords - &others.passwords }
    }

    fn one_password(&self) -> String {
        assert_eq!(self.passwords.len(), 1);
        self.passwords.first().unwrap().clone()
    }

    fn are_found(&self, leasehold: &Leasehold) {
        assert!(!self.passwords.is_empty());
        for secret in self.tokens.iter().chain(&self.passwords) {
            assert!(count(leasehold, secret.as_bytes()) > 0, "it is in use");
        }
    }
}

/// SCRAM's ClientKey of the newest role, by which a client logs in.
///
/// Source: RFC 5802 section 3.
async fn client_key(db: &Database, password: &str) -> Vec<u8> {
    let role = db.roles().await.pop().unwrap();
    let stored = format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{role}'");
    let stored = db.admin.value(&stored).await;
    // SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>
    let mut parts = stored.split(['$', ':']).skip(1);
    let iterations: NonZeroU32 = parts.next().unwrap().parse().unwrap();
    let salt = STANDARD.decode(parts.next().unwrap()).unwrap();
    let mut salted = [0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password.as_bytes(), &mut salted);
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &salted), b"Client Key").as_ref().to_vec()
}

/// Waits until it is nowhere in memory. A connection to Vault that is kept for some seconds may hold it for as long, and SCRAM's
/// keys are forgotten at the next login.
async fn gone(leasehold: &Leasehold, database: &str, what: &str, secret: &[u8]) {
    eventually(SOON * 3, async || {
        drop(leasehold.connect("app", database).await);
        same((what, count(leasehold, secret)), (what, 0))
    })
    .await;
}

/// How often these bytes are in the memory of the process.
fn count(leasehold: &Leasehold, secret: &[u8]) -> usize {
    memory(leasehold).unwrap().iter().map(|region| region.count(secret)).sum()
}

/// A part of the memory of the process that it can write to.
struct Region {
    bytes: Vec<u8>,
    is_locked: bool,
}

impl Region {
    fn count(&self, secret: &[u8]) -> usize {
        let (first, rest) = secret.split_first().unwrap();
        let starts = self.bytes.iter().enumerate().filter(|(_, byte)| *byte == first);
        starts.filter(|(at, _)| self.bytes[at + 1..].starts_with(rest)).count()
    }
}

/// The memory of the process. Its parts and what each of them is stand in `smaps`: a line of addresses, then lines of properties.
fn memory(leasehold: &Leasehold) -> io::Result<Vec<Region>> {
    let pid = leasehold.pid();
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let mut regions: Vec<Region> = Vec::new();
    let mut is_wanted = false;
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap();
        if let Some((from, to)) = first.split_once('-').filter(|_| !first.ends_with(':')) {
            is_wanted = words.next().unwrap().starts_with("rw");
            if is_wanted {
                let [from, to] = [from, to].map(|address| u64::from_str_radix(address, 16).unwrap());
                let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
                // What was unmapped meanwhile is gone.
                let read = memory.read_at(&mut bytes, from).unwrap_or_default();
                bytes.truncate(read);
                regions.push(Region { bytes, is_locked: false });
            }
        } else if is_wanted && first == "VmFlags:" {
            regions.last_mut().unwrap().is_locked = words.any(|flag| flag == "lo");
        }
    }
    Ok(regions)
}

/// Only root may look into the memory of a process that is not dumpable; whoever is not root skips these tests.
fn may_look(leasehold: &Leasehold) -> bool {
    let Err(error) = memory(leasehold) else { return true };
    assert!(!rustix::process::geteuid().is_root(), "root cannot look: {error}");
    eprintln!("skipped: only root may look into the memory of a process ({error})");
    false
}
