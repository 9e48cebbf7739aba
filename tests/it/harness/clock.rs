//! A wall clock of its own for one process, by libfaketime. The machine's clock is left alone.

use std::path::PathBuf;
use std::process::Command;

use super::bench;

/// So many seconds off the machine's clock, from the moment it is set. Other clocks than the wall's are the machine's.
pub(crate) struct WallClock {
    file: PathBuf,
    library: PathBuf,
}

impl WallClock {
    pub(crate) async fn off_by(seconds: i64) -> Self {
        let directory = bench().directory().await;
        let library = directory.join("libfaketime.so.1");
        // The user that PostgreSQL runs as may not get at the place where it was installed.
        tokio::task::spawn_blocking({
            let library = library.clone();
            move || std::fs::copy(installed(), library).unwrap()
        })
        .await
        .unwrap();
        let clock = Self { file: directory.join("offset"), library };
        clock.set(seconds);
        clock
    }

    /// Jumps.
    pub(crate) fn set(&self, seconds: i64) {
        let fresh = self.file.with_extension("fresh");
        std::fs::write(&fresh, format!("{seconds:+}\n")).unwrap();
        std::fs::rename(fresh, &self.file).unwrap();
    }

    /// The environment of a process that goes by it.
    pub(crate) fn env(&self) -> [(&'static str, &str); 5] {
        [
            ("LD_PRELOAD", self.library.to_str().unwrap()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("NO_FAKE_STAT", "1"),
        ]
    }
}

/// The library, which is installed first where it is missing.
fn installed() -> PathBuf {
    let script = "import install; install.ensure('faketime'); print(install.faketime())";
    let found = Command::new("python3")
        .args(["-c", script])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench"))
        .output()
        .unwrap();
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    PathBuf::from(String::from_utf8(found.stdout).unwrap().trim())
}
