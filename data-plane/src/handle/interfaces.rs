//! The interfaces: which path each takes and why, XDP programs, AF_XDP sockets.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::exempt::Exempt;
use super::lock;
use super::numa::Nodes;
use super::report::{InterfacePath, InterfaceReport};
use super::start::{StartError, system};
use crate::bpf::{BpfError, InterfacePlan, LanClasses, Steering, XdpInstance, XdpInterface, find_object};
use crate::config::{Classification, DataPlaneConfig, Idle, InterfaceConfig, Mode};
use crate::ethtool;
use crate::netlink::Snapshot;
use crate::policy::PolicySet;
use crate::sa::PathId;
use crate::sa_table::Backing;
use crate::worker::Port;
use crate::xsk::{BindMode, Frame, FrameCache, FramePool, Share, Socket, SocketConfig, Umem, max_packet};

/// Entries of each ring of each socket: a fifth of a second at 20 000 packets a second, which a worker may have to
/// wait for a core.
const RING: u32 = 4096;
/// Frames that each socket can have in its rings at once: receiving and sending.
const FRAMES_PER_SOCKET: u32 = 2 * RING;
/// Frames for what is not in a ring.
const FRAMES_PER_WORKER: u32 = 1024;
/// Large frames, for packets that are longer than a frame.
const LARGE_FRAMES_PER_WORKER: u32 = 256;
/// Frames for what comes from and goes to TCP streams, all together.
pub(super) const STREAM_FRAMES: u32 = 4096;
const FRAME_BYTES: u32 = 4096;
/// Longest IP packet in bytes that fits a frame.
pub(super) const MAX_PACKET: usize = max_packet(FRAME_BYTES as usize, true);
/// Free frames that a worker keeps to itself.
const CACHED_FRAMES: usize = 512;
/// A queue that a predecessor has just closed is free within this time.
const BUSY_RETRY: Duration = Duration::from_secs(5);

/// Everything that the workers get to work on.
pub(super) struct Devices {
    pub bound: Vec<BoundInterface>,
    pub xdp: Option<Xdp>,
    pub umem: Arc<Umem>,
    pub pool: Arc<FramePool>,
    /// The ports of each worker.
    pub ports: Vec<Vec<Port>>,
    pub backing: Backing,
}

/// An interface in use.
pub(super) struct BoundInterface {
    config: InterfaceConfig,
    path: InterfacePath,
    reason: String,
    is_veth: bool,
    program: Mutex<Option<XdpInterface>>,
    /// Index of the device, while there is one.
    index: Mutex<Option<u32>>,
    /// The device that its sockets are bound to is not the one that is there.
    is_orphaned: AtomicBool,
}

/// The maps that the XDP programs share.
pub(super) struct Xdp {
    instance: Mutex<XdpInstance>,
    exempt: Mutex<Exempt>,
}

/// The path for all interfaces, and who works on it.
pub(super) struct Decision {
    path: InterfacePath,
    reason: String,
    /// AF_XDP takes packets in several descriptors.
    multi_buffer: bool,
    /// Receive queues of each interface.
    queues: Vec<u32>,
    /// Workers, at least one.
    pub workers: u32,
}

/// Decides on a path for all interfaces.
///
/// # Errors
/// An interface is missing.
pub(super) fn decide(config: &DataPlaneConfig, network: &Snapshot) -> Result<Decision, StartError> {
    for interface in &config.interfaces {
        network.ifindex(&interface.name).ok_or_else(|| StartError::NoInterface(interface.name.clone()))?;
    }
    let Choice { path, reason, multi_buffer } = choose_path(config, network);
    let queues = queues(config)?;
    let workers = match path {
        InterfacePath::AfXdp { .. } => workers(config, &queues),
        InterfacePath::Tun => u32::from(config.workers).max(1),
    };
    Ok(Decision { path, reason, multi_buffer, queues, workers })
}

