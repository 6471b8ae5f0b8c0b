//! The paths of IKE SAs as their SAs see them.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use arc_swap::ArcSwap;
use portcullis_common::Spi;

use super::path_mtu::PathMtu;
use super::sending::Sending;
use crate::packet::{OuterHeader, TunnelOptions};
use crate::sa::{Carrier, Path, PathId};
use crate::sa_table::OutboundIndex;
use crate::stream::{StreamQueue, Streams};

/// A path and the header that it gives packets.
#[derive(Clone)]
pub struct PathSnapshot {
    /// The path.
    pub path: Path,
    /// Outer header, on a stream for its size alone; `None` if the carrier sends nothing.
    pub header: Option<OuterHeader>,
    /// Where packets go instead, if the carrier is a stream that has not ended.
    pub stream: Option<Arc<StreamQueue>>,
}

/// One path, shared by the SAs that use it.
pub struct PathState {
    /// Whose path.
    pub id: PathId,
    /// Whether packets leave, and what the control plane knows of it.
    pub sending: Sending,
    /// What it takes beyond the first hop.
    pub mtu: PathMtu,
    current: ArcSwap<PathSnapshot>,
    /// The outbound SAs of its IKE SA, by the peer's SPI.
    outbound: ArcSwap<Vec<(Spi, OutboundIndex)>>,
}

/// All paths by their number.
#[derive(Default)]
pub struct PathTable {
    paths: RwLock<HashMap<PathId, Arc<PathState>>>,
}

impl PathSnapshot {
    /// Packets take the same way as with the other one.
    fn goes_as(&self, other: &Self) -> bool {
        match (&self.header, &other.header) {
            (Some(own), Some(other)) => own.is_same_way(other),
            (None, None) => true,
            _ => false,
        }
    }
}

impl PathState {
    /// The path as it is now.
    pub fn current(&self) -> arc_swap::Guard<Arc<PathSnapshot>> {
        self.current.load()
    }

    /// MTU for packets with this header where the first hop takes `mtu`: what is known of the path, if they take its way.
    pub fn known_mtu(&self, header: &OuterHeader, mtu: usize) -> usize {
        let is_path = self.current().header.as_ref().is_some_and(|own| own.is_same_way(header));
        if is_path { self.mtu.of(mtu) } else { mtu }
    }

    /// The outbound SA with this SPI of the peer's, if it belongs to this IKE SA.
    pub fn outbound(&self, spi: Spi) -> Option<OutboundIndex> {
        self.outbound.load().iter().find(|(own, _)| *own == spi).map(|(_, index)| *index)
    }

    /// The peer's SPI of an outbound SA, if it belongs to this IKE SA.
    pub fn spi_of(&self, index: OutboundIndex) -> Option<Spi> {
        self.outbound.load().iter().find(|(_, own)| *own == index).map(|(spi, _)| *spi)
    }

    /// An outbound SA of this IKE SA is installed.
    pub fn add_outbound(&self, spi: Spi, index: OutboundIndex) {
        self.outbound.rcu(|sas| [&sas[..], &[(spi, index)]].concat());
    }

    /// An outbound SA of this IKE SA is removed.
    pub fn remove_outbound(&self, index: OutboundIndex) {
        self.outbound.rcu(|sas| sas.iter().copied().filter(|(_, own)| *own != index).collect::<Vec<_>>());
    }
}

impl PathTable {
    /// Makes or changes a path; workers see it with their next packet.
    pub fn update(&self, id: PathId, path: Path, options: TunnelOptions, streams: &Streams) {
        let stream = match path.carrier {
            Carrier::Stream(key) => streams.get(key),
            Carrier::Ip | Carrier::Udp | Carrier::Hold | Carrier::Shut => None,
        };
        let snapshot = Arc::new(PathSnapshot { path, header: OuterHeader::new(&path, options), stream });
        let mut paths = self.paths.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        match paths.get(&id) {
            Some(state) => {
                if !snapshot.goes_as(&state.current()) {
                    state.mtu.reset();
                }
                state.current.store(snapshot);
            }
            None => {
                let (sending, mtu, outbound) = (Sending::default(), PathMtu::default(), ArcSwap::default());
                let state = PathState { id, sending, mtu, current: ArcSwap::new(snapshot), outbound };
                paths.insert(id, Arc::new(state));
            }
        }
    }

