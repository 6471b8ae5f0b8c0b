//! The page against docs/metrics.md, and what a scrape must hold.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use portcullis_common::DropReason;
use portcullis_common::verdict::Verdict;
use portcullis_data_plane::config::{Mode, Role};
use portcullis_data_plane::counters::{Sink, Source, StreamCounters, WorkerCounters};
use portcullis_data_plane::event::DataPlaneEvent;
use portcullis_data_plane::guard::{BackendKind, GuardDrops, GuardState};
use portcullis_data_plane::handle::{DataPlaneReport, InterfacePath, InterfaceReport, SaTableReport};
use portcullis_data_plane::packet::inner::Ports;
use portcullis_data_plane::policy::PolicyKey;
use portcullis_data_plane::sa::SaUsage;
use portcullis_data_plane::spd::Flow;
use portcullis_ike::action::{ChildId, EspCipher, IkeSaId};
use portcullis_ike::event::{Counters, Event};
use portcullis_ike::path::{DirectCarrier, EchoAnswers, EspCarrier, EspPath, EspTransport, IkeTransport};
use portcullis_ike::status::{
    ChildStatus, ConnectionStatus, EspStatus, Evidence, IkeSaStatus, Reason, State, Verdict as EspVerdict,
    Verification,
};
use portcullis_ike::time::Time;

use super::Metrics;
use crate::config::{self, Config, ExpiringFile, ExpiringKind, Secrets};
use crate::net::TurnedAway;
use crate::snapshot::{Clock, Handshake, ShardSnapshot, Snapshot};
use crate::status::Status;

#[test]
fn every_metric_is_documented_with_its_labels_and_every_documented_one_is_there() {
    let documented: BTreeMap<String, BTreeSet<String>> = include_str!("../../../docs/metrics.md")
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `portcullis_")?.split('|');
            let name = format!("portcullis_{}", cells.next()?.trim().trim_end_matches('`'));
            let labels = cells.next()?.split('`').skip(1).step_by(2).map(str::to_owned).collect();
            Some((name, labels))
        })
        .collect();
    let metrics = Metrics::new();
    let snapshot = snapshot(1);
    one_of_every_event(&metrics, &snapshot.config);
    assert_eq!(shapes(&metrics.encode(&snapshot)), documented);
}

#[test]
fn a_connection_that_is_down_has_its_metrics() {
    let mut snapshot = snapshot(2);
    snapshot.shards[0].connections[1].ike_sas.clear();
    snapshot.shards[0].connections[1].state = State::Blocked;
    snapshot.shards[0].connections[1].reason = Reason::IkeTcpUnreachable;
    let page = Metrics::new().encode(&snapshot);
    for line in [
        "portcullis_connection_up{connection=\"c0\"} 1\n",
        "portcullis_connection_up{connection=\"c1\"} 0\n",
        "portcullis_connection_state{connection=\"c1\",state=\"blocked\"} 1\n",
        "portcullis_connection_state{connection=\"c1\",state=\"idle\"} 0\n",
        "portcullis_connection_reason{connection=\"c1\",reason=\"ike_tcp_unreachable\"} 1\n",
        "portcullis_connections{state=\"blocked\"} 1\n",
    ] {
        assert!(page.contains(line), "{line} is not in {page}");
    }
    assert!(page.ends_with("# EOF\n"));
}

#[test]
fn esp_counters_outlive_the_sa() {
    let metrics = Metrics::new();
    let mut snapshot = snapshot(1);
    let total = "portcullis_esp_packets_total{connection=\"c0\",direction=\"inbound\"}";
    assert!(metrics.encode(&snapshot).contains(&format!("{total} 7\n")));
    for (inbound, _) in snapshot.shards[0].usage.values_mut() {
        inbound.packets += 3;
    }
    assert!(metrics.encode(&snapshot).contains(&format!("{total} 10\n")));
    snapshot.shards[0].usage.clear();
    snapshot.shards[0].connections[0].ike_sas.clear();
    assert!(metrics.encode(&snapshot).contains(&format!("{total} 10\n")));
}