/// Attaches XDP and opens the sockets.
///
/// # Errors
/// In `xdp` mode whatever keeps XDP or a socket from working.
pub(super) fn open(
    config: &DataPlaneConfig,
    policies: &PolicySet,
    network: &Snapshot,
    decision: Decision,
) -> Result<Devices, StartError> {
    match decision.path {
        InterfacePath::AfXdp { zero_copy } => open_af_xdp(config, policies, network, zero_copy, decision),
        InterfacePath::Tun => open_tun(config, policies, network, &decision),
    }
}

/// A worker's share of the frames.
pub(super) fn frame_cache(pool: &Arc<FramePool>) -> FrameCache {
    FrameCache::new(pool.clone(), CACHED_FRAMES)
}

/// A path for all interfaces, and why that.
struct Choice {
    path: InterfacePath,
    reason: String,
    multi_buffer: bool,
}

/// The path for all interfaces and the reason. AF_XDP that copies is slower than TUN, and AF_XDP that drops what the MTU allows
/// is no path: only if it was asked for.
fn choose_path(config: &DataPlaneConfig, network: &Snapshot) -> Choice {
    let tun =
        |reason: &str| Choice { path: InterfacePath::Tun, reason: reason.to_owned(), multi_buffer: false };
    let is_asked_for = match config.mode {
        Mode::Tun => return tun("configured"),
        Mode::Auto if config.interfaces.is_empty() => return tun("no interfaces configured"),
        Mode::Auto => false,
        Mode::Xdp => true,
    };
    let refusal = |mode, multi_buffer| {
        config.interfaces.iter().find_map(|i| {
            let error = probe(network.ifindex(&i.name)?, mode, multi_buffer).err()?;
            Some((&i.name, error))
        })
    };
    let copies = refusal(BindMode::ZeroCopy, false)
        .map(|(name, error)| format!("no zero-copy AF_XDP on {name}: {error}"));
    if let Some(copies) = copies.as_deref().filter(|_| !is_asked_for) {
        return tun(copies);
    }
    let mode = if copies.is_some() { BindMode::Copy } else { BindMode::ZeroCopy };
    let one_descriptor = refusal(mode, true);
    let multi_buffer = one_descriptor.is_none();
    let limit = max_packet(FRAME_BYTES as usize, multi_buffer);
    let mtus = config.interfaces.iter().filter_map(|i| {
        let interface = network.interface(network.ifindex(&i.name)?)?;
        Some((i.name.as_ref(), interface.mtu as usize))
    });
    let too_long = too_long(limit, mtus, one_descriptor.map(|(_, error)| error));
    match too_long.as_deref() {
        Some(too_long) if !is_asked_for => return tun(too_long),
        Some(too_long) => tracing::warn!("{too_long}; lower the MTU, or use `data_plane.mode: tun`"),
        None => {}
    }
    let path = InterfacePath::AfXdp { zero_copy: copies.is_none() };
    let why = if is_asked_for { "configured" } else { "zero-copy AF_XDP binds" };
    let reasons = [Some(why.to_owned()), copies, too_long].into_iter().flatten();
    Choice { path, reason: reasons.collect::<Vec<_>>().join("; "), multi_buffer }
}
/// Why AF_XDP does not take all that an interface's MTU allows, if so. `one_descriptor`: why a packet has to be in one descriptor.
fn too_long<'a>(
    limit: usize,
    mut mtus: impl Iterator<Item = (&'a str, usize)>,
    one_descriptor: Option<io::Error>,
) -> Option<String> {
    let (name, mtu) = mtus.find(|(_, mtu)| *mtu > limit)?;
    let why = one_descriptor.map(|e| format!(" (no multi-buffer, which Linux has from 6.6 on: {e})"));
    let why = why.unwrap_or_default();
    Some(format!(
        "{name} has an MTU of {mtu} and AF_XDP takes packets of at most {limit} octets there{why}: it drops longer ones"
    ))
}

fn probe(ifindex: u32, mode: BindMode, multi_buffer: bool) -> Result<(), io::Error> {
    let (umem, _frames) = Umem::new(64, FRAME_BYTES)?;
    let config =
        SocketConfig { ifindex, queue: 0, ring_size: 32, mode, multi_buffer, busy_retry: BUSY_RETRY };
    Socket::bind(&config, Arc::new(umem), None).map(drop).map_err(|e| e.source)
}

