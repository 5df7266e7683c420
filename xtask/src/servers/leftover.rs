//! The folder of one run, and what a run that was killed with its guard left behind.
//!
//! A run keeps a file in its folder locked. The system gives the lock back when the process ends, whatever ended it: a
//! folder whose lock can be had belongs to a dead run. (A process id would not do: it may be somebody else's by now.) Beside
//! it stands which servers were started, each with its process id and its birth, so that no later process is taken for it.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::server::random_text;
use crate::Failure;
use crate::process::{self, Signal};

const PREFIX: &str = "recache-test-";
const LOCK: &str = "owner.lock";
const STARTED: &str = "started";

/// A folder for one run's servers; removed when dropped.
#[derive(Debug)]
pub(super) struct RunFolder {
    path: PathBuf,
    _lock: File,
}

impl RunFolder {
    pub(super) fn create(parent: &Path) -> Result<Self, Failure> {
        let name = random_text()?;
        // Under a name that nobody looks at, until it is locked.
        let hidden = parent.join(format!(".{PREFIX}{name}"));
        let path = parent.join(format!("{PREFIX}{name}"));
        let create = || {
            fs::create_dir(&hidden)?;
            let lock = File::create_new(hidden.join(LOCK))?;
            lock.lock()?;
            // The process id is for people.
            writeln!(&lock, "{}", std::process::id())?;
            fs::rename(&hidden, &path)?;
            Ok(lock)
        };
        let lock = create()
            .map_err(Failure::at::<std::io::Error>(format_args!("cannot make `{}`", path.display())))?;
        Ok(Self { path, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Notes a server that was started.
    pub(super) fn note(&self, name: &str, pid: u32) -> Result<(), Failure> {
        let birth = process::birth(pid).unwrap_or_default();
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path.join(STARTED))
            .and_then(|mut file| writeln!(file, "{name} {pid} {birth}"))
            .map_err(Failure::at("cannot note which servers were started"))
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Stops the servers of dead runs of ours and removes their folders.
pub(super) fn remove_all(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let is_run = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        // Not through a link: the parent is a place where everybody may put one.
        if is_run && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
}

fn remove(run: &Path) {
    // Root may open anybody's folder; what another user wrote there must not tell it whom to stop.
    let owner = fs::metadata(run).ok().map(|metadata| metadata.uid());
    if owner.is_none() || owner != process::user_id() {
        return;
    }
    let Ok(lock) = OpenOptions::new().read(true).write(true).open(run.join(LOCK)) else { return };
    if lock.try_lock().is_err() {
        return;
    }
    eprintln!("xtask: cleaning up `{}`, left behind by a run that was killed", run.display());
    let started = fs::read_to_string(run.join(STARTED)).unwrap_or_default();
    for (name, pid, birth) in started.lines().filter_map(parse_started) {
        let is_alive = || process::birth(pid).is_some_and(|now| now == birth);
        let gentle = if name == "postgres" { Signal::Quit } else { Signal::Kill };
        for signal in [gentle, Signal::Kill] {
            if is_alive() {
                process::send(signal, pid);
                process::wait_until(Duration::from_secs(5), || !is_alive());
            }
        }
    }
    let _ = fs::remove_dir_all(run);
}

fn parse_started(line: &str) -> Option<(&str, u32, &str)> {
    let mut fields = line.split(' ');
    let (name, pid, birth) = (fields.next()?, fields.next()?.parse().ok()?, fields.next()?);
    (!birth.is_empty()).then_some((name, pid, birth))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    struct Parent(PathBuf);

    impl Parent {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("xtask-leftover-{}", random_text().unwrap()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn runs(&self) -> usize {
            fs::read_dir(&self.0).unwrap().count()
        }
    }

    impl Drop for Parent {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    /// What a killed guard leaves: its folder, without anybody who holds the lock.
    fn die(run: RunFolder) -> PathBuf {
        let path = run.path.clone();
        let moved = path.with_extension("aside");
        fs::rename(&path, &moved).unwrap();
        drop(run);
        fs::rename(&moved, &path).unwrap();
        path
    }

    #[test]
    fn a_live_run_is_left_alone() {
        let parent = Parent::new();
        let run = RunFolder::create(&parent.0).unwrap();
        remove_all(&parent.0);
        assert!(run.path().join(LOCK).exists());
        drop(run);
        assert_eq!(parent.runs(), 0, "a run that ends removes its folder");
    }

    #[test]
    fn servers_of_a_dead_run_are_stopped_and_its_folder_removed() {
        let parent = Parent::new();
        let run = RunFolder::create(&parent.0).unwrap();
        let mut server = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        run.note("cat", server.id()).unwrap();
        die(run);
        remove_all(&parent.0);
        assert_eq!(parent.runs(), 0);
        // Its stdin is still open: only a signal can have ended it.
        assert_eq!(server.try_wait().unwrap().map(|status| status.success()), Some(false));
    }

    #[test]
    fn a_later_process_with_the_same_id_is_left_alone() {
        let parent = Parent::new();
        let run = RunFolder::create(&parent.0).unwrap();
        let mut other = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        fs::write(run.path().join(STARTED), format!("postgres {} 1@another-boot\n", other.id())).unwrap();
        die(run);
        remove_all(&parent.0);
        assert_eq!(parent.runs(), 0);
        assert!(other.try_wait().unwrap().is_none(), "still running");
        process::stop(&mut other, Signal::Kill);
    }

    #[test]
    fn a_link_is_not_followed() {
        let parent = Parent::new();
        let elsewhere = Parent::new();
        let path = die(RunFolder::create(&elsewhere.0).unwrap());
        std::os::unix::fs::symlink(&path, parent.0.join(format!("{PREFIX}link"))).unwrap();
        remove_all(&parent.0);
        assert!(path.exists());
    }

    #[test]
    fn half_a_line_names_no_process() {
        assert_eq!(parse_started("redis 12 99@boot"), Some(("redis", 12, "99@boot")));
        for line in ["", "redis", "redis 12", "redis 12 ", "redis x 99@boot"] {
            assert_eq!(parse_started(line), None, "{line:?}");
        }
    }
}
