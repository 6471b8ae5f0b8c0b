//! One gateway: the daemon's process, its files, and what it says about itself.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::api::{ApiAnswer, receive, send};
use crate::cleanup::{Cleanup, guarded};
use crate::daemon_config::DaemonConfig;
use crate::events::EventReader;
use crate::instance::Instance;
use crate::kernel::Kernel;
use crate::metrics::{Metrics, get};
use crate::netns::Namespace;
use crate::notify::NotifySocket;
use crate::process::{Exit, Process};
use crate::status::{Accounting, ConnectionStatus, Status};
use crate::wait::until;

/// How long a daemon may take to say that it is ready, on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// How long a daemon may take to end after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// How long after the last packet the sums may disagree.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// A gateway whose daemon runs, or can be started. Dropping it kills the daemon and removes its guard, pins
/// and files. Before, and before [`Gateway::stop`], the daemon's books have to balance ([`Gateway::drained`]): traffic
/// has to have ended then.
#[derive(Debug)]
pub struct Gateway {
    namespace: Namespace,
    binary: PathBuf,
    name: String,
    directory: PathBuf,
    config: PathBuf,
    metrics: SocketAddr,
    checks_books: bool,
    kernel: Kernel,
    process: Option<Process>,
    events: OnceLock<EventReader>,
    cleanup: Option<Cleanup>,
}

impl Gateway {
    /// Prepares a gateway named `name` within `instance`; its daemon is not started yet.
    ///
    /// `config` is changed where it says what exists once per machine: instance name, state directory and
    /// control socket.
    ///
    /// # Errors
    /// If its files cannot be written.
    pub fn new(
        instance: &Instance,
        namespace: &Namespace,
        name: &str,
        binary: &Path,
        config: DaemonConfig,
    ) -> Result<Self> {
        let directory = instance.directory().join(name);
        let name = instance.name_of(name);
        let metrics = config
            .text("metrics/listen")
            .context("the configuration has no metrics listener")?
            .parse()
            .context("parsing metrics.listen")?;
        let undo = {
            let (namespace, binary, name) = (namespace.clone(), binary.to_owned(), name.clone());
            move || release(&namespace, &binary, &name)
        };
        let (_, cleanup) = guarded(undo, || std::fs::create_dir_all(&directory))?;
        let gateway = Self {
            namespace: namespace.clone(),
            binary: binary.to_owned(),
            config: directory.join("portcullis.yaml"),
            name,
            directory,
            metrics,
            checks_books: true,
            kernel: Kernel::AsItIs,
            process: None,
            events: OnceLock::new(),
            cleanup: Some(cleanup),
        };
        gateway.configure(config)?;
        Ok(gateway)
    }

    /// Leaves it to the caller whether the books balance in the end, for one who reports it in words of its own.
    pub fn leave_books(&mut self) {
        self.checks_books = false;
    }