fn open_af_xdp(
    config: &DataPlaneConfig,
    policies: &PolicySet,
    network: &Snapshot,
    zero_copy: bool,
    decision: Decision,
) -> Result<Devices, StartError> {
    let Decision { reason, multi_buffer, queues, workers, .. } = decision;
    if !zero_copy {
        tracing::warn!(%reason, "AF_XDP copies every packet; `data_plane.mode: tun` is faster here");
    }
    let object = find_object(config.xdp_object.as_deref())?;
    let mut instance = XdpInstance::open(&config.instance, &object, config.sa_slots, &config.limits)?;
    let mut programs = load(&mut instance, config.interfaces.iter(), Steering::Redirect)?;
    let backing = fill_maps(&mut instance, policies, network)?;
    let attached = programs.iter_mut().map(|program| program.attach(true)).collect::<Result<Vec<_>, _>>()?;
    let nodes = Nodes::of(config.interfaces.iter().map(|interface| &*interface.name));
    let (umem, frames) = umem(&in_rings(&nodes, &queues), workers)?;
    let mut ports: Vec<Vec<Port>> = (0..workers).map(|_| Vec::new()).collect();
    let mode = if zero_copy { BindMode::ZeroCopy } else { BindMode::Copy };
    let mut not_polled = None;
    let slots = (0..).map(|interface| nodes.slot(interface));
    for (((interface, program), queues), slot) in
        config.interfaces.iter().zip(&mut programs).zip(&queues).zip(slots)
    {
        let ifindex = program.index();
        let mac = network.interface(ifindex).map_or([0; 6], |i| i.mac);
        for queue in 0..*queues {
            let socket_config =
                SocketConfig { ifindex, queue, ring_size: RING, mode, multi_buffer, busy_retry: BUSY_RETRY };
            let share = ports.iter().flatten().next().map(|port| &port.socket);
            let mut socket = Socket::bind(&socket_config, umem.clone(), share)?;
            socket.receive_near(slot);
            if let Idle::BusyPoll { budget } = config.idle
                && let Err(error) = socket.busy_poll(budget)
            {
                not_polled.get_or_insert(error);
            }
            if let Some(fd) = socket.fd() {
                program.set_socket(queue, &fd)?;
            }
            let port = Port::new(ifindex, interface.role, interface.protected, mac, socket);
            if let Some(ports) = ports.get_mut((queue % workers) as usize) {
                ports.push(port);
            }
        }
    }
    programs.iter_mut().for_each(forward_log);
    if let Some(error) = &not_polled {
        tracing::warn!(%error, "this kernel refuses busy polling: workers spin, and cards interrupt them as ever");
    }
    let waiting = waiting(config.idle, not_polled.as_ref());
    let path = InterfacePath::AfXdp { zero_copy };
    let bound = config.interfaces.iter().zip(programs).zip(attached).map(|((interface, program), mode)| {
        let index = Some(program.index());
        let reason = format!("{reason}; XDP {}; {waiting}", mode.label());
        BoundInterface::new(interface.clone(), path, reason, Some(program), index)
    });
    let (bound, xdp) = (bound.collect(), Some(Xdp::new(instance, policies)));
    Ok(Devices { bound, xdp, umem, pool: FramePool::new(frames), ports, backing })
}

/// How workers wait for packets of AF_XDP, in the words of status.
fn waiting(idle: Idle, not_polled: Option<&io::Error>) -> String {
    match (idle, not_polled) {
        (Idle::Sleep, _) => "workers sleep when idle".to_owned(),
        (Idle::Spin, _) => "workers spin".to_owned(),
        (Idle::BusyPoll { budget }, None) => format!("workers poll its queues, {budget} packets at once"),
        (Idle::BusyPoll { .. }, Some(error)) => format!("workers spin, busy polling is refused: {error}"),
    }
}

