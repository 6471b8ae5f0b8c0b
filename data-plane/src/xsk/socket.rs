//! One AF_XDP socket: the four rings of one (interface, queue) and the system calls around them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use portcullis_esp::MAX_TAIL_LEN;

use super::frames::FrameCache;
use super::mapping::Mapping;
use super::ring::{Consumer, Descriptor, Producer, Ring, RingEntry, in_memory_ring};
use super::umem::{Frame, HEADROOM, LARGE_CHUNKS, Umem, max_packet};

/// A socket that takes packets in several descriptors, and a descriptor that is not the last of its packet
/// (Documentation/networking/af_xdp.rst).
const XDP_USE_SG: u16 = 1 << 4;
const XDP_PKT_CONTD: u32 = 1 << 0;
/// Completions of a large frame are counted in an octet.
const _: () = assert!(LARGE_CHUNKS <= u8::MAX as u32);

/// More than nothing, for a kernel that is asked without waiting looks once.
const BUSY_POLL_MICROSECONDS: libc::c_int = 20;

/// How packets get between card and frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BindMode {
    /// The driver's DMA works in our frames; refused by drivers that cannot.
    ZeroCopy,
    /// The kernel copies each packet.
    Copy,
}

/// What to bind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SocketConfig {
    /// Index of the interface.
    pub ifindex: u32,
    /// Receive and transmit queue of the interface.
    pub queue: u32,
    /// Entries of each of the four rings, a power of two.
    pub ring_size: u32,
    /// Copy or zero-copy; a socket that shares a UMEM inherits the mode of the first one.
    pub mode: BindMode,
    /// Packets in several descriptors (XDP_USE_SG, Linux 6.6): what is longer than a chunk is dropped by the kernel without. A
    /// socket that shares a UMEM inherits it.
    pub multi_buffer: bool,
    /// How long a queue that answers EBUSY is tried again: the kernel frees a closed socket's queue late.
    pub busy_retry: Duration,
}

/// A step of opening a socket that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("AF_XDP {step} on interface {ifindex} queue {queue}: {source}")]
pub struct XskError {
    /// Which call.
    pub step: &'static str,
    /// Index of the interface.
    pub ifindex: u32,
    /// Queue of the interface.
    pub queue: u32,
    /// What the kernel said.
    pub source: io::Error,
}

/// A received packet: its frame, and where in the frame it lies.
#[derive(Debug)]
pub struct Received {
    /// The frame that holds it.
    pub frame: Frame,
    /// Offset of its first byte in the frame.
    pub start: usize,
    /// Bytes from the Ethernet header on.
    pub len: usize,
}

/// Packets that the kernel dropped on the way to or from the rings, as it counts them (XDP_STATISTICS).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KernelDrops {
    /// The receive ring was full.
    pub rx_full: u64,
    /// No free frame in the fill ring, or a packet larger than a frame; here too what came in several descriptors and found no
    /// large frame.
    pub rx_dropped: u64,
    /// Descriptors that named no valid packet or frame.
    pub invalid_descriptors: u64,
}

/// One end of the four rings: ours (with the kernel at the far end), or in memory.
pub struct Rings {
    /// Packets that arrived.
    pub rx: Consumer<Descriptor>,
    /// Packets to send.
    pub tx: Producer<Descriptor>,
    /// Free frames for packets to arrive in.
    pub fill: Producer<u64>,
    /// Frames whose packet has left.
    pub completion: Consumer<u64>,
}

/// The far end of [`Socket::in_memory`]: a test or benchmark that plays the card.
pub struct FarRings {
    /// Puts packets into the socket's receive ring.
    pub rx: Producer<Descriptor>,
    /// Takes what the socket sends.
    pub tx: Consumer<Descriptor>,
    /// Takes the free frames that the socket offers.
    pub fill: Consumer<u64>,
    /// Reports packets as sent.
    pub completion: Producer<u64>,
}

/// An AF_XDP socket. Used by one thread, the worker of its queue.
pub struct Socket {
    rings: Rings,
    umem: Arc<Umem>,
    /// `None`: the rings are in memory, nobody needs to be woken.
    fd: Option<OwnedFd>,
    zero_copy: bool,
    multi_buffer: bool,
    seen_drops: KernelDrops,
    /// Descriptors that were queued for sending, and that came back.
    queued: u64,
    completed: u64,
    /// The kernel leaves the queue to whoever calls [`Socket::poll_queue`].
    busy_polls: bool,
    /// The packet whose first descriptors have been read.
    gathering: Gathering,
    /// Packets that found no large frame since the last look.
    not_gathered: u64,
    /// Where a packet in a small frame ends at most: what is sealed in its place needs room behind it.
    last_end: usize,
    /// Descriptors of each large frame that have not been reported as sent.
    unsent: Vec<u8>,
    /// Slot of the NUMA node that frames to receive into should be of.
    slot: usize,
}