    /// Writes another configuration, for the next start or SIGHUP.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn configure(&self, config: DaemonConfig) -> Result<()> {
        let path = |file: &str| self.directory.join(file).display().to_string();
        config
            .with("instance", self.name.as_str())
            .with("state_dir", path("state"))
            .with("control/socket", path("control.sock"))
            .write(&self.config)
    }

    /// The daemon starts as if on this kernel from now on.
    pub fn run_on(&mut self, kernel: Kernel) {
        self.kernel = kernel;
    }

    /// Starts the daemon and waits until it is ready.
    ///
    /// # Errors
    /// If it ends or does not become ready in time; the error holds its output.
    pub fn start(&mut self) -> Result<()> {
        self.start_with(&[])
    }

    /// Like [`Gateway::start`], with the output in [`Gateway::log_file`], for a daemon that outlives this
    /// process.
    ///
    /// # Errors
    /// As those of [`Gateway::start`].
    pub fn start_detached(&mut self) -> Result<()> {
        let notify = self.notify_socket()?;
        let log = self.log_file();
        let mut command = self.command(&[]);
        command.env("NOTIFY_SOCKET", notify.path());
        let process = Process::start_logging(&self.namespace, &mut command, &log)?;
        let ready = notify.wait_ready(&process, READY_LIMIT);
        self.process = Some(process);
        ready.with_context(|| std::fs::read_to_string(log).unwrap_or_default())
    }

    /// Like [`Gateway::start`] with more arguments.
    ///
    /// # Errors
    /// As those of [`Gateway::start`].
    pub fn start_with(&mut self, arguments: &[&str]) -> Result<()> {
        let command = self.command(arguments);
        self.start_notifying(command).map(drop)
    }

    /// Like [`Gateway::start`] as a service with a watchdog; returns the socket on which the daemon goes on to give signs
    /// of life. Read it: a full one stops the daemon.
    ///
    /// # Errors
    /// As those of [`Gateway::start`].
    pub fn start_watched(&mut self, watchdog: Duration) -> Result<NotifySocket> {
        let mut command = self.command(&[]);
        command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        self.start_notifying(command)
    }

    fn start_notifying(&mut self, mut command: Command) -> Result<NotifySocket> {
        let notify = self.notify_socket()?;
        command.env("NOTIFY_SOCKET", notify.path());
        let process = Process::start_on(self.kernel, &self.namespace, &mut command)?;
        let ready = notify.wait_ready(&process, READY_LIMIT);
        self.process = Some(process);
        ready.with_context(|| self.name.clone())?;
        Ok(notify)
    }

    /// Starts the daemon where it is expected to fail, and returns its exit and its output.
    ///
    /// # Errors
    /// If it still runs after `limit`.
    pub fn start_failing(&self, limit: Duration) -> Result<(Exit, String)> {
        self.run_failing(&mut self.command(&[]), limit)
    }

    /// Like [`Gateway::start_failing`], as root without any capability.
    ///
    /// # Errors
    /// As those of [`Gateway::start_failing`].
    pub fn start_without_privilege(&self, limit: Duration) -> Result<(Exit, String)> {
        let daemon = self.command(&[]);
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-all", "--inh-caps=-all", "--"]);
        command.arg(daemon.get_program()).args(daemon.get_args());
        self.run_failing(&mut command, limit)
    }

    fn run_failing(&self, command: &mut Command, limit: Duration) -> Result<(Exit, String)> {
        let process = Process::start(&self.namespace, command)?;
        match process.wait(limit) {
            Some(exit) => Ok((exit, process.output().join("\n"))),
            None => bail!("{} still runs after {limit:?}:\n{}", self.name, process.output().join("\n")),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("run").arg("--config").arg(&self.config).args(arguments);
        command
    }

    fn notify_socket(&self) -> Result<NotifySocket> {
        NotifySocket::bind(&self.directory.join("notify.sock"))
    }

    /// Ends the daemon with SIGTERM and waits for it.
    ///
    /// # Errors
    /// If it does not run, its books do not balance, or it ends with an error, or not at all.
    pub fn stop(&mut self) -> Result<()> {
        if self.checks_books {
            self.drained()?;
        }
        let process = self.take_process()?;
        process.signal(Signal::SIGTERM)?;
        match process.wait(STOP_LIMIT) {
            Some(Exit::Status(0)) => Ok(()),
            Some(exit) => bail!("{} ended with {exit:?}:\n{}", self.name, tail(&process)),
            None => bail!("{} did not end within {STOP_LIMIT:?} of SIGTERM:\n{}", self.name, tail(&process)),
        }
    }

    /// Ends the daemon with SIGKILL and waits for it.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill(&mut self) -> Result<()> {
        let process = self.take_process()?;
        process.signal(Signal::SIGKILL)?;
        process.wait(STOP_LIMIT).context("a killed process ends")?;
        Ok(())
    }

    /// Its events stream ends with it.
    fn take_process(&mut self) -> Result<Process> {
        drop(self.events.take());
        self.process.take().context("the daemon does not run")
    }

    /// Sends a signal to the daemon.
    ///
    /// # Errors
    /// If it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.as_ref().context("the daemon does not run")?.signal(signal)
    }

    /// Runs another verb of the binary on this gateway's control socket and returns what it prints.
    ///
    /// # Errors
    /// If it fails; the error holds what it says.
    pub fn verb(&self, arguments: &[&str]) -> Result<String> {
        let socket = self.directory.join("control.sock").display().to_string();
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--socket", &socket]).collect();
        self.namespace.run(&self.binary, &arguments)
    }

    /// Sends a request to its control socket and returns the answer, whatever it is. `headers` are lines with their ends.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn api(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &serde_json::Value,
    ) -> Result<ApiAnswer> {
        let socket = self.directory.join("control.sock");
        receive(send(&socket, method, path, headers, body)?).with_context(|| self.name.clone())
    }

    /// Its events, from the oldest that the daemon keeps on.
    pub fn events(&self) -> &EventReader {
        self.events.get_or_init(|| EventReader::follow(&self.directory.join("control.sock")))
    }

    /// What the daemon says about itself.
    ///
    /// # Errors
    /// If it does not answer, or not in the form that is documented.
    pub fn status(&self) -> Result<Status> {
        let text = self.verb(&["status", "--json"])?;
        serde_json::from_str(&text).with_context(|| format!("reading the status of {}:\n{text}", self.name))
    }

    /// Waits until every packet that came in went out or has a drop reason, those that the kernel dropped on the way to
    /// an AF_XDP socket included, and returns the status then.
    ///
    /// # Errors
    /// If the sums do not agree 10 s after traffic has ended.
    pub fn drained(&self) -> Result<Status> {
        let mut last = None;
        let drained = until(DRAIN_LIMIT, || {
            let status = self.status();
            let balanced = status.as_ref().is_ok_and(Status::is_balanced);
            last = Some(status);
            if balanced { last.take() } else { None }
        });
        match (drained, last) {
            (Some(status), _) => status,
            (None, Some(Ok(status))) => {
                let Accounting { received, sent, dropped, held } = status.data_plane.accounting;
                let missing = received as i128 - sent as i128 - dropped as i128 - held as i128;
                let (redirected, taken) = status.af_xdp();
                bail!(
                    "{}: received {received}, sent {sent}, dropped {dropped}, waiting {held}: {missing} without a trace; \
                     XDP redirected {redirected}, of which {taken} were taken or counted as dropped; {:?}",
                    self.name,
                    status.data_plane.drops
                )
            }
            (None, other) => other.context("no status was read")?,
        }
    }

    /// The status of one connection.
    ///
    /// # Errors
    /// Also if it is not configured.
    pub fn connection(&self, name: &str) -> Result<ConnectionStatus> {
        let status = self.status()?;
        status.connection(name).cloned().with_context(|| format!("{}: no connection {name}", self.name))
    }

    /// Waits until the connection is as `wanted`.
    ///
    /// # Errors
    /// If it is not within `limit`; the error holds its last status and the daemon's output.
    pub fn wait_connection(
        &self,
        name: &str,
        limit: Duration,
        wanted: impl Fn(&ConnectionStatus) -> bool,
    ) -> Result<ConnectionStatus> {
        let mut last = None;
        let found = until(limit, || {
            let connection = self.connection(name);
            let good = connection.as_ref().is_ok_and(&wanted);
            last = Some(connection);
            if good { last.take() } else { None }
        });
        match found {
            Some(connection) => connection,
            None => bail!("{}: {name} after {limit:?}: {last:#?}\n{}", self.name, self.log_tail()),
        }
    }

    /// Scrapes its metrics.
    ///
    /// # Errors
    /// If the listener does not answer.
    pub fn metrics(&self) -> Result<Metrics> {
        Metrics::scrape(&self.namespace, self.metrics).with_context(|| self.name.clone())
    }

    /// Where its metrics are, inside its namespace.
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics
    }

    /// The body of another path of the metrics listener.
    ///
    /// # Errors
    /// If the answer is not 200.
    pub fn http(&self, path: &str) -> Result<String> {
        get(&self.namespace, self.metrics, path)
    }

    /// Removes its guard and pins, as an operator does who gives a gateway up.
    ///
    /// # Errors
    /// If the daemon still runs, or the binary refuses.
    pub fn release(&self) -> Result<()> {
        anyhow::ensure!(self.process.is_none(), "{} still runs", self.name);
        self.namespace.run(&self.binary, &["release", "--instance", &self.name]).map(drop)
    }

    /// Restores its guard, as `portcullis-guard.service` does before the network is up.
    ///
    /// # Errors
    /// If the binary refuses.
    pub fn guard_restore(&self) -> Result<()> {
        let config = self.config.display().to_string();
        self.namespace.run(&self.binary, &["guard-restore", "--config", &config]).map(drop)
    }

    /// Its configuration as it is now.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn configuration(&self) -> Result<DaemonConfig> {
        DaemonConfig::read(&self.config)
    }

    /// Its configuration file.
    pub fn config_file(&self) -> &Path {
        &self.config
    }

    /// The running daemon.
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// The last lines of the daemon's log.
    pub fn log_tail(&self) -> String {
        self.process.as_ref().map_or_else(|| format!("{} does not run", self.name), tail)
    }

    /// Its namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The daemon's instance name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its directory: configuration, state, sockets.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where [`Gateway::start_detached`] puts the daemon's output.
    pub fn log_file(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// Leaves the daemon running when this value is dropped.
    pub fn keep(mut self) {
        if let Some(process) = self.process.take() {
            process.keep();
        }
        if let Some(cleanup) = self.cleanup.take() {
            cleanup.disarm();
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let runs = self.process.as_ref().is_some_and(|process| process.exit().is_none());
        if self.checks_books
            && runs
            && !std::thread::panicking()
            && let Err(error) = self.drained()
        {
            panic!("{error:#}");
        }
    }
}

fn tail(process: &Process) -> String {
    const LINES: usize = 40;
    let output = process.output();
    output[output.len().saturating_sub(LINES)..].join("\n")
}

/// Best effort: the namespace goes next, and what remains is reported by [`Instance::remains`].
fn release(namespace: &Namespace, binary: &Path, name: &str) {
    if let Err(e) = namespace.run(binary, &["release", "--instance", name]) {
        eprintln!("{name}: {e:#}");
    }
}
