//! The state file on a real tmpfs: what comes back, what does not, and who is kept out.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use proptest::prelude::*;

use super::document::Useless;
use super::*;
use crate::lease::{DynamicRole, Event, GenerationId, Settings, Snapshot, TokenFacts, TokenId};
use crate::secret::Secret;

/// A directory in memory, gone with the test.
struct Memory(PathBuf);

impl Memory {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("leasehold-unit-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new("/dev/shm").join(name);
        std::fs::create_dir(&path).expect("a directory in /dev/shm");
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("state")
    }

    fn open(&self) -> Arc<StateFile> {
        self.open_of("vault", "boot")
    }

    fn open_of(&self, vault: &str, boot: &str) -> Arc<StateFile> {
        StateFile::open_in(&self.file(), vault.to_owned(), boot.to_owned()).expect("it can be opened")
    }

    fn refused(&self) -> Error {
        match StateFile::open(&self.file(), "vault".to_owned()) {
            Ok(_) => panic!("it was opened"),
            Err(error) => error,
        }
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).expect("it is there");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        names
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// What a route that serves one generation keeps.
fn snapshot() -> Snapshot {
    let settings = Settings::new(1);
    let sent_at = clock::now();
    let mut machine = DynamicRole::new(settings);
    let ttl = Some(Duration::from_secs(7200));
    machine.handle(sent_at, Event::Tick);
    let facts = TokenFacts { sent_at, ttl, renewable: true, owned: true };
    machine.handle(sent_at, Event::LoggedIn(TokenId(1), facts));
    machine.handle(sent_at, Event::Granted { sent_at, lease: Duration::from_secs(3600), renewable: true });
    machine.handle(sent_at, Event::Proved(GenerationId::FIRST));
    machine.snapshot()
}

/// The same with its secrets, as a driver saves it.
fn held(password: &str) -> (Vec<SavedToken>, Vec<SavedGeneration>) {
    let kept = snapshot();
    let token =
        |&(id, life): &(TokenId, _)| SavedToken { id, token: Secret::new("a-token".to_owned()), life };
    let generation = |&(_, life): &(GenerationId, _)| SavedGeneration {
        username: "v-app".to_owned(),
        password: Secret::new(password.to_owned()),
        lease_id: "database/creds/app/1".to_owned(),
        origin: Origin { vault_path: "database/creds/app".to_owned(), login: "approle".to_owned() },
        life,
    };
    (kept.tokens.iter().map(token).collect(), kept.generations.iter().map(generation).collect())
}

fn left() -> Saved {
    let (tokens, generations) = held("s3cret \"\u{7}\u{1F512}");
    Saved { tokens, generations, ..Saved::new("app") }
}

fn written(left: &Saved) -> Vec<u8> {
    Document::write("boot", "vault", [left].into_iter()).expect("JSON").to_vec()
}

fn read(text: &[u8]) -> Result<Vec<Saved>, Useless> {
    Document::read(text, "boot", "vault", clock::now())
}

#[test]
fn what_is_saved_is_there_after_a_crash() {
    let memory = Memory::new();
    let (tokens, generations) = held("s3cret");
    let life = generations.first().map(|generation| generation.life);
    memory.open().slot("app").save(tokens, generations);

    let found = memory.open().slot("app").left();

    let generation = found.generations.first().expect("one generation");
    assert_eq!(generation.password.expose(), "s3cret");
    assert_eq!(
        (generation.username.as_str(), generation.lease_id.as_str()),
        ("v-app", "database/creds/app/1")
    );
    assert_eq!(Some(generation.life), life);
    assert!(generation.life.serves);
    assert_eq!(found.tokens.first().map(|token| token.token.expose()), Some("a-token"));
}

#[test]
fn it_is_for_its_user_alone_and_nothing_lies_beside_it() {
    let memory = Memory::new();
    let file = memory.open();
    let (tokens, generations) = held("s3cret");
    file.slot("app").save(tokens, generations);

    assert_eq!(memory.names(), ["state", "state.lock"]);
    for name in memory.names() {
        let mode = std::fs::metadata(memory.0.join(&name)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_route_that_holds_nothing_is_not_in_it_and_no_route_is_no_file() {
    let memory = Memory::new();
    let file = memory.open();
    let (app, other) = (file.slot("app"), file.slot("other"));
    let (tokens, generations) = held("s3cret");
    app.save(tokens, generations);
    let text = std::fs::read_to_string(memory.file()).expect("it is there");
    assert!(text.contains("\"app\"") && !text.contains("\"other\""), "{text}");

    app.save(Vec::new(), Vec::new());

    assert_eq!(memory.names(), ["state.lock"]);
    drop(other);
}

#[test]
fn what_nobody_takes_is_told_apart_and_kept() {
    let memory = Memory::new();
    let file = memory.open();
    for route in ["app", "gone"] {
        let (tokens, generations) = held(route);
        file.slot(route).save(tokens, generations);
    }
    drop(file);
    let file = memory.open();
    let app = file.slot("app");
    assert_eq!(file.rest().iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["gone"]);
    assert!(file.rest().is_empty());

    app.save(Vec::new(), Vec::new());

    drop((file, app));
    assert!(memory.open().slot("app").left().is_empty());
    assert!(!memory.open().slot("gone").left().is_empty());
}

#[test]
fn a_route_takes_its_own_once() {
    let memory = Memory::new();
    let (tokens, generations) = held("s3cret");
    memory.open().slot("app").save(tokens, generations);
    let file = memory.open();
    assert!(file.slot("other").left().is_empty());
    assert!(!file.slot("app").left().is_empty());
    assert!(file.slot("app").left().is_empty());
}

#[test]
fn of_two_of_one_name_the_one_that_served_is_taken() {
    let memory = Memory::new();
    let file = memory.open();
    for (password, serves) in [("retired", false), ("served", true), ("retired too", false)] {
        let (tokens, mut generations) = held(password);
        generations.iter_mut().for_each(|generation| generation.life.serves = serves);
        file.slot("app").save(tokens, generations);
    }
    drop(file);
    let file = memory.open();
    let left = file.slot("app").left();
    assert_eq!(left.generations.first().map(|generation| generation.password.expose()), Some("served"));
    assert_eq!(file.rest().len(), 2);
}

#[test]
fn the_end_in_order_removes_it_for_good() {
    let memory = Memory::new();
    let file = memory.open();
    let slot = file.slot("app");
    let (tokens, generations) = held("s3cret");
    slot.save(tokens, generations);
    std::fs::write(memory.0.join("state.new"), "half").expect("it can be written");

    assert_eq!(file.finish(), 1);

    assert_eq!(memory.names(), ["state.lock"]);
    let (tokens, generations) = held("late");
    slot.save(tokens, generations);
    assert_eq!(memory.names(), ["state.lock"]);
}

#[test]
fn a_second_process_is_kept_out_until_the_first_has_gone() {
    let memory = Memory::new();
    let first = memory.open();
    assert!(matches!(memory.refused(), Error::Locked));
    drop(first);
    memory.open();
}

#[test]
fn it_must_lie_in_memory() {
    let disk = std::env::temp_dir().join("state");
    assert!(matches!(StateFile::open(&disk, String::new()), Err(Error::OnDisk(_))), "{}", disk.display());
    assert!(matches!(StateFile::examine(Path::new("/proc/state")), Err(Error::OnDisk(_))));
    let nowhere = Path::new("/dev/shm/no-such-directory/state");
    assert!(matches!(StateFile::examine(nowhere), Err(Error::NoDirectory(_))));
}

#[test]
fn a_file_that_others_can_reach_or_that_is_none_is_refused_and_stays() {
    let memory = Memory::new();
    let (tokens, generations) = held("s3cret");
    memory.open().slot("app").save(tokens, generations);
    for mode in [0o640, 0o604, 0o620, 0o601] {
        std::fs::set_permissions(memory.file(), Permissions::from_mode(mode)).expect("it is ours");
        assert!(matches!(memory.refused(), Error::Open(found) if found == mode), "{mode:o}");
        assert!(matches!(StateFile::examine(&memory.file()), Err(Error::Open(_))));
    }
    std::fs::set_permissions(memory.file(), Permissions::from_mode(0o600)).expect("it is ours");
    std::fs::rename(memory.file(), memory.0.join("elsewhere")).expect("it is ours");
    symlink("elsewhere", memory.file()).expect("a link");
    assert!(matches!(memory.refused(), Error::NotAFile));
    std::fs::remove_file(memory.file()).expect("it is ours");
    std::fs::create_dir(memory.file()).expect("a directory");
    assert!(matches!(memory.refused(), Error::NotAFile));
}

#[test]
fn what_is_of_another_vault_boot_or_version_is_removed() {
    let memory = Memory::new();
    for (vault, boot) in [("another", "boot"), ("vault", "another")] {
        let (tokens, generations) = held("s3cret");
        memory.open().slot("app").save(tokens, generations);
        assert!(memory.open_of(vault, boot).slot("app").left().is_empty());
        assert_eq!(memory.names(), ["state.lock"]);
    }
    let text = String::from_utf8(written(&left())).expect("JSON");
    let newer = text.replacen("\"version\":2", "\"version\":3,\"more\":[]", 1);
    assert_eq!(read(newer.as_bytes()).err(), Some(Useless::Version));
    std::fs::write(memory.file(), newer).expect("it can be written");
    std::fs::set_permissions(memory.file(), Permissions::from_mode(0o600)).expect("it is ours");
    assert!(memory.open().slot("app").left().is_empty());
    assert_eq!(memory.names(), ["state.lock"]);
}

#[test]
fn no_part_of_a_document_is_taken_for_one() {
    let text = written(&left());
    assert!(read(&text).is_ok());
    for length in 0..text.len() {
        let part = text.get(..length).expect("it is shorter");
        assert_eq!(read(part).err(), Some(Useless::Corrupt), "{length}");
    }
}

#[test]
fn what_cannot_be_is_corrupt() {
    let orphan = Saved { tokens: Vec::new(), ..left() };
    let mut twice = left();
    twice.tokens.extend(left().tokens);
    for wrong in [orphan, twice] {
        assert_eq!(read(&written(&wrong)).err(), Some(Useless::Corrupt));
    }
    // It was sent an hour from now.
    let early = Document::read(&written(&left()), "boot", "vault", clock::now() - Duration::from_hours(1));
    assert_eq!(early.err(), Some(Useless::Corrupt));
}

#[test]
fn what_it_holds_is_not_shown() {
    let memory = Memory::new();
    let file = memory.open();
    let (tokens, generations) = held("s3cret");
    file.slot("app").save(tokens, generations);
    assert!(!format!("{file:?}").contains("s3cret"));
}

proptest! {
    #[test]
    fn any_secret_comes_back_as_it_was(password in ".*", token in ".*") {
        let mut left = left();
        for generation in &mut left.generations {
            generation.password = Secret::new(password.clone());
        }
        for held in &mut left.tokens {
            held.token = Secret::new(token.clone());
        }
        let found = read(&written(&left)).expect("it is whole");
        let found = found.first().expect("one route");
        prop_assert!(found.generations.iter().all(|g| g.password.expose() == password));
        prop_assert!(found.tokens.iter().all(|t| t.token.expose() == token));
    }

    /// Whatever one wrong byte makes of it: no panic in reading it.
    #[test]
    fn a_wrong_byte_does_no_harm(at in 0_usize..4000, byte in any::<u8>()) {
        let mut text = written(&left());
        let at = at % text.len();
        if let Some(wrong) = text.get_mut(at) {
            *wrong = byte;
        }
        let _ = read(&text);
    }
}
