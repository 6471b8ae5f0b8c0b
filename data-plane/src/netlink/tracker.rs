//! The thread that follows the kernel and publishes what it learns.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use crossbeam_queue::ArrayQueue;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourHeader, NeighbourMessage,
};
use netlink_packet_route::rule::RuleAttribute;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use rtnetlink::packet_core::{Emitable, NetlinkDeserializable, NetlinkHeader};

use super::raw::{MessageHeader, NetlinkSocket, Request};
use super::snapshot::Snapshot;
use super::tables::Tables;
use super::tun_routes::PROTOCOL;

/// Links, neighbours, and addresses, routes and rules of both families.
const GROUPS: [u32; 8] = [1, 3, 5, 7, 8, 9, 11, 19];
const NOTIFICATION_BYTES: i32 = 4 << 20;
/// A burst of notifications is published as one, when it pauses for this long or has lasted ten times as long.
const BURST_PAUSE_MS: i32 = 1;
const BURST_PAUSES: u32 = 10;
/// Neighbours that workers can ask for between two looks at the queue.
const WANTED_NEIGHBOURS: usize = 1024;

const GET_LINK: u16 = 18;
const GET_ADDRESS: u16 = 22;
const GET_ROUTE: u16 = 26;
const NEW_NEIGHBOUR: u16 = 28;
const GET_NEIGHBOUR: u16 = 30;
const FLAG_CREATE: u16 = 0x400;

/// Follows the network of the namespace in which it was started. Dropping the last clone stops it.
#[derive(Clone, Debug)]
pub struct Network {
    shared: Arc<Shared>,
    _stop: Arc<Stop>,
}

/// Something about this host that connections may depend on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NetworkEvent {
    /// This host has a new address.
    AddressAdded(IpAddr),
    /// This host has lost an address.
    AddressRemoved(IpAddr),
    /// An interface can carry packets.
    LinkUp(Arc<str>),
    /// An interface cannot carry packets any more, or is gone.
    LinkDown(Arc<str>),
    /// Packets may leave another way, or from another address.
    RoutesChanged,
    /// Someone removed one of the routes or rules that lead into a TUN device of ours; it may have been us.
    TunRoutingRemoved,
}

#[derive(Debug)]
struct Shared {
    snapshot: Arc<ArcSwap<Snapshot>>,
    wanted: ArrayQueue<(u32, IpAddr)>,
    wake: OwnedFd,
}

#[derive(Debug)]
struct Stop {
    shared: Arc<Shared>,
    stopping: Arc<std::sync::atomic::AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Network {
    /// Reads the kernel's tables, in the network namespace of the calling thread, and follows them from then on.
    /// `events` runs on the thread that follows, after the snapshot that shows the change is there.
    ///
    /// # Errors
    /// When the kernel refuses the sockets or the first reading.
    pub fn start(events: impl Fn(NetworkEvent) + Send + 'static) -> io::Result<Self> {
        let notifications = NetlinkSocket::open(libc::NETLINK_ROUTE)?;
        for group in GROUPS {
            notifications.subscribe(group, NOTIFICATION_BYTES)?;
        }
        let mut follower = Follower {
            notifications,
            requests: NetlinkSocket::open(libc::NETLINK_ROUTE)?,
            tables: Tables::default(),
            tun_routing_removed: false,
        };
        follower.read_all()?;
        let snapshot = follower.tables.publish().unwrap_or_default();
        let shared = Arc::new(Shared {
            snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
            wanted: ArrayQueue::new(WANTED_NEIGHBOURS),
            wake: eventfd()?,
        });
        let stopping = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let thread = {
            let (shared, stopping) = (shared.clone(), stopping.clone());
            let follow = move || follower.follow(&shared, &stopping, &events);
            std::thread::Builder::new().name("netlink".into()).spawn(follow)?
        };
        let stop = Stop { shared: shared.clone(), stopping, thread: Some(thread) };
        Ok(Self { shared, _stop: Arc::new(stop) })
    }

    /// A network that never changes: for what is tried without a kernel.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn fixed(snapshot: Snapshot) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
            wanted: ArrayQueue::new(WANTED_NEIGHBOURS),
            wake: eventfd()?,
        });
        let stop = Stop { shared: shared.clone(), stopping: Arc::default(), thread: None };
        Ok(Self { shared, _stop: Arc::new(stop) })
    }

    /// The network as it is now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.load_full()
    }

    /// Where workers find the network as it is, without a lock.
    pub fn shared_snapshot(&self) -> Arc<ArcSwap<Snapshot>> {
        self.shared.snapshot.clone()
    }

    /// Packets go to this neighbour: the kernel is to find out its MAC address, or to confirm it if that was long ago.
    /// The kernel sees nothing of AF_XDP traffic, so call this about once a second for every next hop in use.
    /// Neither waits nor allocates; `false` when too many are wanted at once.
    pub fn want_neighbour(&self, ifindex: u32, address: IpAddr) -> bool {
        let is_queued = self.shared.wanted.push((ifindex, address)).is_ok();
        self.shared.wake();
        is_queued
    }
}

