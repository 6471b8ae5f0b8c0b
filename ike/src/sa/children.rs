//! The Child SAs of one IKE SA, inbound and outbound halves apart, because rekeying installs and removes them at different
//! times.
//!
//! ```text
//!              rekey by us, or by the peer           DELETE, either way
//! Live ──────────────────────────────────> Replaced ───────────────────> Gone: the inbound half lingers,
//!   └──────────────── DELETE, either way ─────────────────────────────────^   then the pair is forgotten
//!
//! outbound: Standby ── response received, or peer seen on it, or old one deleted ──> InUse ──> Removed
//! ```

use core::time::Duration;
use std::sync::Arc;

use crate::action::{ChildId, EspCipher};
use crate::codec::TrafficSelector;
use crate::time::Time;

/// Packets under way on an old inbound SA are waited for at least this long after its deletion.
pub(crate) const SHORTEST_LINGER: Duration = Duration::from_secs(2);

/// One pair of Child SAs.
#[derive(Debug)]
pub(crate) struct Child {
    /// Its name in the endpoint.
    pub(crate) id: ChildId,
    /// Name of the configured child.
    pub(crate) name: Arc<str>,
    /// Our SPI.
    pub(crate) spi_in: u32,
    /// The peer's SPI.
    pub(crate) spi_out: u32,
    /// Algorithm.
    pub(crate) cipher: EspCipher,
    /// Extended sequence numbers.
    pub(crate) esn: bool,
    /// Algorithms in proposal notation.
    pub(crate) algorithms: Arc<str>,
    /// Negotiated selectors of our side.
    pub(crate) local_ts: Arc<[TrafficSelector]>,
    /// Negotiated selectors of the peer's side.
    pub(crate) remote_ts: Arc<[TrafficSelector]>,
    /// When it was made.
    pub(crate) established: Time,
    /// When it is rekeyed.
    pub(crate) rekey_at: Time,
    /// When it has to be gone.
    pub(crate) expires_at: Time,
    /// Where the pair stands.
    pub(crate) stage: Stage,
    /// Where its outbound half stands.
    pub(crate) outbound: Outbound,
    /// The lower of the two nonces of the exchange that made it, and whether that exchange was ours: what decides when two
    /// exchanges rekeyed the same pair (RFC 7296 section 2.8.1).
    pub(crate) lowest_nonce: Arc<[u8]>,
    /// The exchange that made it was ours.
    pub(crate) made_by_us: bool,
    /// The pair that it replaced.
    pub(crate) replaces: Option<ChildId>,
}

/// Where a pair stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// In use, or about to be.
    Live,
    /// Another pair has taken over; a DELETE will follow, ours or the peer's.
    Replaced,
    /// Our DELETE is on its way.
    Deleting,
    /// Deleted on both sides; the inbound half goes at that time.
    Gone {
        /// Then.
        until: Time,
    },
}

/// Where the outbound half of a pair stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outbound {
    /// Installed and not used.
    Standby,
    /// Protects outbound traffic.
    InUse,
    /// Taken out.
    Removed,
}

impl Child {
    /// Neither replaced nor on its way out.
    pub(crate) fn is_live(&self) -> bool {
        self.stage == Stage::Live
    }

    /// Known to the peer as well: not deleted yet.
    pub(crate) fn exists(&self) -> bool {
        !matches!(self.stage, Stage::Gone { .. })
    }
}

/// The pairs of one IKE SA.
#[derive(Debug, Default)]
pub(crate) struct Children(Vec<Child>);

impl Children {
    /// Adds a pair.
    pub(crate) fn add(&mut self, child: Child) {
        // Most IKE SAs have one pair for life; a vector would make room for four.
        self.0.reserve_exact(1);
        self.0.push(child);
    }

    /// Every pair, lingering ones included.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Child> {
        self.0.iter()
    }

    /// Every pair, lingering ones included.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Child> {
        self.0.iter_mut()
    }

    /// The pair with this name in the endpoint.
    pub(crate) fn get(&self, id: ChildId) -> Option<&Child> {
        self.0.iter().find(|child| child.id == id)
    }

    /// The pair with this name in the endpoint.
    pub(crate) fn get_mut(&mut self, id: ChildId) -> Option<&mut Child> {
        self.0.iter_mut().find(|child| child.id == id)
    }

    /// The pair that the peer names in DELETE and REKEY_SA: by its inbound, our outbound SPI (RFC 7296 section 1.4.1).
    pub(crate) fn by_peer_spi(&self, spi: u32) -> Option<&Child> {
        self.0.iter().find(|child| child.exists() && child.spi_out == spi)
    }

    /// The live pair of a configured child, the newest if there are several.
    pub(crate) fn live(&self, name: &str) -> Option<&Child> {
        self.0.iter().rfind(|child| child.is_live() && *child.name == *name)
    }

    /// Takes out the pairs whose inbound half has lingered long enough.
    pub(crate) fn take_gone(&mut self, now: Time) -> Vec<Child> {
        let is_over = |child: &mut Child| matches!(child.stage, Stage::Gone { until } if until <= now);
        let gone: Vec<_> = self.0.extract_if(.., is_over).collect();
        if !gone.is_empty() {
            self.0.shrink_to_fit();
        }
        gone
    }

    /// Takes out every pair.
    pub(crate) fn take_all(&mut self) -> Vec<Child> {
        core::mem::take(&mut self.0)
    }

    /// The next time at which a pair wants something: rekey, expiry or the end of its lingering.
    pub(crate) fn next_timeout(&self) -> Option<Time> {
        self.0
            .iter()
            .map(|child| match child.stage {
                Stage::Live => child.rekey_at.min(child.expires_at),
                Stage::Replaced | Stage::Deleting => child.expires_at,
                Stage::Gone { until } => until,
            })
            .min()
    }
}
