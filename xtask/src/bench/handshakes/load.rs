//! `portcullis bench ike`, in the namespace of the gateway that is all the sites.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use portcullis_vm_tests::{Artefacts, Process, Side};
use serde_json::Value;

use super::responder::{Responder, SITES};

/// How long a run may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(600);
/// The SAs of a run that is over stay until they are deleted on purpose.
const HELD_SECONDS: &str = "3600";

/// So many tunnels, most at the same time.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub tunnels: u32,
    pub in_flight: u32,
}

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    tunnels: u32,
    cpu: Duration,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

impl Outcome {
    /// Handshakes in a second of the responder's processor time.
    pub fn per_cpu_second(&self) -> f64 {
        f64::from(self.tunnels) / self.cpu.as_secs_f64()
    }
}

impl Load {
    /// Sets all tunnels up and deletes them.
    ///
    /// # Errors
    /// If one does not come up.
    pub fn run(self, responder: &Responder, proposal: &str, artefacts: &Artefacts) -> Result<Outcome> {
        let (process, outcome) = self.set_up(responder, proposal, artefacts, "0")?;
        process.wait(LIMIT).context("the load generator does not end")?;
        Ok(outcome)
    }

    /// Sets all tunnels up. They are there until the process is dropped.
    ///
    /// # Errors
    /// If one does not come up.
    pub fn hold(self, responder: &Responder, proposal: &str, artefacts: &Artefacts) -> Result<Process> {
        Ok(self.set_up(responder, proposal, artefacts, HELD_SECONDS)?.0)
    }

    fn set_up(
        self,
        responder: &Responder,
        proposal: &str,
        artefacts: &Artefacts,
        hold: &str,
    ) -> Result<(Process, Outcome)> {
        let mut command = Command::new(&artefacts.binary);
        command.args(["bench", "ike", "--peer", &Side::B.wan().0.to_string(), "--from", SITES]);
        command.args(["--tunnels", &self.tunnels.to_string(), "--in-flight", &self.in_flight.to_string()]);
        command.args(["--proposal", proposal, "--id", "site-{}", "--remote-id", "gateway"]);
        command.args(["--remote-ts", Side::B.inner()[0], "--hold", hold, "--json"]);
        command.arg("--secret-file").arg(responder.secret());
        let before = responder.cpu()?;
        let process = Process::start(responder.sites(), &mut command)?;
        let line = process.wait_for_line(LIMIT, |line| line.starts_with('{'));
        let cpu = responder.cpu()?.checked_sub(before).context("processor time goes on")?;
        let line = line.with_context(|| format!("no outcome:\n{}", process.output().join("\n")))?;
        let said: Value = serde_json::from_str(&line)?;
        ensure!(said["up"] == self.tunnels, "not every tunnel is up: {said}\n{}", responder.log_tail());
        let quantile = |name: &str| said["latency"][name].as_f64().map(|seconds| seconds * 1000.0);
        let (p50_ms, p99_ms) = quantile("p50").zip(quantile("p99")).context("latencies")?;
        eprintln!(
            "{} tunnels: {:.0} a second, {} requests sent again",
            self.tunnels,
            said["per_second"].as_f64().unwrap_or(f64::NAN),
            said["retransmissions"]
        );
        Ok((process, Outcome { tunnels: self.tunnels, cpu, p50_ms, p99_ms }))
    }
}
