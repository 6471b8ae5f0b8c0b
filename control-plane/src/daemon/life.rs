//! From start to stop: guard, data plane, sockets, shards, API; signals; the end.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use portcullis_data_plane::handle::{DataPlane, DataPlaneSockets, Receivers};
use portcullis_ike::path::UdpPath;
use tokio::signal::unix::{SignalKind, signal};

use super::clock::Clock;
use super::facts;
use super::gateway::Gateway;
use super::input::{Input, InputSender, NetworkChange};
use super::observer::Observer;
use super::privilege;
use super::shard::{ShardHandle, ShardParts};
use super::supervisor;
use crate::api::{Api, ApiListeners};
use crate::audit::AuditLog;
use crate::changes::{Changes, Opened, Request, Running};
use crate::config::{self, Checked, Config, Secrets};
use crate::keylog::KeyLog;
use crate::logging;
use crate::net::route::Shards;
use crate::net::{Acceptor, Counters, IkeSocket, Listeners, PrefixLimit, bind};

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Run {
    /// The configuration.
    pub config: PathBuf,
    /// Replaces `instance:`.
    pub instance: Option<String>,
    /// Where keys are written, if they are.
    pub key_log: Option<PathBuf>,
}

/// Runs a gateway until a signal ends it.
///
/// # Errors
/// What kept it from starting: cause, place and remedy.
pub fn run(arguments: &Run) -> Result<()> {
    let checked = load(arguments)?;
    logging::start(checked.config.log);
    for warning in &checked.warnings {
        tracing::warn!("{}:{warning}", arguments.config.display());
    }
    privilege::check()?;
    let key_log = arguments.key_log.as_deref().map(open_key_log).transpose()?;
    let api = ApiListeners::bind(
        &checked.config.control.socket,
        checked.config.api.listen,
        checked.config.metrics.listen,
    )?;
    let opened = Opened::open(checked.config, &Secrets::of_this_process())?;
    let config = Arc::new(opened.config.clone());
    let Listeners { udp_500, udp_4500, tcp } = bind(&config.ike)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("gateway")
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let (data_plane, receivers) = {
        // It blocks, and what XDP logs is forwarded by the runtime.
        let _context = runtime.enter();
        DataPlane::start(config.data_plane.clone(), config.policy_set(), DataPlaneSockets { udp_4500 })?
    };
    let parts = Parts { opened, config, key_log, data_plane, receivers, udp_500, tcp, api };
    runtime.block_on(live(arguments, parts))
}

struct Parts {
    opened: Opened,
    config: Arc<Config>,
    key_log: Option<KeyLog>,
    data_plane: DataPlane,
    receivers: Receivers,
    udp_500: Vec<std::net::UdpSocket>,
    tcp: Vec<std::net::TcpListener>,
    api: ApiListeners,
}

async fn live(arguments: &Run, parts: Parts) -> Result<()> {
    let Parts { opened, config, key_log, data_plane, receivers, udp_500, tcp, api } = parts;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;

    let clock = Clock::start();
    let counters = Arc::new(Counters::default());
    let shards = Shards::new(config.ike.shards);
    let has_key_log = key_log.is_some();
    let observer = Arc::new(Observer::new(Arc::clone(&config), key_log));
    let sockets = udp_500.into_iter().map(IkeSocket::new).collect::<Result<Arc<[_]>, _>>();
    let sockets = sockets.context("preparing UDP 500")?;
    config.ike.crypto.install();
    let handles = (0..config.ike.shards)
        .map(|shard| {
            ShardHandle::start(ShardParts {
                shard,
                shards,
                config: Arc::clone(&config),
                key_log: has_key_log,
                clock,
                data_plane: data_plane.clone(),
                sockets: Arc::clone(&sockets),
                observer: Arc::clone(&observer),
            })
        })
        .collect::<Result<Vec<_>, _>>()
        .context("starting an IKE shard")?;
    let inputs: Arc<[InputSender]> = handles.iter().map(|handle| handle.input.clone()).collect();
    let gateway = Arc::new(Gateway::new(
        Arc::clone(&observer),
        data_plane.clone(),
        shards,
        Arc::clone(&inputs),
        clock,
        Arc::clone(&counters),
    ));

    let delivery = Delivery { shards, inputs: Arc::clone(&inputs), counters: Arc::clone(&counters) };
    receive_udp(&sockets, &delivery);
    receive_from_data_plane(receivers, delivery, &gateway);
    let limits = &config.ike.endpoint;
    let limit = PrefixLimit::new(
        limits.max_stranger_streams,
        limits.max_stranger_streams_per_prefix,
        limits.max_streams_per_peer,
    );
    let acceptor = Acceptor::new(shards, Arc::clone(&inputs), limit, Arc::clone(&observer), counters);
    for listener in tcp {
        acceptor.listen(listener).context("listening on TCP 4500")?;
    }
    let changes = changes(arguments, opened, &gateway);
    let socket = api.serve(&Arc::new(Api {
        running: Arc::clone(&gateway) as Arc<dyn Running>,
        changes: Arc::clone(&changes),
        audit: changes.audit(),
        events: gateway.events(),
        counters: gateway.api_counters(),
    }))?;
    supervisor::ready();
    supervisor::attend(Arc::clone(&gateway));
    tracing::info!(
        instance = &*config.instance,
        connections = config.connections.len(),
        "the gateway is ready"
    );

    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => {
                supervisor::reloading();
                reload(arguments, &changes).await;
                supervisor::ready();
            }
        }
    }
    supervisor::stopping();
    tracing::info!("stopping: SAs are deleted, the guard stays");
    drop(socket);
    gateway.shutdown().await;
    let joined = tokio::task::spawn_blocking(move || handles.into_iter().for_each(ShardHandle::join));
    joined.await.context("waiting for the IKE shards")?;
    tokio::task::spawn_blocking(move || data_plane.stop()).await.context("stopping the data plane")
}

