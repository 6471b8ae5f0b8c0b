//! Which process holds a port, as far as /proc shows it.

use std::fmt;
use std::fs;

/// The protocol of a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

/// A process by number and name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    process: u32,
    name: String,
}

/// The process that listens on a port in this network namespace, if it can be seen from here.
pub fn holder(transport: Transport, port: u16) -> Option<Holder> {
    let tables = match transport {
        Transport::Udp => ["/proc/self/net/udp", "/proc/self/net/udp6"],
        Transport::Tcp => ["/proc/self/net/tcp", "/proc/self/net/tcp6"],
    };
    let inodes: Vec<u64> = tables
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| {
            table.lines().filter_map(|line| inode_of(line, transport, port)).collect::<Vec<_>>()
        })
        .collect();
    let wanted: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let processes = fs::read_dir("/proc").ok()?.filter_map(|entry| {
        let process: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        holds(process, &wanted).then_some(process)
    });
    processes.into_iter().next().map(|process| {
        let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
        Holder { process, name: name.trim_end().to_owned() }
    })
}

/// The inode in a line of the kernel's socket table, if its local port is the one and it is bound or listening.
fn inode_of(line: &str, transport: Transport, port: u16) -> Option<u64> {
    const TCP_LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace();
    let (_, local_port) = fields.nth(1)?.rsplit_once(':')?;
    let state = fields.nth(1)?;
    let is_it = u16::from_str_radix(local_port, 16) == Ok(port)
        && (transport == Transport::Udp || state == TCP_LISTEN);
    if is_it { fields.nth(5)?.parse().ok() } else { None }
}

fn holds(process: u32, sockets: &[String]) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    descriptors
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .any(|target| target.to_str().is_some_and(|target| sockets.iter().any(|socket| socket == target)))
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        })
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.process, self.name)
    }
}
