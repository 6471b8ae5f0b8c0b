//! What the router does not let pass: a filter in its own namespace, and middleboxes that break streams.
//!
//! Packets are dropped where the router forwards them, so a capture on it still sees what the gateways sent. Every rule
//! counts: a scenario asks [`Lab::filtered`] whether its filter has met anything.

use anyhow::{Context, Result};

use crate::netns::Namespace;
use crate::topology::{Lab, Side};

/// What does not pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blocked {
    /// ESP over IP.
    Protocol50,
    /// IKE and ESP on UDP 4500, the first fragments included.
    Udp4500,
    /// IKE, and ESP that fell back, on TCP 4500.
    Tcp4500,
    /// Whatever is no TCP, as a guest network does.
    AllButTcp,
    /// UDP in packets of IP above this size, fragments included: a path that takes less than it says.
    UdpAbove(u16),
    /// The router is out.
    Everything,
}

/// Which way it does not pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Neither.
    Both,
    /// What comes from this side.
    From(Side),
}

/// What a middlebox does to the TCP 4500 streams that are up. Later ones are left alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Breakage {
    /// Both ends get a RST as soon as they send.
    Reset,
    /// Segments vanish, and nobody is told.
    Stall,
}

const TABLE: &str = "inet filtered";

impl Blocked {
    fn matches(self) -> Vec<String> {
        let port = |protocol: &str| {
            ["sport", "dport"].map(|end| format!("meta l4proto {protocol} th {end} 4500")).to_vec()
        };
        match self {
            Self::Protocol50 => vec!["meta l4proto esp".to_owned()],
            Self::Udp4500 => port("udp"),
            Self::Tcp4500 => port("tcp"),
            Self::AllButTcp => vec!["meta l4proto != tcp".to_owned()],
            Self::UdpAbove(bytes) => vec![format!("meta l4proto udp meta length > {bytes}")],
            Self::Everything => vec![String::new()],
        }
    }
}

impl Way {
    fn matches(self) -> String {
        match self {
            Self::Both => String::new(),
            Self::From(side) => format!("iifname {}", side.router_interface()),
        }
    }
}

impl Lab {
    /// Stops this kind of packet on the router, beside what is stopped already.
    ///
    /// # Errors
    /// Those of `nft`.
    pub fn block(&self, what: Blocked, way: Way) -> Result<()> {
        let from = way.matches();
        let rules = what.matches().into_iter().map(|packet| format!("{from} {packet} counter drop"));
        self.filter(rules)
    }

    /// Lets everything pass again.
    ///
    /// # Errors
    /// Those of `nft`.
    pub fn unblock(&self) -> Result<()> {
        self.router.nft(&format!("add table {TABLE}; delete table {TABLE}"))
    }

    /// How many packets the rules that are there have stopped.
    ///
    /// # Errors
    /// If `nft` answers in another form than documented.
    pub fn filtered(&self) -> Result<u64> {
        let listing = self.router.run("nft", &["list", "ruleset", "inet"])?;
        let counts =
            listing.lines().filter_map(|line| line.split_once("counter packets ")?.1.split_once(' '));
        counts.map(|(packets, _)| packets.parse::<u64>().with_context(|| listing.clone())).sum()
    }

    /// Breaks the streams between the gateways that are up now; returns how many there are.
    ///
    /// # Errors
    /// If there is none, or `ss` or `nft` refuses.
    pub fn break_streams(&self, how: Breakage) -> Result<usize> {
        let ports = stream_ports(&self.gw_a)?;
        anyhow::ensure!(!ports.is_empty(), "gw-a has no stream to break");
        let verdict = match how {
            Breakage::Reset => "reject with tcp reset",
            Breakage::Stall => "drop",
        };
        let ends = ports.iter().flat_map(|port| ["sport", "dport"].map(|end| format!("tcp {end} {port}")));
        self.filter(ends.map(|packet| format!("{packet} counter {verdict}")))?;
        Ok(ports.len())
    }

    fn filter(&self, rules: impl Iterator<Item = String>) -> Result<()> {
        let mut script = format!(
            "add table {TABLE}; \
             add chain {TABLE} forward {{ type filter hook forward priority filter; }};"
        );
        for rule in rules {
            script.push_str(&format!("add rule {TABLE} forward {rule};"));
        }
        self.router.nft(&script)
    }
}

/// Ports of the streams in a namespace that are not 4500: each belongs to one stream between the gateways.
fn stream_ports(namespace: &Namespace) -> Result<Vec<u16>> {
    let listing = namespace.run("ss", &["-Hnt", "state", "established"])?;
    let mut ports = Vec::new();
    for line in listing.lines() {
        // Queues, our end, the peer's end.
        let ends: Vec<_> = line.split_whitespace().skip(2).filter_map(|end| end.rsplit_once(':')).collect();
        let numbers: Vec<u16> = ends.iter().filter_map(|(_, port)| port.parse().ok()).collect();
        if let [ours, theirs] = numbers[..]
            && (ours == 4500) != (theirs == 4500)
        {
            ports.push(if ours == 4500 { theirs } else { ours });
        }
    }
    Ok(ports)
}

impl Side {
    /// The router's interface towards the gateway.
    pub fn router_interface(self) -> &'static str {
        match self {
            Self::A => "wan-a",
            Self::B => "wan-b",
        }
    }
}