fn changes(arguments: &Run, opened: Opened, gateway: &Arc<Gateway>) -> Arc<Changes> {
    let audit = Arc::new(AuditLog::new(&opened.config.state_dir));
    let running = Arc::clone(gateway) as Arc<dyn Running>;
    let arguments = arguments.clone();
    let load = Box::new(move || load(&arguments));
    Changes::new(opened, load, running, audit, gateway.events(), gateway.gauges())
}

/// What SIGHUP asks for.
async fn reload(arguments: &Run, changes: &Changes) {
    let file = arguments.config.display();
    let request = Request {
        who: "signal".to_owned(),
        from: "SIGHUP".to_owned(),
        action: "reload".to_owned(),
        detail: String::new(),
        confirm_within: None,
    };
    match changes.reload(&request, false).await {
        Ok(reloaded) => {
            for warning in &reloaded.warnings {
                tracing::warn!("{file}:{warning}");
            }
            tracing::info!("{file} is in force; SAs of unchanged connections stay up");
        }
        Err(refusal) => {
            tracing::error!("{file} is not in force, the configuration before stays: {refusal}");
        }
    }
}

fn load(arguments: &Run) -> Result<Checked, config::Refused> {
    config::load(&arguments.config, arguments.instance.as_deref(), &Secrets::of_this_process())
}

fn open_key_log(directory: &std::path::Path) -> Result<KeyLog> {
    let log = KeyLog::create(directory)
        .with_context(|| format!("--keylog: {} cannot be written", directory.display()))?;
    tracing::warn!(
        "KEY LOG ON: every key of every SA is written to {}. Whoever reads it reads the traffic. For analysis only; remove it afterwards",
        directory.display()
    );
    Ok(log)
}

/// Hands datagrams to their shard. A full shard loses one, as the network might have; IKE repeats it.
#[derive(Clone)]
struct Delivery {
    shards: Shards,
    inputs: Arc<[InputSender]>,
    counters: Arc<Counters>,
}

impl Delivery {
    /// `has_marker`: the non-ESP marker precedes the message.
    fn deliver(&self, path: UdpPath, payload: Vec<u8>, has_marker: bool) {
        let shard = self.shards.of_datagram(&payload, has_marker, path.remote.ip());
        if let Some(input) = self.inputs.get(shard)
            && input.try_send(Input::Datagram { path, payload }).is_err()
        {
            self.counters.drop_datagram();
        }
    }
}

fn receive_udp(sockets: &Arc<[IkeSocket]>, delivery: &Delivery) {
    for index in 0..sockets.len() {
        let (sockets, delivery) = (Arc::clone(sockets), delivery.clone());
        tokio::spawn(async move {
            let Some(socket) = sockets.get(index) else { return };
            loop {
                match socket.receive().await {
                    Ok((path, payload)) => delivery.deliver(path, payload, false),
                    // ICMP errors of earlier datagrams arrive here; they say nothing that can be trusted.
                    Err(error) => tracing::debug!(%error, "UDP 500"),
                }
            }
        });
    }
}

fn receive_from_data_plane(receivers: Receivers, delivery: Delivery, gateway: &Arc<Gateway>) {
    let Receivers { mut ike, mut events } = receivers;
    let shards = delivery.shards;
    tokio::spawn(async move {
        while let Some(datagram) = ike.recv().await {
            let path = UdpPath { local: datagram.local, remote: datagram.remote };
            delivery.deliver(path, datagram.payload, true);
        }
    });
    let gateway = Arc::clone(gateway);
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            gateway.hear_data_plane(&event);
            if let Some(change) = NetworkChange::of(&event) {
                gateway.tell_network_change(change).await;
            }
            if let Some((shard, fact)) = facts::fact(event, &gateway.config(), shards) {
                gateway.tell(shard, fact).await;
            }
        }
    });
}
