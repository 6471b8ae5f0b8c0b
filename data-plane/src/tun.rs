//! TUN devices: the kernel's side door for IP packets.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use crate::netlink::LinkDrops;
use crate::packet::offload::{HEADER_LEN, Offload};

/// Packets that may wait until we read them: 0.8 s at 20 000 packets a second, where the kernel's default of 500 is
/// 25 ms.
const QUEUE_LEN: libc::c_int = 16_384;
/// Room for the longest packet that the kernel leaves to us to cut.
pub const READ_BYTES: usize = HEADER_LEN + 65_535;
/// What we may be asked to do to packets: to finish checksums and to cut TCP, to cut UDP (Linux 6.2).
const CUT_TCP: libc::c_uint = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
const CUT_UDP: libc::c_uint = CUT_TCP | libc::TUN_F_USO4 | libc::TUN_F_USO6;

/// A TUN device of ours, up, without addresses.
#[derive(Debug)]
pub struct Tun {
    /// The kernel spreads flows over them; at least one.
    queues: Vec<File>,
    name: String,
    ifindex: u32,
    dropped_before: u64,
    offloads: TunOffloads,
}

/// What the kernel and we leave to each other at a TUN device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum TunOffloads {
    /// Nothing.
    None,
    /// Packets of TCP come uncut and may be joined.
    Tcp,
    /// The same, and datagrams of UDP come uncut.
    TcpAndUdp,
}

/// A packet that was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TunPacket {
    /// What is left to us.
    pub offload: Offload,
    /// Where in the buffer it lies.
    pub range: Range<usize>,
}

/// How a TUN device stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TunCondition {
    /// It works.
    Up,
    /// Somebody switched it off.
    Down,
    /// Somebody removed or renamed it.
    Gone,
}

/// Why a TUN device could not be had.
#[derive(Debug, thiserror::Error)]
#[error("TUN device {name}: {step}: {source}")]
pub struct TunError {
    /// Its name.
    pub name: String,
    /// What was tried.
    pub step: &'static str,
    /// What the kernel said.
    pub source: io::Error,
}

impl Tun {
    /// Makes the device `name` with an MTU in bytes, or takes over a persistent one, prepares it and brings it up.
    ///
    /// The kernel applies no XFRM policy to what enters or leaves it: the guard stops clear text that goes
    /// anywhere else. `persistent`: it outlives this process, so that routes into it stay (a route-based
    /// connection's, which the operator or a routing daemon set). `offloads`: the kernel and we leave cutting and joining
    /// of packets to each other as far as this kernel can. `queues`: as many as are wanted; a persistent device that was
    /// made with one has one.
    ///
    /// # Errors
    /// No `/dev/net/tun`, no CAP_NET_ADMIN, a name in use by a device of another kind or another process.
    pub fn create(
        name: &str,
        mtu: u32,
        persistent: bool,
        offloads: bool,
        queues: usize,
    ) -> Result<Self, TunError> {
        let failed = |step| move |source| TunError { name: name.to_owned(), step, source };
        let c_name = CString::new(name).map_err(|_| failed("name")(io::ErrorKind::InvalidInput.into()))?;
        if name.is_empty() || name.len() >= libc::IFNAMSIZ {
            return Err(failed("name")(io::ErrorKind::InvalidInput.into()));
        }
        let (file, can_have_more) = match open_queue(name, queues > 1) {
            // A device that is there has one queue for ever, or may have several.
            Err((_, error)) if error.raw_os_error() == Some(libc::EINVAL) => {
                (open_queue(name, queues <= 1).map_err(|(step, error)| failed(step)(error))?, queues <= 1)
            }
            opened => (opened.map_err(|(step, error)| failed(step)(error))?, queues > 1),
        };
        let offloads = negotiate(&file, offloads);
        if persistent {
            set_persistent(&file).map_err(failed("make persistent"))?;
        }
        // SAFETY: a NUL-terminated string that outlives the call.
        let ifindex = unsafe { libc::if_nametoindex(c_name.as_ptr()) };
        let dropped_before = LinkDrops::open().and_then(|mut drops| drops.outbound(ifindex));
        let dropped_before = dropped_before.map_err(failed("read statistics"))?;
        prepare(name).map_err(failed("set sysctls"))?;
        set_mtu_and_up(name, mtu).map_err(failed("bring up"))?;
        let mut queues_open = vec![file];
        while can_have_more && queues_open.len() < queues {
            queues_open.push(open_queue(name, true).map_err(|(step, error)| failed(step)(error))?);
        }
        Ok(Self { queues: queues_open, name: name.to_owned(), ifindex, dropped_before, offloads })
    }