/// Without AF_XDP each worker has a queue of each TUN device, and one of them the sockets. XDP still classifies, counts and drops where that is worth it.
fn open_tun(
    config: &DataPlaneConfig,
    policies: &PolicySet,
    network: &Snapshot,
    decision: &Decision,
) -> Result<Devices, StartError> {
    let Decision { reason, workers, .. } = decision;
    if config.idle != Idle::Sleep {
        tracing::warn!(
            idle = config.idle.label(),
            "workers of the TUN path never sleep now, and there is no queue to poll"
        );
    }
    advise(config);
    let (xdp, backing, programs) = match try_classify(config, policies, network) {
        Ok((instance, backing, programs)) => (Some(Xdp::new(instance, policies)), backing, programs),
        Err(error) => {
            let without: Vec<_> = config.interfaces.iter().map(|_| Err(error.to_string())).collect();
            (None, Backing::Memory, without)
        }
    };
    let bound = config.interfaces.iter().zip(programs).map(|(interface, program)| {
        let (program, reason) = match program {
            Ok(program) => (Some(program), reason.clone()),
            Err(without) => (None, format!("{reason}; without XDP: {without}")),
        };
        let index = network.ifindex(&interface.name);
        BoundInterface::new(interface.clone(), InterfacePath::Tun, reason, program, index)
    });
    let (umem, frames) = umem(&[(None, 0)], *workers)?;
    let (bound, pool) = (bound.collect(), FramePool::new(frames));
    let ports = (0..*workers).map(|_| Vec::new()).collect();
    Ok(Devices { bound, xdp, umem, pool, ports, backing })
}

type Classified = (XdpInstance, Backing, Vec<Result<XdpInterface, String>>);

fn try_classify(
    config: &DataPlaneConfig,
    policies: &PolicySet,
    network: &Snapshot,
) -> Result<Classified, BpfError> {
    let object = find_object(config.xdp_object.as_deref())?;
    let mut instance = XdpInstance::open(&config.instance, &object, config.sa_slots, &config.limits)?;
    let interfaces: Vec<_> =
        config.interfaces.iter().map(|i| worth_classifying(config, i).map(|()| i)).collect();
    let mut programs =
        load(&mut instance, interfaces.iter().flatten().copied(), Steering::Kernel)?.into_iter();
    let backing = fill_maps(&mut instance, policies, network)?;
    let attached = interfaces.iter().map(|interface| {
        if let Err(reason) = interface {
            return Err((*reason).to_owned());
        }
        let mut program = programs.next().ok_or_else(|| "not loaded".to_owned())?;
        program.attach(false).map_err(|error| error.to_string())?;
        forward_log(&mut program);
        Ok(program)
    });
    let attached = attached.collect();
    Ok((instance, backing, attached))
}

/// Where XDP would cost more than it saves, why (ADR 0017).
fn worth_classifying(config: &DataPlaneConfig, interface: &InterfaceConfig) -> Result<(), &'static str> {
    match config.classification {
        Classification::On => Ok(()),
        Classification::Off => Err("configured"),
        // A driver that does not tell is none of these.
        Classification::Auto => match ethtool::driver(&interface.name).as_deref() {
            Ok("veth") => Err("a veth copies every packet for it and gives up segmentation offloads"),
            _ => Ok(()),
        },
    }
}

/// Says where packets of a flow reach the TUN path one by one although they need not.
fn advise(config: &DataPlaneConfig) {
    for InterfaceConfig { name, .. } in config.interfaces.iter().filter(|_| config.offloads) {
        if ethtool::joins_received(name).is_ok_and(|joins| !joins) && !is_veth(name) {
            tracing::warn!(
                interface = %name,
                "generic receive offload is off: packets of a flow reach the TUN path one by one; `ethtool -K {name} gro on` makes it several times as fast"
            );
        }
    }
}

/// Passes the program's log on, where there is a runtime to run the task; it ends with the runtime.
fn forward_log(program: &mut XdpInterface) {
    if tokio::runtime::Handle::try_current().is_ok()
        && let Err(error) = program.forward_log()
    {
        tracing::warn!(%error, interface = %program.name(), "the log of the XDP program cannot be read");
    }
}

fn load<'a>(
    instance: &mut XdpInstance,
    interfaces: impl Iterator<Item = &'a InterfaceConfig> + Clone,
    steering: Steering,
) -> Result<Vec<XdpInterface>, BpfError> {
    let names: Vec<_> = interfaces.clone().map(|i| i.name.clone()).collect();
    instance.retain(&names)?;
    interfaces.map(|interface| instance.load(&plan(interface, steering))).collect()
}

