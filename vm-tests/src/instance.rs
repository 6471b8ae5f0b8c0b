//! A name of its own for everything one run makes, and the removal of what a killed run left.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cleanup::{Cleanup, guarded_by};
use crate::wait::until;

/// Where instances keep their files.
const ROOT: &str = "/run/portcullis-lab";
/// A file that tells [`Instance::sweep`] to leave an instance alone.
const KEPT: &str = "kept";

/// A unique name and a directory of its own, removed when dropped.
///
/// The directory holds a file that is locked while the process lives: a lock that can be taken is how a
/// later run knows that what carries this name is nobody's any more.
#[derive(Debug)]
pub struct Instance {
    name: String,
    directory: PathBuf,
    cleanup: Cleanup,
}

impl Instance {
    /// Takes a name no living instance has, after [`Instance::sweep`].
    ///
    /// # Errors
    /// If `/run` cannot be written.
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        /// Another process may sweep a directory between its making and its locking.
        const ATTEMPTS: u32 = 10;
        Self::sweep();
        let mut result = Err(anyhow::anyhow!("no attempt made"));
        for _ in 0..ATTEMPTS {
            // Short: the kernel limits interface names to 15 and socket paths to 107 octets.
            let name = format!("pc{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            result = Self::named(name);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    fn named(name: String) -> Result<Self> {
        let directory = Path::new(ROOT).join(&name);
        let (_, cleanup) = guarded_by(|| {
            fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
            let lock = lock_file(&directory)?.context("another process uses this instance name")?;
            let undo = {
                let directory = directory.clone();
                move || {
                    remove_directory(&directory);
                    drop(lock);
                }
            };
            anyhow::Ok(((), undo))
        })?;
        Ok(Self { name, directory, cleanup })
    }

    /// The name, a prefix of every name this instance makes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A name for one thing of this instance.
    pub fn name_of(&self, thing: &str) -> String {
        format!("{}-{thing}", self.name)
    }

    /// The directory for files of this instance.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Leaves the files in place, for [`Instance::remove`] and not for [`Instance::sweep`] to clear away.
    ///
    /// # Errors
    /// If the marker file cannot be written.
    pub fn keep(self) -> Result<()> {
        fs::write(self.directory.join(KEPT), "")?;
        self.cleanup.disarm();
        Ok(())
    }

    /// Removes the processes, namespaces, pins and files of an instance that [`Instance::keep`] left.
    ///
    /// # Errors
    /// If there is none of that name, or its process still runs.
    pub fn remove(name: &str) -> Result<()> {
        let directory = Path::new(ROOT).join(name);
        anyhow::ensure!(directory.is_dir(), "there is no instance {name} under {ROOT}");
        let lock = lock_file(&directory)?.with_context(|| format!("instance {name} is still running"))?;
        remove_everything(name);
        remove_directory(&directory);
        drop(lock);
        Ok(())
    }

    /// Removes what instances left whose process was killed, or was interrupted twice.
    pub fn sweep() {
        for entry in fs::read_dir(ROOT).into_iter().flatten().flatten() {
            let directory = entry.path();
            if directory.join(KEPT).exists() {
                continue;
            }
            if let (Ok(Some(lock)), Some(name)) = (lock_file(&directory), entry.file_name().to_str()) {
                remove_everything(name);
                remove_directory(&directory);
                drop(lock);
            }
        }
    }

    /// What still exists of the instance `name`: namespaces, pins, directories, processes. Empty after a
    /// complete removal.
    pub fn remains(name: &str) -> Vec<String> {
        remains_where(|found| found == name || found.starts_with(&format!("{name}-")))
    }

    /// The same for every instance of this process.
    pub fn remains_of_this_process() -> Vec<String> {
        let prefix = format!("pc{}-", std::process::id());
        remains_where(|found| found.starts_with(&prefix))
    }
}

fn remains_where(belongs: impl Fn(&str) -> bool) -> Vec<String> {
    let files = ["/run/netns", "/sys/fs/bpf/portcullis", "/run/portcullis", "/var/lib/portcullis", ROOT]
        .iter()
        .flat_map(|parent| fs::read_dir(parent).into_iter().flatten().flatten())
        .filter(|entry| entry.file_name().to_str().is_some_and(&belongs))
        .map(|entry| entry.path().display().to_string());
    // Whatever we start is told a path in the instance's directory.
    let mentions = |command: &str| {
        command
            .split(ROOT)
            .skip(1)
            .any(|rest| rest.trim_start_matches('/').split(['/', '\0']).next().is_some_and(&belongs))
    };
    let processes = names_in("/proc")
        .filter(|name| name.bytes().all(|b| b.is_ascii_digit()))
        .filter(|pid| {
            fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|command| mentions(&command))
        })
        .map(|pid| format!("process {pid}"));
    files.chain(processes).collect()
}

/// The lock of an instance, or `None` while its process lives.
fn lock_file(directory: &Path) -> Result<Option<Flock<File>>> {
    let file = File::create(directory.join("lock"))?;
    Ok(Flock::lock(file, FlockArg::LockExclusiveNonblock).ok())
}

fn remove_everything(name: &str) {
    let prefix = format!("{name}-");
    for namespace in names_in("/run/netns").filter(|n| n.starts_with(&prefix)) {
        kill_processes_in(&namespace);
        // A missing namespace is what we want; anything else shows in `remains`.
        let _ = Command::new("ip").args(["netns", "del", &namespace]).status();
    }
    for parent in ["/sys/fs/bpf/portcullis", "/run/portcullis", "/var/lib/portcullis"] {
        for entry in names_in(parent).filter(|n| n.starts_with(&prefix)) {
            remove_directory(&Path::new(parent).join(entry));
        }
    }
}

/// Kills them and waits until they are gone: a daemon that is just starting would make its pins anew.
fn kill_processes_in(namespace: &str) {
    const LIMIT: Duration = Duration::from_secs(5);
    until(LIMIT, || {
        let output = Command::new("ip").args(["netns", "pids", namespace]).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let pids: Vec<_> = text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
        for pid in &pids {
            // It may have ended since.
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        pids.is_empty().then_some(())
    });
}

fn names_in(directory: &str) -> impl Iterator<Item = String> + use<> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
}

fn remove_directory(directory: &Path) {
    if let Err(e) = fs::remove_dir_all(directory)
        && e.kind() != std::io::ErrorKind::NotFound
    {
        eprintln!("cannot remove {}: {e}", directory.display());
    }
    // The parent goes with the last instance; while others use it, this fails as it should.
    if let Some(parent) = directory.parent() {
        let _ = fs::remove_dir(parent);
    }
}
