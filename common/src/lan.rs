//! What a frame from a protected host is to us.

use crate::bytes::{Bytes, Malformed};
use crate::ethernet;
use crate::ip::{self, Address};
use crate::wan::LocalAddresses;

/// A frame from inside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lan {
    /// To be forwarded to this address: the policy decides.
    Forward(Address),
    /// For this machine or this link: one of our addresses, broadcast, multicast, link-local, not IP.
    Local,
}

/// Classifies a frame from inside.
///
/// # Errors
/// Which header is malformed.
#[inline(always)]
pub fn classify<B, L>(frame: &B, local: &L) -> Result<Lan, Malformed>
where
    B: Bytes + ?Sized,
    L: LocalAddresses,
{
    let ethernet = ethernet::parse(frame)?;
    if ethernet.group {
        return Ok(Lan::Local);
    }
    let Some(ip) = ip::parse(frame, ethernet.network)? else { return Ok(Lan::Local) };
    if ip.destination.stays_on_link() || local.contains(&ip.destination) {
        return Ok(Lan::Local);
    }
    Ok(Lan::Forward(ip.destination))
}
