//! The workers: one thread per queue that moves packets between rings, sockets and the TUN device.

pub mod facts;
pub mod hold;
pub mod wake;
