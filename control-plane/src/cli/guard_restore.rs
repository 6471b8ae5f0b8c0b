//! `portcullis guard-restore`.

use anyhow::{Context, Result};
use clap::Args;
use portcullis_data_plane::guard::{self, GuardConfig};

use super::place::{Found, Place};

/// Put the guard back as it was last, before the daemon starts and before the network is up; that of every gateway
/// under /var/lib/portcullis, if none is named.
#[derive(Debug, Args)]
pub struct GuardRestore {
    #[command(flatten)]
    place: Place,
}

impl GuardRestore {
    /// Restores it. It is no error if there never was one.
    ///
    /// # Errors
    /// If what was remembered cannot be read, or the kernel refuses; every gateway is tried.
    pub fn run(&self) -> Result<()> {
        let outcomes: Vec<_> = self.place.find_all()?.iter().map(restore).collect();
        outcomes.into_iter().collect()
    }
}

fn restore(found: &Found) -> Result<()> {
    let config = GuardConfig::new(found.instance.as_str(), &found.state_dir);
    let restored = guard::restore(&config)
        .with_context(|| format!("restoring the guard of {} (it needs CAP_NET_ADMIN)", found.instance))?;
    match restored {
        Some((backend, reconciled)) => {
            println!("{}: guard in {backend}, {} policies", found.instance, reconciled.installed);
        }
        None => println!("{}: nothing was guarded", found.instance),
    }
    Ok(())
}
