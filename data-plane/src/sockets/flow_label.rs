//! IPv6 flow labels of TCP streams.

use std::io;
use std::os::fd::BorrowedFd;

use super::message::set_int;

/// Keeps the flow label of an IPv6 stream constant: zero, also after retransmissions and on the streams that replace
/// it (RFC 9329 section 6.1).
///
/// # Errors
/// What the kernel refuses.
pub fn constant_flow_label(fd: BorrowedFd<'_>) -> io::Result<()> {
    const IPV6_AUTOFLOWLABEL: libc::c_int = 70;
    set_int(fd, libc::SOL_IPV6, IPV6_AUTOFLOWLABEL, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::fd::AsFd;

    #[test]
    fn the_kernel_takes_the_option() {
        // A host without IPv6 has no flow labels.
        let Ok(socket) = TcpListener::bind("[::1]:0") else { return };
        constant_flow_label(socket.as_fd()).unwrap();
    }
}
