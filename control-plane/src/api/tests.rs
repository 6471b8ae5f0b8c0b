//! Handlers with everything in front of them, over a gateway that does nothing: what runs has its own tests.

mod access;
mod capture;
mod changes;
mod connection;
mod events;
mod policy;
mod reload;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use futures::future::BoxFuture;
use http_body_util::BodyExt;
use portcullis_data_plane::config::Mode;
use portcullis_data_plane::counters::StreamCounters;
use portcullis_data_plane::guard::{BackendKind, GuardDrops, GuardState};
use portcullis_data_plane::handle::{Capture, DataPlaneReport, SaTableReport};
use portcullis_data_plane::spd::Flow;
use portcullis_data_plane::tap::TapOptions;
use portcullis_ike::command::CommandKind;
use portcullis_ike::time::Time;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::access::Peer;
use super::{Api, routes};
use crate::audit::AuditLog;
use crate::changes::{Changes, Gauges, Opened, Pulse, Running};
use crate::config::{self, Config, Refused, Secrets};
use crate::daemon::CommandError;
use crate::events::Events;
use crate::snapshot::{Clock, Snapshot};
use crate::status::explain::Explained;

const ADMIN: &str = "admin-token-admin-token-admin-token-0";
const OPERATOR: &str = "operator-token-operator-token-operat-1";
const READER: &str = "reader-token-reader-token-reader-tok-2";

/// A gateway with its API, and the directory it lives in.
struct Bench {
    directory: tempfile::TempDir,
    running: Arc<Idle>,
    api: Arc<Api>,
    router: Router,
}

/// A gateway that takes every configuration and carries nothing out.
struct Idle {
    config: ArcSwap<Config>,
    applied: AtomicU64,
    is_stubborn: AtomicBool,
}

/// An answer.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Bench {
    /// Must be made inside of a runtime.
    fn new() -> Self {
        Self::in_directory(tempfile::tempdir().unwrap(), "")
    }

    /// `more` is appended to the configuration.
    fn with(more: &str) -> Self {
        Self::in_directory(tempfile::tempdir().unwrap(), more)
    }

    /// The same gateway after a restart.
    fn restarted(self) -> Self {
        Self::in_directory(self.directory, "")
    }

    fn in_directory(directory: tempfile::TempDir, more: &str) -> Self {
        let file = directory.path().join("portcullis.yaml");
        if !file.exists() {
            write_secrets(&directory);
            std::fs::write(&file, configuration(&directory) + more).unwrap();
        }
        let load = move || -> Result<_, Refused> { config::load(&file, None, &secrets()) };
        let opened = Opened::open(load().unwrap().config, &secrets()).unwrap();
        let running = Arc::new(Idle {
            config: ArcSwap::from_pointee(opened.config.clone()),
            applied: AtomicU64::new(0),
            is_stubborn: AtomicBool::new(false),
        });
        let audit = Arc::new(AuditLog::new(&opened.config.state_dir));
        let events = Arc::new(Events::new());
        let changes = Changes::new(
            opened,
            Box::new(load),
            Arc::clone(&running) as Arc<dyn Running>,
            Arc::clone(&audit),
            Arc::clone(&events),
            Arc::new(Gauges::default()),
        );
        let api = Arc::new(Api {
            running: Arc::clone(&running) as Arc<dyn Running>,
            changes,
            audit,
            events,
            counters: Arc::default(),
        });
        Self { directory, running, router: routes::control(Arc::clone(&api)), api }
    }

    /// A request from the owner of the control socket.
    async fn ask(&self, method: &str, path: &str, body: impl Into<Wanted>) -> Answer {
        self.ask_with(method, path, body, &[]).await
    }

    async fn ask_with(
        &self,
        method: &str,
        path: &str,
        body: impl Into<Wanted>,
        headers: &[(&str, &str)],
    ) -> Answer {
        self.ask_as(Peer::Unix { uid: 0 }, method, path, body, headers).await
    }

    async fn ask_as(
        &self,
        peer: Peer,
        method: &str,
        path: &str,
        body: impl Into<Wanted>,
        headers: &[(&str, &str)],
    ) -> Answer {
        let Wanted(body) = body.into();
        let mut request = Request::builder().method(method).uri(path).extension(peer);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body)).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    fn audit(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.state().join("audit.log")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn store(&self) -> Value {
        let text = std::fs::read_to_string(self.state().join("policy-store.json")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    fn applied(&self) -> u64 {
        self.running.applied.load(Ordering::SeqCst)
    }
}

struct Wanted(Vec<u8>);

impl From<&str> for Wanted {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<Value> for Wanted {
    fn from(value: Value) -> Self {
        Self(value.to_string().into_bytes())
    }
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {:?}", self.body))
    }

    fn etag(&self) -> &str {
        self.headers["etag"].to_str().unwrap()
    }

    /// The last part of the problem's type, after all of it has been looked at.
    fn problem(&self) -> String {
        let problem = self.json();
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(problem["status"], self.status.as_u16());
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
        let uri = problem["type"].as_str().unwrap();
        uri.strip_prefix("urn:portcullis:problem:").unwrap().to_owned()
    }
}

impl Running for Idle {
    fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    fn needs_restart(&self, config: &Config) -> Option<&'static str> {
        (config.instance != self.config.load().instance).then_some("instance")
    }

    fn apply(&self, config: Config) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(async move {
            anyhow::ensure!(!self.is_stubborn.load(Ordering::SeqCst), "the kernel refuses");
            self.config.store(Arc::new(config));
            self.applied.fetch_add(1, Ordering::SeqCst);
            Ok(())
        })
    }

    fn pulse(&self) -> BoxFuture<'_, Option<Pulse>> {
        let configured = self.config.load().connections.len();
        Box::pin(async move { Some(Pulse { configured, up: 0, is_guarded: true }) })
    }

    fn snapshot(&self) -> BoxFuture<'_, Option<Snapshot>> {
        let config = self.config.load_full();
        Box::pin(async move { Some(snapshot(config)) })
    }

    fn data_plane(&self) -> DataPlaneReport {
        snapshot(self.config.load_full()).data_plane
    }

    fn explain(&self, flow: &Flow, interface: Option<&str>) -> Explained {
        Explained {
            decision: "none".to_owned(),
            connection: interface.map(str::to_owned),
            child: None,
            tunnel: None,
            dropped: Some(format!("{flow:?}")),
            way: None,
        }
    }

    /// As if somebody else were at it: there is no data plane to look at.
    fn capture(&self, _options: TapOptions) -> Option<Capture> {
        None
    }

    fn command(&self, name: String, kind: CommandKind) -> BoxFuture<'_, Result<String, CommandError>> {
        Box::pin(async move {
            if self.config.load().connection(&name).is_none() {
                return Err(CommandError::UnknownConnection(name));
            }
            Ok(format!("{kind:?}"))
        })
    }

    fn is_forwarding(&self) -> bool {
        true
    }

    fn metrics(&self, _snapshot: &Snapshot) -> String {
        String::new()
    }
}

