//! What the data plane says about itself.

use std::sync::Arc;

use portcullis_common::verdict::Verdict;

use super::DataPlane;
use crate::config::{Mode, Role};
use crate::counters::{Accounting, WorkerSnapshot};
use crate::guard::GuardState;

/// How packets of an interface travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InterfacePath {
    /// By AF_XDP.
    AfXdp {
        /// The driver works in our frames; otherwise the kernel copies.
        zero_copy: bool,
    },
    /// By the kernel, through TUN device and sockets.
    Tun,
}

impl InterfacePath {
    /// The word for status, metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::AfXdp { zero_copy: true } => "af_xdp_zero_copy",
            Self::AfXdp { zero_copy: false } => "af_xdp_copy",
            Self::Tun => "tun",
        }
    }
}

/// One interface.
#[derive(Clone, Debug)]
pub struct InterfaceReport {
    /// Its name.
    pub name: Arc<str>,
    /// What is behind it.
    pub role: Role,
    /// How its packets travel.
    pub path: InterfacePath,
    /// Why that way.
    pub reason: String,
    /// Packets and bytes by verdict of the XDP program; empty where none runs.
    pub xdp: Vec<(Verdict, u64, u64)>,
}

/// How full the SA table is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SaTableReport {
    /// Slots of each direction.
    pub slots: u32,
    /// Inbound slots in use.
    pub inbound: u32,
    /// Outbound slots in use.
    pub outbound: u32,
}

/// Everything that status and metrics show of the data plane.
#[derive(Clone, Debug)]
pub struct DataPlaneReport {
    /// `Xdp` or `Tun`, whichever runs.
    pub mode: Mode,
    /// The configured interfaces.
    pub interfaces: Vec<InterfaceReport>,
    /// The guard.
    pub guard: GuardState,
    /// The counters of each worker.
    pub workers: Vec<WorkerSnapshot>,
    /// What the tasks of TCP streams have carried and dropped.
    pub streams: WorkerSnapshot,
    /// The SA table.
    pub sas: SaTableReport,
}

impl DataPlaneReport {
    /// The books over all workers and streams; XDP's own drops are in [`InterfaceReport::xdp`].
    pub fn accounting(&self) -> Accounting {
        Accounting::total(self.workers.iter().chain([&self.streams]))
    }
}

impl DataPlane {
    /// The guard is whole.
    pub fn is_guarded(&self) -> bool {
        self.inner.guard.state().installed
    }

    /// The state of everything now.
    pub fn report(&self) -> DataPlaneReport {
        let inner = &*self.inner;
        let interfaces: Vec<_> = inner.interfaces.iter().map(|i| i.report()).collect();
        let is_xdp = interfaces.iter().any(|i| i.path != InterfacePath::Tun);
        let table = inner.table.counters();
        DataPlaneReport {
            mode: if is_xdp { Mode::Xdp } else { Mode::Tun },
            interfaces,
            guard: inner.guard.state(),
            workers: inner.shared.workers.iter().map(|w| w.counters.snapshot()).collect(),
            streams: inner.shared.streams.counters().snapshot(),
            sas: SaTableReport {
                slots: table.slots,
                inbound: table.inbound_used,
                outbound: table.outbound_used,
            },
        }
    }
}
