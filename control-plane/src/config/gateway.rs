//! The sections about the gateway as a whole: control socket, metrics, log, endpoint-wide IKE.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use portcullis_ike::Provider;
use portcullis_ike::config::EndpointConfig;

use super::api::{ApiRole, ROLES};
use super::field::{Field, Section};
use super::scalar::{duration, size};

/// Longest path of a Unix socket (`sun_path` of unix(7) less the final zero).
const MAX_SOCKET_PATH: usize = 107;

/// The `control:` section.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ControlConfig {
    /// The Unix socket of the API.
    pub socket: PathBuf,
    /// What the socket's group may do; root and the daemon's own user may do everything.
    pub group_role: ApiRole,
}

/// The `metrics:` section.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetricsConfig {
    /// Where Prometheus scrapes; none without the key.
    pub listen: Option<SocketAddr>,
    /// Which connections have metrics of their own.
    pub per_connection: PerConnection,
}

/// Which connections have metrics of their own. Sums over all are there in any case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PerConnection {
    /// Every one.
    All,
    /// Those with `metrics: true`.
    Listed,
    /// None.
    Off,
}

/// The `log:` section.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogConfig {
    /// How lines look.
    pub format: LogFormat,
    /// The least severe level that is written.
    pub level: tracing::Level,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Human, level: tracing::Level::INFO }
    }
}

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// The endpoint-wide `ike:` section.
#[derive(Clone, Debug)]
pub struct IkeConfig {
    /// Addresses that IKE listens on: UDP 500 and 4500, TCP 4500.
    pub listen: Vec<IpAddr>,
    /// UDP port of IKE without the non-ESP marker; always 500 but in tests.
    pub port: u16,
    /// TCP 4500 is listened on.
    pub tcp: bool,
    /// Number of shards; each is one thread.
    pub shards: u8,
    /// Who computes key exchanges, HMAC and AEAD of IKE.
    pub crypto: Provider,
    /// Limits and code points; the shard number is set for each.
    pub endpoint: EndpointConfig,
}

/// The words for who computes.
const PROVIDERS: [(&str, Provider); 2] = [("aws-lc", Provider::AwsLc), ("ring", Provider::Ring)];
/// Four keys of more bits than this are not found with keys of four octets.
const HARDEST_PUZZLE: u8 = 28;
const LONGEST_PUZZLE_TIME: Duration = Duration::from_secs(30);

/// Reads `control:`.
pub fn control(field: Option<Field<'_>>, instance: &str) -> ControlConfig {
    let default = PathBuf::from(format!("/run/portcullis/{instance}/control.sock"));
    let read = |s: &mut Section<'_>| {
        let socket = s.get("socket").and_then(|field| {
            let path = field.text()?;
            if !path.starts_with('/') || path.len() > MAX_SOCKET_PATH {
                return field
                    .refuse(format!("an absolute path of at most {MAX_SOCKET_PATH} octets is expected"));
            }
            Some(PathBuf::from(path))
        });
        let group_role = s.or("group_role", ApiRole::Operator, |field| field.word(&ROLES));
        Some((socket, group_role))
    };
    let (socket, group_role) = field.and_then(|f| f.section(read)).unwrap_or((None, ApiRole::Operator));
    ControlConfig { socket: socket.unwrap_or(default), group_role }
}

/// Reads `metrics:`.
pub fn metrics(field: Option<Field<'_>>) -> MetricsConfig {
    let read = |s: &mut Section<'_>| {
        let listen = s.get("listen").and_then(|field| {
            field.read(|text| {
                text.parse::<SocketAddr>().map_err(|_| {
                    format!("'{text}' is not an address with a port such as 127.0.0.1:9464 or [::1]:9464")
                })
            })
        });
        let words =
            [("all", PerConnection::All), ("listed", PerConnection::Listed), ("off", PerConnection::Off)];
        let per_connection = s.or("per_connection", PerConnection::All, |field| field.word(&words));
        Some(MetricsConfig { listen, per_connection })
    };
    field
        .and_then(|field| field.section(read))
        .unwrap_or(MetricsConfig { listen: None, per_connection: PerConnection::All })
}

/// Reads `log:`.
pub fn log(field: Option<Field<'_>>) -> LogConfig {
    use tracing::Level;
    let levels = [
        ("error", Level::ERROR),
        ("warn", Level::WARN),
        ("info", Level::INFO),
        ("debug", Level::DEBUG),
        ("trace", Level::TRACE),
    ];
    let formats = [("human", LogFormat::Human), ("json", LogFormat::Json)];
    let read = |s: &mut Section<'_>| {
        Some(LogConfig {
            format: s.or("format", LogFormat::Human, |field| field.word(&formats)),
            level: s.or("level", Level::INFO, |field| field.word(&levels)),
        })
    };
    field.and_then(|field| field.section(read)).unwrap_or_default()
}

