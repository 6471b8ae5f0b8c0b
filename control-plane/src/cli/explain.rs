//! `portcullis explain`: what would become of a packet.

use anyhow::Result;
use clap::Args;

use super::connection::Daemon;
use crate::client;

/// Show what would become of a packet from the protected side, and why. Nothing is sent.
#[derive(Debug, Args)]
pub struct Explain {
    /// `tcp`, `udp`, `icmp`, `icmpv6`, or a protocol number.
    protocol: String,
    /// Source, with `:PORT` for TCP and UDP.
    source: String,
    /// Destination, with `:PORT` for TCP and UDP.
    destination: String,
    /// The TUN device of a route-based connection that it comes from.
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: Daemon,
}

impl Explain {
    /// Prints it.
    ///
    /// # Errors
    /// If no daemon answers, or with what it says against the packet.
    pub fn run(&self) -> Result<()> {
        let query = [
            ("protocol", Some(&self.protocol)),
            ("source", Some(&self.source)),
            ("destination", Some(&self.destination)),
            ("interface", self.interface.as_ref()),
        ];
        let query: Vec<_> =
            query.into_iter().filter_map(|(key, value)| Some((key, value?.as_str()))).collect();
        client::explain(&self.daemon.socket()?, &query, self.json)
    }
}
