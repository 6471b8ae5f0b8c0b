//! The store as a file.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Stored;

/// The form of the file. A later one is not guessed at.
const VERSION: u32 = 1;
/// A file longer than this is none of ours.
const MAX_OCTETS: u64 = 256 << 20;

/// Where the store is.
#[derive(Clone, Debug)]
pub struct StoreFile {
    directory: PathBuf,
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    version: u32,
    stored: Stored,
}

impl StoreFile {
    /// The store of a state directory.
    pub fn new(state_dir: &Path) -> Self {
        Self { directory: state_dir.to_owned(), path: state_dir.join("policy-store.json") }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads it; nothing has been changed when there is none.
    ///
    /// # Errors
    /// If it is there and cannot be read or understood.
    pub fn read(&self) -> io::Result<Stored> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Stored::default()),
            file => file?,
        };
        let mut text = Vec::new();
        file.take(MAX_OCTETS + 1).read_to_end(&mut text)?;
        if text.len() as u64 > MAX_OCTETS {
            return Err(io::Error::other(format!("longer than {MAX_OCTETS} octets")));
        }
        let Form { version, stored } = serde_json::from_slice(&text)?;
        if version != VERSION {
            return Err(io::Error::other(format!("it has form {version}, this version reads {VERSION}")));
        }
        Ok(stored)
    }

    /// Replaces it: once this returns, a crash or a loss of power leaves the new content, before that the old one.
    ///
    /// # Errors
    /// If the directory cannot be written; the old content stays.
    pub fn write(&self, stored: &Stored) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let partial = self.path.with_extension("json.new");
        let text = serde_json::to_vec_pretty(&Form { version: VERSION, stored: stored.clone() })?;
        let written = write_synced(&partial, &text).and_then(|()| fs::rename(&partial, &self.path));
        if let Err(error) = written {
            // What is left of it takes room on a disk that may be full.
            let _ = fs::remove_file(&partial);
            return Err(error);
        }
        File::open(&self.directory)?.sync_all()
    }
}

fn write_synced(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::store::{Entries, PolicyWord};

    #[test]
    fn what_is_written_is_read_and_only_the_owner_may() {
        let directory = tempfile::tempdir().unwrap();
        let file = StoreFile::new(&directory.path().join("not/yet"));
        assert_eq!(file.read().unwrap(), Stored::default());
        file.write(&stored()).unwrap();
        assert_eq!(file.read().unwrap(), stored());
        assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path().join("not/yet")).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_store_is_an_error_and_not_an_empty_one() {
        let directory = tempfile::tempdir().unwrap();
        let file = StoreFile::new(directory.path());
        for text in ["", "{", "{\"version\":2,\"stored\":{\"entries\":{}}}", "{\"version\":1}", "[]"] {
            fs::write(file.path(), text).unwrap();
            assert!(file.read().is_err(), "{text}");
        }
        fs::remove_file(file.path()).unwrap();
        fs::create_dir(file.path()).unwrap();
        assert!(file.read().is_err(), "a directory");
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_content() {
        let directory = tempfile::tempdir().unwrap();
        let file = StoreFile::new(directory.path());
        file.write(&stored()).unwrap();
        fs::create_dir(directory.path().join("policy-store.json.new")).unwrap();
        assert!(file.write(&Stored::default()).is_err());
        assert_eq!(file.read().unwrap(), stored());
    }

    fn stored() -> Stored {
        let policies = [("x".to_owned(), PolicyWord::TcpFallback)].into();
        Stored { entries: Entries { policies, ..Entries::default() }, pending: None }
    }
}
