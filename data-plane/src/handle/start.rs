//! Starting, in the order that keeps everything shut until it may open: guard, tables, XDP, sockets, workers.

use std::collections::BTreeSet;
use std::io;
use std::net::UdpSocket;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::devices::Change;
use super::interfaces::{self, Devices, Xdp};
use super::policies::{self, Policies};
use super::routing::tun_routing;
use super::{DataPlane, Inner, balance, devices, lock};
use crate::bpf::BpfError;
use crate::config::{DataPlaneConfig, InterfaceConfig, Role};
use crate::event::{DataPlaneEvent, IkeDatagram};
use crate::guard::{BackendKind, Guard, GuardConfig, GuardError, GuardEvent, GuardSpec};
use crate::netlink::{Network, NetworkEvent, RouteError, Snapshot, TunRoutes};
use crate::policy::PolicySet;
use crate::sa_table::{self, MoveRefused, TableConfig};
use crate::sockets::{IpSender, RawEsp, Udp4500};
use crate::stream::Streams;
use crate::tun::{Tun, TunError};
use crate::worker::Worker;
use crate::worker::kernel_path::{KernelPath, TunPort};
use crate::worker::shared::{Mailbox, Notifier, Settings, Shared};
use crate::xsk::XskError;

/// IKE messages and events that may wait for the control plane.
const IKE_QUEUE: usize = 4096;
const EVENT_QUEUE: usize = 65_536;
/// Outer IPv4 and UDP headers.
const TUN_OVERHEAD: usize = 20 + 8;
const IPV6_MINIMUM_MTU: u32 = 1280;
/// What large frames hold.
const TUN_MAXIMUM_MTU: u32 = interfaces::MAX_PACKET as u32;

/// Sockets that the control plane has bound.
#[derive(Debug, Default)]
pub struct DataPlaneSockets {
    /// UDP port 4500, one for each address family. The data plane reads them: ESP and IKE arrive on one port.
    pub udp_4500: Vec<UdpSocket>,
}

/// What the data plane sends to the control plane.
#[derive(Debug)]
pub struct Receivers {
    /// IKE messages from UDP 4500.
    pub ike: mpsc::Receiver<IkeDatagram>,
    /// Events.
    pub events: mpsc::Receiver<DataPlaneEvent>,
}

