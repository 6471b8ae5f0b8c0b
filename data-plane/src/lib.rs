//! The data plane: AF_XDP rings, XDP programs and BPF maps, the worker loop, TUN and sockets, the guard.
//!
//! This crate is the home of `unsafe` code: each block says which invariant makes it sound. It knows ESP and
//! packets; it knows nothing of IKE. The control plane hands it SAs, paths and policies as values and hears
//! about packets through events.

pub mod config;
pub mod handle;
pub mod policy;
pub mod xsk;
