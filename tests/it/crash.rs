//! After a crash: what it leaves, and what the next start makes of it.

use std::ops::Deref;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use crate::harness::{
    Backends, Builder, Database, Fault, Forwarded, Leasehold, Memory, Mode, SOON, Setup, Spec, bench,
    eventually, leasehold, same, through,
};

/// What a start asks Vault for: a login, a look at its token, a credential.
const REQUESTS: usize = 3;

/// A leasehold that can be killed and started again: always the same one to Vault and to PostgreSQL.
struct Stage {
    backends: Forwarded,
    memory: Memory,
}

impl Deref for Stage {
    type Target = Forwarded;

    fn deref(&self) -> &Forwarded {
        &self.backends
    }
}

impl Stage {
    async fn new(spec: Spec) -> Self {
        Self::of(bench().postgres().await.database().await, spec).await
    }

    async fn of(db: Database, spec: Spec) -> Self {
        let backends = Backends::with_database(db, spec).await.forwarded().await;
        Self { backends, memory: Memory::new() }
    }

    /// Without a state file.
    fn plain(&self) -> Builder {
        self.leasehold()
    }

    fn described(&self) -> Builder {
        self.plain().flag("--state-file", self.memory.file().to_str().unwrap())
    }

    async fn start(&self) -> Leasehold {
        self.described().start().await
    }

    /// One that has a session, and says with which role.
    async fn serves(&self, leasehold: &Leasehold) -> String {
        let session = leasehold.connect("app", self.db.name()).await;
        session.value("SELECT session_user").await
    }

    /// How many credentials Vault was asked for.
    fn issued(&self) -> usize {
        self.fault.handed_on(&format!("GET /v1/{} ", self.setup.path))
    }

    /// Vault drops what a revoked token owned a moment after it has said yes.
    async fn wait_roles(&self, roles: &[String]) {
        eventually(SOON, async || same(self.db.roles().await, roles.to_vec())).await;
    }