#[test]
fn falls_refusals_and_returns_are_counted_once_each() {
    let (metrics, snapshot) = (Metrics::new(), snapshot(1));
    let change = |from, to, reason| {
        let (connection, evidence, detail) = ("c0".into(), Evidence::None, String::new());
        let esp_transport = None;
        let event = Event::StateChanged { connection, from, to, reason, evidence, esp_transport, detail };
        metrics.observe(&snapshot.config, &event);
    };
    change(State::Suspect, State::Tcp, Reason::EspUnreachable);
    // Another evidence, in the same state.
    change(State::Tcp, State::Tcp, Reason::EspUnreachable);
    change(State::Tcp, State::Trial, Reason::EspUnreachable);
    change(State::Trial, State::Tcp, Reason::EspUnreachable);
    change(State::Tcp, State::Trial, Reason::EspUnreachable);
    change(State::Trial, State::DirectUdp, Reason::Returned);
    change(State::Suspect, State::Blocked, Reason::EspUnreachable);
    change(State::Blocked, State::Blocked, Reason::IkeTcpUnreachable);
    let page = metrics.encode(&snapshot);
    let counted: Vec<_> = page
        .lines()
        .filter(|line| {
            ["fallbacks", "refusals", "returns"].iter().any(|n| line.contains(&format!("esp_{n}_total{{")))
        })
        .collect();
    let of = |what: &str, reason: &str| {
        format!("portcullis_esp_{what}_total{{connection=\"c0\",reason=\"{reason}\"}} 1")
    };
    let expected = [
        of("fallbacks", "esp_unreachable"),
        of("refusals", "esp_unreachable"),
        of("returns", "returned"),
        of("returns", "trial_failed"),
    ];
    let mut counted = counted;
    counted.sort_unstable();
    assert_eq!(counted, expected);
}

#[test]
fn an_overdue_rekey_shows_as_less_than_nothing() {
    let mut snapshot = snapshot(1);
    let hour = Duration::from_secs(3600);
    snapshot.clock.now = Time::ZERO + hour + Duration::from_secs(30);
    let page = Metrics::new().encode(&snapshot);
    for line in [
        "portcullis_connection_sa_age_seconds{connection=\"c0\",sa=\"child\"} 3630.0\n",
        "portcullis_connection_rekey_due_seconds{connection=\"c0\",sa=\"child\"} -30.0\n",
        "portcullis_connection_rekey_due_seconds{connection=\"c0\",sa=\"ike\"} 10770.0\n",
    ] {
        assert!(page.contains(line), "{line} is not in {page}");
    }
}

#[test]
fn connections_are_found_by_name_while_a_shard_has_another_order() {
    let mut snapshot = snapshot(3);
    snapshot.shards[0].connections.reverse();
    snapshot.shards[0].connections[0].ike_sas.clear();
    let page = Metrics::new().encode(&snapshot);
    for (name, up) in [("c0", 1), ("c1", 1), ("c2", 0)] {
        assert!(page.contains(&format!("portcullis_connection_up{{connection=\"{name}\"}} {up}\n")));
    }
}

#[test]
fn connections_without_metrics_of_their_own_are_summed() {
    let mut snapshot = snapshot(3);
    let mut config = (*snapshot.config).clone();
    config.metrics.per_connection = config::PerConnection::Off;
    snapshot.config = Arc::new(config);
    let metrics = Metrics::new();
    one_of_every_event(&metrics, &snapshot.config);
    let page = metrics.encode(&snapshot);
    assert!(!page.contains("connection=\"c"), "{page}");
    assert!(
        page.contains("portcullis_esp_packets_total{connection=\"other\",direction=\"inbound\"} 21\n"),
        "{page}"
    );
}