/// A packet in several descriptors, on its way into one frame.
enum Gathering {
    None,
    /// So many octets of it are behind the headroom of this frame.
    Into(Frame, usize),
    /// The rest of it is dropped.
    Skipping,
}

impl Socket {
    /// Opens, maps and binds a socket. With `share` it joins the UMEM that the other socket registered,
    /// which must be the same `umem`.
    ///
    /// # Errors
    /// The step and the kernel's answer: EBUSY (after `busy_retry`: another process holds the queue),
    /// EOPNOTSUPP (no zero-copy in this driver), EINVAL (no such queue), EPERM, ENODEV.
    pub fn bind(config: &SocketConfig, umem: Arc<Umem>, share: Option<&Socket>) -> Result<Self, XskError> {
        let failed =
            |step| move |source| XskError { step, ifindex: config.ifindex, queue: config.queue, source };
        let deadline = Instant::now() + config.busy_retry;
        loop {
            let fd = open().map_err(failed("socket"))?;
            if share.is_none() {
                set(&fd, libc::XDP_UMEM_REG, &umem.registration()).map_err(failed("UMEM registration"))?;
            }
            let rings = map_rings(&fd, config.ring_size).map_err(failed("ring set-up"))?;
            match bind(&fd, config, share) {
                Ok(()) => {
                    let zero_copy = is_zero_copy(&fd).map_err(failed("option query"))?;
                    raise_transmit_budget(&fd, config.ring_size);
                    let multi_buffer = share.map_or(config.multi_buffer, |other| other.multi_buffer);
                    return Ok(Self::new(rings, umem, Some(fd), zero_copy, multi_buffer));
                }
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(20));
                }
                Err(e) => return Err(failed("bind")(e)),
            }
        }
    }

    /// A socket whose far end is this process: for tests and benchmarks of what stands above it.
    pub fn in_memory(umem: Arc<Umem>, ring_size: u32) -> io::Result<(Self, FarRings)> {
        let (far_rx, rx) = in_memory_ring(ring_size)?;
        let (tx, far_tx) = in_memory_ring(ring_size)?;
        let (fill, far_fill) = in_memory_ring(ring_size)?;
        let (far_completion, completion) = in_memory_ring(ring_size)?;
        let rings = Rings { rx, tx, fill, completion };
        let socket = Self::new(rings, umem, None, true, true);
        Ok((socket, FarRings { rx: far_rx, tx: far_tx, fill: far_fill, completion: far_completion }))
    }

    fn new(rings: Rings, umem: Arc<Umem>, fd: Option<OwnedFd>, zero_copy: bool, multi_buffer: bool) -> Self {
        let has_large = multi_buffer && umem.has_large();
        Self {
            rings,
            fd,
            zero_copy,
            multi_buffer,
            seen_drops: KernelDrops::default(),
            queued: 0,
            completed: 0,
            busy_polls: false,
            gathering: Gathering::None,
            not_gathered: 0,
            last_end: if has_large { umem.frame_size() - MAX_TAIL_LEN } else { usize::MAX },
            unsent: vec![0; umem.large_frames()],
            slot: 0,
            umem,
        }
    }

    /// Takes the queue over from the interrupts of its card (Documentation/networking/napi.rst, "Busy polling"): from now on
    /// [`Socket::poll_queue`] works on it, up to `budget` packets at once. Rings in memory have nobody to ask.
    ///
    /// # Errors
    /// ENOPROTOOPT if the kernel was built without or is older than 5.11, EPERM without CAP_NET_ADMIN.
    pub fn busy_poll(&mut self, budget: u16) -> io::Result<()> {
        if let Some(fd) = &self.fd {
            for (option, value) in [
                (libc::SO_PREFER_BUSY_POLL, 1),
                (libc::SO_BUSY_POLL, BUSY_POLL_MICROSECONDS),
                (libc::SO_BUSY_POLL_BUDGET, libc::c_int::from(budget)),
            ] {
                set_at(fd, libc::SOL_SOCKET, option, &value)?;
            }
            self.busy_polls = true;
        }
        Ok(())
    }

    /// True if [`Socket::busy_poll`] has succeeded.
    pub fn busy_polls(&self) -> bool {
        self.busy_polls
    }

    /// Has the kernel work on the queue, if it leaves that to us.
    pub fn poll_queue(&self) {
        if self.busy_polls {
            self.receive_nothing();
        }
    }

    fn receive_nothing(&self) {
        if let Some(fd) = &self.fd {
            let (null, flags) = (std::ptr::null_mut(), libc::MSG_DONTWAIT);
            // SAFETY: receives no data; the kernel only looks at the fill ring and, if it is told to, at the card.
            unsafe {
                libc::recvfrom(fd.as_raw_fd(), null, 0, flags, std::ptr::null_mut(), std::ptr::null_mut())
            };
        }
    }

    /// Frames to receive into are of the NUMA node with this slot from now on, if there are any.
    pub fn receive_near(&mut self, slot: usize) {
        self.slot = slot;
    }

    /// Longest IP packet in bytes that it receives, and that it sends after it was sealed.
    pub fn max_packet(&self) -> usize {
        max_packet(self.umem.frame_size(), self.multi_buffer && self.umem.has_large())
    }

    /// True if the driver works in our frames without a copy.
    pub fn is_zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// The file descriptor, for poll(2) and the XSKMAP; `None` for rings in memory.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// Moves up to `max` received packets to `packets`; returns how many. One that came in several descriptors, or leaves too
    /// little room in its frame to be sealed there, is copied into a large frame of `cache`.
    pub fn receive(&mut self, cache: &mut FrameCache, packets: &mut Vec<Received>, max: usize) -> usize {
        let before = packets.len();
        let mut any = false;
        while packets.len() - before < max {
            let Some(descriptor) = self.rings.rx.pop() else { break };
            any = true;
            let Some((frame, start)) = self.umem.reclaim(descriptor.addr) else { continue };
            let len = (descriptor.len as usize).min(self.umem.size_of(&frame) - start);
            let continues = descriptor.options & XDP_PKT_CONTD != 0;
            if !continues && start + len <= self.last_end && matches!(self.gathering, Gathering::None) {
                packets.push(Received { frame, start, len });
            } else {
                packets.extend(self.gather(cache, Received { frame, start, len }, continues));
            }
        }
        if any {
            self.rings.rx.release();
        }
        packets.len() - before
    }

    /// Takes one piece of a packet, and returns the packet when that was the last.
    #[cold]
    fn gather(&mut self, cache: &mut FrameCache, piece: Received, continues: bool) -> Option<Received> {
        let gathered = match std::mem::replace(&mut self.gathering, Gathering::Skipping) {
            Gathering::None => cache.take_large().map(|frame| (frame, 0)),
            Gathering::Into(frame, len) => Some((frame, len)),
            Gathering::Skipping => {
                if !continues {
                    self.gathering = Gathering::None;
                }
                cache.put(piece.frame);
                return None;
            }
        };
        let joined = gathered.and_then(|(mut large, len)| {
            let start = HEADROOM + len;
            let bytes = self.umem.bytes(&piece.frame).get(piece.start..piece.start + piece.len)?;
            match self.umem.bytes_mut(&mut large).get_mut(start..start + bytes.len()) {
                Some(room) => room.copy_from_slice(bytes),
                None => {
                    cache.put(large);
                    return None;
                }
            }
            Some((large, len + bytes.len()))
        });
        cache.put(piece.frame);
        match (joined, continues) {
            (Some((frame, len)), true) => self.gathering = Gathering::Into(frame, len),
            (Some((frame, len)), false) => {
                self.gathering = Gathering::None;
                return Some(Received { frame, start: HEADROOM, len });
            }
            (None, true) => self.not_gathered += 1,
            (None, false) => {
                self.gathering = Gathering::None;
                self.not_gathered += 1;
            }
        }
        None
    }

    /// Queues a packet of `len` bytes at `start` of the frame; gives the frame back if the ring is full, or
    /// the packet would leave the frame or needs several descriptors on a socket that takes one. It is on its way only after
    /// [`Socket::flush`].
    pub fn transmit(&mut self, frame: Frame, start: usize, len: usize) -> Result<(), Frame> {
        if frame.is_large() {
            return self.transmit_large(frame, start, len);
        }
        let fits = start.checked_add(len).is_some_and(|end| end <= self.umem.frame_size());
        if !fits || self.rings.tx.free(1) == 0 {
            return Err(frame);
        }
        let address = self.umem.surrender(frame) + start as u64;
        self.rings.tx.push(Descriptor { addr: address, len: len as u32, options: 0 });
        self.queued += 1;
        Ok(())
    }

    /// One descriptor for each chunk that the packet touches.
    #[cold]
    fn transmit_large(&mut self, frame: Frame, start: usize, len: usize) -> Result<(), Frame> {
        let chunk = self.umem.frame_size();
        let end = match start.checked_add(len) {
            Some(end) if end <= self.umem.size_of(&frame) => end,
            _ => return Err(frame),
        };
        let pieces = end.div_ceil(chunk).saturating_sub(start / chunk).max(1) as u32;
        if (pieces > 1 && !self.multi_buffer) || self.rings.tx.free(pieces) < pieces {
            return Err(frame);
        }
        let base = self.umem.surrender(frame);
        if let Some(unsent) = self.umem.large_number(base).and_then(|number| self.unsent.get_mut(number)) {
            *unsent = pieces as u8;
        }
        let mut at = start;
        for piece in 1..=pieces {
            let stop = end.min((at / chunk + 1) * chunk);
            let options = if piece < pieces { XDP_PKT_CONTD } else { 0 };
            self.rings.tx.push(Descriptor { addr: base + at as u64, len: (stop - at) as u32, options });
            at = stop;
        }
        self.queued += pieces as u64;
        Ok(())
    }

    /// Publishes what was queued and wakes the kernel where it wants to be woken.
    ///
    /// # Errors
    /// ENETDOWN and the like: the interface is gone or down. A busy interface is no error; what did not
    /// leave stays queued for the next flush.
    pub fn flush(&mut self) -> io::Result<()> {
        self.rings.tx.submit();
        let Some(fd) = &self.fd else { return Ok(()) };
        if !self.rings.tx.needs_wakeup() || self.rings.tx.pending() == 0 {
            return Ok(());
        }
        // SAFETY: sends no data; the kernel only looks at the transmit ring.
        let sent = unsafe {
            libc::sendto(fd.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0)
        };
        if sent >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS | libc::EINTR) => Ok(()),
            _ => Err(error),
        }
    }

    /// Packets queued or published that the kernel has not taken yet.
    pub fn pending_transmits(&mut self) -> u32 {
        self.rings.tx.pending()
    }

    /// Descriptors that were ever queued for sending.
    pub fn queued(&self) -> u64 {
        self.queued
    }

    /// Descriptors that were ever sent: their frames came back.
    pub fn completed(&self) -> u64 {
        self.completed
    }

    /// Takes the frames of sent packets back.
    pub fn reap(&mut self, cache: &mut FrameCache) {
        let mut reaped = false;
        while let Some(address) = self.rings.completion.pop() {
            reaped = true;
            self.completed += 1;
            if let Some((frame, _)) = self.umem.reclaim(address)
                && (!frame.is_large() || self.was_last_of_large(address))
            {
                cache.put(frame);
            }
        }
        if reaped {
            self.rings.completion.release();
        }
    }

    /// Notes that a piece of a packet in a large frame has been sent; true if it was the last one.
    #[cold]
    fn was_last_of_large(&mut self, address: u64) -> bool {
        let unsent = self.umem.large_number(address).and_then(|number| self.unsent.get_mut(number));
        unsent.is_some_and(|unsent| {
            let was_last = *unsent == 1;
            *unsent = unsent.saturating_sub(1);
            was_last
        })
    }

    /// Offers the kernel free frames to receive into, as many as the fill ring has room for.
    pub fn refill(&mut self, cache: &mut FrameCache) {
        let mut room = self.rings.fill.free(u32::MAX);
        let mut filled = false;
        while room > 0 {
            let Some(frame) = cache.take_near(self.slot) else { break };
            self.rings.fill.push(self.umem.surrender(frame));
            (room, filled) = (room - 1, true);
        }
        if filled {
            self.rings.fill.submit();
        }
        if self.rings.fill.needs_wakeup() {
            self.receive_nothing();
        }
    }

    /// What the kernel dropped since the last call.
    pub fn take_kernel_drops(&mut self) -> io::Result<KernelDrops> {
        let rx_dropped = std::mem::take(&mut self.not_gathered);
        let Some(fd) = &self.fd else { return Ok(KernelDrops { rx_dropped, ..KernelDrops::default() }) };
        // SAFETY: plain integers, for which all zero is a value.
        let mut statistics: libc::xdp_statistics = unsafe { std::mem::zeroed() };
        get(fd, libc::XDP_STATISTICS, &mut statistics)?;
        let now = KernelDrops {
            rx_full: statistics.rx_ring_full,
            rx_dropped: statistics.rx_dropped,
            invalid_descriptors: statistics.rx_invalid_descs + statistics.tx_invalid_descs,
        };
        let seen = std::mem::replace(&mut self.seen_drops, now);
        Ok(KernelDrops {
            rx_full: now.rx_full.saturating_sub(seen.rx_full),
            rx_dropped: rx_dropped + now.rx_dropped.saturating_sub(seen.rx_dropped),
            invalid_descriptors: now.invalid_descriptors.saturating_sub(seen.invalid_descriptors),
        })
    }
}

