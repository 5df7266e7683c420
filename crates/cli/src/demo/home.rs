//! Where the demo keeps its database, and that nobody else uses it meanwhile.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::Failed;

/// The database in `--data-dir`.
const DATABASE: &str = "demo.db";
/// Held while a demo runs there; the system gives it back when the process ends, however it ends.
const LOCK: &str = "demo.lock";

/// A process that was killed a moment ago may still hold it.
const LOCK_WAIT: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// A place for the database; a throw-away one is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Home {
    /// What to open.
    pub(super) url: String,
    /// What to call the database that is there afterwards; a URL that was given may hold a password and is not shown.
    pub(super) shown: Option<String>,
    /// The folder to remove.
    throw_away: Option<PathBuf>,
    _lock: Option<File>,
}

impl Home {
    /// A folder that is made if it is not there, and kept.
    pub(super) async fn folder(folder: &Path) -> Result<Self, Failed> {
        let refused = |source: io::Error| Failed::Folder { folder: folder.to_owned(), source };
        std::fs::create_dir_all(folder).map_err(refused)?;
        let lock = File::create(folder.join(LOCK)).map_err(refused)?;
        let deadline = Instant::now() + LOCK_WAIT;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    tokio::time::sleep(LOCK_PAUSE).await;
                }
                Err(TryLockError::WouldBlock) => return Err(Failed::Busy { folder: folder.to_owned() }),
                Err(TryLockError::Error(error)) => return Err(refused(error)),
            }
        }
        let url = file_url(folder);
        Ok(Self { shown: Some(url.clone()), url, throw_away: None, _lock: Some(lock) })
    }

    /// A folder of its own among the system's temporary ones.
    pub(super) fn throw_away() -> Result<Self, Failed> {
        let folder = std::env::temp_dir().join(format!("recache-demo-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(&folder)
            .map_err(|source| Failed::Folder { folder: folder.clone(), source })?;
        Ok(Self { url: file_url(&folder), shown: None, throw_away: Some(folder), _lock: None })
    }

    /// A database that somebody else runs.
    pub(super) fn database(url: &str) -> Self {
        Self { url: url.to_owned(), shown: Some("URL".to_owned()), throw_away: None, _lock: None }
    }
}

fn file_url(folder: &Path) -> String {
    format!("sqlite:{}", folder.join(DATABASE).display())
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(folder) = &self.throw_away {
            // Nothing can be done about a folder that cannot be removed, and the system empties this place by itself.
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}