impl Shared {
    fn wake(&self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: the kernel reads the eight bytes of a live array.
        unsafe { libc::write(self.wake.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.stopping.store(true, std::sync::atomic::Ordering::Release);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            // A follower that panicked has nothing more to say.
            let _ = thread.join();
        }
    }
}

#[derive(Debug)]
struct Follower {
    notifications: NetlinkSocket,
    requests: NetlinkSocket,
    tables: Tables,
    tun_routing_removed: bool,
}

impl Follower {
    fn follow(
        mut self,
        shared: &Shared,
        stopping: &std::sync::atomic::AtomicBool,
        events: &impl Fn(NetworkEvent),
    ) {
        let mut must_read_all = false;
        loop {
            let retry_ms = if must_read_all { 100 } else { -1 };
            wait(&self.notifications, Some(&shared.wake), retry_ms);
            if stopping.load(std::sync::atomic::Ordering::Acquire) {
                return;
            }
            clear(&shared.wake);
            while let Some((ifindex, address)) = shared.wanted.pop() {
                self.probe(ifindex, address);
            }
            must_read_all |= self.follow_burst().is_err();
            if must_read_all {
                must_read_all = self.read_all().is_err();
            }
            if !must_read_all && let Some(next) = self.tables.publish() {
                let previous = shared.snapshot.swap(Arc::new(next.clone()));
                differences(&previous, &next).into_iter().for_each(events);
            }
            if std::mem::take(&mut self.tun_routing_removed) {
                events(NetworkEvent::TunRoutingRemoved);
            }
        }
    }

    /// # Errors
    /// When notifications were lost, or routes could not be read anew.
    fn follow_burst(&mut self) -> io::Result<()> {
        let mut reread_routes = false;
        for _ in 0..BURST_PAUSES {
            let (tables, removed) = (&mut self.tables, &mut self.tun_routing_removed);
            let any = self.notifications.drain(|header, body| {
                if let Some(message) = decode(header, body) {
                    reread_routes |= tables.apply(&message, header.flags).reread_routes;
                    *removed |= removes_tun_routing(&message);
                }
            })?;
            if !any || !wait(&self.notifications, None, BURST_PAUSE_MS) {
                break;
            }
        }
        if reread_routes {
            self.tables.clear_routes();
            self.read(GET_ROUTE)?;
        }
        Ok(())
    }

    fn read_all(&mut self) -> io::Result<()> {
        // What was lost may have been a removal.
        self.tun_routing_removed = true;
        self.tables.clear();
        for kind in [GET_LINK, GET_ADDRESS, GET_ROUTE, GET_NEIGHBOUR] {
            self.read(kind)?;
        }
        Ok(())
    }