fn open() -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn map_rings(fd: &OwnedFd, size: u32) -> io::Result<Rings> {
    for ring in
        [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_RX_RING, libc::XDP_TX_RING]
    {
        set(fd, ring, &size)?;
    }
    // SAFETY: plain integers, for which all zero is a value.
    let mut offsets: libc::xdp_mmap_offsets = unsafe { std::mem::zeroed() };
    get(fd, libc::XDP_MMAP_OFFSETS, &mut offsets)?;
    let rx = map(fd, &offsets.rx, size, libc::XDP_PGOFF_RX_RING)?;
    let tx = map(fd, &offsets.tx, size, libc::XDP_PGOFF_TX_RING)?;
    let fill = map(fd, &offsets.fr, size, libc::XDP_UMEM_PGOFF_FILL_RING as libc::off_t)?;
    let completion = map(fd, &offsets.cr, size, libc::XDP_UMEM_PGOFF_COMPLETION_RING as libc::off_t)?;
    Ok(Rings {
        rx: Consumer::new(rx),
        tx: Producer::new(tx),
        fill: Producer::new(fill),
        completion: Consumer::new(completion),
    })
}

fn map<T: RingEntry>(
    fd: &OwnedFd,
    offsets: &libc::xdp_ring_offset,
    size: u32,
    page_offset: libc::off_t,
) -> io::Result<Ring<T>> {
    let mapping = Mapping::shared(fd.as_fd(), Ring::<T>::mapping_len(offsets, size), page_offset)?;
    Ring::new(Arc::new(mapping), offsets, size)
}

