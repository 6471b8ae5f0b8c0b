//! One IKE SA: its set-up, its exchanges, its children.
//!
//! Set-up is a chain of states that each hold only what is valid then and are consumed by the message that they wait for:
//!
//! ```text
//! initiator: InitSent ──> Settled ──IKE_INTERMEDIATE × n──> Settled ──IKE_AUTH──> LiveSa
//! responder:              Settled ──IKE_INTERMEDIATE × n──> Settled ──IKE_AUTH──> LiveSa
//! ```
//!
//! A live SA has a queue of tasks, at most one exchange of its own under way, and answers the peer's. These modules
//! decide what payloads mean; the endpoint moves messages, timers and actions.

pub(crate) mod auth;
pub(crate) mod auth_methods;
pub(crate) mod channel;
pub(crate) mod child_offer;
pub(crate) mod children;
pub(crate) mod error;
pub(crate) mod init;
pub(crate) mod intermediate;
pub(crate) mod negotiate;
pub(crate) mod payloads;
pub(crate) mod ppk;
pub(crate) mod protect;
pub(crate) mod reassembly;
pub(crate) mod settled;
pub(crate) mod window;
