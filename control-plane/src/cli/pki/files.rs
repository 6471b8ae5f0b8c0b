//! The files of an authority and of gateways. Keys are readable by their owner alone, and nothing is overwritten but the
//! revocation list.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Serial numbers in hexadecimal, and when they were revoked, in seconds since 1970.
pub type Revoked = BTreeMap<String, u64>;

/// Where files go.
pub struct Directory(PathBuf);

impl Directory {
    /// The directory, made if it is not there.
    pub fn create(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).with_context(|| path.display().to_string())?;
        Ok(Self(path.to_owned()))
    }

    /// Writes a file that is not there yet, and says so.
    pub fn write_new(&self, name: &str, content: &str) -> Result<()> {
        let path = self.0.join(name);
        let mode = if name.ends_with(".key") { 0o600 } else { 0o644 };
        match OpenOptions::new().write(true).create_new(true).mode(mode).open(&path) {
            Ok(mut file) => file.write_all(content.as_bytes()).with_context(|| path.display().to_string())?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                bail!("{} is there already; move it away", path.display())
            }
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        }
        println!("{}", path.display());
        Ok(())
    }

    /// Writes a file in place of the one that is there, and says so.
    pub fn replace(&self, name: &str, content: &str) -> Result<()> {
        let (path, new) = (self.0.join(name), self.0.join(format!("{name}.new")));
        fs::write(&new, content).with_context(|| new.display().to_string())?;
        fs::rename(&new, &path).with_context(|| path.display().to_string())?;
        println!("{}", path.display());
        Ok(())
    }

    /// What was revoked.
    pub fn revoked(&self) -> Result<Revoked> {
        let path = self.0.join("revoked");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Revoked::new()),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        let entry = |line: &str| {
            let (serial, at) = line.split_once(' ')?;
            Some((serial.to_owned(), at.parse().ok()?))
        };
        let entries: Option<Revoked> = text.lines().map(entry).collect();
        entries.with_context(|| format!("{}: lines are serial numbers and times", path.display()))
    }

    /// Remembers what is revoked.
    pub fn remember_revoked(&self, revoked: &Revoked) -> Result<()> {
        let lines: String = revoked.iter().map(|(serial, at)| format!("{serial} {at}\n")).collect();
        let path = self.0.join("revoked");
        fs::write(&path, lines).with_context(|| path.display().to_string())
    }
}
