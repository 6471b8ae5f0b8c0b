//! Another root file system for a program: mounts that only it sees, then chroot.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, chroot};

/// A root, read-only, with directories of ours in it.
#[derive(Clone, Debug)]
pub(super) struct Jail {
    root: PathBuf,
    shared: Vec<(PathBuf, PathBuf)>,
}

impl Jail {
    /// A jail with the devices and processes of this machine and a `/tmp` of its own.
    pub(super) fn new(root: &Path) -> Self {
        let shared = ["dev", "proc"].map(|name| (Path::new("/").join(name), root.join(name)));
        Self { root: root.to_owned(), shared: shared.into() }
    }

    /// Puts a directory of ours at `inside`, which has to exist in the root.
    pub(super) fn with(mut self, directory: &Path, inside: &str) -> Self {
        self.shared.push((directory.to_owned(), self.root.join(inside)));
        self
    }

    /// Moves the calling thread, and what it starts from then on, into the jail. The kernel removes the mounts when the last
    /// of them has ended.
    ///
    /// # Errors
    /// Without root, or if something that is to be there is missing.
    pub(super) fn enter(&self) -> Result<()> {
        unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace needs root")?;
        change(Path::new("/"), MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
        bind(&self.root, &self.root)?;
        for (from, to) in &self.shared {
            bind(from, to)?;
        }
        let tmp = self.root.join("tmp");
        mount(Some("tmpfs"), &tmp, Some("tmpfs"), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mounting {}", tmp.display()))?;
        change(&self.root, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY)?;
        chroot(&self.root).with_context(|| format!("entering {}", self.root.display()))?;
        chdir("/").context("entering the root of the jail")
    }
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .with_context(|| format!("binding {} to {}", from.display(), to.display()))
}

fn change(mounted: &Path, flags: MsFlags) -> Result<()> {
    mount(None::<&str>, mounted, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("changing the mount at {}", mounted.display()))
}