    /// Forgets a path; SAs that still use it keep it.
    pub fn remove(&self, id: PathId) {
        self.paths.write().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(&id);
    }

    /// The path with this number.
    pub fn get(&self, id: PathId) -> Option<Arc<PathState>> {
        self.paths.read().unwrap_or_else(|poisoned| poisoned.into_inner()).get(&id).cloned()
    }

    /// The paths that `wanted` picks; none while they are being changed, so that no worker waits.
    pub fn filter(&self, wanted: impl Fn(&PathState) -> bool) -> Vec<Arc<PathState>> {
        let Ok(paths) = self.paths.try_read() else { return Vec::new() };
        paths.values().filter(|state| wanted(state)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::packet::IpVersion;
    use crate::sa::EchoAnswers;

    #[test]
    fn an_sa_sees_its_path_change() {
        let table = PathTable::default();
        let path = Path {
            carrier: Carrier::Hold,
            local: [192, 0, 2, 1].into(),
            local_port: 4500,
            remote: [192, 0, 2, 2].into(),
            remote_port: 4500,
            echo: EchoAnswers::default(),
            takes_tcp: false,
        };
        table.update(PathId(1), path, TunnelOptions::default(), &Streams::none());
        let state = table.get(PathId(1)).unwrap();
        assert!(state.current().header.is_none());
        table.update(
            PathId(1),
            Path { carrier: Carrier::Udp, ..path },
            TunnelOptions::default(),
            &Streams::none(),
        );
        assert!(state.current().header.as_ref().unwrap().is_udp());
        table.remove(PathId(1));
        assert!(table.get(PathId(1)).is_none());
        assert_eq!(state.current().path.carrier, Carrier::Udp);
    }

    /// Transport policy rule 3: what a path takes is known of its way alone.
    #[test]
    fn a_path_forgets_what_it_takes_when_it_takes_another_way() {
        let table = PathTable::default();
        let address = [192, 0, 2, 1].into();
        let ports = (4500, 4500);
        let path = |carrier, remote: [u8; 4]| Path {
            carrier,
            local: address,
            local_port: ports.0,
            remote: remote.into(),
            remote_port: ports.1,
            echo: EchoAnswers::default(),
            takes_tcp: false,
        };
        let update = |path| table.update(PathId(1), path, TunnelOptions::default(), &Streams::none());
        update(path(Carrier::Ip, [192, 0, 2, 2]));
        let state = table.get(PathId(1)).unwrap();
        assert_eq!(state.mtu.lower(1500, IpVersion::V4), Some(1492));
        update(path(Carrier::Ip, [192, 0, 2, 2]));
        assert_eq!(state.mtu.of(1500), 1492, "nothing has changed");
        update(path(Carrier::Udp, [192, 0, 2, 2]));
        assert_eq!(state.mtu.of(1500), 1500);
    }

    /// Transport policy rule 6: the return SPI of an echo request belongs to the same IKE SA.
    #[test]
    fn a_path_knows_the_outbound_sas_of_its_ike_sa() {
        let table = PathTable::default();
        for id in [1, 2] {
            let address = [192, 0, 2, id as u8].into();
            let carrier = Carrier::Ip;
            let (local, remote) = (address, address);
            let path = Path {
                carrier,
                local,
                local_port: 0,
                remote,
                remote_port: 0,
                echo: EchoAnswers::default(),
                takes_tcp: false,
            };
            table.update(PathId(id), path, TunnelOptions::default(), &Streams::none());
        }
        let [one, two] = [1, 2].map(|id| table.get(PathId(id)).unwrap());
        one.add_outbound(Spi(0x1000), OutboundIndex(7));
        one.add_outbound(Spi(0x2000), OutboundIndex(8));
        assert_eq!(
            [0x1000, 0x2000, 0x3000].map(|spi| one.outbound(Spi(spi)).map(|i| i.0)),
            [Some(7), Some(8), None]
        );
        assert_eq!(two.outbound(Spi(0x1000)), None);
        one.remove_outbound(OutboundIndex(7));
        assert_eq!([0x1000, 0x2000].map(|spi| one.outbound(Spi(spi)).map(|i| i.0)), [None, Some(8)]);
        let found = table.filter(|state| state.current().path.remote == IpAddr::from([192, 0, 2, 2]));
        assert_eq!(found.iter().map(|state| state.id).collect::<Vec<_>>(), [PathId(2)]);
    }
}
