//! `portcullis capture`: what the fast path sees.

use std::fs::File;
use std::io::{IsTerminal, Write, stdout};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::connection::Daemon;
use crate::client;

/// Write packets to a file as they pass the workers, in clear and as ESP, until Ctrl-C. AF_XDP takes them past tcpdump.
/// Whoever reads the file reads the traffic.
#[derive(Debug, Args)]
pub struct Capture {
    /// The file, in pcapng; `-` is standard output, for a pipe into tcpdump or tshark.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    write: PathBuf,
    /// Only packets of this connection.
    #[arg(long, value_name = "NAME")]
    connection: Option<String>,
    /// Octets to keep of each packet; all by default.
    #[arg(long, value_name = "OCTETS")]
    snaplen: Option<u16>,
    /// End after so many packets.
    #[arg(long, value_name = "N")]
    packets: Option<u64>,
    /// End after so many seconds.
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u32>,
    #[command(flatten)]
    daemon: Daemon,
}

impl Capture {
    /// Captures.
    ///
    /// # Errors
    /// If no daemon answers, it refuses, or the file cannot be written.
    pub fn run(&self) -> Result<()> {
        let socket = self.daemon.socket()?;
        let number = |n: Option<u64>| n.map(|n| n.to_string());
        let query = [
            ("connection", self.connection.clone()),
            ("snaplen", number(self.snaplen.map(u64::from))),
            ("packets", number(self.packets)),
            ("seconds", number(self.seconds.map(u64::from))),
        ];
        let query: Vec<_> = query.iter().filter_map(|(key, value)| Some((*key, value.as_deref()?))).collect();
        if self.write.as_os_str() == "-" {
            ensure!(
                !stdout().is_terminal(),
                "a terminal shows no packets: --write FILE, or pipe it into tshark -r -"
            );
            return client::capture(&socket, &query, &mut stdout().lock());
        }
        let open = File::options().write(true).create(true).truncate(true).mode(0o600).open(&self.write);
        let mut file = open.with_context(|| format!("writing {}", self.write.display()))?;
        client::capture(&socket, &query, &mut file)?;
        Ok(file.flush()?)
    }
}
