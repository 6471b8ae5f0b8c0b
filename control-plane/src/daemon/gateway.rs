//! The gateway as the API, metrics and signals see it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use portcullis_data_plane::event::DataPlaneEvent;
use portcullis_data_plane::handle::{Capture, DataPlane};
use portcullis_ike::command::{CommandKind, Fact};
use tokio::sync::oneshot;

use super::clock::Clock;
use super::input::{Input, InputSender, NetworkChange};
use super::observer::Observer;
use super::shard::home_of;
use crate::api::ApiCounters;
use crate::changes::{Gauges, Pulse, Running};
use crate::config::Config;
use crate::events::Events;
use crate::net::Counters;
use crate::net::route::Shards;
use crate::snapshot::{ControlSnapshot, Snapshot};
use crate::status::explain::Explained;
use portcullis_data_plane::handle::DataPlaneReport;
use portcullis_data_plane::spd::Flow;
use portcullis_data_plane::tap::TapOptions;

/// An operator hears of an outcome, or that there is none, within this time.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// A shard that does not answer within this time is stuck.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Everything that runs.
pub struct Gateway {
    observer: Arc<Observer>,
    data_plane: DataPlane,
    shards: Shards,
    inputs: Arc<[InputSender]>,
    clock: Clock,
    counters: Arc<Counters>,
    gauges: Arc<Gauges>,
    api: Arc<ApiCounters>,
}

/// Why a command was not carried out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CommandError {
    /// No connection of this name.
    UnknownConnection(String),
    /// The connection has no child of this name.
    UnknownChild(String),
    /// It was tried; this is why it failed.
    Failed(String),
    /// No outcome in time.
    TimedOut,
}

impl Gateway {
    /// Over what runs already.
    pub fn new(
        observer: Arc<Observer>,
        data_plane: DataPlane,
        shards: Shards,
        inputs: Arc<[InputSender]>,
        clock: Clock,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            observer,
            data_plane,
            shards,
            inputs,
            clock,
            counters,
            gauges: Arc::default(),
            api: Arc::default(),
        }
    }

    /// Where the store shows how it is.
    pub fn gauges(&self) -> Arc<Gauges> {
        Arc::clone(&self.gauges)
    }

    /// Where the API counts.
    pub fn api_counters(&self) -> Arc<ApiCounters> {
        Arc::clone(&self.api)
    }

    /// What has happened lately.
    pub fn events(&self) -> Arc<Events> {
        self.observer.events()
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        self.observer.config()
    }

    /// The data plane tells something.
    pub fn hear_data_plane(&self, event: &DataPlaneEvent) {
        self.observer.hear_data_plane(event);
    }

    /// Every worker of the data plane runs.
    pub fn is_forwarding(&self) -> bool {
        self.data_plane.is_running()
    }

    /// Writes what the log held back and whose time is over.
    pub fn summarise_log(&self) {
        self.observer.summarise();
    }

    /// Everything at this moment; `None` if a shard does not answer.
    pub async fn snapshot(&self) -> Option<Snapshot> {
        let mut shards = Vec::with_capacity(self.inputs.len());
        for answer in self.ask_all(Input::Inspect).await? {
            shards.push(answer);
        }
        Some(Snapshot {
            config: self.config(),
            clock: self.clock.moment(),
            shards,
            data_plane: self.data_plane.report(),
            turned_away: self.counters.read(),
            control: self.control(),
        })
    }

    /// See [`Running::pulse`].
    pub async fn pulse(&self) -> Option<Pulse> {
        let up = self.ask_all(Input::Pulse).await?;
        Some(Pulse {
            configured: self.config().connections.len(),
            up: up.into_iter().sum(),
            is_guarded: self.data_plane.is_guarded(),
        })
    }

    fn control(&self) -> ControlSnapshot {
        let events = self.observer.events();
        ControlSnapshot {
            store_ok: self.gauges.is_ok(),
            overrides: self.gauges.overrides(),
            change_pending: self.gauges.is_pending(),
            event_readers: events.readers() as u64,
            event_readers_cut_off: events.cut_off(),
            api: self.api.read(),
        }
    }

    /// Carries out a command and waits for its outcome.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn command(&self, name: &str, kind: CommandKind) -> Result<String, CommandError> {
        let config = self.config();
        let connection =
            config.connection(name).ok_or_else(|| CommandError::UnknownConnection(name.to_owned()))?;
        if let Some(child) = child_of(&kind)
            && connection.child(child).is_none()
        {
            return Err(CommandError::UnknownChild(child.to_owned()));
        }
        let home = home_of(&connection.ike, self.shards);
        let mut targets = BTreeSet::from([home]);
        if !matches!(kind, CommandKind::Up { .. }) {
            let holders = self.holders(name).await;
            if !holders.is_empty() {
                targets = holders;
            }
        }
        let outcomes = tokio::time::timeout(COMMAND_TIMEOUT, self.command_shards(name, &kind, targets)).await;
        outcomes.map_err(|_| CommandError::TimedOut)?.map_err(CommandError::Failed)
    }

    /// Tells an endpoint what the data plane saw.
    pub async fn tell(&self, shard: usize, fact: Fact) {
        if let Some(input) = self.inputs.get(shard) {
            let _ = input.send(Input::Fact(fact)).await;
        }
    }

    /// Tells every shard that this host's network has changed.
    pub async fn tell_network_change(&self, change: NetworkChange) {
        for input in self.inputs.iter() {
            let _ = input.send(Input::NetworkChanged(change)).await;
        }
    }

    /// Takes another configuration: the guard first, then connections by difference; untouched SAs stay up.
    ///
    /// # Errors
    /// If the data plane refuses.
    async fn take(&self, config: Config) -> anyhow::Result<()> {
        let before = self.config();
        let config = Arc::new(config);
        let data_plane = self.data_plane.clone();
        let policies = config.policy_set();
        if policies != before.policy_set() {
            tokio::task::spawn_blocking(move || data_plane.set_policies(policies)).await??;
        }
        self.observer.configure(Arc::clone(&config));
        for input in self.inputs.iter() {
            let _ = input.send(Input::Configure(Arc::clone(&config))).await;
        }
        Ok(())
    }

    /// Tells every shard to delete its SAs and end.
    pub async fn shutdown(&self) {
        for input in self.inputs.iter() {
            let _ = input.send(Input::Shutdown).await;
        }
    }

    /// Shards that hold IKE SAs of a connection.
    async fn holders(&self, name: &str) -> BTreeSet<usize> {
        let question = |reply| Input::Holds { connection: name.to_owned(), reply };
        let answers = self.ask_all(question).await.unwrap_or_default();
        answers.into_iter().enumerate().filter_map(|(shard, holds)| holds.then_some(shard)).collect()
    }

    async fn command_shards(
        &self,
        name: &str,
        kind: &CommandKind,
        targets: BTreeSet<usize>,
    ) -> Result<String, String> {
        let mut replies = Vec::new();
        for input in targets.into_iter().filter_map(|target| self.inputs.get(target)) {
            let (reply, outcome) = oneshot::channel();
            let command = Input::Command { connection: name.to_owned(), kind: kind.clone(), reply };
            let _ = input.send(command).await;
            replies.push(outcome);
        }
        let mut last = Err("the daemon is stopping".to_owned());
        for outcome in replies {
            match outcome.await.unwrap_or_else(|_| Err("the daemon is stopping".to_owned())) {
                Ok(done) if last.is_err() => last = Ok(done),
                Ok(_) => {}
                Err(cause) => return Err(cause),
            }
        }
        last
    }

    async fn ask_all<T>(&self, question: impl Fn(oneshot::Sender<T>) -> Input) -> Option<Vec<T>> {
        let ask = async {
            let mut answers = Vec::with_capacity(self.inputs.len());
            for input in self.inputs.iter() {
                let (reply, answer) = oneshot::channel();
                input.send(question(reply)).await.ok()?;
                answers.push(answer);
            }
            let mut answered = Vec::with_capacity(answers.len());
            for answer in answers {
                answered.push(answer.await.ok()?);
            }
            Some(answered)
        };
        tokio::time::timeout(ANSWER_TIMEOUT, ask).await.ok().flatten()
    }
}

