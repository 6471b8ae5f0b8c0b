//! The receiving end of systemd's notify protocol: how a daemon says that it is ready.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::Process;

/// The socket a daemon finds in `NOTIFY_SOCKET`.
#[derive(Debug)]
pub struct NotifySocket {
    socket: UnixDatagram,
    path: PathBuf,
}

impl NotifySocket {
    /// Binds `path`, in place of what an earlier run of the same daemon used.
    ///
    /// # Errors
    /// If the directory is missing or cannot be written.
    pub fn bind(path: &Path) -> Result<Self> {
        if let Err(e) = std::fs::remove_file(path)
            && e.kind() != ErrorKind::NotFound
        {
            return Err(e).with_context(|| format!("removing {}", path.display()));
        }
        let socket = UnixDatagram::bind(path).with_context(|| format!("binding {}", path.display()))?;
        Ok(Self { socket, path: path.to_owned() })
    }

    /// The value for `NOTIFY_SOCKET`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for `READY=1`.
    ///
    /// # Errors
    /// If the process ends first, or nothing came within `limit`.
    pub fn wait_ready(&self, process: &Process, limit: Duration) -> Result<()> {
        self.wait_for(process, limit, "READY=1").map(drop)
    }

    /// Waits for a message with this line, and returns the whole message. Messages before it are forgotten.
    ///
    /// # Errors
    /// If the process ends first, or nothing came within `limit`.
    pub fn wait_for(&self, process: &Process, limit: Duration, wanted: &str) -> Result<String> {
        const LOOK_AT_PROCESS: Duration = Duration::from_millis(50);
        let deadline = Instant::now() + limit;
        let mut message = [0; 4096];
        self.socket.set_read_timeout(Some(LOOK_AT_PROCESS))?;
        while Instant::now() < deadline {
            match self.socket.recv(&mut message) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(&message[..length]);
                    if text.lines().any(|line| line == wanted) {
                        return Ok(text.into_owned());
                    }
                    continue;
                }
                // A wait with a limit is not taken up again after a signal or a freeze of the machine.
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(e) => return Err(e.into()),
            }
            if let Some(exit) = process.exit() {
                bail!("ended with {exit:?} before {wanted}:\n{}", process.output().join("\n"));
            }
        }
        bail!("no {wanted} within {limit:?}:\n{}", process.output().join("\n"))
    }

    /// Forgets what has arrived.
    pub fn discard(&self) {
        let mut message = [0; 4096];
        let _ = self.socket.set_nonblocking(true);
        while self.socket.recv(&mut message).is_ok() {}
        let _ = self.socket.set_nonblocking(false);
    }
}
