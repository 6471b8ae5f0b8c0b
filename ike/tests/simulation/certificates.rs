//! Gateways that prove their identities by certificates and signatures (RFC 7427, RFC 4945), or fail to.

use std::time::Duration;

use portcullis_ike::codec::{ExchangeType, Message, NotifyType, Payload, without_non_esp_marker};
use portcullis_ike::command::CommandKind;
use portcullis_ike::config::{Identity, LocalAuth, RemoteAuth, StartTransport};
use portcullis_ike::event::Event;
use portcullis_ike::status::Reason;
use rcgen::{
    BasicConstraints, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_ML_DSA_44, PKCS_ML_DSA_65,
    PKCS_ML_DSA_87, PKCS_RSA_SHA256, SanType, date_time_ymd,
};

use crate::authority::{Authority, SERIAL, certified};
use crate::configuration::Pair;
use crate::node::WALL;
use crate::refusals::fails;
use crate::said::said;

const STARTS: [StartTransport; 3] = [StartTransport::Udp, StartTransport::UdpThenTcp, StartTransport::Tcp];

/// Every kind of key, over every transport; ML-DSA with two authorities below the root makes the longest chain in use.
#[test]
fn every_kind_of_key_authenticates_both_ends() {
    for algorithm in [
        &PKCS_RSA_SHA256,
        &PKCS_ECDSA_P256_SHA256,
        &PKCS_ECDSA_P384_SHA384,
        &PKCS_ED25519,
        &PKCS_ML_DSA_44,
        &PKCS_ML_DSA_65,
        &PKCS_ML_DSA_87,
    ] {
        let root = Authority::root(algorithm);
        let issuer = root.below("first").below("second");
        for transport in STARTS {
            let mut world = certified(transport, &issuer, &root).world(1);
            world.run_for(Duration::from_secs(10));
            world.assert_settled(1);
            world.command(0, CommandKind::RekeyIke);
            world.run_for(Duration::from_secs(10));
            world.assert_settled(1);
            world.shut_down_and_check();
        }
    }
}

/// The first message on a stream may be IKE_AUTH, of 15 KB and more: after IKE_SA_INIT over UDP, or on TCP with ML-KEM alone.
#[test]
fn a_long_ike_auth_may_come_first_on_its_stream() {
    let root = Authority::root(&PKCS_ML_DSA_87);
    let issuer = root.below("first");
    for (transport, proposal) in [
        (StartTransport::Tcp, "aes256gcm16-prfsha384-mlkem1024"),
        (StartTransport::UdpThenTcp, "aes256gcm16-prfsha384-x25519"),
    ] {
        let mut world = certified(transport, &issuer, &root)
            .both(|connection| connection.ike.proposals = vec![proposal.parse().unwrap()])
            .world(1);
        world.run_for(Duration::from_secs(5));
        world.assert_settled(1);
        assert!(
            world.status(0).ike_sas[0].algorithms == proposal,
            "{}",
            world.status(0).ike_sas[0].algorithms
        );
        world.shut_down_and_check();
    }
}

