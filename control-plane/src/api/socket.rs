//! The control socket as a file.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The socket's file; dropping it removes it.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
}

impl SocketFile {
    /// Makes the socket; one that a dead daemon left is replaced.
    ///
    /// # Errors
    /// If a daemon answers on it, if something else is there, or the file cannot be made.
    pub fn bind(path: &Path) -> Result<(Self, UnixListener)> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)
                .with_context(|| format!("control.socket: making {}", directory.display()))?;
        }
        remove_stale(path)?;
        let listener = UnixListener::bind(path)
            .with_context(|| format!("control.socket: cannot make {}", path.display()))?;
        fs::set_permissions(path, Permissions::from_mode(0o660))
            .with_context(|| format!("control.socket: permissions of {}", path.display()))?;
        listener.set_nonblocking(true).context("control.socket")?;
        Ok((Self { path: path.to_owned() }, listener))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Nobody is left to tell, and the next start replaces it.
        let _ = fs::remove_file(&self.path);
    }
}

fn remove_stale(path: &Path) -> Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("control.socket: {}", path.display())),
    };
    if !metadata.file_type().is_socket() {
        bail!(
            "control.socket: {} is there and is no socket: remove it or choose another path",
            path.display()
        );
    }
    if UnixStream::connect(path).is_ok() {
        bail!("control.socket: another daemon answers on {}: stop it or choose another path", path.display());
    }
    fs::remove_file(path).with_context(|| format!("control.socket: removing the stale {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_daemon_is_not_disturbed_and_a_dead_ones_socket_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/control.sock");
        let (file, listener) = SocketFile::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(SocketFile::bind(&path).unwrap_err().to_string().contains("another daemon answers"));
        drop(listener);
        let (_second, _listener) = SocketFile::bind(&path).unwrap();
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_is_no_socket_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        fs::write(&path, "precious").unwrap();
        assert!(SocketFile::bind(&path).unwrap_err().to_string().contains("is no socket"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
