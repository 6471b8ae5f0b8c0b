//! What the control plane decides about the data plane at start.

use std::path::PathBuf;
use std::sync::Arc;

use portcullis_common::limit::{Limits, Rate};
use portcullis_common::opening::IkePorts;
use portcullis_esp::EchoSubTypes;

use crate::packet::TunnelOptions;

/// Which path packets take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// AF_XDP where it binds with zero-copy, else TUN; the reason is reported.
    Auto,
    /// AF_XDP, in copy mode if there is no other.
    Xdp,
    /// TUN and sockets.
    Tun,
}

impl Mode {
    /// The word for configuration, status and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Xdp => "xdp",
            Self::Tun => "tun",
        }
    }
}

/// What a worker does when nothing arrives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Idle {
    /// It sleeps until the kernel wakes it.
    #[default]
    Sleep,
    /// It looks again: its core is never idle.
    Spin,
    /// It looks again, and has the kernel look at the card's queue each time (SO_PREFER_BUSY_POLL): packets need no interrupt.
    /// Where a kernel refuses that, it spins.
    BusyPoll {
        /// Packets that the kernel takes from a card at once.
        budget: u16,
    },
}

impl Idle {
    /// The word for configuration and status.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Sleep => "sleep",
            Self::Spin => "spin",
            Self::BusyPoll { .. } => "busy_poll",
        }
    }
}

/// Where XDP programs classify while TUN and sockets move the packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Classification {
    /// On protected interfaces, and wherever it costs less than it saves: not on a veth, whose driver copies every packet
    /// for it and gives up segmentation offloads.
    Auto,
    /// Wherever the driver takes them.
    On,
    /// Nowhere.
    Off,
}

/// What is behind an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// ESP and IKE arrive here.
    Wan,
    /// Protected hosts are here.
    Lan,
}

impl Role {
    /// The word for configuration, status and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Wan => "wan",
            Self::Lan => "lan",
        }
    }
}

/// One interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InterfaceConfig {
    /// Its name.
    pub name: Arc<str>,
    /// What is behind it.
    pub role: Role,
    /// What matches no policy is dropped (RFC 4301 section 4.4.1).
    pub protected: bool,
}

/// How many packets that may begin an IKE SA XDP lets in from one source prefix, unless a peer is configured or has an IKE SA
/// at their address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpeningLimits {
    /// IKE_SA_INIT requests without COOKIE.
    pub init: Rate,
    /// IKE_SA_INIT requests with COOKIE.
    pub init_with_cookie: Rate,
    /// TCP SYNs to the port of IKE.
    pub syn: Rate,
    /// Bits of an IPv4 address that make up its prefix, at most 32.
    pub ipv4_prefix: u8,
    /// Bits of an IPv6 address that make up its prefix, at most 64.
    pub ipv6_prefix: u8,
    /// Where IKE listens.
    pub ports: IkePorts,
}

impl OpeningLimits {
    /// Packets a second of each kind, in the long run.
    pub const PER_SECOND: u32 = 64;
    /// Packets of each kind at once.
    pub const BURST: u32 = 512;

    /// What the programs are told, with a secret of this start.
    pub(crate) fn with_secret(&self, secret: [u8; 16]) -> Limits {
        let secret = u128::from_ne_bytes(secret);
        let (rates, key) =
            ([self.init, self.init_with_cookie, self.syn], [secret as u64, (secret >> 64) as u64]);
        Limits::new(rates, key, self.ipv4_prefix, self.ipv6_prefix, self.ports)
    }
}

impl Default for OpeningLimits {
    fn default() -> Self {
        let rate = Rate::new(Self::PER_SECOND, Self::BURST);
        let (init, init_with_cookie, syn) = (rate, rate, rate);
        Self { init, init_with_cookie, syn, ipv4_prefix: 24, ipv6_prefix: 48, ports: IkePorts::ASSIGNED }
    }
}

/// The data plane's configuration.
#[derive(Clone, Debug)]
pub struct DataPlaneConfig {
    /// Names pins, tables and policies of this gateway.
    pub instance: Arc<str>,
    /// Where state that outlives the process is kept.
    pub state_dir: PathBuf,
    /// Which path packets take.
    pub mode: Mode,
    /// Where XDP programs classify if `mode` comes out as TUN.
    pub classification: Classification,
    /// The kernel and we leave cutting and joining of packets to each other where both can.
    pub offloads: bool,
    /// What workers do when nothing arrives.
    pub idle: Idle,
    /// Workers; each owns the queue of its number on every interface.
    pub workers: u8,
    /// SAs move from busy workers to idle ones.
    pub balance: bool,
    /// Interfaces.
    pub interfaces: Vec<InterfaceConfig>,
    /// The object with the XDP programs, or the default search.
    pub xdp_object: Option<PathBuf>,
    /// Slots of the SA table, 256 to 2^20.
    pub sa_slots: u32,
    /// Name of the TUN device.
    pub tun: Arc<str>,
    /// How tunnels treat the headers of packets.
    pub tunnel: TunnelOptions,
    /// Replay window of new SAs in packets.
    pub replay_window: u32,
    /// AGGFRAG sub-types of ESP echo.
    pub echo: EchoSubTypes,
    /// What XDP lets in of openings.
    pub limits: OpeningLimits,
}
