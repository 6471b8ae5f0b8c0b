//! A netlink socket with many messages in flight, for the families that `rtnetlink` does not speak.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const HEADER_LEN: usize = 16;
const FLAG_REQUEST: u16 = 0x1;
const FLAG_ACK: u16 = 0x4;
const FLAG_DUMP: u16 = 0x300;
const KIND_ERROR: u16 = 2;
const KIND_DONE: u16 = 3;
/// Larger than any datagram that a dump is cut into.
const RECEIVE_BUFFER_BYTES: usize = 64 * 1024;
/// Messages are sent in datagrams of about this size: well below any socket's send buffer.
const DATAGRAM_BYTES: usize = 32 * 1024;

/// `struct nlmsghdr`, without its length.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct MessageHeader {
    /// Message type.
    pub kind: u16,
    /// Flags.
    pub flags: u16,
    /// Sequence number, the request's in an answer.
    pub sequence: u32,
    /// Netlink address of the socket whose request this answers or reports.
    pub port: u32,
}

/// A netlink socket.
#[derive(Debug)]
pub struct NetlinkSocket {
    fd: OwnedFd,
    port: u32,
    sequence: u32,
    buffer: Box<[u8]>,
}

/// One message of a batch.
#[derive(Clone, Debug)]
pub struct Request {
    /// Message type.
    pub kind: u16,
    /// Flags, besides those that this module sets by itself.
    pub flags: u16,
    /// What follows the header.
    pub body: Vec<u8>,
}

/// The kernel refused one message of a batch.
#[derive(Debug)]
pub struct Refused {
    /// Its place in the batch.
    pub index: usize,
    /// Why.
    pub error: io::Error,
}

