//! The store at start.

use anyhow::{Context, Result, bail};
use portcullis_data_plane::guard;

use super::Unreadable;
use crate::config::{Config, Secrets};
use crate::store::{Effective, StoreFile, Stored, effective};

/// The store as it was found, and the configuration that follows.
#[derive(Debug)]
pub struct Opened {
    /// What holds.
    pub config: Config,
    pub(super) file: StoreFile,
    pub(super) base: Config,
    pub(super) stored: Result<Stored, Unreadable>,
}

impl Opened {
    /// Reads the store of the state directory and undoes a change that nobody confirmed in time. Without a store that can
    /// be read everything is fail-closed, and what was guarded before stays guarded.
    ///
    /// # Errors
    /// If a connection that the API has made is not valid any more, as for one of the file.
    pub fn open(base: Config, secrets: &Secrets) -> Result<Self> {
        let file = StoreFile::new(&base.state_dir);
        let stored = match file.read() {
            Ok(stored) => Ok(without_overdue(stored, &file)),
            Err(error) => Err(unreadable(&file, &base, &error)),
        };
        let of_store = stored.as_ref().map_err(|unreadable| unreadable.remembered.as_slice());
        let Effective { config, errors, contradictions } = effective(&base, of_store, secrets);
        if !errors.is_empty() {
            let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
            bail!(
                "{}: {}: mend what it names, or move the store away",
                file.path().display(),
                lines.join("\n")
            );
        }
        for problem in contradictions {
            tracing::error!(
                "{}: {problem}: the connection is fail-closed until the override is changed",
                file.path().display()
            );
        }
        Ok(Self { config, file, base, stored })
    }
}

pub(super) fn unreadable(file: &StoreFile, base: &Config, error: &std::io::Error) -> Unreadable {
    let cause = format!("{}: {error}", file.path().display());
    tracing::error!(
        "THE POLICY STORE CANNOT BE READ: {cause}. Every connection is fail-closed, connections made by the API are not known; put back the file or move it away, then reload"
    );
    let remembered =
        guard::remembered(&base.state_dir).context("what was guarded before is not known either");
    let remembered = remembered.unwrap_or_else(|error| {
        tracing::error!("{error:#}");
        Vec::new()
    });
    Unreadable { cause, remembered }
}

fn without_overdue(stored: Stored, file: &StoreFile) -> Stored {
    let Some(pending) = stored.pending.as_ref().filter(|pending| pending.remaining().is_zero()) else {
        return stored;
    };
    tracing::warn!("change {} ({}) was not confirmed in time and is undone", pending.id, pending.resource);
    let before = Stored { entries: pending.before.clone(), pending: None };
    if let Err(error) = file.write(&before) {
        tracing::error!("{}: {error}: it will be undone again at the next start", file.path().display());
    }
    before
}