#[test]
fn ten_thousand_connections_are_on_the_page_in_time_that_grows_with_their_number_only() {
    // No bound in seconds: a busy machine would break it. Ten times the connections, some ten times the time. The worst
    // that a reload does to the order of a shard is among the cases, and names that have to be looked up.
    for (listed, in_order) in [(false, true), (true, true), (false, false)] {
        let time = |connections: usize| {
            let mut snapshot = snapshot(connections);
            if !in_order {
                snapshot.shards[0].connections.rotate_left(connections / 2);
            }
            if listed {
                let mut config = (*snapshot.config).clone();
                config.metrics.per_connection = config::PerConnection::Listed;
                config.connections.iter_mut().for_each(|connection| connection.metrics = true);
                snapshot.config = Arc::new(config);
            }
            let metrics = Metrics::new();
            let start = Instant::now();
            let page = metrics.encode(&snapshot);
            assert_eq!(page.matches("portcullis_connection_up{").count(), connections);
            start.elapsed()
        };
        let (small, large) = (time(1000), time(10_000));
        assert!(large < small * 60, "{small:?} for 1000, {large:?} for 10 000");
    }
}

#[test]
fn status_names_the_carriers_and_keeps_the_sums() {
    let status = Status::of(&snapshot(1));
    let connection = &status.connections[0];
    assert_eq!(
        (connection.esp_transport.as_deref(), connection.ike_transport.as_deref()),
        (Some("ip"), Some("tcp"))
    );
    assert_eq!(connection.ike_sas[0].children[0].packets_in, 7);
    assert_eq!(connection.ike_sas[0].handshake.as_ref().unwrap().tcp_bytes.sent, 3000);
    let sums = status.data_plane.accounting;
    assert_eq!((sums.received, sums.sent, sums.dropped), (5, 4, 1));
    assert_eq!(status.data_plane.workers[0].esp_in.af_xdp, 3);
    assert_eq!(status.data_plane.workers[0].esp_in.socket, 1);
    let text = serde_json::to_string(&status).unwrap();
    assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status);
}

/// Name, and the labels of its samples; histograms by their base name.
fn shapes(page: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut shapes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let series = line.rsplit_once(' ').unwrap().0;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let base =
            ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let labels =
            labels.trim_end_matches('}').split(',').filter_map(|l| Some(l.split_once('=')?.0.to_owned()));
        shapes.entry(base.to_owned()).or_default().extend(labels.filter(|l| l != "le"));
    }
    shapes
}

