//! `portcullis status --json` as a program reads it that has only the documentation: every item of a connection is there,
//! by its name, and means what it says.

use portcullis_vm_tests::status::ConnectionStatus;
use portcullis_vm_tests::{CHILD, DataPlaneMode, Pair, PairOptions, Ping, Rate, Side, UdpFlow};
use serde_json::Value;

use crate::{SOON, artefacts, wait_answered};

#[test]
fn status_shows_every_item_of_a_connection() {
    let pair = Pair::up(PairOptions::USUAL, &artefacts()).unwrap();
    wait_answered(&pair.lab);
    for side in [Side::A, Side::B] {
        let is_proven = |c: &ConnectionStatus| c.evidence == "echo";
        pair.gateway(side).wait_connection(side.connection(), SOON, is_proven).unwrap();
        pair.gateway(side).agreed(side.connection()).unwrap();
    }
    pair.a.verb(&["rekey", Side::A.connection(), "--child", CHILD]).unwrap();
    let pings = Ping::to(Side::B.host().0).run(&pair.lab.host_a).unwrap();
    assert_eq!(pings.answered, 10);

    let [a, b] = [Side::A, Side::B].map(|side| connection(&pair, side));
    for (connection, is_initiator) in [(&a, true), (&b, false)] {
        assert_eq!(text(connection, "/state"), "direct_ip");
        assert_eq!(text(connection, "/reason"), "none");
        assert_eq!(text(connection, "/evidence"), "echo");
        assert_eq!(text(connection, "/ike_transport"), "tcp");
        assert_eq!(text(connection, "/esp_transport"), "ip");
        assert_eq!(text(connection, "/policy/on_unreachable"), "fail-closed");
        assert_eq!(text(connection, "/policy/source"), "configuration");

        let sa = item(connection, "/ike_sas/0");
        assert_eq!(item(sa, "/initiator"), &Value::Bool(is_initiator));
        // Each key exchange by its place: the first, then the additional one (RFC 9370).
        assert_eq!(text(sa, "/algorithms"), "aes256gcm16-prfsha384-x25519-ke1_mlkem768");
        times(sa);
        assert_eq!(item(sa, "/esp/echo"), &Value::Bool(true));
        if is_initiator {
            // The other end has followed, and has nothing to decide.
            assert_eq!(text(sa, "/esp/last_verification/verdict"), "ip_answered");
        }
        assert!(item(sa, "/esp/rtt_seconds/ip").is_f64(), "{sa}");

        let child = item(sa, "/children/0");
        assert_eq!(text(child, "/name"), CHILD);
        assert!(text(child, "/algorithms").contains("aes256gcm16"), "{child}");
        assert_eq!(item(child, "/in_use"), &Value::Bool(true));
        times(child);
    }

    // Both ends speak of the same SAs.
    for spi in ["/ike_sas/0/spi_i", "/ike_sas/0/spi_r"] {
        assert_eq!(text(&a, spi), text(&b, spi));
        assert_eq!(text(&a, spi).len(), 16);
    }
    for (inbound, outbound) in [(&a, &b), (&b, &a)] {
        let spi = text(inbound, "/ike_sas/0/children/0/spi_in");
        assert_eq!((spi, spi.len()), (text(outbound, "/ike_sas/0/children/0/spi_out"), 8));
        // Ten echoes of 84 octets of IP; what else passed is at least nothing.
        for counter in ["packets", "bytes"] {
            let received = number(inbound, &format!("/ike_sas/0/children/0/{counter}_in"));
            let sent = number(outbound, &format!("/ike_sas/0/children/0/{counter}_out"));
            assert_eq!(received, sent, "{counter}");
            assert!(received >= if counter == "packets" { 10 } else { 840 }, "{counter}: {received}");
        }
    }
}

