//! Routes, neighbours, addresses and links of this host, from the kernel's notifications.

pub mod raw;