fn plan(interface: &InterfaceConfig, steering: Steering) -> InterfacePlan {
    InterfacePlan {
        name: interface.name.clone(),
        role: interface.role,
        steering,
        protected: interface.protected,
    }
}

fn fill_maps(
    instance: &mut XdpInstance,
    policies: &PolicySet,
    network: &Snapshot,
) -> Result<Backing, BpfError> {
    let Some(maps) = instance.shared() else { return Ok(Backing::Memory) };
    maps.set_local_addresses(network.local_addresses())?;
    maps.set_lan_classes(LanClasses::new(policies))?;
    Ok(Backing::Maps { steer: maps.steer()?, keys: maps.keys()? })
}

/// Receive queues of each interface.
fn queues(config: &DataPlaneConfig) -> Result<Vec<u32>, StartError> {
    let count =
        |i: &InterfaceConfig| ethtool::receive_queues(&i.name).map_err(system("count receive queues"));
    config.interfaces.iter().map(count).collect()
}

/// Every worker needs a queue on every interface, to send on.
fn workers(config: &DataPlaneConfig, queues: &[u32]) -> u32 {
    let fewest = queues.iter().copied().min().unwrap_or(1);
    let workers = u32::from(config.workers).clamp(1, fewest);
    if workers < u32::from(config.workers) {
        tracing::warn!(
            workers,
            configured = config.workers,
            "an interface has fewer queues than there are workers"
        );
    }
    workers
}

/// The nodes by slot, and how many frames can be in the rings of their interfaces.
fn in_rings(nodes: &Nodes, queues: &[u32]) -> Vec<(Option<u32>, u32)> {
    let of_slot = |slot: usize| {
        let queues = queues.iter().enumerate().filter(|(interface, _)| nodes.slot(*interface) == slot);
        queues.map(|(_, queues)| queues * FRAMES_PER_SOCKET).sum()
    };
    nodes.slots().iter().enumerate().map(|(slot, node)| (*node, of_slot(slot))).collect()
}

/// Memory for what is in rings, by slot, and on the first node for what is not.
fn umem(in_rings: &[(Option<u32>, u32)], workers: u32) -> Result<(Arc<Umem>, Vec<Frame>), StartError> {
    let shares: Vec<_> = in_rings
        .iter()
        .enumerate()
        .map(|(slot, (node, frames))| match slot {
            0 => Share {
                node: *node,
                small: frames + workers * FRAMES_PER_WORKER + STREAM_FRAMES,
                large: workers * LARGE_FRAMES_PER_WORKER,
            },
            _ => Share { node: *node, small: *frames, large: 0 },
        })
        .collect();
    let (umem, frames) = Umem::with_shares(&shares, FRAME_BYTES).map_err(system("packet memory"))?;
    Ok((Arc::new(umem), frames))
}

fn is_veth(name: &str) -> bool {
    ethtool::driver(name).is_ok_and(|driver| driver == "veth")
}

impl BoundInterface {
    fn new(
        config: InterfaceConfig,
        path: InterfacePath,
        reason: String,
        program: Option<XdpInterface>,
        index: Option<u32>,
    ) -> Self {
        let (program, index) = (Mutex::new(program), Mutex::new(index));
        let is_veth = is_veth(&config.name);
        Self { config, path, reason, is_veth, program, index, is_orphaned: AtomicBool::new(false) }
    }

    /// True if it sends by several queues of a veth.
    pub(super) fn is_on_veth(&self) -> bool {
        self.is_veth && self.path != InterfacePath::Tun
    }

    /// How its packets travel.
    pub(super) fn path(&self) -> InterfacePath {
        self.path
    }

