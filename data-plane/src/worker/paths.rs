//! The paths of IKE SAs as their outbound SAs see them.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use arc_swap::ArcSwap;

use crate::packet::{OuterHeader, TunnelOptions};
use crate::sa::{Path, PathId};

/// A path and the header that it gives packets.
#[derive(Clone, Debug)]
pub struct PathSnapshot {
    /// The path.
    pub path: Path,
    /// Outer header; `None` if the carrier sends nothing.
    pub header: Option<OuterHeader>,
}

/// One path, shared by the SAs that use it.
#[derive(Debug)]
pub struct PathState {
    /// Whose path.
    pub id: PathId,
    current: ArcSwap<PathSnapshot>,
}

/// All paths by their number.
#[derive(Default)]
pub struct PathTable {
    paths: RwLock<HashMap<PathId, Arc<PathState>>>,
}

impl PathState {
    /// The path as it is now.
    pub fn current(&self) -> arc_swap::Guard<Arc<PathSnapshot>> {
        self.current.load()
    }
}

impl PathTable {
    /// Makes or changes a path; workers see it with their next packet.
    pub fn update(&self, id: PathId, path: Path, options: TunnelOptions) {
        let snapshot = Arc::new(PathSnapshot { path, header: OuterHeader::new(&path, options) });
        let mut paths = self.paths.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        match paths.get(&id) {
            Some(state) => state.current.store(snapshot),
            None => {
                paths.insert(id, Arc::new(PathState { id, current: ArcSwap::new(snapshot) }));
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sa::Carrier;

    #[test]
    fn an_sa_sees_its_path_change() {
        let table = PathTable::default();
        let path = Path {
            carrier: Carrier::Hold,
            local: [192, 0, 2, 1].into(),
            local_port: 4500,
            remote: [192, 0, 2, 2].into(),
            remote_port: 4500,
        };
        table.update(PathId(1), path, TunnelOptions::default());
        let state = table.get(PathId(1)).unwrap();
        assert!(state.current().header.is_none());
        table.update(PathId(1), Path { carrier: Carrier::Udp, ..path }, TunnelOptions::default());
        assert!(state.current().header.as_ref().unwrap().is_udp());
        table.remove(PathId(1));
        assert!(table.get(PathId(1)).is_none());
        assert_eq!(state.current().path.carrier, Carrier::Udp);
    }
}