fn bind(fd: &OwnedFd, config: &SocketConfig, share: Option<&Socket>) -> io::Result<()> {
    let shared_fd = share.and_then(|s| s.fd.as_ref());
    let mode = match config.mode {
        BindMode::ZeroCopy => libc::XDP_ZEROCOPY,
        BindMode::Copy => libc::XDP_COPY,
    };
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        // A sharing socket inherits every flag and may not name any.
        sxdp_flags: if shared_fd.is_some() {
            libc::XDP_SHARED_UMEM
        } else {
            mode | libc::XDP_USE_NEED_WAKEUP | if config.multi_buffer { XDP_USE_SG } else { 0 }
        },
        sxdp_ifindex: config.ifindex,
        sxdp_queue_id: config.queue,
        sxdp_shared_umem_fd: shared_fd.map_or(0, |fd| fd.as_raw_fd() as u32),
    };
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the pointer and length describe one whole sockaddr_xdp.
    let bound = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) };
    if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn is_zero_copy(fd: &OwnedFd) -> io::Result<bool> {
    let mut options = libc::xdp_options { flags: 0 };
    get(fd, libc::XDP_OPTIONS, &mut options)?;
    Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
}

/// Lets one system call send a whole ring in copy mode instead of 32 packets. Kernels before 6.17 lack it,
/// and only need more calls then.
fn raise_transmit_budget(fd: &OwnedFd, ring_size: u32) {
    const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
    let _ = set(fd, XDP_MAX_TX_SKB_BUDGET, &ring_size);
}

fn set<T: Copy>(fd: &OwnedFd, option: libc::c_int, value: &T) -> io::Result<()> {
    set_at(fd, libc::SOL_XDP, option, value)
}

fn set_at<T: Copy>(fd: &OwnedFd, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: pointer and length describe one whole `T` of plain integers.
    let r = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), len) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn get<T: Copy>(fd: &OwnedFd, option: libc::c_int, value: &mut T) -> io::Result<()> {
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, the size of the plain-integer `T` behind the pointer.
    let r = unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_XDP, option, std::ptr::from_mut(value).cast(), &mut len)
    };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