/// Runs a test inside of a runtime.
fn run<F: Future<Output = ()>>(test: F) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(async { tokio::time::timeout(Duration::from_secs(60), test).await.expect("in time") });
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn stranger() -> Peer {
    Peer::Tls { address: "192.0.2.9:5000".parse().unwrap(), certificate: None }
}

/// A connection that may be created beside those of the file.
fn document(directory: &tempfile::TempDir) -> Value {
    json!({
        "local": {"id": "a.example", "auth": "psk", "secret_file": directory.path().join("psk")},
        "remote": {"address": "192.0.2.77", "id": "new.example", "auth": "psk"},
        "children": {"net": {"local_ts": ["10.1.0.0/16"], "remote_ts": ["10.77.0.0/16"]}},
    })
}

fn secrets() -> Secrets {
    Secrets::Read { credentials: None }
}

fn write_secrets(directory: &tempfile::TempDir) {
    use std::os::unix::fs::PermissionsExt;
    for (name, text) in [
        ("psk", "a secret that nobody can guess"),
        ("admin", ADMIN),
        ("operator", OPERATOR),
        ("reader", READER),
    ] {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
}

fn configuration(directory: &tempfile::TempDir) -> String {
    let d = directory.path().display();
    format!(
        "state_dir: {d}/state
control: {{ socket: {d}/control.sock, group_role: operator }}
api:
  tokens:
    - {{ name: boss, role: admin, file: {d}/admin }}
    - {{ name: desk, role: operator, file: {d}/operator }}
    - {{ name: wall, role: read-only, file: {d}/reader }}
data_plane: {{ interfaces: {{ wan0: {{ role: wan }} }} }}
connections:
  plain:
    local: {{ id: a.example, auth: psk, secret_file: {d}/psk }}
    remote: {{ address: 192.0.2.2, id: b.example, auth: psk }}
    children: {{ net: {{ local_ts: 10.1.0.0/16, remote_ts: 10.2.0.0/16 }} }}
  explicit:
    local: {{ id: a.example, auth: psk, secret_file: {d}/psk }}
    remote: {{ address: 192.0.2.3, id: c.example, auth: psk }}
    esp: {{ on_unreachable: fail-closed }}
    children: {{ net: {{ local_ts: 10.1.0.0/16, remote_ts: 10.3.0.0/16 }} }}
  udp:
    local: {{ id: a.example, auth: psk, secret_file: {d}/psk }}
    remote: {{ address: 192.0.2.4, id: d.example, auth: psk }}
    ike: {{ transport: udp, proposals: [aes256gcm16-prfsha384-x25519] }}
    children: {{ net: {{ local_ts: 10.1.0.0/16, remote_ts: 10.4.0.0/16 }} }}
"
    )
}

fn snapshot(config: Arc<Config>) -> Snapshot {
    Snapshot {
        config,
        clock: Clock { now: Time::ZERO, wall: SystemTime::UNIX_EPOCH, uptime: Duration::ZERO },
        shards: Vec::new(),
        data_plane: DataPlaneReport {
            mode: Mode::Tun,
            interfaces: Vec::new(),
            guard: GuardState {
                installed: true,
                backend: BackendKind::Xfrm,
                policies: 0,
                restores: 0,
                drops: GuardDrops { outbound: 0, inbound: 0 },
            },
            workers: Vec::new(),
            streams: StreamCounters::default().snapshot(),
            sas: SaTableReport { slots: 0, inbound: 0, outbound: 0 },
        },
        turned_away: Default::default(),
        control: Default::default(),
    }
}