    /// Its name.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.config.name
    }

    /// False when only a restart brings it back.
    pub(super) fn is_usable(&self) -> bool {
        !self.is_orphaned.load(Ordering::Relaxed)
    }

    /// Takes note of the device that has its name now; returns what was noted before.
    pub(super) fn replace_index(&self, index: Option<u32>) -> Option<u32> {
        std::mem::replace(&mut *lock(&self.index), index)
    }

    /// Its name belongs to another device than before. On the TUN path the kernel does the work, and XDP classifies
    /// again where it did; AF_XDP sockets stay with the device that they were bound to: false.
    pub(super) fn take_up_again(&self, xdp: Option<&Xdp>) -> bool {
        if self.path != InterfacePath::Tun {
            self.is_orphaned.store(true, Ordering::Relaxed);
            return false;
        }
        let mut program = lock(&self.program);
        if let Some(xdp) = xdp.filter(|_| program.is_some()) {
            let attached = lock(&xdp.instance).load(&plan(&self.config, Steering::Kernel));
            *program = match attached.and_then(|mut p| p.attach(false).map(|_| p)) {
                Ok(program) => Some(program),
                Err(error) => {
                    tracing::warn!(%error, interface = %self.config.name, "it came back and works without XDP");
                    None
                }
            };
        }
        true
    }

    /// How it stands.
    pub(super) fn report(&self) -> InterfaceReport {
        let verdicts = lock(&self.program).as_ref().and_then(|program| program.verdicts().ok());
        let xdp = verdicts.iter().flat_map(|v| v.iter()).map(|(verdict, c)| (verdict, c.packets, c.bytes));
        InterfaceReport {
            name: self.config.name.clone(),
            role: self.config.role,
            path: self.path,
            reason: self.reason.clone(),
            xdp: xdp.collect(),
        }
    }
}

impl Xdp {
    fn new(instance: XdpInstance, policies: &PolicySet) -> Self {
        let xdp = Self { instance: Mutex::new(instance), exempt: Mutex::default() };
        xdp.exempt_configured(policies);
        xdp
    }

    /// Replaces what the LAN side knows of policies, and the WAN side of configured peers.
    pub(super) fn set_policies(&self, policies: &PolicySet) -> Result<(), BpfError> {
        self.exempt_configured(policies);
        match lock(&self.instance).shared() {
            Some(maps) => maps.set_lan_classes(LanClasses::new(policies)),
            None => Ok(()),
        }
    }

    /// The peer of an IKE SA is at this address now, or has none any more.
    pub(super) fn set_path(&self, path: PathId, remote: Option<IpAddr>) {
        let (mut exempt, mut instance) = (lock(&self.exempt), lock(&self.instance));
        let outcome = instance.shared().map_or(Ok(()), |maps| exempt.set_path(path, remote, maps));
        if let Err(error) = outcome {
            tracing::warn!(%error, "XDP may limit how often a peer asks for an IKE SA although it has one");
        }
    }

    fn exempt_configured(&self, policies: &PolicySet) {
        let (mut exempt, mut instance) = (lock(&self.exempt), lock(&self.instance));
        let outcome = instance.shared().map_or(Ok(()), |maps| exempt.set_configured(policies, maps));
        if let Err(error) = outcome {
            tracing::warn!(%error, "XDP may limit how often some configured peer asks for an IKE SA");
        }
    }

    /// Replaces what the programs know of this host's addresses.
    pub(super) fn set_local_addresses(
        &self,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> Result<(), BpfError> {
        match lock(&self.instance).shared() {
            Some(maps) => maps.set_local_addresses(addresses),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_mtu_beyond_what_af_xdp_takes_is_named_with_the_reason() {
        let mtus = || [("lan0", 1500), ("wan0", 9000)].into_iter();
        let limit = max_packet(FRAME_BYTES as usize, false);
        let refused = io::Error::from_raw_os_error(libc::EINVAL);
        let reason = too_long(limit, mtus(), Some(refused)).unwrap();
        for part in ["wan0", "9000", "3818", "6.6", "Invalid argument"] {
            assert!(reason.contains(part), "{reason}");
        }
        assert_eq!(too_long(max_packet(FRAME_BYTES as usize, true), mtus(), None), None);
        let reason = too_long(max_packet(FRAME_BYTES as usize, true), [("veth0", 65_535)].into_iter(), None);
        assert!(reason.is_some_and(|reason| reason.contains("16106")));
    }
}
