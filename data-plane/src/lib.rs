//! The data plane: AF_XDP rings, XDP programs and BPF maps, the worker loop, TUN and sockets, the guard.
//!
//! This crate is the home of `unsafe` code: each block says which invariant makes it sound. It knows ESP and
//! packets; it knows nothing of IKE. The control plane hands it SAs, paths and policies as values and hears
//! about packets through events.

pub mod bpf;
pub mod config;
pub mod counters;
pub mod echo;
pub mod ethtool;
pub mod event;
pub mod guard;
pub mod handle;
pub mod netlink;
pub mod packet;
pub mod policy;
pub mod prefetch;
pub mod sa;
pub mod sa_table;
pub mod sockets;
pub mod spd;
pub mod stream;
pub mod tap;
pub mod tun;
pub mod worker;
pub mod xsk;
