//! What carries IKE and what carries ESP: the rules and the table of the transport policy.
//!
//! `table` decides what a set-up attempt does next, and what follows when ESP does not pass, row by row. `carrier` follows ESP of one IKE SA: which carrier it
//! takes, what has proven it, and what follows when none passes. It asks with `probe`, one run of echoes; `watch` tells it when
//! a child has fallen silent, `rtt` how long answers take, `returning` when ESP in TCP tries to come back. `link` follows IKE
//! itself: one UDP path, or one TCP stream after another (RFC 9329). `fallback` is what a
//! connection remembers about falling back to TCP, `trial` how it finds its way back. `backoff` and `pace` space attempts.
//!
//! Nothing here sends, parses or encrypts; the endpoint asks and carries out.

pub(crate) mod backoff;
pub(crate) mod carrier;
pub(crate) mod fallback;
pub(crate) mod link;
pub(crate) mod pace;
pub(crate) mod probe;
pub(crate) mod returning;
mod rtt;
pub(crate) mod table;
pub(crate) mod trial;
mod watch;
