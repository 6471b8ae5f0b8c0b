//! What the kernel dropped at a socket.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Words of the kernel's answer, the last of which is the count of drops (`SK_MEMINFO_DROPS`).
const MEMINFO_WORDS: usize = 9;

/// Packets for this socket that were dropped before anybody could read them, modulo 2^32: its receive buffer was full,
/// a checksum was wrong, or a policy of the kernel was against them.
///
/// The same count comes with datagrams as `SO_RXQ_OVFL`, but as it was when each was queued: what was dropped after the
/// last one would stay unknown until another arrives.
///
/// # Errors
/// On kernels before 4.12.
pub(super) fn kernel_drops(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let mut words = [0_u32; MEMINFO_WORDS];
    let mut len = size_of_val(&words) as libc::socklen_t;
    // SAFETY: pointer and length are those of the array, and the kernel writes no more than that.
    let read = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            words.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if read < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(words[MEMINFO_WORDS - 1])
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_a_full_buffer_refuses_is_counted_at_once() {
        const SENT: u32 = 1000;
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket2::SockRef::from(&receiver).set_recv_buffer_size(4096).unwrap();
        receiver.set_nonblocking(true).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..SENT {
            sender.send_to(&[0; 100], receiver.local_addr().unwrap()).unwrap();
        }
        let dropped = kernel_drops(receiver.as_fd()).unwrap();
        let queued = std::iter::from_fn(|| receiver.recv(&mut [0; 200]).ok()).count() as u32;
        assert!(dropped > 0 && queued > 0);
        assert_eq!(queued + dropped, SENT);
    }
}
