//! The `portcullis` binary: the gateway daemon and the commands that talk to it.
//!
//! [`config`] turns the file into validated values. [`daemon`] runs shards of `ike` endpoints over the sockets of
//! [`net`] and carries out their actions on the data plane: the one match in `daemon/carry_out.rs` is the whole seam.
//! [`snapshot`] is one look at everything; [`status`], [`metrics`] and [`api`] show it. [`cli`] is the command line
//! and [`client`] its half that talks to a running daemon.
#![forbid(unsafe_code)]

mod api;
mod audit;
mod capture;
mod changes;
mod cli;
mod client;
mod config;
mod daemon;
mod digest;
mod events;
mod keylog;
mod load;
mod logging;
mod metrics;
mod net;
mod snapshot;
mod status;
mod store;

use std::process::ExitCode;

/// Many handshakes at once leave holes among what lives on; this allocator gives them back (docs/adr/0009-jemalloc.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match cli::run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("portcullis: {error:#}");
            ExitCode::FAILURE
        }
    }
}
