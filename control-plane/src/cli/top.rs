//! `portcullis top`: what the workers do, refreshed.

use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::connection::Daemon;
use crate::client;

/// Show what the workers do, again and again.
#[derive(Debug, Args)]
pub struct Top {
    /// Between two looks, such as `500ms` or `2s`.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// End after so many.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    daemon: Daemon,
}

impl Top {
    /// Shows it until the daemon or this process ends.
    ///
    /// # Errors
    /// If no daemon answers.
    pub fn run(&self) -> Result<()> {
        client::top::follow(&self.daemon.socket()?, self.interval, self.count)
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    const LEAST: Duration = Duration::from_millis(100);
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if interval < LEAST { Err("at least 100ms".to_owned()) } else { Ok(interval) }
}