    /// What the kernel had dropped at this device before it was ours.
    pub fn dropped_before(&self) -> u64 {
        self.dropped_before
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its interface index.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Whether the device is there and switched on; others can change that.
    pub fn condition(&self) -> TunCondition {
        let Ok(c_name) = CString::new(self.name.as_str()) else { return TunCondition::Gone };
        // SAFETY: a NUL-terminated string that outlives the call.
        if unsafe { libc::if_nametoindex(c_name.as_ptr()) } != self.ifindex {
            return TunCondition::Gone;
        }
        match control_socket().and_then(|socket| flags(socket.as_fd(), &self.name)) {
            Ok(flags) if libc::c_int::from(flags) & libc::IFF_UP != 0 => TunCondition::Up,
            Ok(_) => TunCondition::Down,
            Err(_) => TunCondition::Gone,
        }
    }

    /// Switches the device on again, with an MTU in bytes. The kernel has forgotten its routes.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn bring_up(&self, mtu: u32) -> Result<(), TunError> {
        set_mtu_and_up(&self.name, mtu).map_err(|source| TunError {
            name: self.name.clone(),
            step: "bring up",
            source,
        })
    }

    /// What the kernel and we leave to each other.
    pub fn offloads(&self) -> TunOffloads {
        self.offloads
    }

    /// How many queues it has.
    pub fn queues(&self) -> usize {
        self.queues.len()
    }

    /// A queue, to wait for; `None` if there is no such one.
    pub fn queue(&self, number: usize) -> Option<BorrowedFd<'_>> {
        self.queues.get(number).map(File::as_fd)
    }

    /// Reads a packet that the kernel routed into the device and put into a queue; a buffer of [`READ_BYTES`] has room for
    /// any.
    ///
    /// # Errors
    /// WouldBlock if there is none; NotFound if there is no such queue; InvalidData if the kernel leaves us what we have not
    /// asked for.
    pub fn read(&self, queue: usize, buffer: &mut [u8]) -> io::Result<TunPacket> {
        let mut file = self.queues.get(queue).ok_or(io::ErrorKind::NotFound)?;
        let len = file.read(buffer)?;
        let header = buffer.first_chunk().filter(|_| len >= HEADER_LEN);
        let offload = header.and_then(Offload::parse).ok_or(io::ErrorKind::InvalidData)?;
        Ok(TunPacket { offload, range: HEADER_LEN..len })
    }

    /// Gives the kernel a packet that needs nothing, by a queue of this number or the one that stands for it: packets of its
    /// flow in the other direction come out of that one afterwards.
    ///
    /// # Errors
    /// When the device is gone or down, or the packet is no IP packet.
    pub fn write(&self, queue: usize, packet: &[u8]) -> io::Result<()> {
        self.write_parts(queue, &[IoSlice::new(&[0; HEADER_LEN]), IoSlice::new(packet)])
    }

    /// Gives the kernel a packet in parts, of which the first is an [`Offload`]: it leaves to the kernel what the kernel
    /// leaves to us.
    ///
    /// # Errors
    /// As [`Tun::write`].
    pub fn write_parts(&self, queue: usize, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let mut file = self.queues.get(queue % self.queues.len()).ok_or(io::ErrorKind::NotFound)?;
        file.write_vectored(parts).map(drop)
    }
}

