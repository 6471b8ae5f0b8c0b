//! The command line.

mod bench;
mod capture;
mod check;
mod connection;
mod explain;
mod gateway;
mod guard_restore;
mod pki;
mod place;
mod policy;
mod release;
mod top;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::config::LogConfig;
use crate::{daemon, logging};

/// An IPsec gateway that keeps IKE on TCP and ESP out of it.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a gateway in the foreground.
    Run(Run),
    /// Validate a configuration without running it.
    Check(check::Check),
    /// Show how every connection travels, and why.
    Status(connection::Status),
    /// Show what would become of a packet, and why.
    Explain(explain::Explain),
    /// Show what the workers do, again and again.
    Top(top::Top),
    /// Bring a connection up and wait for the outcome.
    Up(connection::UpOrDown),
    /// Take a connection down; its traffic stays shut.
    Down(connection::UpOrDown),
    /// Change the keys of a Child SA or the IKE SA.
    Rekey(connection::Rekey),
    /// Find out which carriers pass ESP now.
    Probe(connection::Probe),
    /// Send the peers of a connection to another gateway.
    Redirect(connection::Redirect),
    /// Show or override what happens when ESP is blocked.
    Policy(policy::Policy),
    /// Show what happens, as it happens.
    Events(gateway::Events),
    /// Write packets to a file as the workers see them, in clear and as ESP.
    Capture(capture::Capture),
    /// Read the configuration file again, or show what that would change.
    Reload(gateway::Reload),
    /// Put the guard of a gateway back as it was, before the daemon starts.
    GuardRestore(guard_restore::GuardRestore),
    /// Make an authority, certificates and requests for a quick start.
    Pki(pki::Pki),
    /// Measure a gateway from outside.
    Bench(bench::Bench),
    /// Give a gateway up: remove its guard and pinned programs. Its traffic is no longer protected.
    Release(release::Release),
}

/// Run a gateway in the foreground.
#[derive(Debug, Args)]
struct Run {
    /// The configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Replaces `instance:` of the configuration.
    #[arg(long, value_name = "NAME", value_parser = instance_name)]
    instance: Option<String>,
    /// Write the keys of every SA there as Wireshark reads them. Whoever reads them reads the traffic.
    #[arg(long, value_name = "DIR")]
    keylog: Option<PathBuf>,
}

/// Parses the command line and does what it says.
///
/// # Errors
/// Those of the verb.
pub fn run() -> Result<ExitCode> {
    match Cli::parse().verb {
        Verb::Run(Run { config, instance, keylog }) => {
            daemon::run(&daemon::Run { config, instance, key_log: keylog })?;
        }
        Verb::Check(check) => return Ok(check.run()),
        Verb::Status(status) => status.run()?,
        Verb::Explain(explain) => explain.run()?,
        Verb::Top(top) => top.run()?,
        Verb::Up(up) => up.run("up")?,
        Verb::Down(down) => down.run("down")?,
        Verb::Rekey(rekey) => rekey.run()?,
        Verb::Probe(probe) => probe.run()?,
        Verb::Redirect(redirect) => redirect.run()?,
        Verb::Policy(policy) => policy.run()?,
        Verb::Events(events) => events.run()?,
        Verb::Capture(capture) => capture.run()?,
        Verb::Reload(reload) => reload.run()?,
        Verb::GuardRestore(restore) => restore.run()?,
        Verb::Pki(pki) => pki.run()?,
        Verb::Bench(bench) => return bench.run(),
        Verb::Release(release) => {
            logging::start(LogConfig::default());
            release.run()?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn instance_name(text: &str) -> Result<String, String> {
    crate::config::name(text).map(str::to_owned)
}