    /// A table that changed while it was read is read again.
    fn read(&mut self, kind: u16) -> io::Result<()> {
        // Large enough for the header that each kind wants; all-zero means everything.
        let everything = [0; 16];
        let len = if kind == GET_ADDRESS {
            8
        } else if kind == GET_NEIGHBOUR || kind == GET_ROUTE {
            12
        } else {
            16
        };
        loop {
            let tables = &mut self.tables;
            let read = self.requests.dump(kind, &everything[..len], |header, body| {
                if let Some(message) = decode(header, body) {
                    // The flags of a dump say nothing about what a route replaces.
                    tables.apply(&message, 0);
                }
            });
            match read {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }

    fn probe(&mut self, ifindex: u32, address: IpAddr) {
        if self.tables.neighbour_of(ifindex, address).is_some_and(|n| n.is_fresh) {
            return;
        }
        let (family, destination) = match address {
            IpAddr::V4(a) => (AddressFamily::Inet, NeighbourAddress::Inet(a)),
            IpAddr::V6(a) => (AddressFamily::Inet6, NeighbourAddress::Inet6(a)),
        };
        let mut message = NeighbourMessage::default();
        message.header =
            NeighbourHeader { family, ifindex, flags: NeighbourFlags::Use, ..NeighbourHeader::default() };
        message.attributes.push(NeighbourAttribute::Destination(destination));
        let mut body = vec![0; message.buffer_len()];
        message.emit(&mut body);
        let request = Request { kind: NEW_NEIGHBOUR, flags: FLAG_CREATE, body };
        // An interface that has just gone: the next snapshot says so.
        let _ = self.requests.send_batch([request].into_iter());
    }
}

fn decode(header: &MessageHeader, body: &[u8]) -> Option<Message> {
    let mut core_header = NetlinkHeader::default();
    core_header.message_type = header.kind;
    core_header.flags = header.flags;
    Message::deserialize(&core_header, body).ok()
}

fn removes_tun_routing(message: &Message) -> bool {
    match message {
        Message::DelRoute(route) => u8::from(route.header.protocol) == PROTOCOL,
        Message::DelRule(rule) => rule
            .attributes
            .iter()
            .any(|a| matches!(a, RuleAttribute::Protocol(p) if u8::from(*p) == PROTOCOL)),
        _ => false,
    }
}

fn differences(before: &Snapshot, after: &Snapshot) -> Vec<NetworkEvent> {
    let routes = (!Arc::ptr_eq(&before.routes, &after.routes)).then_some(NetworkEvent::RoutesChanged);
    if Arc::ptr_eq(&before.interfaces, &after.interfaces) {
        return routes.into_iter().collect();
    }
    let addresses = |s: &Snapshot| s.local_addresses().collect::<BTreeSet<_>>();
    // One that was replaced by another of the same name has gone and come.
    let up = |s: &Snapshot| {
        let up = s.interfaces.iter().filter(|(_, i)| i.is_up);
        up.map(|(&index, i)| (index, i.name.clone())).collect::<BTreeSet<_>>()
    };
    let (old_addresses, new_addresses) = (addresses(before), addresses(after));
    let (old_up, new_up) = (up(before), up(after));
    let down = old_up.difference(&new_up).map(|(_, name)| NetworkEvent::LinkDown(name.clone()));
    let removed = old_addresses.difference(&new_addresses).copied().map(NetworkEvent::AddressRemoved);
    let came_up = new_up.difference(&old_up).map(|(_, name)| NetworkEvent::LinkUp(name.clone()));
    let added = new_addresses.difference(&old_addresses).copied().map(NetworkEvent::AddressAdded);
    down.chain(removed).chain(came_up).chain(added).chain(routes).collect()
}

/// Whether something arrived before the time was up; a negative time is for ever.
fn wait(notifications: &NetlinkSocket, wake: Option<&OwnedFd>, timeout_ms: i32) -> bool {
    let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // A negative descriptor is skipped.
    let mut fds = [entry(notifications.as_fd().as_raw_fd()), entry(wake.map_or(-1, AsRawFd::as_raw_fd))];
    // SAFETY: the array of two lives for the whole call.
    unsafe { libc::poll(fds.as_mut_ptr(), 2, timeout_ms) > 0 }
}

fn clear(wake: &OwnedFd) {
    let mut count = [0_u8; 8];
    // SAFETY: the kernel writes eight bytes into a live array. The descriptor does not block.
    unsafe { libc::read(wake.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
}

fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