/// RFC 9593: a long key exchange leaves no room for SUPPORTED_AUTH_METHODS in IKE_SA_INIT, where an empty one says that the list
/// follows in IKE_INTERMEDIATE.
#[test]
fn the_list_of_methods_follows_in_ike_intermediate() {
    let root = Authority::root(&PKCS_ED25519);
    for (proposal, in_intermediate) in [
        ("aes256gcm16-prfsha384-mlkem512-ke1_x25519", true),
        ("aes256gcm16-prfsha384-x25519-ke1_mlkem512", false),
    ] {
        let mut world = certified(StartTransport::Udp, &root, &root)
            .both(|connection| {
                connection.ike.proposals = vec![proposal.parse().unwrap()];
                connection.ike.fragment_size = 1500;
            })
            .world(1);
        world.sent_datagrams = Some(Vec::new());
        world.run_for(Duration::from_secs(5));
        world.assert_settled(1);
        let in_init = world.sent_datagrams.iter().flatten().find_map(|(node, _, datagram)| {
            let message = Message::decode(without_non_esp_marker(datagram)?).ok()?;
            let is_response = *node == 1 && message.header.exchange == ExchangeType::IKE_SA_INIT;
            let mut notifies = message.payloads.iter().filter_map(Payload::as_notify);
            let list = notifies.find(|n| n.notify_type == NotifyType::SUPPORTED_AUTH_METHODS);
            list.filter(|_| is_response).map(|list| list.data.len())
        });
        let said = said(&world);
        let response = said.iter().find(|said| said.is(1, ExchangeType::IKE_INTERMEDIATE, true)).unwrap();
        let list = response.notifies.iter().find(|(kind, _)| *kind == NotifyType::SUPPORTED_AUTH_METHODS);
        let follows = list.map(|(_, data)| data.len());
        match in_intermediate {
            true => assert!(in_init == Some(0) && follows > Some(100), "{in_init:?} {follows:?}"),
            false => assert!(in_init > Some(100) && follows.is_none(), "{in_init:?} {follows:?}"),
        }
        world.shut_down_and_check();
    }
}

/// RFC 7383: IKE_AUTH of 15 KB and more arrives over UDP through loss, doubling and reordering.
#[test]
fn long_chains_leave_in_fragments_over_udp() {
    let root = Authority::root(&PKCS_ML_DSA_87);
    let issuer = root.below("first");
    for seed in 0..10 {
        let mut world = certified(StartTransport::Udp, &issuer, &root).world(seed);
        world.weather.mtu = 1300;
        world.weather.loss = 3;
        world.weather.duplicates = 20;
        world.weather.jitter = Duration::from_millis(50);
        world.run_for(Duration::from_secs(300));
        world.weather.loss = 0;
        world.run_for(Duration::from_secs(120));
        world.assert_settled(1);
        assert!(world.largest_datagram <= 1280, "{}", world.largest_datagram);
        world.shut_down_and_check();
    }
}

/// RFC 7296 section 2.15: the two ends need not use the same method.
#[test]
fn one_side_may_have_a_shared_key_and_the_other_a_certificate() {
    let root = Authority::root(&PKCS_ECDSA_P256_SHA256);
    for transport in STARTS {
        for certified in [0, 1] {
            let mut pair = Pair::new(transport);
            let (name, ours, theirs) = match certified {
                0 => ("a", &mut pair.a, &mut pair.b),
                _ => ("b", &mut pair.b, &mut pair.a),
            };
            ours.local_auth = root.credential(name, |_| {});
            theirs.remote_auth = root.trust(None);
            let mut world = pair.world(1);
            world.run_for(Duration::from_secs(5));
            world.assert_settled(1);
            world.shut_down_and_check();
        }
    }
}

/// A method that was not configured is refused, whatever it proves.
#[test]
fn another_method_than_configured_is_refused() {
    let root = Authority::root(&PKCS_ECDSA_P256_SHA256);
    for transport in STARTS {
        let mut pair = Pair::new(transport);
        pair.a.local_auth = root.credential("a", |_| {});
        refused_by_responder(pair, Reason::AuthMethod);
        let mut pair = Pair::new(transport);
        pair.b.remote_auth = root.trust(None);
        refused_by_responder(pair, Reason::AuthMethod);
        let mut pair = Pair::new(transport);
        pair.b.local_auth = root.credential("b", |_| {});
        fails(pair.world(1), Reason::AuthMethod, Some(Reason::AuthenticationFailed));
    }
}