fn one_of_every_event(metrics: &Metrics, config: &Config) {
    let connection: Arc<str> = "c0".into();
    let remote = "192.0.2.1:4500".parse().unwrap();
    let (child_name, algorithms) = (Arc::<str>::from("net"), "aes256gcm16".to_owned());
    let events = [
        Event::StateChanged {
            connection: connection.clone(),
            from: State::Connecting,
            to: State::Blocked,
            reason: Reason::IkeTcpUnreachable,
            evidence: Evidence::None,
            esp_transport: None,
            detail: String::new(),
        },
        Event::StateChanged {
            connection: connection.clone(),
            from: State::Suspect,
            to: State::Tcp,
            reason: Reason::EspUnreachable,
            evidence: Evidence::Echo,
            esp_transport: None,
            detail: String::new(),
        },
        Event::StateChanged {
            connection: connection.clone(),
            from: State::Trial,
            to: State::DirectIp,
            reason: Reason::Returned,
            evidence: Evidence::Echo,
            esp_transport: None,
            detail: String::new(),
        },
        Event::IkeEstablished {
            connection: connection.clone(),
            ike_sa: IkeSaId(1),
            is_initiator: true,
            remote,
            transport: IkeTransport::Tcp,
            started_on: IkeTransport::Udp,
            separate_transports: true,
            handshake: Duration::from_millis(20),
            udp_bytes: (500, 500),
            tcp_bytes: (3000, 3000),
            algorithms: algorithms.clone(),
            ppk: None,
        },
        Event::IkeFailed {
            connection: None,
            is_initiator: false,
            remote,
            reason: Reason::AuthenticationFailed,
            detail: String::new(),
        },
        Event::IkeRekeyed {
            connection: connection.clone(),
            ike_sa: IkeSaId(1),
            by_us: true,
            algorithms: algorithms.clone(),
        },
        Event::IkeRemoved { connection: connection.clone(), ike_sa: IkeSaId(1), reason: Reason::PeerDeleted },
        Event::ChildEstablished {
            connection: connection.clone(),
            child_name: child_name.clone(),
            child: ChildId(1),
            replaces: None,
            by_us: true,
            spis: (1, 2),
            algorithms,
        },
        Event::ChildFailed {
            connection: connection.clone(),
            child_name: child_name.clone(),
            reason: Reason::TsUnacceptable,
            detail: String::new(),
        },
        Event::ChildRemoved {
            connection: connection.clone(),
            child_name: child_name.clone(),
            child: ChildId(1),
            rekeyed: true,
        },
        Event::Stream { connection: connection.clone(), up: false },
        Event::EspProbed {
            connection: connection.clone(),
            ike_sa: IkeSaId(1),
            carrier: EspTransport::Ip,
            answered: true,
        },
        Event::EspVerified {
            connection: connection.clone(),
            ike_sa: IkeSaId(1),
            verification: Verification {
                at: Time::ZERO,
                took: Duration::from_millis(20),
                is_first: true,
                verdict: EspVerdict::Answered(EspTransport::Ip),
            },
        },
    ];
    events.iter().for_each(|event| metrics.observe(config, event));
    let policy = PolicyKey { connection, child: child_name };
    let (local, remote) = ([10, 1, 0, 1].into(), [10, 2, 0, 1].into());
    let flow = Flow { local, remote, protocol: 6, ports: Ports::Known(1025, 80) };
    metrics.observe_data_plane(config, &DataPlaneEvent::Acquire { policy, flow });
    metrics.observe_data_plane(config, &DataPlaneEvent::LocalChange);
}

/// One shard with so many connections, each with an IKE SA and a child that opened 7 packets.
fn snapshot(connections: usize) -> Snapshot {
    let mut text =
        String::from("data_plane: { mode: tun, interfaces: { lo: { role: wan } } }\nconnections:\n");
    for i in 0..connections {
        let (high, low) = (i / 250, i % 250);
        text += &format!(
            "  c{i}:\n    local: {{ id: a.example, auth: psk, secret_file: /x }}\n    remote: {{ address: 192.0.2.1, id: b{i}.example, auth: psk }}\n    ike: {{ proposals: [aes256gcm16-prfsha384-x25519] }}\n    children: {{ net: {{ local_ts: [10.{high}.{low}.0/24], remote_ts: [172.{}.{low}.0/24] }} }}\n",
            high + 16
        );
    }
    let mut config =
        config::parse(&text, None, &Secrets::Skip).unwrap_or_else(|(errors, _)| panic!("{errors:?}")).config;
    let mut first = config::Connection::clone(&config.connections[0]);
    let expiring = ExpiringFile {
        file: "/c.pem".into(),
        kind: ExpiringKind::Certificate,
        until: portcullis_pki::WallTime::from_secs(2_000_000_000),
    };
    first.expiring.push(expiring);
    config.connections.put(first);
    let usage = SaUsage { packets: 7, bytes: 700, ..SaUsage::default() };
    let handshake = Handshake {
        duration: Duration::from_millis(20),
        udp_bytes: (500, 500),
        tcp_bytes: (3000, 3000),
        rekeys: 0,
    };
    let numbers = || (0..connections as u64).map(|i| i + 1);
    let shard = ShardSnapshot {
        connections: config
            .connections
            .iter()
            .zip(numbers())
            .map(|(c, i)| connection(&c.ike.name, i))
            .collect(),
        counters: Counters {
            rejected: [("invalid_syntax", 1)].into(),
            esp_in_tcp_dropped: [("unknown_spi", 1)].into(),
            ..Counters::default()
        },
        handshakes: numbers().map(|i| (IkeSaId(i), handshake)).collect(),
        usage: numbers().map(|i| (ChildId(i), (usage, usage))).collect::<HashMap<_, _>>(),
    };
    let clock = Clock {
        now: Time::from_nanos(5_000_000_000),
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        uptime: Duration::from_secs(5),
    };
    Snapshot {
        config: Arc::new(config),
        clock,
        shards: vec![shard],
        data_plane: data_plane(),
        turned_away: TurnedAway::default(),
        control: Default::default(),
    }
}