impl Running for Gateway {
    fn config(&self) -> Arc<Config> {
        self.observer.config()
    }

    fn needs_restart(&self, config: &Config) -> Option<&'static str> {
        needs_restart(&self.observer.config(), config)
    }

    fn apply(&self, config: Config) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(self.take(config))
    }

    fn pulse(&self) -> BoxFuture<'_, Option<Pulse>> {
        Box::pin(Gateway::pulse(self))
    }

    fn snapshot(&self) -> BoxFuture<'_, Option<Snapshot>> {
        Box::pin(Gateway::snapshot(self))
    }

    fn data_plane(&self) -> DataPlaneReport {
        self.data_plane.report()
    }

    fn explain(&self, flow: &Flow, interface: Option<&str>) -> Explained {
        self.data_plane.explain(flow, interface).into()
    }

    fn capture(&self, options: TapOptions) -> Option<Capture> {
        self.data_plane.capture(options)
    }

    fn command(&self, name: String, kind: CommandKind) -> BoxFuture<'_, Result<String, CommandError>> {
        Box::pin(async move { Gateway::command(self, &name, kind).await })
    }

    fn is_forwarding(&self) -> bool {
        self.data_plane.is_running()
    }

    fn metrics(&self, snapshot: &Snapshot) -> String {
        self.observer.metrics().encode(snapshot)
    }
}

fn child_of(kind: &CommandKind) -> Option<&str> {
    match kind {
        CommandKind::Up { child } | CommandKind::Down { child } | CommandKind::RekeyChild { child } => {
            child.as_deref()
        }
        CommandKind::RekeyIke
        | CommandKind::SetEspPolicy { .. }
        | CommandKind::Redirect { .. }
        | CommandKind::Probe => None,
    }
}

/// The section that differs and is fixed at start.
fn needs_restart(before: &Config, after: &Config) -> Option<&'static str> {
    let (a, b) = (&before.data_plane, &after.data_plane);
    let checks = [
        (before.instance != after.instance, "instance"),
        (before.state_dir != after.state_dir, "state_dir"),
        (before.control != after.control, "control"),
        (before.api.listen != after.api.listen, "api.listen"),
        (before.metrics.listen != after.metrics.listen, "metrics.listen"),
        (before.log != after.log, "log"),
        (format!("{a:?}") != format!("{b:?}"), "data_plane"),
        (format!("{:?}", before.ike) != format!("{:?}", after.ike), "ike"),
    ];
    checks.into_iter().find(|(differs, _)| *differs).map(|(_, section)| section)
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownConnection(name) => write!(f, "no connection '{name}' is configured"),
            Self::UnknownChild(name) => write!(f, "the connection has no child '{name}'"),
            Self::Failed(cause) => f.write_str(cause),
            Self::TimedOut => {
                write!(f, "no outcome within {} s; it is still being tried", COMMAND_TIMEOUT.as_secs())
            }
        }
    }
}

impl std::error::Error for CommandError {}
