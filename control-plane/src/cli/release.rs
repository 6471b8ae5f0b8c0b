//! `portcullis release`.

use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, ensure};
use clap::Args;
use portcullis_data_plane::guard::{self, GuardConfig};

use super::place::Place;
use crate::audit::{AuditLog, Entry};

/// Take the guard, the XDP programs and the routing rules of a stopped gateway away: protected traffic then flows as the routes say, in
/// clear.
#[derive(Debug, Args)]
pub struct Release {
    #[command(flatten)]
    place: Place,
}

impl Release {
    /// Removes guard, pins, routing rules and their memory. It is no error if there is nothing.
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
        portcullis_data_plane::netlink::release(&found.instance).context("removing routing rules")?;
        let user = std::env::var("SUDO_USER").unwrap_or_else(|_| "root".to_owned());
        // For the audit: whoever reads the journal sees when traffic stopped being guarded, and by whose hand.
        tracing::warn!(instance = found.instance, policies, user, "guard released by the operator");
        let entry = Entry {
            who: &user,
            from: "command line",
            action: "release",
            detail: &format!("{policies} guard policies"),
            result: "done",
            suppressed: 0,
        };
        if found.state_dir.exists()
            && let Err(error) = AuditLog::new(&found.state_dir).record(&entry)
        {
            tracing::warn!(%error, "the audit file cannot be written");
        }
        println!(
            "{}: {policies} guard policies, the XDP programs and the routing rules are gone",
            found.instance
        );
        Ok(())
    }
}
