//! What the process gives up before it serves.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use reqwest::Method;
use rustix::thread::{CapabilitySet, capabilities};

use crate::harness::{Backends, Builder, Leasehold, SOON, Scene, Spec, bench, eventually, same};

#[tokio::test(flavor = "multi_thread")]
async fn the_process_leaves_no_core_dump() {
    let scene = Scene::on(&bench().postgres().await).await;
    assert_eq!(core_limits(&scene.leasehold), ["0", "0", "bytes"], "soft and hard limit");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_thread_has_a_capability_or_a_way_to_privileges() {
    let scene = Scene::on(&bench().postgres().await).await;
    // By now there are the threads of the log, of sessions and of files that are read.
    drop(scene.session().await);
    let threads = threads(&scene.leasehold);
    assert!(threads.len() > 2, "{threads:?}");
    for status in &threads {
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(field(status, set), NO_CAPABILITY, "{set} of {status}");
        }
        // To empty this one takes a capability.
        if capabilities(None).unwrap().effective.contains(CapabilitySet::SETPCAP) {
            assert_eq!(field(status, "CapBnd"), NO_CAPABILITY, "{status}");
        }
        assert_eq!(field(status, "NoNewPrivs"), "1", "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_thread_has_a_filter_of_system_calls() {
    let scene = Scene::on(&bench().postgres().await).await;
    drop(scene.session().await);
    for status in threads(&scene.leasehold) {
        assert_eq!(field(&status, "Seccomp"), "2", "{status}");
    }
}

/// Whoever leads the name of the audit file elsewhere gets no file written there.
#[tokio::test(flavor = "multi_thread")]
async fn no_file_is_written_in_a_directory_that_no_setting_named() {
    for (mode, is_written) in [("off", true), ("auto", false)] {
        let directory = bench().directory().await;
        let [named, other, link] = ["named", "other", "link"].map(|name| directory.join(name));
        fs::create_dir(&named).unwrap();
        fs::create_dir(&other).unwrap();
        symlink(&named, &link).unwrap();
        let audit = link.join("audit");
        let describe = |builder: Builder, db: &_| {
            builder.upstream(db).flag("--hardening", mode).flag("--audit-file", audit.to_str().unwrap())
        };
        let scene = Scene::with(&bench().postgres().await, Spec::new("app"), describe).await;
        fs::remove_file(&link).unwrap();
        symlink(&other, &link).unwrap();
        assert_eq!(scene.leasehold.admin(Method::POST, "/reload").await.status, 200);
        drop(scene.session().await);
        let lines = |directory: &Path| {
            fs::read_to_string(directory.join("audit")).unwrap_or_default().lines().count()
        };
        let (to, not_to) = if is_written { (&other, &named) } else { (&named, &other) };
        eventually(SOON, async || same(lines(to), 2)).await;
        assert_eq!(lines(not_to), 0, "{mode}");
        let refused = scene.leasehold.log().messages("audit_file cannot be opened again");
        assert_eq!(refused.len(), usize::from(!is_written), "{mode}: {refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_step_is_missing_auto_goes_on_and_require_binds_nothing() {
    let backends = Backends::new(Spec::new("app")).await;
    for (call, step) in [
        (libc::SYS_landlock_create_ruleset, "Landlock cannot forbid writes and programs"),
        (libc::SYS_seccomp, "seccomp cannot forbid system calls"),
    ] {
        let required = backends.leasehold().flag("--hardening", "require").without_system_call(call);
        let (status, log) = required.run_to_end().await;
        assert_eq!(status.code(), Some(71), "{}", log.0);
        assert!(log.0.contains(&format!("leasehold: hardening: {step} (let ")), "{}", log.0);
        assert!(log.listening("client").is_empty(), "{}", log.0);

        let leasehold = backends.leasehold().without_system_call(call).start().await;
        leasehold.wait_ready().await;
        drop(leasehold.connect("app", backends.db.name()).await);
        assert_eq!(leasehold.log().messages(&format!("hardening: {step}")).len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hardening_that_is_off_leaves_the_process_as_it_was_started() {
    let describe = |builder: Builder, db: &_| builder.upstream(db).flag("--hardening", "off");
    let scene = Scene::with(&bench().postgres().await, Spec::new("app"), describe).await;
    let ours = fs::read_to_string("/proc/self/status").unwrap();
    for status in threads(&scene.leasehold) {
        for name in ["CapPrm", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp"] {
            assert_eq!(field(&status, name), field(&ours, name), "{name}");
        }
    }
    assert_eq!(
        core_limits(&scene.leasehold),
        ["0", "0", "bytes"],
        "a core dump is none of what it switches off"
    );
}

/// `Max core file size` of the process: the soft limit, the hard limit, the unit.
fn core_limits(leasehold: &Leasehold) -> Vec<String> {
    let limits = fs::read_to_string(format!("/proc/{}/limits", leasehold.pid())).unwrap();
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    core.split_whitespace().map(str::to_owned).collect()
}

/// The status of each thread of the process.
fn threads(leasehold: &Leasehold) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", leasehold.pid())).unwrap();
    // A thread may have ended since.
    tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("status")).ok()).collect()
}

/// A field of `/proc/PID/status`.
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let of = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':');
    status.lines().find_map(of).unwrap_or_else(|| panic!("no {name} in {status}")).trim()
}

const NO_CAPABILITY: &str = "0000000000000000";
