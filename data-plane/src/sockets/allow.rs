//! A socket's own way past the guard.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Lets what this socket sends and receives pass whatever the guard's policies say: IKE and ESP are what protects,
/// not what is to be protected (RFC 4301 section 4.4.1, BYPASS).
///
/// # Errors
/// ENOPROTOOPT and the like where the kernel has no XFRM, EPERM without CAP_NET_ADMIN.
pub fn allow_in_clear(fd: BorrowedFd<'_>, is_ipv6: bool) -> io::Result<()> {
    const IP_XFRM_POLICY: libc::c_int = 17;
    const IPV6_XFRM_POLICY: libc::c_int = 35;
    let (level, option, family) = match is_ipv6 {
        false => (libc::SOL_IP, IP_XFRM_POLICY, libc::AF_INET),
        true => (libc::SOL_IPV6, IPV6_XFRM_POLICY, libc::AF_INET6),
    };
    for direction in [DIRECTION_IN, DIRECTION_OUT] {
        let policy = allow_policy(family as u16, direction);
        // SAFETY: pointer and length are those of the array.
        let set = unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                level,
                option,
                policy.as_ptr().cast(),
                policy.len() as libc::socklen_t,
            )
        };
        if set < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

const DIRECTION_IN: u8 = 0;
const DIRECTION_OUT: u8 = 1;

/// `struct xfrm_userpolicy_info` (linux/xfrm.h) with a selector that matches everything of the family and
/// action `XFRM_POLICY_ALLOW`, which is 0.
fn allow_policy(family: u16, direction: u8) -> [u8; 168] {
    const SELECTOR_FAMILY: usize = 40;
    const LIMITS: std::ops::Range<usize> = 56..88;
    const DIRECTION: usize = 160;
    let mut policy = [0; 168];
    policy[SELECTOR_FAMILY..SELECTOR_FAMILY + 2].copy_from_slice(&family.to_ne_bytes());
    // XFRM_INF: no limit of octets or packets.
    policy[LIMITS].fill(0xff);
    policy[DIRECTION] = direction;
    policy
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    /// The kernel checks the structure; it refuses the option without privilege, which says nothing about it.
    #[test]
    fn the_kernel_takes_the_policy() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(socket) = UdpSocket::bind(address) else { continue };
            match allow_in_clear(socket.as_fd(), address.starts_with('[')) {
                Ok(()) => {}
                Err(e) => assert!(
                    matches!(e.raw_os_error(), Some(libc::EPERM | libc::ENOPROTOOPT | libc::EOPNOTSUPP)),
                    "{e}"
                ),
            }
        }
    }
}