impl NetlinkSocket {
    /// A socket of a netlink family (`NETLINK_XFRM` and the like).
    ///
    /// # Errors
    /// When the kernel does not know the family, or lacks a resource.
    pub fn open(family: i32) -> io::Result<Self> {
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, family) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor and nothing else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: all-zero bytes are a valid sockaddr_nl.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        let mut len = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        // SAFETY: `address` outlives both calls, and `len` is its size, which getsockname does not exceed.
        let bound = unsafe {
            libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) == 0
                && libc::getsockname(fd.as_raw_fd(), (&raw mut address).cast(), &raw mut len) == 0
        };
        if !bound {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { fd, port: address.nl_pid, sequence: 0, buffer: vec![0; RECEIVE_BUFFER_BYTES].into() })
    }

    /// Our netlink address, which notifications of changes made through this socket carry.
    pub const fn port(&self) -> u32 {
        self.port
    }

    /// Subscribes to notifications, with room for `buffer_bytes` of them.
    ///
    /// # Errors
    /// When the family has no such group.
    pub fn subscribe(&self, group: u32, buffer_bytes: i32) -> io::Result<()> {
        set_option(&self.fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, buffer_bytes)
            .or_else(|_| set_option(&self.fd, libc::SOL_SOCKET, libc::SO_RCVBUF, buffer_bytes))?;
        set_option(&self.fd, libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, group as i32)
    }

    /// Sends a batch, many messages to a datagram, and waits until the kernel has dealt with all of them.
    /// A refused message does not stop the ones behind it.
    ///
    /// # Errors
    /// When the socket itself fails; what happened to the rest of the batch is then unknown.
    pub fn send_batch(&mut self, messages: impl Iterator<Item = Request>) -> io::Result<Vec<Refused>> {
        let mut refused = Vec::new();
        let mut messages = messages.peekable();
        let mut datagram = Vec::with_capacity(DATAGRAM_BYTES + 4096);
        let mut sent = 0;
        while messages.peek().is_some() {
            datagram.clear();
            let first_sequence = self.sequence.wrapping_add(1);
            let mut count = 0_u32;
            while datagram.len() < DATAGRAM_BYTES
                && let Some(Request { kind, flags, body }) = messages.next()
            {
                self.sequence = self.sequence.wrapping_add(1);
                count += 1;
                let is_last =
                    datagram.len() + HEADER_LEN + body.len() >= DATAGRAM_BYTES || messages.peek().is_none();
                let flags = flags | FLAG_REQUEST | if is_last { FLAG_ACK } else { 0 };
                append(&mut datagram, kind, flags, self.sequence, &body);
            }
            self.send(&datagram)?;
            self.collect(first_sequence, count, sent, &mut refused)?;
            sent += count as usize;
        }
        Ok(refused)
    }

    /// Asks for everything of a kind and hands each answer to `each`.
    ///
    /// # Errors
    /// When the request is refused or the socket fails. `EINTR` means that the dump was inconsistent, because
    /// the table changed meanwhile: ask again.
    pub fn dump(
        &mut self,
        kind: u16,
        body: &[u8],
        mut each: impl FnMut(&MessageHeader, &[u8]),
    ) -> io::Result<()> {
        const FLAG_INTERRUPTED: u16 = 0x10;
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = Vec::new();
        append(&mut request, kind, FLAG_REQUEST | FLAG_DUMP, self.sequence, body);
        self.send(&request)?;
        let mut interrupted = false;
        loop {
            let len = self.receive_into_buffer(0)?;
            for (header, body) in messages(&self.buffer[..len]) {
                if header.sequence != self.sequence {
                    continue;
                }
                interrupted |= header.flags & FLAG_INTERRUPTED != 0;
                match header.kind {
                    KIND_DONE if interrupted => return Err(io::Error::from_raw_os_error(libc::EINTR)),
                    KIND_DONE => return Ok(()),
                    KIND_ERROR => {
                        return Err(error_in(body).unwrap_or_else(|| io::ErrorKind::InvalidData.into()));
                    }
                    _ => each(&header, body),
                }
            }
        }
    }

    /// Asks for one thing and hands the answer's body to `read`.
    ///
    /// # Errors
    /// When the request is refused or the socket fails.
    pub fn ask<T>(&mut self, kind: u16, body: &[u8], read: impl FnOnce(&[u8]) -> Option<T>) -> io::Result<T> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = Vec::new();
        append(&mut request, kind, FLAG_REQUEST, self.sequence, body);
        self.send(&request)?;
        loop {
            let len = self.receive_into_buffer(0)?;
            let sequence = self.sequence;
            let answer = messages(&self.buffer[..len]).find(|(header, _)| header.sequence == sequence);
            let Some((header, body)) = answer else { continue };
            let refusal = (header.kind == KIND_ERROR).then(|| error_in(body)).flatten();
            return match refusal {
                Some(error) => Err(error),
                None => read(body).ok_or_else(|| io::ErrorKind::InvalidData.into()),
            };
        }
    }

    /// Takes notifications that have arrived, without waiting; `false` when there was none.
    ///
    /// # Errors
    /// `ENOBUFS` when notifications were lost: the tables must be read anew.
    pub fn drain(&mut self, mut each: impl FnMut(&MessageHeader, &[u8])) -> io::Result<bool> {
        let mut any = false;
        loop {
            match self.receive_into_buffer(libc::MSG_DONTWAIT) {
                Ok(len) => messages(&self.buffer[..len]).for_each(|(header, body)| each(&header, body)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(any),
                Err(e) => return Err(e),
            }
            any = true;
        }
    }

    /// Errors of a datagram's messages, until the last one, which alone is always acknowledged.
    fn collect(
        &mut self,
        first: u32,
        count: u32,
        offset: usize,
        refused: &mut Vec<Refused>,
    ) -> io::Result<()> {
        loop {
            let len = self.receive_into_buffer(0)?;
            for (header, body) in messages(&self.buffer[..len]) {
                let place = header.sequence.wrapping_sub(first);
                if header.kind != KIND_ERROR || place >= count {
                    continue;
                }
                if let Some(error) = error_in(body) {
                    refused.push(Refused { index: offset + place as usize, error });
                }
                if place + 1 == count {
                    return Ok(());
                }
            }
        }
    }

    fn send(&self, datagram: &[u8]) -> io::Result<()> {
        // SAFETY: pointer and length are those of one live slice, which the kernel only reads.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), datagram.as_ptr().cast(), datagram.len(), 0) };
        if sent == datagram.len() as isize { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn receive_into_buffer(&mut self, flags: i32) -> io::Result<usize> {
        loop {
            // SAFETY: pointer and length are those of our own buffer, borrowed exclusively.
            let len = unsafe {
                libc::recv(self.fd.as_raw_fd(), self.buffer.as_mut_ptr().cast(), self.buffer.len(), flags)
            };
            if let Ok(len) = usize::try_from(len) {
                return Ok(len);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

impl AsFd for NetlinkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn append(datagram: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, body: &[u8]) {
    let len = (HEADER_LEN + body.len()) as u32;
    datagram.extend_from_slice(&len.to_ne_bytes());
    datagram.extend_from_slice(&kind.to_ne_bytes());
    datagram.extend_from_slice(&flags.to_ne_bytes());
    datagram.extend_from_slice(&sequence.to_ne_bytes());
    datagram.extend_from_slice(&0_u32.to_ne_bytes());
    datagram.extend_from_slice(body);
    datagram.resize(datagram.len().next_multiple_of(4), 0);
}

/// The messages of a datagram; stops at the first one that is cut short.
fn messages(mut datagram: &[u8]) -> impl Iterator<Item = (MessageHeader, &[u8])> {
    std::iter::from_fn(move || {
        let (head, _) = datagram.split_first_chunk::<HEADER_LEN>()?;
        let word = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let half = |at: usize| u16::from_ne_bytes([head[at], head[at + 1]]);
        let header = MessageHeader { kind: half(4), flags: half(6), sequence: word(8), port: word(12) };
        let len = word(0) as usize;
        let body = datagram.get(HEADER_LEN..len)?;
        datagram = datagram.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((header, body))
    })
}

/// The error of an error message; `None` for an acknowledgement.
fn error_in(body: &[u8]) -> Option<io::Error> {
    let code = i32::from_ne_bytes(*body.first_chunk()?);
    (code != 0).then(|| io::Error::from_raw_os_error(-code))
}

fn set_option(fd: &OwnedFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the value lives on our stack for the whole call and `len` is its size.
    let done = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), len) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_at_their_aligned_lengths() {
        let mut datagram = Vec::new();
        append(&mut datagram, 20, 1, 7, b"abcde");
        append(&mut datagram, 21, 0, 8, b"xyz!");
        let read: Vec<_> = messages(&datagram).map(|(h, b)| (h.kind, h.sequence, b.to_vec())).collect();
        assert_eq!(read, [(20, 7, b"abcde".to_vec()), (21, 8, b"xyz!".to_vec())]);
    }

    #[test]
    fn a_message_longer_or_shorter_than_it_says_ends_the_walk() {
        let mut datagram = Vec::new();
        append(&mut datagram, 20, 1, 7, b"abcd");
        assert_eq!(messages(&datagram[..18]).count(), 0);
        datagram[0] = 3;
        assert_eq!(messages(&datagram).count(), 0);
    }
}
