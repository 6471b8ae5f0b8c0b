//! How an IKE SA ends, lives on without its stream, or comes back from TCP: rows 19 to 21.

use crate::status::Reason;

/// One row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// Its number in the policy.
    pub(crate) number: u8,
    /// The reason that goes with it.
    pub(crate) reason: Reason,
}

/// Neither IKE nor an echo was answered for `ike.dead_after` (RFC 7296 section 2.4): the IKE SA is removed.
pub(crate) const PEER_DEAD: Row = Row { number: 19, reason: Reason::PeerSilent };
/// The stream is lost while ESP passes: the originator dials again, and nothing else changes.
#[cfg(test)]
const STREAM_LOST: Row = Row { number: 20, reason: Reason::None };
/// A trial has succeeded, or direct carriers answer again in place.
pub(crate) const RETURNED: Row = Row { number: 21, reason: Reason::Returned };
/// It has not: ESP stays in TCP.
pub(crate) const TRIAL_FAILED: Row = Row { number: 21, reason: Reason::TrialFailed };

/// All of them.
#[cfg(test)]
pub(super) const ROWS: &[Row] = &[PEER_DEAD, STREAM_LOST, RETURNED, TRIAL_FAILED];
