//! One endpoint that is all the initiators, on one UDP socket and a TCP stream for each tunnel that wants one.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use portcullis_ike::action::Action;
use portcullis_ike::command::{Command, CommandKind};
use portcullis_ike::config::EndpointConfig;
use portcullis_ike::endpoint::SpiSource;
use portcullis_ike::event::Event;
use portcullis_ike::path::StreamId;
use portcullis_ike::{Endpoint, Time};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::socket::Socket;
use super::{CHILD, Plan, Tally};
use crate::daemon::{Clock, Input, InputSender};
use crate::net::stream::{self, StreamHandle};

/// Inputs of streams that wait.
const QUEUE: usize = 4096;
/// Datagrams that are taken before others get their turn.
const BATCH: usize = 256;
/// ESP echo is announced by a number that no peer knows: there is no ESP here that could be asked for.
const NO_ECHO: u16 = 65_535;
/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Answers to DELETE are waited for so long.
const DRAIN: Duration = Duration::from_secs(10);

/// Sets all tunnels up, tells `progress` every second and `outcome` when each has one, holds them, and deletes their SAs.
///
/// # Errors
/// If no socket can be opened.
pub async fn run(
    plan: &Plan,
    mut progress: impl FnMut(&Tally),
    outcome: impl FnOnce(&Tally),
) -> Result<Tally> {
    let mut driver = Driver::new(plan)?;
    let mut told = Instant::now();
    while driver.tally.settled() < plan.tunnels {
        driver.start_due(plan);
        driver.settle();
        driver.wait(plan, told + TELL_EVERY).await;
        driver.settle();
        driver.tally.took = driver.began.elapsed();
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            progress(&driver.tally);
        }
    }
    outcome(&driver.tally);
    driver.spin(plan, Instant::now() + plan.hold).await;
    driver.endpoint.shutdown(driver.clock.now());
    driver.settle();
    driver.spin(plan, Instant::now() + DRAIN).await;
    Ok(driver.tally)
}

struct Driver {
    endpoint: Endpoint,
    clock: Clock,
    began: Instant,
    socket: Socket,
    streams: HashMap<StreamId, StreamHandle>,
    input: InputSender,
    inputs: mpsc::Receiver<Input>,
    starts: HashMap<u64, Instant>,
    tally: Tally,
}

impl Driver {
    fn new(plan: &Plan) -> Result<Self> {
        let (socket, local) = Socket::open(plan.peer, plan.local)?;
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)
            .map_err(|error| anyhow::anyhow!("no randomness from the system: {error}"))?;
        let clock = Clock::start();
        let config = EndpointConfig { tcp_listens: false, esp_echo_notify: NO_ECHO, ..Default::default() };
        let spis = Box::new(CountingSpis(0x100));
        let endpoint = Endpoint::new(config, plan.connections(local), spis, seed, clock.now());
        let (input, inputs) = mpsc::channel(QUEUE);
        Ok(Self {
            endpoint,
            clock,
            began: Instant::now(),
            socket,
            streams: HashMap::new(),
            input,
            inputs,
            starts: HashMap::new(),
            tally: Tally::default(),
        })
    }

    /// When the next tunnel may start, if any is left.
    fn next_start(&self, plan: &Plan) -> Option<Instant> {
        if self.tally.started >= plan.tunnels || self.tally.in_flight() >= plan.in_flight {
            return None;
        }
        let after = plan
            .rate
            .map_or(Duration::ZERO, |rate| Duration::from_secs_f64(self.tally.started as f64 / rate));
        Some(self.began + after)
    }

    fn start_due(&mut self, plan: &Plan) {
        while self.next_start(plan).is_some_and(|at| at <= Instant::now()) {
            let request = self.tally.started as u64;
            self.tally.started += 1;
            self.starts.insert(request, Instant::now());
            let kind = CommandKind::Up { child: Some(CHILD.to_owned()) };
            let command = Command { request, connection: request.to_string(), kind };
            self.endpoint.command(self.clock.now(), command);
            // What it sends leaves before the next one computes its keys.
            self.settle();
        }
    }

    /// Carries out what the endpoint asks for.
    fn settle(&mut self) {
        while let Some(action) = self.endpoint.poll_action() {
            match action {
                Action::SendDatagram { path, payload } => self.socket.send(path, payload),
                Action::Dial { stream, local, remote } => {
                    let handle = stream::dial(stream, local, remote, self.input.clone(), &Handle::current());
                    self.streams.insert(stream, handle);
                }
                Action::SendStream { stream, bytes } => {
                    if let Some(handle) = self.streams.get(&stream) {
                        let _ = handle.send(bytes);
                    }
                }
                Action::CloseStream { stream } => drop(self.streams.remove(&stream)),
                Action::Event(Event::CommandDone { request, result }) => self.done(request, result),
                _ => {}
            }
        }
        self.tally.retransmissions = self.endpoint.counters().retransmissions;
        self.socket.flush();
    }

    fn done(&mut self, request: u64, result: Result<String, String>) {
        let Some(start) = self.starts.remove(&request) else { return };
        match result {
            Ok(_) => self.tally.up.push(start.elapsed()),
            Err(cause) => *self.tally.failed.entry(cause).or_default() += 1,
        }
    }

    /// Takes what comes, until something has or a time is over.
    async fn wait(&mut self, plan: &Plan, until: Instant) {
        let timeout = self.endpoint.poll_timeout().map(|time| self.clock.instant(time));
        let start = self.next_start(plan).map(tokio::time::Instant::from);
        let deadline =
            [timeout, start, Some(until.into())].into_iter().flatten().min().unwrap_or(until.into());
        tokio::select! {
            ready = self.socket.readable() => {
                if ready.is_ok() {
                    self.receive();
                }
            }
            ready = self.socket.writable(), if self.socket.is_full() => {
                if ready.is_ok() {
                    self.socket.flush();
                }
            }
            Some(input) = self.inputs.recv() => self.take(input),
            () = tokio::time::sleep_until(deadline) => {
                let now = self.clock.now();
                if self.endpoint.poll_timeout().is_some_and(|due| due <= now) {
                    self.endpoint.handle_timeout(now);
                }
            }
        }
    }

    fn receive(&mut self) {
        self.socket.discard_errors();
        for _ in 0..BATCH {
            let Some((path, payload)) = self.socket.receive() else { break };
            self.endpoint.handle_datagram(self.clock.now(), path, payload);
            self.settle();
        }
    }

    fn take(&mut self, input: Input) {
        let now: Time = self.clock.now();
        match input {
            Input::StreamUp { stream, local, remote } => {
                self.endpoint.handle_stream_up(now, stream, local, remote);
            }
            Input::StreamBytes { stream, bytes } => self.endpoint.handle_stream_bytes(now, stream, &bytes),
            Input::StreamDown { stream, cause } => {
                self.streams.remove(&stream);
                self.endpoint.handle_stream_down(now, stream, cause);
            }
            // Streams say nothing else.
            _ => {}
        }
    }

    /// Takes what comes until then, or until no SA is left.
    async fn spin(&mut self, plan: &Plan, end: Instant) {
        while !self.endpoint.is_drained() && Instant::now() < end {
            self.wait(plan, end).await;
            self.settle();
        }
    }
}

/// SPIs that nothing is installed for.
struct CountingSpis(u32);

impl SpiSource for CountingSpis {
    fn allocate(&mut self) -> Option<u32> {
        self.0 = self.0.checked_add(1)?;
        Some(self.0)
    }

    fn release(&mut self, _spi: u32) {}
}
