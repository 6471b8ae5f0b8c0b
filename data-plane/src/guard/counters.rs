//! What XFRM policies have stopped, from the kernel's own counters.

use std::{fs, io};

/// Clear text that was stopped. With XFRM the kernel counts per network namespace, so that `block` policies of others
/// count too.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct GuardDrops {
    /// Packets that would have left.
    pub outbound: u64,
    /// Packets that arrived, for this host or to be forwarded.
    pub inbound: u64,
}

/// # Errors
/// When the kernel has no XFRM statistics (`CONFIG_XFRM_STATISTICS`).
pub fn xfrm() -> io::Result<GuardDrops> {
    Ok(parse(&fs::read_to_string("/proc/thread-self/net/xfrm_stat")?))
}

fn parse(text: &str) -> GuardDrops {
    let value = |name: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(name));
        line.and_then(|l| l.trim().parse().ok()).unwrap_or(0)
    };
    GuardDrops { outbound: value("XfrmOutPolBlock"), inbound: value("XfrmInPolBlock") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocked_packets_are_found_among_the_other_counters() {
        let text = "XfrmInNoPols            \t9\nXfrmInPolBlock          \t3\nXfrmOutPolBlock         \t5\n";
        assert_eq!(parse(text), GuardDrops { outbound: 5, inbound: 3 });
    }
}