fn connection(name: &Arc<str>, number: u64) -> ConnectionStatus {
    let child = ChildStatus {
        id: ChildId(number),
        name: "net".into(),
        spis: (0x100, 0x200),
        cipher: EspCipher::Aes256Gcm16,
        esn: true,
        algorithms: "aes256gcm16-esn".to_owned(),
        selectors: (Arc::from([]), Arc::from([])),
        in_use: true,
        established: Time::ZERO,
        next_rekey: Time::ZERO,
    };
    let address = [192, 0, 2, 1].into();
    ConnectionStatus {
        name: name.clone(),
        state: State::DirectIp,
        reason: Reason::None,
        evidence: Evidence::Inbound,
        esp_transport: Some(EspTransport::Ip),
        detail: String::new(),
        next_attempt: None,
        ike_sas: vec![IkeSaStatus {
            id: IkeSaId(number),
            is_initiator: true,
            spis: (1, 2),
            transport: IkeTransport::Tcp,
            separate_transports: true,
            full_transcript_auth: true,
            ppk: false,
            leaves: None,
            remote: (address, 4500).into(),
            remote_id: "b.example".to_owned(),
            nat: (false, false),
            esp_path: Some(EspPath {
                carrier: EspCarrier::Direct(DirectCarrier::Ip),
                local: address,
                local_port: 4500,
                remote: address,
                remote_port: 4500,
                echo: EchoAnswers::default(),
                takes_tcp: false,
            }),
            esp: EspStatus {
                echo: true,
                budget: Duration::ZERO,
                decision_within: Duration::ZERO,
                verification: None,
                rtt: [
                    (EspTransport::Ip, Some(Duration::from_millis(2))),
                    (EspTransport::Udp, None),
                    (EspTransport::Tcp, None),
                ],
                next_return: None,
            },
            algorithms: "aes256gcm16-prfsha384-x25519-ke1_mlkem768".to_owned(),
            established: Time::ZERO,
            rekeyed: Time::ZERO,
            next_rekey: Time::ZERO,
            children: vec![child],
        }],
    }
}

fn data_plane() -> DataPlaneReport {
    let worker = WorkerCounters::default();
    (0..3).for_each(|_| worker.count_received(Source::Wan, 100));
    (0..2).for_each(|_| worker.count_received(Source::Udp, 100));
    worker.count_sent(Sink::Ike, 100);
    (0..3).for_each(|_| worker.count_sent(Sink::Lan, 60));
    worker.count_drop(DropReason::Replay);
    DataPlaneReport {
        mode: Mode::Xdp,
        interfaces: vec![InterfaceReport {
            name: "wan0".into(),
            role: Role::Wan,
            path: InterfacePath::AfXdp { zero_copy: false },
            reason: "configured".to_owned(),
            xdp: vec![(Verdict::Redirected, 3, 300), (Verdict::UnknownSpi, 2, 200)],
        }],
        guard: GuardState {
            installed: true,
            backend: BackendKind::Xfrm,
            policies: 6,
            restores: 0,
            drops: GuardDrops { outbound: 1, inbound: 2 },
        },
        workers: vec![worker.snapshot()],
        streams: StreamCounters::default().snapshot(),
        sas: SaTableReport { slots: 4096, inbound: 1, outbound: 1 },
    }
}