/// RFC 4945: each end refuses what is wrong with the other's certificate, and says what.
#[test]
fn bad_certificates_are_refused_with_their_reason() {
    let root = Authority::root(&PKCS_ECDSA_P256_SHA256);
    let other = Authority::root(&PKCS_ECDSA_P256_SHA256);
    type Change = fn(&mut rcgen::CertificateParams);
    let changes: [(Reason, Change); 8] = [
        (Reason::CertificateExpired, |params| {
            params.not_after = date_time_ymd(1970, 1, 1) + WALL - Duration::from_secs(1);
        }),
        (Reason::CertificateNotYetValid, |params| {
            params.not_before = date_time_ymd(1970, 1, 1) + WALL + Duration::from_secs(3600);
        }),
        (Reason::CertificateIdentity, |params| {
            params.subject_alt_names = vec![SanType::DnsName("c".try_into().unwrap())];
        }),
        (Reason::CertificateIdentity, |params| params.subject_alt_names = Vec::new()),
        (Reason::CertificateUsage, |params| params.key_usages = vec![KeyUsagePurpose::KeyEncipherment]),
        (Reason::CertificateUsage, |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        }),
        (Reason::CertificateConstraint, |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        (Reason::CertificateCriticalExtension, |params| {
            let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
            extension.set_criticality(true);
            params.custom_extensions = vec![extension];
        }),
    ];
    for transport in [StartTransport::UdpThenTcp, StartTransport::Tcp] {
        for (reason, change) in &changes {
            let mut pair = certified(transport, &root, &root);
            pair.a.local_auth = root.credential("a", change);
            refused_by_responder(pair, *reason);
            let mut pair = certified(transport, &root, &root);
            pair.b.local_auth = root.credential("b", change);
            fails(pair.world(1), *reason, Some(Reason::AuthenticationFailed));
        }
        let mut pair = certified(transport, &root, &root);
        pair.b.remote_auth = other.trust(None);
        refused_by_responder(pair, Reason::CertificateUnknownCa);
        let mut pair = certified(transport, &root, &root);
        pair.b.remote_auth = root.trust(Some(&[SERIAL]));
        refused_by_responder(pair, Reason::CertificateRevoked);
        let mut pair = certified(transport, &root, &root);
        pair.a.remote_auth = root.trust(Some(&[SERIAL]));
        fails(pair.world(1), Reason::CertificateRevoked, Some(Reason::AuthenticationFailed));
    }
}

/// The key is another than that of the certificate: the chain is good, the signature is not.
#[test]
fn a_stolen_certificate_without_its_key_is_refused() {
    let root = Authority::root(&PKCS_ECDSA_P256_SHA256);
    let (LocalAuth::Certificate(own), LocalAuth::Certificate(stolen)) =
        (root.credential("x", |_| {}), root.credential("a", |_| {}))
    else {
        unreachable!()
    };
    let mut own = std::sync::Arc::into_inner(own).unwrap();
    own.chain = stolen.chain.clone();
    let mut pair = certified(StartTransport::Tcp, &root, &root);
    pair.a.local_auth = LocalAuth::Certificate(own.into());
    refused_by_responder(pair, Reason::AuthenticationFailed);
}

/// A certificate is for its own identity: that of another peer of the same authority does not do.
#[test]
fn a_peer_cannot_take_another_peers_identity() {
    let root = Authority::root(&PKCS_ECDSA_P256_SHA256);
    let mut pair = certified(StartTransport::Tcp, &root, &root);
    pair.a.local_auth = root.credential("mallory", |_| {});
    refused_by_responder(pair, Reason::CertificateIdentity);
}

/// ID_DER_ASN1_DN is the subject of the certificate (RFC 4945 section 3.1.5).
#[test]
fn distinguished_names_are_identities() {
    let root = Authority::root(&PKCS_ECDSA_P256_SHA256);
    for (asked, is_accepted) in [("CN=a", true), ("CN=A", true), ("CN=x", false)] {
        let mut pair = certified(StartTransport::Tcp, &root, &root);
        let LocalAuth::Certificate(credential) = &pair.a.local_auth else { unreachable!() };
        pair.a.local_id = Identity::Name(credential.chain[0].subject().unwrap().clone());
        pair.b.remote_id = Identity::Name(asked.parse().unwrap());
        if is_accepted {
            let mut world = pair.world(1);
            world.run_for(Duration::from_secs(5));
            world.assert_settled(1);
            world.shut_down_and_check();
        } else {
            refused_by_responder(pair, Reason::AuthenticationFailed);
        }
    }
}

