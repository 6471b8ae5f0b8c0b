//! Verbs about the gateway as a whole: `events`, `reload`.

use anyhow::Result;
use clap::Args;

use super::connection::Daemon;
use crate::client;

/// Show what happens, as it happens.
#[derive(Debug, Args)]
pub struct Events {
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: Daemon,
}

/// Read the configuration file again; connections that are the same stay up.
#[derive(Debug, Args)]
pub struct Reload {
    /// Show what would change, and change nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    daemon: Daemon,
}

impl Events {
    /// Prints them until the daemon ends.
    ///
    /// # Errors
    /// If no daemon answers, or when it ends the stream.
    pub fn run(&self) -> Result<()> {
        client::events::follow(&self.daemon.socket()?, self.json)
    }
}

impl Reload {
    /// Reloads and prints what changed.
    ///
    /// # Errors
    /// If no daemon answers, or with what it says against the file.
    pub fn run(&self) -> Result<()> {
        client::reload::reload(&self.daemon.socket()?, self.dry_run)
    }
}