/// Reads the endpoint-wide `ike:`.
pub fn ike(field: Option<Field<'_>>) -> IkeConfig {
    field.and_then(|field| field.section(ike_section)).unwrap_or_else(default_ike)
}

fn ike_section(s: &mut Section<'_>) -> Option<IkeConfig> {
    let default = default_ike();
    let limits = &default.endpoint;
    let count = |field: &Field<'_>| field.number::<usize>(1, 10_000_000);
    let listen = s.get("listen").map(|field| {
        field.items("address", |item| {
            item.read(|text| text.parse::<IpAddr>().map_err(|_| format!("'{text}' is not an IP address")))
        })
    });
    let tcp = s.or("tcp", true, Field::flag);
    let endpoint = EndpointConfig {
        shard: 0,
        tcp_listens: tcp,
        nat_port: s.or("nat_port", limits.nat_port, |field| field.number(1, u16::MAX)),
        separate_transports_notify: s.or(
            "separate_transports_notify",
            limits.separate_transports_notify,
            |field| field.number(40960, u16::MAX),
        ),
        esp_echo_notify: s
            .or("esp_echo_notify", limits.esp_echo_notify, |field| field.number(40960, u16::MAX)),
        cookie_threshold: s
            .or("cookie_threshold", limits.cookie_threshold, |field| field.number::<usize>(0, 10_000_000)),
        puzzle_threshold: s
            .or("puzzle_threshold", limits.puzzle_threshold, |field| field.number::<usize>(0, 10_000_000)),
        puzzle_difficulty: s.or("puzzle_difficulty", limits.puzzle_difficulty, puzzle_bits),
        max_puzzle_difficulty: s.or("max_puzzle_difficulty", limits.max_puzzle_difficulty, |field| {
            field.number(0, HARDEST_PUZZLE)
        }),
        puzzle_time: s.or("puzzle_time", limits.puzzle_time, |field| field.read(duration)),
        max_half_open: s.or("max_half_open", limits.max_half_open, count),
        max_half_open_per_peer: s.or("max_half_open_per_peer", limits.max_half_open_per_peer, count),
        max_streams_per_peer: s.or("max_streams_per_peer", limits.max_streams_per_peer, count),
        max_half_open_per_prefix: s.or("max_half_open_per_prefix", limits.max_half_open_per_prefix, count),
        max_stranger_streams: s.or("max_stranger_streams", limits.max_stranger_streams, count),
        max_stranger_streams_per_prefix: s.or(
            "max_stranger_streams_per_prefix",
            limits.max_stranger_streams_per_prefix,
            count,
        ),
        half_open_timeout: s.or("half_open_timeout", limits.half_open_timeout, |field| field.read(duration)),
        max_half_open_bytes: s.or("max_half_open_bytes", limits.max_half_open_bytes, |field| {
            field.read(|text| size(text).and_then(|n| usize::try_from(n).map_err(|e| e.to_string())))
        }),
        max_certificate_bytes: s.or("max_certificate_bytes", limits.max_certificate_bytes, |field| {
            field.read(|text| size(text).and_then(|n| usize::try_from(n).map_err(|e| e.to_string())))
        }),
        max_stranger_bytes: s.or("max_stranger_bytes", limits.max_stranger_bytes, |field| {
            field.read(|text| size(text).and_then(|n| usize::try_from(n).map_err(|e| e.to_string())))
        }),
        max_children: s.or("max_children", limits.max_children, count),
        reestablish_per_second: s
            .or("reestablish_per_second", limits.reestablish_per_second, |field| field.number(1, 10_000)),
        key_log: false,
        guard_missing: None,
    };
    if endpoint.puzzle_time > LONGEST_PUZZLE_TIME {
        s.refuse::<()>("puzzle_time is at most 30s: a responder forgets its puzzle after a minute");
    }
    if endpoint.half_open_timeout > Duration::from_secs(600) {
        s.refuse::<()>("half_open_timeout is at most 10min: half-open SAs cost memory");
    }
    Some(IkeConfig {
        listen: listen.unwrap_or(default.listen),
        port: s.or("port", default.port, |field| field.number(1, u16::MAX)),
        tcp,
        shards: s.or("shards", default.shards, |field| field.number(1, 64)),
        crypto: s.or("crypto", default.crypto, |field| field.word(&PROVIDERS)),
        endpoint,
    })
}

/// RFC 8019 section 4.4: fewer than 9 bits are too easy.
fn puzzle_bits(field: &Field<'_>) -> Option<u8> {
    field.number(9, HARDEST_PUZZLE)
}

fn default_ike() -> IkeConfig {
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(16);
    IkeConfig {
        listen: vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
        port: 500,
        tcp: true,
        shards: u8::try_from(cores).unwrap_or(1),
        crypto: Provider::default(),
        endpoint: EndpointConfig::default(),
    }
}
