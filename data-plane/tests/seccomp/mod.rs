//! A thread for which the kernel answers as one that was built without something.

use std::io;

/// What the kernel is to be without.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Without {
    /// XFRM: neither its netlink family nor the policies of sockets.
    Xfrm,
    /// XFRM and nftables.
    XfrmAndNftables,
}

/// From now on this thread, what it starts and what it runs get the answers of such a kernel.
pub fn restrict(without: Without) -> io::Result<()> {
    let mut program = Vec::new();
    deny_netlink(&mut program, libc::NETLINK_XFRM);
    if without == Without::XfrmAndNftables {
        deny_netlink(&mut program, libc::NETLINK_NETFILTER);
    }
    for (level, option) in [(libc::SOL_IP, 17), (libc::SOL_IPV6, 35)] {
        // IP_XFRM_POLICY, IPV6_XFRM_POLICY.
        deny(&mut program, libc::SYS_setsockopt, &[(1, level), (2, option)], libc::ENOPROTOOPT);
    }
    program.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: numbers alone.
    let privileges = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: the program outlives the call, which copies it.
    let installed =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    if privileges == 0 && installed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn deny_netlink(program: &mut Vec<libc::sock_filter>, family: i32) {
    let conditions = [(0, libc::AF_NETLINK), (2, family)];
    deny(program, libc::SYS_socket, &conditions, libc::EPROTONOSUPPORT);
}

/// Fails a system call whose arguments have these values with `error`.
fn deny(program: &mut Vec<libc::sock_filter>, call: i64, arguments: &[(u32, i32)], error: i32) {
    // struct seccomp_data: the number at 0, arguments of 8 octets from 16.
    let tests: Vec<_> = [(0, call as u32)]
        .into_iter()
        .chain(arguments.iter().map(|&(index, value)| (16 + 8 * index, value as u32)))
        .collect();
    for (done, &(offset, value)) in tests.iter().enumerate() {
        program.push(statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset));
        let past_the_end = 2 * (tests.len() - done - 1) + 1;
        let jump = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        program.push(libc::sock_filter { code: jump as u16, jt: 0, jf: past_the_end as u8, k: value });
    }
    program.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | error as u32));
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}
