//! The guard as an nftables table, for kernels without XFRM.
//!
//! `out` policies become rules on postrouting, which sees what leaves from this host and what it forwards, before
//! source NAT as XFRM would; `in` and `forward` policies become rules on their own hooks. One transaction replaces
//! the whole table.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Command, Stdio};

use super::counters::GuardDrops;
use super::model::{Action, DesiredPolicies, Direction, PolicySelector, PolicyValue};
use super::range::PortMask;
use super::report::Reconciled;
use super::{Family, GuardError};
use crate::netlink::raw::NetlinkSocket;

/// Number of the multicast group for nftables changes.
const NFTABLES_GROUP: u32 = 7;
const NOTIFICATION_BYTES: i32 = 1 << 20;
const ICMPV6: u8 = 58;

/// The table of one owner.
#[derive(Debug)]
pub struct NftBackend {
    table: String,
    /// The script last loaded and the kernel's own view of the table after that.
    loaded: Option<(String, String)>,
}

/// Hears about every change of nftables.
#[derive(Debug)]
pub struct NftMonitor {
    socket: NetlinkSocket,
}

impl NftBackend {
    /// # Errors
    /// When there is no `nft`, or the kernel has no nftables.
    pub fn open(instance: &str) -> io::Result<Self> {
        nft(&["list", "tables"], None)?;
        Ok(Self { table: table_name(instance), loaded: None })
    }

    /// Loads the table unless the kernel holds it as it was loaded.
    ///
    /// # Errors
    /// When `nft` refuses it: the kernel then holds what it held.
    pub fn reconcile(
        &mut self,
        desired: &DesiredPolicies,
        tuns: &BTreeSet<u32>,
    ) -> Result<Reconciled, GuardError> {
        let script = script(&self.table, desired, tuns);
        let held = self.listing();
        if let (Some((loaded, listing)), Ok(held)) = (&self.loaded, &held)
            && *loaded == script
            && listing == held
        {
            return Ok(Reconciled { installed: desired.len(), missing: 0, changed: 0 });
        }
        nft(&["-f", "-"], Some(&script)).map_err(GuardError::Nftables)?;
        self.loaded = Some((script, self.listing().map_err(GuardError::Nftables)?));
        let missing = if held.is_ok() { 0 } else { desired.len() };
        Ok(Reconciled { installed: desired.len(), missing, changed: desired.len().max(1) })
    }

    /// Removes the table; the number of rules it had.
    ///
    /// # Errors
    /// When `nft` refuses.
    pub fn remove(&self) -> Result<usize, GuardError> {
        let Ok(listing) = self.listing() else { return Ok(0) };
        nft(&["delete", "table", "inet", &self.table], None).map_err(GuardError::Nftables)?;
        let is_policy =
            |line: &str| !line.contains("if") && (line.ends_with(" drop") || line.ends_with(" accept"));
        Ok(listing.lines().filter(|line| is_policy(line)).count())
    }

    /// # Errors
    /// When the table is gone.
    pub fn drops(&self) -> io::Result<GuardDrops> {
        let counter =
            |name: &str| nft(&["list", "counter", "inet", &self.table, name], None).map(|t| packets(&t));
        Ok(GuardDrops { outbound: counter("outbound")?, inbound: counter("inbound")? })
    }

    fn listing(&self) -> io::Result<String> {
        nft(&["-s", "-n", "list", "table", "inet", &self.table], None)
    }
}

impl NftMonitor {
    /// # Errors
    /// When the kernel has no nftables.
    pub fn open() -> io::Result<Self> {
        let socket = NetlinkSocket::open(libc::NETLINK_NETFILTER)?;
        socket.subscribe(NFTABLES_GROUP, NOTIFICATION_BYTES)?;
        Ok(Self { socket })
    }

    /// Takes all notifications that wait; any may be about our table.
    pub fn take(&mut self) -> bool {
        self.socket.drain(|_, _| {}).unwrap_or(true)
    }
}

