//! Nothing classical: ML-KEM-1024 alone in IKE_SA_INIT over TCP, ML-DSA-87 in AUTH and in the certificates that
//! `portcullis pki` makes, AES-256-GCM and SHA-384. ESP is in UDP.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use portcullis_vm_tests::capture::Capture;
use portcullis_vm_tests::status::ConnectionStatus;
use portcullis_vm_tests::{
    Artefacts, Authority, CHILD, DataPlaneMode, Pair, PairOptions, Ping, Side, inner_prefixes, tcp_throughput,
};

use super::account::Account;
use super::figures;

const IKE: &str = "aes256gcm16-prfsha384-mlkem1024";
const ESP: &str = "aes256gcm16-mlkem1024-esn";
const UP_LIMIT: Duration = Duration::from_secs(20);
/// A certificate of ML-DSA-87 has a key of 2592 octets and a signature of 4627; AUTH has one more of those.
const LEAST_IKE_AUTH: u64 = 2 * (2592 + 2 * 4627);

/// Up, traffic, new keys, traffic.
pub(super) fn run(mode: DataPlaneMode, artefacts: &Artefacts, account: &mut Account) {
    account.part("CNSA 2.0: ML-KEM-1024 alone over TCP, ML-DSA-87 certificates, ESP in UDP", |account| {
        shown(mode, artefacts, account)
    });
}

fn shown(mode: DataPlaneMode, artefacts: &Artefacts, account: &mut Account) -> Result<()> {
    let mut pair = Pair::new(PairOptions { mode, ..PairOptions::USUAL }, artefacts)?.leave_books();
    let made = Instant::now();
    let authority =
        Authority::new(&artefacts.binary, pair.lab.instance.directory().join("pki"), "ml-dsa-87")?;
    for side in [Side::A, Side::B] {
        authority.issue(&side.id())?;
        let gateway = pair.gateway(side);
        let mut config = gateway.configuration()?;
        let connection = format!("connections/{}", side.connection());
        authority.certify(&mut config, side);
        authority.trust(&mut config, side);
        config.set_yaml(&format!("{connection}/ike/proposals"), &format!("[{IKE}]"))?;
        config.set(&format!("{connection}/ike/transport"), "tcp");
        config.set_yaml(&format!("{connection}/esp/transports"), "[udp]")?;
        config.set_yaml(&format!("{connection}/children/{CHILD}/proposals"), &format!("[{ESP}]"))?;
        gateway.configure(config)?;
    }
    account.note(
        "portcullis pki",
        format!("an authority and two certificates in {:.2} s", made.elapsed().as_secs_f64()),
    );

    let capture = Capture::start(&pair.lab.router, inner_prefixes())?;
    pair.b.start()?;
    pair.a.start()?;
    let (a, b) = pair.wait_up(UP_LIMIT)?;
    handshake(&a, &b, account)?;
    for side in [Side::A, Side::B] {
        let proven = |c: &ConnectionStatus| c.state == "direct_udp" && c.evidence == "echo";
        let found = pair.gateway(side).wait_connection(side.connection(), UP_LIMIT, proven);
        account.expect(
            &format!("{} sees direct_udp", side.gateway_name()),
            found.is_ok(),
            found.map_or_else(|error| format!("{error:#}"), |c| format!("evidence {}", c.evidence)),
        );
    }
    traffic(&pair, "at first", account)?;
    pair.a.verb(&["rekey", Side::A.connection(), "--ike"])?;
    pair.a.verb(&["rekey", Side::A.connection(), "--child", CHILD])?;
    let (a, _) = pair.wait_up(UP_LIMIT)?;
    let sa = a.ike_sas.first().context("an IKE SA after the rekeys")?;
    let child = sa.children.first().context("a Child SA after the rekeys")?;
    account.expect(
        "both SAs have new keys by ML-KEM-1024 alone",
        sa.algorithms == IKE && child.algorithms == ESP,
        format!("{}; {}", sa.algorithms, child.algorithms),
    );
    traffic(&pair, "with new keys", account)?;

    figures::drained(&pair, account)?;
    let router = capture.finish()?;
    account.expect(
        "IKE on TCP 4500 alone, ESP in UDP alone, at the router",
        router.ike_udp_500.packets + router.ike_udp_4500.packets == 0
            && router.ike_tcp.packets >= 4
            && router.esp_ip == 0
            && router.esp_udp > 0,
        format!(
            "IKE: TCP {}, UDP {}; ESP: UDP {}, IP {}",
            router.ike_tcp.packets,
            router.ike_udp_500.packets + router.ike_udp_4500.packets,
            router.esp_udp,
            router.esp_ip
        ),
    );
    figures::nothing_in_clear(&router, account);
    pair.a.stop()?;
    pair.b.stop()
}

fn handshake(a: &ConnectionStatus, b: &ConnectionStatus, account: &mut Account) -> Result<()> {
    let sa = a.ike_sas.first().context("an IKE SA at gw-a")?;
    let same = b.ike_sas.first().is_some_and(|other| other.algorithms == sa.algorithms);
    account.expect(
        "ML-KEM-1024 alone in IKE_SA_INIT, at both ends",
        sa.algorithms == IKE && same,
        &sa.algorithms,
    );
    let handshake = sa.handshake.as_ref().context("the figures of the handshake")?;
    let (sent, received) = (handshake.tcp_bytes.sent, handshake.tcp_bytes.received);
    account.expect(
        "IKE_AUTH carries ML-DSA-87 certificates and signatures both ways, on TCP alone",
        sent + received > LEAST_IKE_AUTH && handshake.udp_bytes.sent + handshake.udp_bytes.received == 0,
        format!("{sent} octets sent, {received} received, {:.1} ms", handshake.seconds * 1e3),
    );
    Ok(())
}

fn traffic(pair: &Pair, when: &str, account: &mut Account) -> Result<()> {
    const STREAM_TIME: Duration = Duration::from_millis(1000);
    for (from, to) in [(Side::A, IpAddr::from(Side::B.host().0)), (Side::B, Side::A.host().1.into())] {
        let report = Ping::to(to).run(pair.lab.host(from))?;
        account.expect(
            &format!("pings to {to} {when}"),
            report.answered == report.sent,
            format!("{} of {} answered", report.answered, report.sent),
        );
    }
    let end = |side: Side| (pair.lab.host(side), IpAddr::from(side.host().0));
    let report = tcp_throughput(end(Side::A), end(Side::B), STREAM_TIME)?;
    account.expect(
        &format!("TCP a to b {when}"),
        report.bytes > 0,
        format!("{:.0} Mbit/s", report.mbit_per_second()),
    );
    Ok(())
}
