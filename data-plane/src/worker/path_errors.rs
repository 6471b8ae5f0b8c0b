//! ICMP errors about ESP that this host sent: a doubt about a path, or, from this host's own kernel, a dead neighbour.

use std::io;

use portcullis_common::Spi;

use super::Worker;
use super::batch::Batch;
use super::next_hop::NextHop;
use super::paths::PathState;
use super::rate::TokenBucket;
use super::sending::Departure;
use crate::event::{DataPlaneEvent, LocalFailure};
use crate::sockets::IcmpError;

/// Errors looked at, per second and at once, whoever sends how many: each is compared with every path.
const PER_SECOND: u32 = 50;
const BURST: u32 = 50;
/// Errors taken from one socket at a time.
const AT_ONCE: usize = 64;

/// When there are errors to read, and how many may be looked at.
#[derive(Default)]
pub(super) struct PathErrors {
    /// A socket has told of an error; until its queue is empty the kernel wakes whoever waits for it.
    pub pending: bool,
    rate: TokenBucket<PER_SECOND, BURST>,
}

impl Worker {
    /// Reads the error queues, if there may be something in them.
    pub(super) fn take_path_errors(&mut self, batch: &Batch<'_>) {
        if !std::mem::take(&mut self.path_errors.pending) {
            return;
        }
        let kernel = &batch.shared.kernel;
        kernel.udp.iter().for_each(|socket| self.drain(batch, true, || socket.next_error()));
        kernel.raw.iter().for_each(|socket| self.drain(batch, false, || socket.next_error()));
    }

    fn drain(
        &mut self,
        batch: &Batch<'_>,
        is_udp: bool,
        mut next: impl FnMut() -> io::Result<Option<IcmpError>>,
    ) {
        for _ in 0..AT_ONCE {
            match next() {
                Ok(Some(error)) if error.is_unreachable && self.path_errors.rate.take(batch.now) => {
                    self.tell(batch, is_udp, &error);
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
        self.path_errors.pending = true;
    }

    fn tell(&mut self, batch: &Batch<'_>, is_udp: bool, error: &IcmpError) {
        let is_ours = batch.network.local_addresses().any(|address| address == error.offender);
        // An address can be forged, and so is told from the kernel's own word by what else is known of the next hop.
        let hop = self.next_hop(batch, error.destination.ip());
        let is_dead_neighbour = is_ours && matches!(hop, NextHop::Kernel { is_resolved: false, .. });
        for path in batch.shared.paths.filter(|path| is_about(path, is_udp, error)) {
            if is_dead_neighbour {
                batch.note_departure(&path, Departure::Failed(LocalFailure::NoNeighbour));
            } else if path.sending.is_doubt_due(batch.now) {
                batch.notify(DataPlaneEvent::PathDoubt { path: path.id });
            }
        }
    }
}

/// An error that quotes an SPI speaks of that SA; one that quotes less, of whoever is at that address and port. The non-ESP
/// marker is no SPI: IKE has its own ways to find out.
fn is_about(path: &PathState, is_udp: bool, error: &IcmpError) -> bool {
    let current = path.current();
    if error.destination.ip() != current.path.remote {
        return false;
    }
    match error.quoted {
        Some(spi) => path.outbound(Spi::from_be_bytes(spi)).is_some(),
        None => is_udp && error.destination.port() == current.path.remote_port,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use super::*;
    use crate::packet::TunnelOptions;
    use crate::sa::{Carrier, EchoAnswers, Path, PathId};
    use crate::sa_table::OutboundIndex;
    use crate::worker::paths::PathTable;

    /// RFC 4301 section 8.2: nobody has authenticated it, so it has to know at least whom it speaks of.
    #[test]
    fn an_error_speaks_of_the_path_whose_spi_or_address_it_quotes() {
        let remote = IpAddr::from([192, 0, 2, 2]);
        let path = Path {
            carrier: Carrier::Udp,
            local: [192, 0, 2, 1].into(),
            local_port: 4500,
            remote,
            remote_port: 4501,
            echo: EchoAnswers::default(),
            takes_tcp: false,
        };
        let table = PathTable::default();
        table.update(PathId(1), path, TunnelOptions::default(), &crate::stream::Streams::none());
        let state = table.get(PathId(1)).unwrap();
        state.add_outbound(Spi(0x1234_5678), OutboundIndex(1));
        let about = |is_udp, destination: (IpAddr, u16), quoted| {
            let (destination, offender) = (SocketAddr::from(destination), IpAddr::from([192, 0, 2, 9]));
            is_about(&state, is_udp, &IcmpError { destination, offender, quoted, is_unreachable: true })
        };
        let spi = Some([0x12, 0x34, 0x56, 0x78]);
        assert!(about(true, (remote, 4501), spi) && about(false, (remote, 0), spi));
        assert!(about(true, (remote, 4501), None), "eight octets of UDP are quoted");
        assert!(!about(true, (remote, 4500), None), "another peer behind the same NAT");
        assert!(!about(false, (remote, 0), None), "eight octets of ESP hold an SPI");
        assert!(!about(true, (remote, 4501), Some([0; 4])), "IKE");
        assert!(!about(false, (remote, 0), Some([1; 4])), "an SPI that is not in use");
        assert!(!about(true, ([192, 0, 2, 3].into(), 4501), spi), "another address");
    }
}