    fn saved(&self) -> String {
        std::fs::read_to_string(self.memory.file()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_make_one_role_with_a_state_file() {
    let stage = Stage::new(Spec::new("app")).await;
    let mut roles = Vec::new();

    for _ in 0..20 {
        let mut leasehold = stage.start().await;
        roles.push(stage.serves(&leasehold).await);
        leasehold.kill9();
    }

    assert_eq!(stage.issued(), 1);
    roles.dedup();
    assert_eq!(stage.db.roles().await, roles);
    let leasehold = stage.start().await;
    assert_eq!(stage.serves(&leasehold).await, roles[0]);
    assert_eq!(leasehold.generations().await[0]["generation"], 1, "they count from 1 in each process");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_state_file_each_start_makes_a_role() {
    let stage = Stage::new(Spec::new("app")).await;

    for starts in 1..=3 {
        let mut leasehold = stage.plain().start().await;
        stage.serves(&leasehold).await;
        leasehold.kill9();
        assert_eq!(stage.issued(), starts);
        assert_eq!(stage.db.roles().await.len(), starts);
    }
}

/// Before the first request of its start, and after each: what was asked for and never heard of goes with its login's token.
#[tokio::test(flavor = "multi_thread")]
async fn kills_at_any_moment_leave_one_role() {
    for requests in 0..=REQUESTS {
        let stage = Stage::new(Spec::new("app")).await;
        for _ in 0..5 {
            let asked_before = stage.fault.asked().len();
            let mut leasehold = stage.described().spawn().await;
            eventually(SOON, async || {
                // What is taken up is served without a request.
                let serves = !leasehold.log().messages("published").is_empty();
                let asked = stage.fault.asked().len() - asked_before;
                if serves || asked >= requests { Ok(()) } else { Err(asked) }
            })
            .await;
            leasehold.kill9();
        }
        assert!(requests < REQUESTS || stage.issued() > 0, "killed with a credential on its way");

        let leasehold = stage.start().await;
        let role = stage.serves(&leasehold).await;
        // Of a request that was cut short OpenBao 2.7.2 may keep the record of a lease with no role, or a role with no lease,
        // which nobody can give back. What leasehold had lost would be there as both.
        eventually(SOON * 3, async || {
            let (roles, leases) = (stage.db.roles().await, stage.vault.leases(&stage.setup.path).await);
            if roles == [role.clone()] || leases.len() == 1 {
                Ok(())
            } else {
                Err(format!("{roles:?} {leases:?}"))
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_was_on_its_way_goes_with_its_token_at_the_next_start() {
    let db = bench().postgres().await.database().await;
    let to_database = Fault::before(&db.server.addr()).await;
    let stage = Stage::of(db, Spec::new("app").database_addr(&to_database.addr().to_string())).await;
    // Vault makes the role when PostgreSQL hears of it, and leasehold does not hear of that any more.
    to_database.set(Mode::HoldToServer).await;
    let mut leasehold = stage.start().await;
    eventually(SOON, async || same(stage.issued(), 1)).await;
    stage.fault.set(Mode::HoldToClient).await;
    to_database.set(Mode::Pass).await;
    eventually(SOON, async || same(stage.db.roles().await.len(), 1)).await;
    leasehold.kill9();
    assert!(leasehold.log().messages("issued").is_empty());
    let lost = stage.db.roles().await;
    stage.fault.set(Mode::Pass).await;

    let leasehold = stage.start().await;

    let role = stage.serves(&leasehold).await;
    assert_ne!(vec![role.clone()], lost);
    stage.wait_roles(&[role]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retired_credential_that_a_crash_has_left_is_revoked_at_the_next_start() {
    for policy in ["", Spec::MAY_REVOKE] {
        let stage = Stage::new(Spec::new("app").policy(policy)).await;
        let mut leasehold = stage.start().await;
        leasehold.wait_ready().await;
        let old = leasehold.connect("app", stage.db.name()).await;
        leasehold.rotate().await;
        let current = stage.serves(&leasehold).await;
        assert_eq!(stage.db.roles().await.len(), 2);
        leasehold.kill9();
        drop(old);

        let leasehold = stage.start().await;

        assert_eq!(stage.serves(&leasehold).await, current);
        stage.wait_roles(&[current]).await;
        assert_eq!(stage.issued(), 2);
        let by = if policy.is_empty() { "token" } else { "lease" };
        // By its token: once the lease is seen to be gone.
        eventually(SOON, async || {
            let revoked = leasehold.metrics().await.get("revocations_total", &[("outcome", by)]);
            if revoked >= 1.0 { Ok(()) } else { Err(by) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_gives_everything_back_and_removes_the_file() {
    let stage = Stage::new(Spec::new("app")).await;
    let mut leasehold = stage.start().await;
    stage.serves(&leasehold).await;
    let mode = std::fs::metadata(stage.memory.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    assert_eq!(leasehold.stop().await.code(), Some(0));

    assert!(!stage.memory.file().exists());
    stage.wait_roles(&[]).await;
    let mut leasehold = stage.start().await;
    stage.serves(&leasehold).await;
    assert_eq!(stage.issued(), 2);
    assert_eq!(leasehold.stop().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_without_vault_removes_the_file_and_says_that_something_lapses() {
    let stage = Stage::new(Spec::new("app")).await;
    let mut leasehold = stage.start().await;
    stage.serves(&leasehold).await;
    stage.fault.set(Mode::Refuse).await;
    stage.fault.cut();

    assert_eq!(leasehold.stop().await.code(), Some(0));

    assert!(!stage.memory.file().exists());
    leasehold.wait_log("not every lease was given back").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_sigterm_leaves_the_file_and_the_next_start_gives_back_what_is_in_it() {
    let stage = Stage::new(Spec::new("app")).await;
    let mut leasehold = stage.start().await;
    let busy = leasehold.connect("app", stage.db.name()).await;
    busy.batch_execute("BEGIN; SELECT 1").await.unwrap();
    leasehold.sigterm();
    eventually(SOON, async || same(leasehold.http("/readyz").await.status, 503)).await;

    leasehold.sigterm();

    leasehold.wait_exit().await;
    assert!(stage.memory.file().exists());
    assert_eq!(stage.db.roles().await.len(), 1);
    let leasehold = stage.start().await;
    let role = stage.serves(&leasehold).await;
    stage.wait_roles(&[role]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_revoked_while_nobody_looked_is_replaced_and_no_client_sees_it() {
    let stage = Stage::new(Spec::new("app")).await;
    let mut leasehold = stage.start().await;
    let old = stage.serves(&leasehold).await;
    leasehold.kill9();
    stage.vault.revoke_prefix(&stage.setup.path).await;
    stage.wait_roles(&[]).await;

    let leasehold = stage.start().await;

    let new = stage.serves(&leasehold).await;
    assert_ne!(new, old);
    stage.wait_roles(&[new]).await;
    assert_eq!(stage.issued(), 2);
    leasehold.wait_log("the credential of the process before this one").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_up_serves_while_vault_is_away() {
    let stage = Stage::new(Spec::new("app")).await;
    let mut leasehold = stage.start().await;
    let role = stage.serves(&leasehold).await;
    leasehold.kill9();
    stage.fault.set(Mode::Refuse).await;

    let leasehold = stage.start().await;

    assert_eq!(stage.serves(&leasehold).await, role);
    leasehold.wait_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_was_taken_up_is_renewed_and_ends_as_ever() {
    let stage = Stage::new(Spec::new("app").ttl("20s", "40s")).await;
    let mut leasehold = stage.start().await;
    let role = stage.serves(&leasehold).await;
    leasehold.kill9();

    let leasehold = stage.start().await;

    let old = leasehold.connect("app", stage.db.name()).await;
    assert_eq!(old.value("SELECT session_user").await, role);
    for (metric, label) in [("renewals_total", ("outcome", "ok")), ("rotations_total", ("reason", "capped"))]
    {
        eventually(SOON * 4, async || same(leasehold.metrics().await.get(metric, &[label]) >= 1.0, true))
            .await;
    }
    // At its max TTL the session ends by our hand, before its role is dropped.
    assert_eq!(old.ended_within(SOON * 2).await.as_deref(), Some("57P01"));
    assert_ne!(stage.serves(&leasehold).await, role);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_path_or_route_does_not_take_it_up_and_gives_it_back() {
    let stage = Stage::new(Spec::new("app")).await;
    let other = stage.another(Spec::new("app")).await;
    let mut leasehold = stage.start().await;
    let old = stage.serves(&leasehold).await;
    leasehold.kill9();
    let described = |setup: &Setup| {
        stage.without_login().login(setup).flag("--state-file", stage.memory.file().to_str().unwrap())
    };

    // The same route's name, and another login and path.
    let mut leasehold = described(&other).start().await;

    let new = stage.serves(&leasehold).await;
    assert_ne!(new, old);
    stage.wait_roles(std::slice::from_ref(&new)).await;
    leasehold.kill9();

    // Another route's name.
    let toml = format!(
        "[[route]]\nname = \"another\"\nvault_path = \"{}\"\nupstream = \"postgresql://{}/?sslmode=disable\"\n",
        other.path,
        stage.db.server.addr(),
    );
    let leasehold = leasehold_of_vault(&stage)
        .approle(&other)
        .flag("--state-file", stage.memory.file().to_str().unwrap())
        .config_toml(&toml)
        .start()
        .await;

    let newest = stage.serves(&leasehold).await;
    assert_ne!(newest, new);
    stage.wait_roles(&[newest]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_file_is_told_of_and_a_fresh_credential_issued() {
    let stage = Stage::new(Spec::new("app")).await;
    let mut leasehold = stage.start().await;
    let old = stage.serves(&leasehold).await;
    leasehold.kill9();
    let saved = stage.saved();
    std::fs::write(stage.memory.file(), &saved[..saved.len() / 2]).unwrap();

    let leasehold = stage.start().await;

    assert_ne!(stage.serves(&leasehold).await, old);
    assert_eq!(stage.issued(), 2);
    let log = leasehold.log();
    let warning = log.lines().into_iter().find(|line| line["message"].to_string().contains("state file"));
    let warning = warning.unwrap();
    assert_eq!((&warning["level"], &warning["file"]), (&"WARN".into(), &stage.memory.file().to_str().into()));
    assert!(warning["message"].to_string().contains("it is corrupt"), "{warning}");
    assert!(stage.saved().ends_with('}'), "it is written anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_file_that_cannot_be_written_is_shown_until_it_can_be() {
    let stage = Stage::new(Spec::new("app")).await;
    let leasehold = stage.start().await;
    leasehold.wait_ready().await;
    let shown = async || {
        let status = leasehold.status().await["routes"][0]["unsaved"].as_bool();
        let ready = leasehold.http("/readyz").await;
        (status, ready.status, ready.text.contains("the state file cannot be written"))
    };
    assert_eq!(shown().await, (Some(false), 200, false));
    let file = stage.memory.file();
    let (directory, away) = (file.parent().unwrap(), file.parent().unwrap().with_extension("away"));
    std::fs::rename(directory, &away).unwrap();

    leasehold.rotate().await;

    eventually(SOON, async || same(shown().await, (Some(true), 200, true))).await;
    let page = leasehold.command(&["status"]).await;
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    assert!(page.contains("app: the state file cannot be written"), "{page}");
    std::fs::rename(&away, directory).unwrap();
    eventually(SOON, async || same(shown().await, (Some(false), 200, false))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_with_the_same_file_is_refused_with_78() {
    let stage = Stage::new(Spec::new("app")).await;
    let mut leasehold = stage.start().await;
    stage.serves(&leasehold).await;
    let before = stage.saved();

    let reason = refused(stage.described()).await;

    assert!(reason.contains("another leasehold uses it"), "{reason}");
    assert_eq!(stage.saved(), before);
    leasehold.kill9();
    stage.serves(&stage.start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_or_a_place_that_is_not_fit_for_secrets_is_refused_with_78() {
    let stage = Stage::new(Spec::new("app")).await;
    let on_disk = stage.setup.directory().join("state");
    let file = stage.memory.file();
    let at = |path: &Path| stage.plain().flag("--state-file", path.to_str().unwrap());

    let no_directory = "there is no directory /dev/shm/no-such; make it, for the user that leasehold runs as";
    for (path, why) in
        [(on_disk.as_path(), "is not in memory"), (Path::new("/dev/shm/no-such/state"), no_directory)]
    {
        let reason = refused(at(path)).await;
        assert!(reason.contains(why), "{reason}");
        assert!(!path.exists());
    }
    std::fs::write(&file, "").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    let reason = refused(at(&file)).await;
    assert!(reason.contains("others may read or write it (mode 640)"), "{reason}");
    std::fs::remove_file(&file).unwrap();
    symlink(&on_disk, &file).unwrap();
    let reason = refused(at(&file)).await;
    assert!(reason.contains("it is not a regular file"), "{reason}");
    assert_eq!(stage.issued(), 0);
}

/// One line that names the key and the file, exit code 78, and nothing was bound.
async fn refused(described: Builder) -> String {
    let (status, log) = described.run_to_end().await;
    assert_eq!(status.code(), Some(78), "{}", log.0);
    assert!(log.listening("client").is_empty());
    let last = log.0.lines().last().unwrap_or_default().to_owned();
    assert!(last.starts_with("leasehold: --state-file: /"), "{last}");
    last
}

/// By the same way to Vault and to PostgreSQL.
fn leasehold_of_vault(stage: &Stage) -> Builder {
    leasehold().vault(&through(&stage.vault, &stage.fault))
}
