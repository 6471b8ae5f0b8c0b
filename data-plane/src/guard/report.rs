//! What the guard tells about itself.

use super::{BackendKind, GuardDrops};

/// What one comparison with the kernel found and did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Reconciled {
    /// Policies that the kernel holds now.
    pub installed: usize,
    /// Policies that were missing before.
    pub missing: usize,
    /// Policies added, changed or removed.
    pub changed: usize,
}

/// The guard as status and metrics show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuardState {
    /// The kernel held every policy when it was last compared.
    pub installed: bool,
    /// What holds them.
    pub backend: BackendKind,
    /// How many there are.
    pub policies: usize,
    /// How often something took policies away and they were put back.
    pub restores: u64,
    /// What it has stopped.
    pub drops: GuardDrops,
}

/// Something happened to the guard that nobody asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GuardEvent {
    /// Policies were gone or changed and have been put back.
    Restored {
        /// How many.
        changed: usize,
    },
    /// They could not be put back; it is tried again until it works.
    Failed {
        /// Why.
        error: String,
    },
}
