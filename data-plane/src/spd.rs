//! The security policy database: ordered policies, the first match decides (RFC 4301 section 4.4.1).
//!
//! One [`Spd`] is never changed, only replaced as a whole; what lives on across a replacement (the outbound SAs
//! of a PROTECT policy) hangs on a [`Protect`] that both share.

mod flow_cache;
mod index;
mod lookup;
mod protect;
mod selector;

pub use flow_cache::{CachedFlow, FlowCache, FlowKey};
pub use lookup::{Decision, Direction, Spd, SpdEntry};
pub use protect::{Outbound, Protect};
pub use selector::{Flow, SelectorMatch, admits, matches_any};
