//! A responder whose peers have no address in its configuration: each initiator is told from the other by its identity,
//! gets its own policy, and is no business of the other's.

use portcullis_vm_tests::{Gateway, Namespace, Pair, PairOptions, Ping, Side, ThirdSite, until};

use crate::{SOON, artefacts, capture, change, nothing_in_clear, wait_answered};

const C: &str = "site-c";

#[test]
fn two_initiators_share_a_responder_that_knows_no_addresses() {
    let artefacts = artefacts();
    let mut pair = Pair::new(PairOptions::USUAL, &artefacts).unwrap();
    let third = pair.lab.third_site().unwrap();
    let secret = pair.lab.instance.directory().join("psk-c");
    std::fs::copy(pair.lab.instance.directory().join("psk"), &secret).unwrap();
    std::io::Write::write_all(&mut std::fs::OpenOptions::new().append(true).open(&secret).unwrap(), b"c")
        .unwrap();
    let secret = secret.to_str().unwrap();

    change(&pair.b, |config| {
        config.set("ike/shards", 2);
        config.set("connections/site-a/remote/address", "any");
        let to = format!("connections/{C}");
        for (end, id) in [("local", "gw-b.example.net"), ("remote", "gw-c.example.net")] {
            config.set(&format!("{to}/{end}/id"), id);
            config.set(&format!("{to}/{end}/auth"), "psk");
            config.set(&format!("{to}/{end}/secret_file"), secret);
        }
        config.set(&format!("{to}/remote/address"), "any");
        config.set(&format!("{to}/ike/transport"), "tcp");
        config.set_yaml(&format!("{to}/children/net/local_ts"), "[10.2.0.0/16]").unwrap();
        config.set_yaml(&format!("{to}/children/net/remote_ts"), &format!("[{}]", ThirdSite::INNER)).unwrap();
    });
    let mut config = pair.a.configuration().unwrap();
    config.set("connections/site-b/local/id", "gw-c.example.net");
    config.set("connections/site-b/local/secret_file", secret);
    config.set("connections/site-b/remote/secret_file", secret);
    config.set_yaml("connections/site-b/children/net/local_ts", &format!("[{}]", ThirdSite::INNER)).unwrap();
    config.set_yaml("connections/site-b/children/net/remote_ts", "[10.2.0.0/16]").unwrap();
    let mut c = Gateway::new(&pair.lab.instance, &third.gateway, "gw-c", &artefacts.binary, config).unwrap();

    let router = capture(&pair);
    pair.b.start().unwrap();
    pair.a.start().unwrap();
    c.start().unwrap();
    pair.wait_up(SOON).unwrap();
    let at_b = pair.b.wait_connection(C, SOON, |c| c.is_up()).unwrap();
    assert!(at_b.ike_sas[0].remote.starts_with(&ThirdSite::WAN.to_string()), "{}", at_b.ike_sas[0].remote);
    wait_answered(&pair.lab);
    answers(&third.host, Ping::to(Side::B.host().0));
    answers(&pair.lab.host_b, Ping::to(ThirdSite::HOST));
    answers(&pair.lab.host_b, Ping::to(Side::A.host().0));

    // One goes and comes back; the other does not notice.
    let spis = |gateway: &Gateway, name: &str| {
        let connection = gateway.connection(name).unwrap();
        connection.ike_sas.iter().map(|sa| sa.spi_i.clone()).collect::<Vec<_>>()
    };
    let before = spis(&pair.b, C);
    pair.a.verb(&["down", Side::A.connection()]).unwrap();
    pair.b.wait_connection(Side::B.connection(), SOON, |c| c.ike_sas.is_empty()).unwrap();
    answers(&third.host, Ping::to(Side::B.host().0));
    pair.a.verb(&["up", Side::A.connection()]).unwrap();
    wait_answered(&pair.lab);
    assert_eq!(spis(&pair.b, C), before);

    for name in [C, Side::B.connection()] {
        pair.b.agreed(name).unwrap();
    }

    // Each has the policy of its own connection: gw-a's networks are none of host-c's business.
    let ping =
        Ping { count: 3, timeout: std::time::Duration::from_millis(100), ..Ping::to(Side::A.host().0) };
    assert_eq!(ping.run(&third.host).unwrap().answered, 0);
    let metrics = pair.b.metrics().unwrap();
    for name in [C, Side::B.connection()] {
        assert_eq!(metrics.sum("portcullis_connection_up", &[("connection", name)]), Some(1.0), "{name}");
    }
    nothing_in_clear(&router.finish().unwrap());
}

fn answers(host: &Namespace, ping: Ping) {
    until(SOON, || (ping.run(host).unwrap().answered == u32::from(ping.count)).then_some(()))
        .unwrap_or_else(|| panic!("{} does not answer {}", ping.destination, host.name()));
}