/// What a person sees of the workers, once and again and again, while packets pass.
#[test]
fn the_workers_are_shown_with_counts_and_with_rates() {
    let pair =
        Pair::up(PairOptions { mode: DataPlaneMode::Tun, ..PairOptions::USUAL }, &artefacts()).unwrap();
    wait_answered(&pair.lab);
    let ends = [Side::A, Side::B].map(|side| (pair.lab.host(side), side.host().0.into()));
    let flow = UdpFlow::start(ends[0], ends[1], Rate::per_second(2000)).unwrap();
    flow.wait(SOON, |progress| progress.received > 100).expect("packets pass");
    let top = pair.a.verb(&["top", "--interval", "500ms", "--count", "1"]).unwrap();
    let busy = top.lines().nth(1).expect("a line for the worker");
    let words: Vec<_> = busy.split_whitespace().collect();
    assert_eq!((words.len(), words[0]), (11, "0"), "{top}");
    let packets: u64 = words[2].trim_end_matches("/s").parse().unwrap();
    assert!(packets > 0 && words[8].ends_with('%'), "{top}");
    // The kernel's own multicast meets no policy now and then.
    assert!(top.contains("from:    tun ") && top.contains("to:      ip_socket "), "{top}");
    flow.finish().unwrap();

    // What was just seen, asked for one packet: sealed on the SAs that the status names, and a stranger's is not.
    let (from, to) = (format!("{}:4000", Side::A.host().0), format!("{}:443", Side::B.host().0));
    let explained = pair.a.verb(&["explain", "tcp", &from, &to]).unwrap();
    let child = connection(&pair, Side::A)["ike_sas"][0]["children"][0].clone();
    for wanted in [
        format!("protected by {}, child {CHILD}", Side::A.connection()),
        format!("out {}, worker 0", text(&child, "/spi_out")),
        format!("in  {}, worker 0", text(&child, "/spi_in")),
        format!("carrier: ip, {} to {}\n", Side::A.wan().0, Side::B.wan().0),
        "way:     wan0 to ".to_owned(),
    ] {
        assert!(explained.contains(&wanted), "{wanted:?} in {explained}");
    }
    assert!(!explained.contains("DROPPED"), "{explained}");
    let stranger = pair.a.verb(&["explain", "udp", &from, "203.0.113.9:53"]).unwrap();
    assert!(stranger.contains("none covers it"), "{stranger}");

    let shown = pair.a.verb(&["status", "--data-plane"]).unwrap();
    let wanted = [
        "wan0 (wan): tun",
        "without XDP: a veth copies",
        "worker 0: busy for ",
        "packets in:  ",
        "ns for each packet",
    ];
    for wanted in wanted {
        assert!(shown.contains(wanted), "{wanted:?} in {shown}");
    }
    let json: Value =
        serde_json::from_str(&pair.a.verb(&["status", "--data-plane", "--json"]).unwrap()).unwrap();
    assert!(number(&json, "/workers/0/received/tun") > 100, "{json}");
    assert!(item(&json, "/workers/0/busy_seconds").as_f64().is_some_and(|busy| busy > 0.0), "{json}");
}

/// Made in the past, due in the future: times in RFC 3339 and UTC, of one width, compare as text.
fn times(of: &Value) {
    let (made, due) = (text(of, "/established_at"), text(of, "/next_rekey_at"));
    assert!(made.ends_with('Z') && made.len() == due.len() && made < due, "{made} and {due}");
}

fn connection(pair: &Pair, side: Side) -> Value {
    let status: Value =
        serde_json::from_str(&pair.gateway(side).verb(&["status", "--json"]).unwrap()).unwrap();
    let connections = item(&status, "/connections").as_array().unwrap();
    connections.iter().find(|c| c["name"] == side.connection()).expect("the connection").clone()
}

fn item<'a>(of: &'a Value, path: &str) -> &'a Value {
    of.pointer(path).unwrap_or_else(|| panic!("no {path} in {of:#}"))
}

fn text<'a>(of: &'a Value, path: &str) -> &'a str {
    item(of, path).as_str().unwrap_or_else(|| panic!("{path} is no text in {of:#}"))
}

fn number(of: &Value, path: &str) -> u64 {
    item(of, path).as_u64().unwrap_or_else(|| panic!("{path} is no number in {of:#}"))
}
