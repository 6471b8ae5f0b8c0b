//! What carries IKE and what carries ESP: the rules and the table of the transport policy.
//!
//! `table` decides what a set-up attempt does next, row by row. `carrier` follows ESP of one IKE SA: which direct
//! carrier it takes, what has proven it, and when something has to be sent so that the peer learns it. `link`
//! follows IKE itself: one UDP path, or one TCP stream after another (RFC 9329). `backoff` spaces attempts.
//!
//! Nothing here sends, parses or encrypts; the endpoint asks and carries out.

pub(crate) mod backoff;
pub(crate) mod carrier;
pub(crate) mod link;
pub(crate) mod table;
