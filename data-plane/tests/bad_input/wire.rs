//! Raw Ethernet on one interface: to send what no IP stack would, and to see what arrives.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::gateway::{Namespace, PATIENCE};

/// A packet socket that is bound to an interface.
pub struct Wire(OwnedFd);

impl Wire {
    pub fn new(namespace: &Namespace, interface: &str) -> Self {
        namespace.run(|| Self::open(interface))
    }

    fn open(interface: &str) -> Self {
        let every_protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: no memory is passed.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, i32::from(every_protocol)) };
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        // SAFETY: the descriptor is new and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let name = std::ffi::CString::new(interface).unwrap();
        // SAFETY: a C string that is alive during the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        // SAFETY: plain integers, for which all zero is a value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = every_protocol;
        address.sll_ifindex = index as i32;
        // SAFETY: pointer and length describe one whole sockaddr_ll.
        let bound =
            unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32) };
        assert_eq!(bound, 0, "{}", io::Error::last_os_error());
        Self(fd)
    }

    pub fn send(&self, frame: &[u8]) {
        // SAFETY: pointer and length are those of the slice.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        assert_eq!(sent, frame.len() as isize, "{}", io::Error::last_os_error());
    }

    /// The frames that have arrived up to one with `marker` in it, or an error if there is none.
    pub fn until(&self, marker: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        let deadline = Instant::now() + PATIENCE;
        let mut frames = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(frame) = self.next(left) else {
                return Err(format!("no frame with '{}' arrived", marker.escape_ascii()));
            };
            let is_last = contains(&frame, marker);
            frames.push(frame);
            if is_last {
                return Ok(frames);
            }
        }
    }

    /// The frames that have arrived.
    pub fn waiting(&self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.next(Duration::ZERO)).collect()
    }

    fn next(&self, patience: Duration) -> Option<Vec<u8>> {
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one whole pollfd.
        if unsafe { libc::poll(&raw mut poll, 1, patience.as_millis() as i32) } < 1 {
            return None;
        }
        let mut buffer = vec![0; 4096];
        // SAFETY: pointer and length are those of the buffer.
        let len = unsafe { libc::recv(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        assert!(len >= 0, "{}", io::Error::last_os_error());
        buffer.truncate(len as usize);
        Some(buffer)
    }
}

/// The Ethernet address of an interface.
pub fn mac(namespace: &Namespace, interface: &str) -> [u8; 6] {
    let line = namespace.ip(&["-o", "link", "show", "dev", interface]);
    let text = line.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next()).expect("an address");
    let octets: Vec<_> = text.split(':').map(|octet| u8::from_str_radix(octet, 16).unwrap()).collect();
    octets.try_into().unwrap()
}

pub fn contains(frame: &[u8], marker: &[u8]) -> bool {
    frame.windows(marker.len()).any(|octets| octets == marker)
}
