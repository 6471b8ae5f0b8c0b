//! `portcullis policy`.

use anyhow::Result;
use clap::{Args, Subcommand};

use super::connection::Daemon;
use crate::client::policy::{self, Whose};

/// What happens when no direct carrier passes ESP: show it, override it, or leave it to the configuration again.
#[derive(Debug, Args)]
pub struct Policy {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the policy that holds, and who says so.
    Get {
        #[command(flatten)]
        whose: WhoseArgs,
        /// Print the JSON as the daemon answers it.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Override it. The override survives restarts and goes by `unset`.
    Set {
        /// `fail-closed` or `tcp-fallback`.
        #[arg(value_name = "POLICY")]
        word: String,
        #[command(flatten)]
        whose: WhoseArgs,
        /// Undo it unless `policy confirm` comes within this time, such as 60s.
        #[arg(long, value_name = "TIME")]
        confirm_within: Option<String>,
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Remove the override.
    Unset {
        #[command(flatten)]
        whose: WhoseArgs,
        /// Undo it unless `policy confirm` comes within this time, such as 60s.
        #[arg(long, value_name = "TIME")]
        confirm_within: Option<String>,
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Let a change stay that was made with --confirm-within.
    Confirm {
        /// What `set` or `unset` has printed.
        id: String,
        #[command(flatten)]
        daemon: Daemon,
    },
}

/// A connection, or the default.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct WhoseArgs {
    /// Name of the connection.
    connection: Option<String>,
    /// The policy of connections that say nothing themselves.
    #[arg(long)]
    default: bool,
}

impl WhoseArgs {
    fn whose(&self) -> Whose<'_> {
        self.connection.as_deref().map_or(Whose::Default, Whose::Connection)
    }
}

impl Policy {
    /// Does it.
    ///
    /// # Errors
    /// If no daemon answers, or with what it says against it.
    pub fn run(&self) -> Result<()> {
        match &self.verb {
            Verb::Get { whose, json, daemon } => policy::get(&daemon.socket()?, whose.whose(), *json),
            Verb::Set { word, whose, confirm_within, daemon } => {
                policy::set(&daemon.socket()?, whose.whose(), word, confirm_within.as_deref())
            }
            Verb::Unset { whose, confirm_within, daemon } => {
                policy::unset(&daemon.socket()?, whose.whose(), confirm_within.as_deref())
            }
            Verb::Confirm { id, daemon } => policy::confirm(&daemon.socket()?, id),
        }
    }
}
