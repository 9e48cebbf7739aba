//! Files that hold one secret: a JWT, a secret_id, a token, a password. Floor 2.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use secrecy::zeroize::Zeroizing;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::login::failed;
use super::{Failure, Kind};
use crate::secret::Secret;

/// Reads files, one at a time.
#[derive(Default)]
pub(super) struct Files {
    /// A read that was given up. A mount that hangs keeps the thread that reads from it: that one, and no other.
    hanging: Option<JoinHandle<Text>>,
}

type Text = io::Result<Zeroizing<String>>;

impl Files {
    /// Reads a file that holds one secret, without the white space around it. The error names the file. Cancel safe.
    pub(super) async fn secret(
        &mut self,
        setting: &'static str,
        path: &Path,
        deadline: Instant,
    ) -> Result<Secret, Failure> {
        let fail = |reason: &str| {
            let text = format!("cannot use {setting} {}: {reason}", path.display());
            failed(Kind::Transient, &text)
        };
        if let Some(hanging) = &mut self.hanging {
            if timeout_at(deadline, hanging).await.is_err() {
                return Err(fail("an earlier read still hangs"));
            }
            self.hanging = None;
        }
        let path: PathBuf = path.to_owned();
        let reading = self.hanging.insert(tokio::task::spawn_blocking(move || read(&path)));
        let Ok(read) = timeout_at(deadline, reading).await else {
            return Err(fail("reading it takes too long"));
        };
        self.hanging = None;
        let text = match read {
            Ok(Ok(text)) => text,
            Ok(Err(error)) => return Err(fail(&error.to_string())),
            Err(_) => return Err(fail("reading was interrupted")),
        };
        match text.trim() {
            "" => Err(fail("it is empty")),
            secret => Ok(Secret::new(secret.to_owned())),
        }
    }
}

/// Opening a FIFO would wait for somebody who writes into it; opened so, it does not.
fn read(path: &Path) -> Text {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    // Reading a directory fails with a reason of its own.
    let kind = file.metadata()?.file_type();
    if !kind.is_file() && !kind.is_dir() {
        return Err(io::Error::other("it is not a regular file"));
    }
    text(file)
}

fn text(file: File) -> Text {
    let mut text = Zeroizing::new(String::new());
    file.take(FILE_LIMIT).read_to_string(&mut text)?;
    Ok(text)
}

/// A service account's token has about 1 KiB, and the header that it may go into a few.
const FILE_LIMIT: u64 = 64 * 1024;

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
        let failure = files.secret("jwt_file", &path, Instant::now() + LONG).await.unwrap_err();
        std::fs::remove_file(&path).unwrap();
        let said = format!("login: cannot use jwt_file {}: it is not a regular file", path.display());
        assert_eq!((failure.kind, failure.to_string()), (Kind::Transient, said));
        assert!(files.hanging.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_hangs_is_given_up_and_not_begun_again() {
        let (go_on, hangs) = std::sync::mpsc::channel::<()>();
        let hanging = tokio::task::spawn_blocking(move || {
            // Until the sender is dropped.
            let _ = hangs.recv();
            Ok(Zeroizing::new(String::new()))
        });
        let mut files = Files { hanging: Some(hanging) };
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
        for _ in 0..2 {
            let failure = files.secret("jwt_file", path, Instant::now()).await.unwrap_err();
            assert!(failure.to_string().ends_with("an earlier read still hangs"), "{failure}");
        }
        drop(go_on);
        files.secret("jwt_file", path, Instant::now() + LONG).await.unwrap();
        assert!(files.hanging.is_none());
    }
}