/// Why the data plane did not start, or refused a change. Each names the remedy or what is in the way.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No guard, no protection.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// A TUN device.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// Routes into the TUN device.
    #[error(transparent)]
    Routes(#[from] RouteError),
    /// XDP programs or maps.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// An AF_XDP socket.
    #[error(transparent)]
    Xsk(#[from] XskError),
    /// An interface that is configured does not exist.
    #[error("interface {0} does not exist")]
    NoInterface(Arc<str>),
    /// Anything else that the kernel refused.
    #[error("{step}: {source}")]
    System {
        /// What was tried.
        step: &'static str,
        /// What it said.
        source: io::Error,
    },
}

impl DataPlane {
    /// Starts the data plane in the network namespace of the calling thread.
    ///
    /// # Errors
    /// See [`StartError`]. What was installed for the guard stays installed.
    pub fn start(
        config: DataPlaneConfig,
        policies: PolicySet,
        sockets: DataPlaneSockets,
    ) -> Result<(Self, Receivers), StartError> {
        let (ike, ike_receiver) = mpsc::channel(IKE_QUEUE);
        let (events, event_receiver) = mpsc::channel(EVENT_QUEUE);
        let (guard, guard_missing) = start_guard(&config, &policies, &events)?;
        let (changes, changed) = std::sync::mpsc::channel();
        let (network, followed_xdp) = follow_network(&config, &guard, events.clone(), changes)?;
        let snapshot = network.snapshot();
        let decision = interfaces::decide(&config, &snapshot)?;
        let tuns = open_tuns(&config, &policies, &snapshot, decision.workers as usize)?;
        let ifindexes: Vec<_> = tuns.iter().map(|t| t.tun.ifindex()).collect();
        guard.update(|spec| {
            spec.local_addresses = snapshot.local_addresses().collect();
            spec.tun_interfaces.extend(&ifindexes);
            spec.wan_interfaces = wan_indexes(&config, &snapshot);
        })?;
        let devices = interfaces::open(&config, &policies, &snapshot, decision)?;
        let Devices { bound, xdp, umem, pool, ports, backing } = devices;
        let xdp = xdp.map(Arc::new);
        if let Some(xdp) = &xdp {
            let _ = followed_xdp.set(xdp.clone());
        }
        let table_config = TableConfig { slots: config.sa_slots, workers: ports.len() as u8 };
        let (table, sas) = sa_table::create(table_config, backing).map_err(system("SA table"))?;
        let kernel = open_kernel_path(tuns, sockets, config.offloads)?;
        let mailboxes = (0..ports.len()).map(|_| Mailbox::new()).collect::<io::Result<Vec<_>>>();
        let mailboxes = mailboxes.map_err(system("worker mailboxes"))?;
        let mut known = Policies::default();
        let routing = tun_routing(&config, &policies, &snapshot);
        let spd = known.build(policies);
        let streams = Streams::new(umem.clone(), pool.clone(), interfaces::STREAM_FRAMES as usize / 2);
        let notifier = Notifier { events, ike };
        let wan = wan_interfaces(&config).map(|i| i.name.clone()).collect();
        let settings = Settings { tunnel: config.tunnel, echo: config.echo, idle: config.idle, wan };
        let shared =
            Arc::new(Shared::new(spd, network.clone(), kernel, mailboxes, streams, notifier, settings));
        // Where the kernel copies, it does half of the work on whatever core the packet came in on.
        let is_pinned = ports.iter().flatten().any(|p| p.socket.is_zero_copy());
        let mut threads = Vec::new();
        for (id, (ports, sas)) in (0u8..).zip(ports.into_iter().zip(sas)) {
            let free = interfaces::frame_cache(&pool);
            let worker = Worker::new(id, shared.clone(), umem.clone(), free, ports, sas);
            let cpu = is_pinned.then_some(usize::from(id));
            threads.push(spawn(worker, id, cpu).map_err(system("worker thread"))?);
        }
        let mut routes = TunRoutes::open(&config.instance, &config.tun)?;
        if let Some(ifindex) = ifindexes.first() {
            routes.replace(*ifindex, &routing)?;
        }
        let inner = Arc::new(Inner {
            config,
            shared,
            table,
            policies: Mutex::new(known),
            children: Mutex::default(),
            guard,
            guard_missing,
            network,
            routes: Mutex::new(routes),
            interfaces: bound,
            xdp,
            threads: Mutex::new(threads),
            balance: Mutex::default(),
        });
        if inner.config.balance && inner.shared.workers.len() > 1 {
            *lock(&inner.balance) = Some(balance::keep(&inner).map_err(system("balance thread"))?);
            if inner.is_on_veth() {
                tracing::info!("SAs stay with the workers that they are given to: {}", MoveRefused::Veth);
            }
        }
        devices::attend(&inner, changed).map_err(system("device thread"))?;
        let receivers = Receivers { ike: ike_receiver, events: event_receiver };
        Ok((Self { inner }, receivers))
    }
}

/// The guard; where this kernel can hold none, one that holds nothing, and why.
fn start_guard(
    config: &DataPlaneConfig,
    policies: &PolicySet,
    events: &mpsc::Sender<DataPlaneEvent>,
) -> Result<(Arc<Guard>, Option<Arc<str>>), StartError> {
    let start = |backend| {
        let guard_config =
            GuardConfig { backend, ..GuardConfig::new(config.instance.clone(), &config.state_dir) };
        let events = events.clone();
        Guard::start(guard_config, GuardSpec::new(policies, [], [], []), move |event| match event {
            GuardEvent::Restored { changed } => {
                // The control plane counts them; the policies are back whether it has room or not.
                let _ = events.try_send(DataPlaneEvent::GuardRestored { missing: changed });
            }
            GuardEvent::Failed { error } => {
                tracing::error!(%error, "the guard could not be restored; trying again")
            }
        })
    };
    match start(None) {
        Ok(guard) => Ok((Arc::new(guard), None)),
        Err(error @ GuardError::NoBackend { .. }) => {
            tracing::error!("{error}");
            let guard = start(Some(BackendKind::Nothing))?;
            Ok((Arc::new(guard), Some(error.to_string().into())))
        }
        Err(error) => Err(error.into()),
    }
}

/// XDP, once it is there.
type XdpCell = Arc<OnceLock<Arc<Xdp>>>;

/// Follows addresses, routes and neighbours; the guard, XDP, whoever looks after the devices and the control plane
/// hear of changes. XDP joins by the returned cell.
fn follow_network(
    config: &DataPlaneConfig,
    guard: &Arc<Guard>,
    events: mpsc::Sender<DataPlaneEvent>,
    devices: std::sync::mpsc::Sender<Change>,
) -> Result<(Network, XdpCell), StartError> {
    let snapshots = Arc::new(OnceLock::<Arc<ArcSwap<Snapshot>>>::new());
    let xdp = XdpCell::default();
    let (guard, seen, programs) = (guard.clone(), snapshots.clone(), xdp.clone());
    let config = config.clone();
    let network = Network::start(move |event| {
        if event == NetworkEvent::RoutesChanged {
            // A lost one is followed by others while routes keep changing.
            let _ = events.try_send(DataPlaneEvent::RoutesChanged);
            return;
        }
        if event == NetworkEvent::TunRoutingRemoved {
            let _ = devices.send(Change::Routing);
            return;
        }
        if let Some(snapshot) = seen.get().map(|s| s.load_full()) {
            let updated = guard.update(|spec| {
                spec.local_addresses = snapshot.local_addresses().collect();
                spec.wan_interfaces = wan_indexes(&config, &snapshot);
            });
            if let Err(error) = updated {
                tracing::error!(%error, "the guard does not know this host's new addresses and interfaces");
            }
            if let Some(Err(error)) =
                programs.get().map(|x| x.set_local_addresses(snapshot.local_addresses()))
            {
                tracing::error!(%error, "XDP does not know this host's new addresses");
            }
        }
        // Nobody listens yet, or not any more.
        let _ = devices.send(Change::Network);
        // A lost one is followed by others while the network keeps changing.
        let _ = events.try_send(DataPlaneEvent::LocalChange);
    })
    .map_err(system("network tables"))?;
    let _ = snapshots.set(network.shared_snapshot());
    Ok((network, xdp))
}

fn open_tuns(
    config: &DataPlaneConfig,
    policies: &PolicySet,
    network: &Snapshot,
    queues: usize,
) -> Result<Vec<Arc<TunPort>>, StartError> {
    let mtu = tun_mtu(network, config);
    let mut tuns =
        vec![Arc::new(TunPort::new(Tun::create(&config.tun, mtu, false, config.offloads, queues)?, None))];
    for name in policies::interfaces(policies) {
        let tun = Tun::create(&name, mtu, true, config.offloads, queues)?;
        tuns.push(Arc::new(TunPort::new(tun, Some(name))));
    }
    Ok(tuns)
}

/// What fits the smallest WAN inside IPv4 and UDP; where the outer header is longer, senders hear it by ICMP.
pub(super) fn tun_mtu(network: &Snapshot, config: &DataPlaneConfig) -> u32 {
    let smallest = wan_interfaces(config)
        .filter_map(|i| network.interface(network.ifindex(&i.name)?))
        .map(|i| i.mtu)
        .min()
        .unwrap_or(1500);
    let inside = portcullis_esp::max_payload_len((smallest as usize).saturating_sub(TUN_OVERHEAD)) as u32;
    inside.clamp(IPV6_MINIMUM_MTU, TUN_MAXIMUM_MTU)
}

fn wan_interfaces(config: &DataPlaneConfig) -> impl Iterator<Item = &InterfaceConfig> {
    config.interfaces.iter().filter(|i| i.role == Role::Wan)
}

/// Indexes of the interfaces of the unprotected side that are there.
pub(super) fn wan_indexes(config: &DataPlaneConfig, network: &Snapshot) -> BTreeSet<u32> {
    wan_interfaces(config).filter_map(|i| network.ifindex(&i.name)).collect()
}

fn open_kernel_path(
    tuns: Vec<Arc<TunPort>>,
    sockets: DataPlaneSockets,
    offloads: bool,
) -> Result<KernelPath, StartError> {
    let udp = sockets.udp_4500.into_iter().map(Udp4500::new).collect::<io::Result<Vec<_>>>();
    let udp = udp.map_err(system("UDP port 4500"))?;
    if offloads {
        let udp: Vec<_> = udp.iter().map(Udp4500::enable_offloads).collect();
        let tun = tuns.first().map(|port| port.tun.offloads());
        tracing::info!(?tun, ?udp, "what the kernel joins and cuts for us");
    }
    let v4 = Some(IpSender::open(true).map_err(system("raw IPv4 socket"))?);
    let mut raw = vec![RawEsp::open(true).map_err(system("raw ESP socket"))?];
    // A host without IPv6 has no ESP over it.
    let v6 = IpSender::open(false).ok();
    raw.extend(RawEsp::open(false).ok());
    Ok(KernelPath::new(tuns, udp, raw, v4, v6))
}

fn spawn(worker: Worker, id: u8, cpu: Option<usize>) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(format!("worker-{id}")).spawn(move || {
        if let Some(cpu) = cpu {
            crate::worker::pin(cpu);
        }
        worker.run();
    })
}

/// Names the step that failed.
pub(super) fn system(step: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::System { step, source }
}
