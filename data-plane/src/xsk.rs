//! AF_XDP on plain system calls: packets between a NIC queue and this process without a copy of our own.
//!
//! One [`Umem`] holds the frames of every socket that shares it; a [`Socket`] is the four rings of one
//! (interface, queue). Owning a [`Frame`] is owning its bytes: frames are made once, move through the rings
//! and the workers' [`FrameCache`]s, and cannot be copied, so that everything above this module is safe code.

mod frames;
mod mapping;
mod ring;
mod socket;
#[cfg(all(test, feature = "root-tests"))]
mod tests;
mod umem;

pub use frames::{FrameCache, FramePool};
pub(crate) use mapping::Mapping;
pub use ring::{Consumer, Descriptor, Producer, RingEntry, in_memory_ring};
pub use socket::{BindMode, FarRings, KernelDrops, Received, Rings, Socket, SocketConfig, XskError};
pub use umem::{Frame, HEADROOM, MAX_SLOTS, Share, Umem, max_packet};
