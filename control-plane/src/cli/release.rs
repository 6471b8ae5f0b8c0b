//! `portcullis release`.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use clap::Args;
use portcullis_data_plane::guard::{self, GuardConfig};

use super::place::Place;

/// Take the guard and the XDP programs of a stopped gateway away: protected traffic then flows as the routes say, in
/// clear.
#[derive(Debug, Args)]
pub struct Release {
    #[command(flatten)]
    place: Place,
}

impl Release {
    /// Removes guard, pins and their memory. It is no error if there is nothing.
    ///
    /// # Errors
    /// If the daemon runs, or the kernel refuses.
    pub fn run(&self) -> Result<()> {
        let found = self.place.find()?;
        ensure!(
            UnixStream::connect(&found.socket).is_err(),
            "the daemon of {} runs and would put the guard back: stop it first",
            found.instance
        );
        let config = GuardConfig::new(found.instance.as_str(), &found.state_dir);
        let policies = guard::release(&config).context("releasing the guard needs CAP_NET_ADMIN")?;
        portcullis_data_plane::bpf::release(&found.instance).context("removing pinned programs and maps")?;
        let user = std::env::var("SUDO_USER").unwrap_or_else(|_| "root".to_owned());
        // For the audit: whoever reads the journal sees when traffic stopped being guarded, and by whose hand.
        tracing::warn!(instance = found.instance, policies, user, "guard released by the operator");
        if let Err(error) = audit(&found.state_dir, &user, policies) {
            tracing::warn!(%error, "the audit file cannot be written");
        }
        println!("{}: {policies} guard policies and the XDP programs are gone", found.instance);
        Ok(())
    }
}

/// Adds a line to `audit.log` of the state directory, which outlives the shell that this ran in.
fn audit(state_dir: &Path, user: &str, policies: usize) -> io::Result<()> {
    if !state_dir.exists() {
        return Ok(());
    }
    let mut file =
        OpenOptions::new().append(true).create(true).mode(0o600).open(state_dir.join("audit.log"))?;
    let now = humantime::format_rfc3339_seconds(SystemTime::now());
    writeln!(file, "{now} {user} released the guard ({policies} policies)")
}
