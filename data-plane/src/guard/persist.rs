//! The file from which a boot restores the guard.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{GuardError, GuardSpec};

/// Where the guard of the instance with this state directory is remembered.
pub fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("guard.json")
}

/// Writes it so that a crash at any moment leaves either the old or the new content, and a loss of power after
/// the return the new one.
///
/// # Errors
/// When the directory cannot be written; the old content stays.
pub fn store(state_dir: &Path, spec: &GuardSpec) -> Result<(), GuardError> {
    let path = file(state_dir);
    write(state_dir, &path, spec).map_err(|error| GuardError::File { path, error })
}

/// # Errors
/// When there is a file that cannot be read or understood.
pub fn load(state_dir: &Path) -> Result<Option<GuardSpec>, GuardError> {
    let path = file(state_dir);
    let read = match fs::read(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from)),
    };
    read.map(Some).map_err(|error| GuardError::File { path, error })
}

/// # Errors
/// When there is a file that cannot be removed.
pub fn forget(state_dir: &Path) -> Result<(), GuardError> {
    let path = file(state_dir);
    let removed = match fs::remove_file(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        removed => removed.and_then(|()| File::open(state_dir)?.sync_all()),
    };
    removed.map_err(|error| GuardError::File { path, error })
}

fn write(state_dir: &Path, path: &Path, spec: &GuardSpec) -> io::Result<()> {
    fs::create_dir_all(state_dir)?;
    let partial = path.with_extension("json.new");
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
    let mut bytes = serde_json::to_vec_pretty(spec)?;
    bytes.push(b'\n');
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    File::open(state_dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::super::{AddressRange, Pair, Rule, RuleAction};
    use super::*;

    #[test]
    fn what_is_stored_is_loaded_but_for_interface_indexes() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = dir.path().join("not/yet/there");
        let spec = GuardSpec { tun_interfaces: [7].into(), ..spec() };
        store(&state_dir, &spec).unwrap();
        assert_eq!(load(&state_dir).unwrap(), Some(GuardSpec { tun_interfaces: [].into(), ..spec }));
        assert_eq!(fs::read_dir(&state_dir).unwrap().count(), 1);
        forget(&state_dir).unwrap();
        assert_eq!(load(&state_dir).unwrap(), None);
        forget(&state_dir).unwrap();
    }

    #[test]
    fn a_damaged_file_is_an_error_and_not_an_empty_guard() {
        let dir = tempfile::tempdir().unwrap();
        store(dir.path(), &spec()).unwrap();
        let text = fs::read_to_string(file(dir.path())).unwrap();
        for damaged in
            ["", &text[..text.len() / 2], &text.replace("10.2.0.0", "::"), &text.replace("rules", "rulez")]
        {
            fs::write(file(dir.path()), damaged).unwrap();
            assert!(matches!(load(dir.path()), Err(GuardError::File { .. })), "{damaged}");
        }
    }

    #[test]
    fn a_failed_write_leaves_the_old_content() {
        let dir = tempfile::tempdir().unwrap();
        store(dir.path(), &spec()).unwrap();
        fs::create_dir(dir.path().join("guard.json.new")).unwrap();
        assert!(store(dir.path(), &GuardSpec::default()).is_err());
        assert_eq!(load(dir.path()).unwrap(), Some(spec()));
    }

    fn spec() -> GuardSpec {
        let range = |first: &str, last: &str| {
            AddressRange::new(first.parse().unwrap(), last.parse().unwrap()).unwrap()
        };
        let pair = Pair::addresses(range("10.1.0.0", "10.1.255.255"), range("10.2.0.0", "10.2.3.9"));
        GuardSpec {
            rules: vec![Rule { action: RuleAction::Protect, pairs: vec![pair] }],
            peers: [None, Some("2001:db8::1".parse().unwrap())].into(),
            local_addresses: ["192.0.2.1".parse().unwrap()].into(),
            tun_interfaces: [].into(),
            wan_interfaces: [].into(),
        }
    }
}