/// A renewed certificate holds from the next authentication on; the IKE SA that is there stays.
#[test]
fn renewed_certificates_leave_ike_sas_alone_and_mend_what_had_failed() {
    let root = Authority::root(&PKCS_ECDSA_P256_SHA256);
    let mut world = certified(StartTransport::Tcp, &root, &root).world(1);
    world.run_for(Duration::from_secs(5));
    let before = world.status(0).ike_sas[0].spis;
    let mut renewed = world.nodes[0].config.1.clone();
    renewed[0].local_auth = root.credential("a", |_| {});
    let now = world.now;
    world.nodes[0].endpoint.set_connections(now, renewed);
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.status(0).ike_sas[0].spis, before);
    world.assert_settled(1);

    let mut pair = certified(StartTransport::Tcp, &root, &root).both(|connection| {
        connection.ike.retry_min = Duration::from_secs(3000);
        connection.ike.retry_max = Duration::from_secs(3600);
    });
    let good = pair.a.clone();
    pair.a.local_auth = root.credential("x", |_| {});
    let mut world = pair.world(1);
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.status(0).reason, Reason::AuthenticationFailed);
    let now = world.now;
    world.nodes[0].endpoint.set_connections(now, vec![good]);
    world.run_for(Duration::from_secs(5));
    world.assert_settled(1);
}

/// Before it is told the time, an endpoint takes no certificate.
#[test]
fn without_wall_time_no_certificate_is_valid() {
    let root = Authority::root(&PKCS_ECDSA_P256_SHA256);
    let mut pair = certified(StartTransport::Tcp, &root, &root);
    pair.a.remote_auth = root.trust(None);
    let mut world = pair.world(1);
    world.nodes[0].endpoint.set_wall_time(portcullis_ike::Time::ZERO, Duration::ZERO);
    world.run_for(Duration::from_secs(4));
    assert_eq!(world.status(0).reason, Reason::CertificateNotYetValid);
}

/// Any change to any message, certificates included: no panic, and the two ends still come together.
#[test]
fn mutated_messages_with_certificates_do_no_harm() {
    let root = Authority::root(&PKCS_ECDSA_P256_SHA256);
    for transport in STARTS {
        for seed in 0..10 {
            let mut world = certified(transport, &root, &root).world(seed);
            world.mutations = 30;
            world.run_for(Duration::from_secs(100));
            world.mutations = 0;
            let settled =
                world.run_until_holds(Duration::from_secs(400), |world| world.try_settled(1).is_ok());
            assert!(settled, "{transport:?} {seed}: {:#?} {:#?}", world.status(0), world.status(1));
            world.shut_down_and_check();
        }
    }
}

/// The responder refuses the initiator with this reason; the initiator hears that it was refused.
fn refused_by_responder(pair: Pair, reason: Reason) {
    let is_asked_for_certificates = matches!(pair.b.remote_auth, RemoteAuth::Certificate(_));
    let mut world = pair.world(1);
    world.run_for(Duration::from_secs(4));
    let refused = |event: &Event| matches!(event, Event::IkeFailed { is_initiator: false, reason: refused, .. } if *refused == reason);
    assert!(world.saw(1, refused) >= 1, "{reason} {is_asked_for_certificates} {:#?}", world.nodes[1].events);
    assert_eq!(world.status(0).reason, Reason::AuthenticationFailed);
    assert!(world.nodes.iter().all(|node| node.outbound.is_empty()));
    world.shut_down_and_check();
}