/// Sysctls that make the device ours. Absent ones belong to what this kernel does not have.
fn prepare(name: &str) -> io::Result<()> {
    let settings = [
        // The guard's policies are for every other way out and in.
        ("ipv4", "disable_xfrm", "1"),
        ("ipv4", "disable_policy", "1"),
        ("ipv6", "disable_policy", "1"),
        // What comes out of a tunnel comes from addresses that the routing table knows elsewhere, and our ICMP
        // errors from an address of this host.
        ("ipv4", "rp_filter", "0"),
        ("ipv4", "accept_local", "1"),
        // No router solicitations and no link-local addresses: nobody is at the other end.
        ("ipv6", "addr_gen_mode", "1"),
    ];
    for (family, key, value) in settings {
        match fs::write(format!("/proc/sys/net/{family}/conf/{name}/{key}"), value) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

fn set_mtu_and_up(name: &str, mtu: u32) -> io::Result<()> {
    let socket = control_socket()?;
    let mut request = interface_request(name);
    request.ifr_ifru.ifru_mtu = mtu as libc::c_int;
    ioctl(socket.as_fd(), libc::SIOCSIFMTU as libc::Ioctl, &mut request)?;
    let mut request = interface_request(name);
    request.ifr_ifru.ifru_metric = QUEUE_LEN;
    ioctl(socket.as_fd(), libc::SIOCSIFTXQLEN as libc::Ioctl, &mut request)?;
    let flags = flags(socket.as_fd(), name)?;
    let mut request = interface_request(name);
    request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
    ioctl(socket.as_fd(), libc::SIOCSIFFLAGS as libc::Ioctl, &mut request)
}

fn flags(socket: BorrowedFd<'_>, name: &str) -> io::Result<libc::c_short> {
    let mut request = interface_request(name);
    ioctl(socket, libc::SIOCGIFFLAGS as libc::Ioctl, &mut request)?;
    // SAFETY: SIOCGIFFLAGS has just written the flags.
    Ok(unsafe { request.ifr_ifru.ifru_flags })
}

/// Any socket will do to ask about interfaces.
fn control_socket() -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// One more queue of a device, which the first makes.
fn open_queue(name: &str, is_one_of_several: bool) -> Result<File, (&'static str, io::Error)> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC);
    let file = options.open("/dev/net/tun").map_err(|error| ("open /dev/net/tun", error))?;
    let several = if is_one_of_several { libc::IFF_MULTI_QUEUE } else { 0 };
    let mut request = interface_request(name);
    request.ifr_ifru.ifru_flags =
        (libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | several) as libc::c_short;
    ioctl(file.as_fd(), libc::TUNSETIFF as libc::Ioctl, &mut request).map_err(|error| ("create", error))?;
    Ok(file)
}

/// Asks for as much as this kernel has.
fn negotiate(file: &File, wanted: bool) -> TunOffloads {
    let asked = [(CUT_UDP, TunOffloads::TcpAndUdp), (CUT_TCP, TunOffloads::Tcp), (0, TunOffloads::None)];
    // SAFETY: the argument is a number and not a pointer.
    let set = |flags: libc::c_uint| unsafe {
        libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD as libc::Ioctl, libc::c_ulong::from(flags))
    };
    let asked = if wanted { &asked[..] } else { &asked[2..] };
    asked.iter().find(|(flags, _)| set(*flags) >= 0).map_or(TunOffloads::None, |(_, had)| *had)
}

fn set_persistent(file: &File) -> io::Result<()> {
    // SAFETY: the argument is a number and not a pointer.
    let set =
        unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETPERSIST as libc::Ioctl, 1 as libc::c_ulong) };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A request about the interface `name`, which is shorter than IFNAMSIZ.
fn interface_request(name: &str) -> libc::ifreq {
    // SAFETY: integers and unions of them, for which all zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from as libc::c_char);
    request
}

fn ioctl(fd: BorrowedFd<'_>, request: libc::Ioctl, argument: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: these requests read and write one ifreq.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), request, std::ptr::from_mut(argument)) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_kernel_would_cut_are_refused() {
        for name in ["", "a-name-of-sixteen", "nul\0"] {
            assert_eq!(Tun::create(name, 1400, false, true, 1).unwrap_err().step, "name");
        }
    }
}