impl AsFd for NftMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn script(table: &str, desired: &DesiredPolicies, tuns: &BTreeSet<u32>) -> String {
    let mut script = format!(
        "add table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n\
         counter outbound {{ }}\ncounter inbound {{ }}\n"
    );
    let mut ranked: Vec<_> = desired.iter().collect();
    ranked.sort_by_key(|(_, value)| value.priority);
    for (direction, hook, exempt) in [
        (Direction::Out, "postrouting priority 90", "oif"),
        (Direction::In, "input priority -10", "iif"),
        (Direction::Forward, "forward priority -10", "iif"),
    ] {
        let chain = hook.split(' ').next().unwrap_or_default();
        let _ = writeln!(
            script,
            "chain {chain} {{\ntype filter hook {hook}; policy accept;\n{exempt}name \"lo\" accept"
        );
        for tun in tuns {
            let _ = writeln!(script, "meta {exempt} {tun} accept");
        }
        let is_here = |s: &PolicySelector| {
            s.direction == direction && s.interface.is_none_or(|index| !tuns.contains(&index))
        };
        for (selector, value) in ranked.iter().filter(|(selector, _)| is_here(selector)) {
            script.push_str(&rule(selector, value));
        }
        script.push_str("}\n");
    }
    script.push_str("}\n");
    script
}

fn rule(selector: &PolicySelector, value: &PolicyValue) -> String {
    let family = Family::of(selector.source.address);
    let keyword = match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    };
    let mut rule = format!("meta nfproto {} ", if family == Family::V4 { "ipv4" } else { "ipv6" });
    if let Some(index) = selector.interface {
        let _ = write!(rule, "meta oif {index} ");
    }
    for (side, prefix) in [("saddr", selector.source), ("daddr", selector.destination)] {
        if prefix.length > 0 {
            let _ = write!(rule, "{keyword} {side} {}/{} ", prefix.address, prefix.length);
        }
    }
    if let Some(protocol) = selector.protocol {
        let _ = write!(rule, "meta l4proto {protocol} ");
    }
    let (source, destination) = (selector.source_ports, selector.destination_ports);
    if is_fragment(source) && is_fragment(destination) {
        rule.push_str(match family {
            Family::V4 => "ip frag-off & 0x1fff != 0 ",
            Family::V6 => "exthdr frag exists ",
        });
    } else if selector.protocol == Some(ICMPV6) {
        rule.push_str(&field("@th,0,8", source, 0xff));
    } else {
        rule.push_str(&field("th sport", source, 0xffff));
        rule.push_str(&field("th dport", destination, 0xffff));
    }
    let counter = if selector.direction == Direction::Out { "outbound" } else { "inbound" };
    match value.action {
        Action::Allow => rule.push_str("accept\n"),
        Action::Block => {
            let _ = writeln!(rule, "counter name {counter} drop");
        }
    }
    rule
}

/// The model's way to say "has no ports because it is a fragment".
fn is_fragment(ports: PortMask) -> bool {
    ports == PortMask { value: 0, mask: u16::MAX }
}

fn field(name: &str, ports: PortMask, width: u16) -> String {
    let mask = ports.mask & width;
    match mask {
        0 => String::new(),
        _ if mask == width => format!("{name} {} ", ports.value),
        _ => format!("{name} & {mask} == {} ", ports.value),
    }
}

/// What `nft` takes as a name, and no two instances share.
fn table_name(instance: &str) -> String {
    let mut name = String::from("portcullis_guard_");
    for byte in instance.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => name.push(byte.into()),
            _ => {
                let _ = write!(name, "_{byte:02x}");
            }
        }
    }
    name
}

fn packets(listing: &str) -> u64 {
    let mut words = listing.split_whitespace().skip_while(|w| *w != "packets");
    words.nth(1).and_then(|w| w.parse().ok()).unwrap_or(0)
}

fn nft(arguments: &[&str], input: Option<&str>) -> io::Result<String> {
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut command = Command::new("nft");
    let mut child =
        command.args(arguments).stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        // A child that ended early says why on stderr.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(message.lines().next().unwrap_or("nft failed").to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_have_tables_of_their_own() {
        assert_eq!(table_name("gw-a"), "portcullis_guard_gw-a");
        assert_ne!(table_name("a_b"), table_name("a b"));
        assert_ne!(table_name("a_5f"), table_name("a_"));
    }

    #[test]
    fn counters_are_read_from_a_listing() {
        let listing = "table inet t {\n\tcounter outbound {\n\t\tpackets 17 bytes 1428\n\t}\n}\n";
        assert_eq!(packets(listing), 17);
    }
}
