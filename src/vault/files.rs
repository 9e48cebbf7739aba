//! Reads files that contain one secret, at each login: a JWT, a secret_id, a token, a password. Floor 2.

use secrecy::zeroize::Zeroizing;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::failure::login_failed;
use super::{Failure, Kind};
use crate::files::{self, FileSetting, Reason};
use crate::secret::Secret;

/// Reads files, one at a time.
#[derive(Default)]
pub(super) struct Files {
    /// A read that timed out. A mount that hangs blocks the thread that reads from it, and no second thread.
    hanging: Option<JoinHandle<Text>>,
}

type Text = Result<Zeroizing<String>, files::Error>;

impl Files {
    /// Reads a file with one secret, without the white space around it. The error names the setting. Cancel safe.
    pub(super) async fn secret(&mut self, file: &FileSetting, deadline: Instant) -> Result<Secret, Failure> {
        let fail = |reason| login_failed(Kind::Transient, &file.fails(reason).to_string()).of_ours();
        if let Some(hanging) = &mut self.hanging {
            if timeout_at(deadline, hanging).await.is_err() {
                return Err(fail(Reason::Hangs));
            }
            self.hanging = None;
        }
        let file_again = file.clone();
        let reading = self.hanging.insert(tokio::task::spawn_blocking(move || file_again.secret()));
        let Ok(read) = timeout_at(deadline, reading).await else {
            return Err(fail(Reason::TooSlow));
        };
        self.hanging = None;
        match read {
            Ok(Ok(text)) => Ok(Secret::new(text.as_str().to_owned())),
            Ok(Err(error)) => Err(login_failed(Kind::Transient, &error.to_string()).of_ours()),
            Err(_) => Err(fail(Reason::Interrupted)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_fifo_is_refused_at_once_and_leaves_no_thread_behind() {
        let path = std::env::temp_dir().join(format!("leasehold-fifo-{}", std::process::id()));
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        let mut files = Files::default();
        let file = FileSetting::new(&path, "a.toml:7: vault.auth.jwt_file");
        let failure = files.secret(&file, Instant::now() + LONG).await.unwrap_err();
        std::fs::remove_file(&path).unwrap();
        let place = format!("a.toml:7: vault.auth.jwt_file: cannot use {}", path.display());
        let said = format!("login: {place}: it is not a regular file");
        assert_eq!((failure.kind, failure.to_string()), (Kind::Transient, said));
        assert!(files.hanging.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_hangs_is_given_up_and_not_begun_again() {
        let (go_on, hangs) = std::sync::mpsc::channel::<()>();
        let hanging = tokio::task::spawn_blocking(move || {
            // This blocks until the sender is dropped.
            let _ = hangs.recv();
            Ok(Zeroizing::new(String::new()))
        });
        let mut files = Files { hanging: Some(hanging) };
        let file = FileSetting::new(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"), "jwt_file");
        for _ in 0..2 {
            let failure = files.secret(&file, Instant::now()).await.unwrap_err();
            assert!(failure.to_string().ends_with("an earlier read still hangs"), "{failure}");
        }
        drop(go_on);
        files.secret(&file, Instant::now() + LONG).await.unwrap();
        assert!(files.hanging.is_none());
    }
}
