//! The SA table: four arrays with one index, and what each worker owns of them.
//!
//! ```text
//!            steer (8 B)        keys (64 B)          live (64 B)     window bits    expanded keys
//! inbound    BPF map or memfd   BPF map or memfd,    memfd           memfd arena    private to the owner
//!            XDP reads          wrapped              owner writes    owner writes
//! outbound   memfd              same map, 2nd half   memfd                          private to the owner
//! ```
//!
//! The control plane reserves slots, wraps keys and publishes steer words through [`SaTable`]. Each worker has
//! one [`WorkerSas`], which takes installs and removals from a lock-free queue, unwraps and expands the keys,
//! and is the only one that can seal or open with the SAs that it owns. Nobody else holds a reference to them,
//! so there is no lock and no shared ownership on the path of packets.
//!
//! An SA may move from one worker to another ([`SaTable::move_sa`]): whole, with no packet of it in between.
//!
//! A slot is free, reserved, live, dead, and free again only after its owner has dropped the SA and every
//! other worker has passed a batch boundary; its key is wiped before that. The tag above the index in an SPI
//! changes with every use of a slot, so a late packet never meets the next SA.

mod arena;
mod epoch;
mod key_wrap;
mod keys;
mod memory;
mod moves;
mod slots;
mod table;
#[cfg(test)]
mod tests;
mod wipe;
mod worker;

pub use memory::Backing;
pub use moves::{Leaving, MoveRefused, Moving, SaName};
pub use slots::TableFull;
pub use table::{InstallError, SaTable, TableConfig, TableCounters, create};
pub use worker::{Found, InboundSlot, OutboundSlot, OwnedInbound, OwnedOutbound, SaInfo, WorkerSas};

/// Names an outbound SA: slot index and a tag that changes with every use of the slot, as in our SPIs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OutboundIndex(pub u32);

impl OutboundIndex {
    /// No SA.
    pub const NONE: Self = Self(0);
}
