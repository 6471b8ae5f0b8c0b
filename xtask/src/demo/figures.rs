//! Checks and figures that several parts share.

use anyhow::Result;
use portcullis_vm_tests::capture::Counts;
use portcullis_vm_tests::status::Status;
use portcullis_vm_tests::{DataPlaneMode, Pair, Side};

use super::account::Account;

/// ESP packets that passed the kernel's sockets in either direction.
pub(super) fn on_socket_path(status: &Status) -> u64 {
    let (inbound, outbound) = status.esp_by_path();
    inbound.socket + outbound.socket
}

/// What crossed the router against what the workers counted, at both gateways, once both have drained. On AF_XDP the first
/// echoes of an SA may be `early`: on the socket path, because the kernel has just found the neighbour and the workers have
/// not heard of it yet.
pub(super) fn workers_agree_with_router(
    mode: DataPlaneMode,
    (a, b): (&Status, &Status),
    early: u64,
    router: &Counts,
    account: &mut Account,
) {
    const SHARE_WANTED: f64 = 0.999;
    let (a_in, a_out) = a.esp_by_path();
    let (b_in, b_out) = b.esp_by_path();
    let crossed = router.esp_direct();
    match mode {
        DataPlaneMode::Xdp => {
            let share = |workers: u64| workers as f64 / crossed as f64;
            let (sent, received) = (share(a_out.af_xdp + b_out.af_xdp), share(a_in.af_xdp + b_in.af_xdp));
            account.expect(
                "ESP at the router that AF_XDP workers sent, and received",
                sent >= SHARE_WANTED && received >= SHARE_WANTED,
                format!("{:.3} % and {:.3} % of {crossed}", sent * 100.0, received * 100.0),
            );
            let socket = on_socket_path(a) + on_socket_path(b) - early;
            account.expect_equal("ESP packets on the socket path", socket, 0);
            if early > 0 {
                account.note("before the workers knew the neighbour", format!("{early} on the socket path"));
            }
        }
        DataPlaneMode::Tun => {
            let af_xdp = a_in.af_xdp + a_out.af_xdp + b_in.af_xdp + b_out.af_xdp;
            account.expect_equal("ESP packets on AF_XDP", af_xdp, 0);
            let (sent, received) = (a_out.socket + b_out.socket, a_in.socket + b_in.socket);
            account.expect(
                "ESP packets on the socket path, sent and received",
                sent > 0 && received > 0,
                format!("{sent} and {received}"),
            );
        }
    }
    for (side, status) in [(Side::A, a), (Side::B, b)] {
        for (interface, verdicts) in &status.data_plane.xdp {
            let verdicts: Vec<_> =
                verdicts.iter().map(|(verdict, count)| format!("{verdict} {count}")).collect();
            account.note(&format!("XDP at {}, {interface}", side.gateway_name()), verdicts.join(", "));
        }
    }
}

/// Both gateways, when every packet has gone out or has a reason.
pub(super) fn drained(pair: &Pair, account: &mut Account) -> Result<(Status, Status)> {
    let (a, b) = (pair.drained(Side::A)?, pair.drained(Side::B)?);
    let sums = |status: &Status| {
        let sums = status.data_plane.accounting;
        format!("{} = {} + {}", sums.received, sums.sent, sums.dropped)
    };
    account.expect("received = sent + dropped at gw-a, gw-b", true, format!("{}; {}", sums(&a), sums(&b)));
    Ok((a, b))
}

/// Drops at both gateways for one reason.
pub(super) fn drops(statuses: (&Status, &Status), reason: &str) -> u64 {
    [statuses.0, statuses.1].iter().map(|s| s.data_plane.drops.get(reason).copied().unwrap_or(0)).sum()
}

/// Every reason for which both gateways together have dropped packets.
pub(super) fn reasons((a, b): (&Status, &Status)) -> String {
    let mut sums = std::collections::BTreeMap::new();
    for (reason, count) in
        a.data_plane.drops.iter().chain(&b.data_plane.drops).filter(|(_, count)| **count > 0)
    {
        *sums.entry(reason.as_str()).or_insert(0) += count;
    }
    let sums: Vec<_> = sums.into_iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    sums.join(", ")
}

/// What never may cross the router.
pub(super) fn nothing_in_clear(router: &Counts, account: &mut Account) {
    none_in_clear(router, account);
    account.expect_equal("ESP in TCP at the router", router.esp_tcp, 0);
    account.expect_equal("octets on TCP 4500 that are no frames", router.tcp_unreadable, 0);
}

/// What never may cross the router under any policy.
pub(super) fn none_in_clear(router: &Counts, account: &mut Account) {
    let samples = router.inner_clear_samples.join("; ");
    let found =
        if samples.is_empty() { "0".to_owned() } else { format!("{} ({samples})", router.inner_clear) };
    account.expect("inner packets in clear at the router", router.inner_clear == 0, found);
}
