//! `cargo xtask bench`: the suites of every crate in one run, their figures in one file.

mod figure;
mod handshakes;
mod memory;
mod plots;
mod priority;
mod schema;
mod scrape;
mod soak;
mod tunnel;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;

use crate::{build_ebpf, workspace};

/// Runs benchmark suites.
#[derive(Args, Debug)]
pub struct Bench {
    /// Only this suite: esp, ike, handshakes, standing, esp-in-tcp, worker, xdp, scale, tunnel, gateway, flood, memory, scrape or soak.
    suite: Option<String>,
    /// Write all figures to this file, an array of objects.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw what the suites `tunnel` and `worker` say into this directory, as SVG.
    #[arg(long, value_name = "DIRECTORY")]
    plots: Option<PathBuf>,
}

struct Suite {
    name: &'static str,
    what: &'static str,
    run: fn(&Path) -> Result<Value>,
}

/// Suites that would take the run of all others past a quarter of an hour.
const BY_NAME_ONLY: [&str; 2] = ["standing", "soak"];

const SUITES: &[Suite] = &[
    Suite {
        name: "esp",
        what: "seal and open against the bare AEAD call",
        run: |json| program("portcullis-esp", "esp", &[], json),
    },
    Suite {
        name: "ike",
        what: "handshakes of a responder in a second of its thread's processor time",
        run: |json| program("portcullis-ike", "ike", &[], json),
    },
    Suite {
        name: "handshakes",
        what: "a running responder and strongSwan: handshakes and their latency",
        run: |_| handshakes::run(),
    },
    Suite {
        name: "standing",
        what: "50 000 IKE SAs that do nothing in a running responder: memory, processor time, time to stop; only by its name",
        run: |_| handshakes::run_standing(),
    },
    Suite {
        name: "esp-in-tcp",
        what: "one TCP flow through two data planes, ESP in TCP against ESP in UDP",
        run: esp_in_tcp,
    },
    Suite {
        name: "worker",
        what: "the worker loop on rings in memory, beside the AEAD call",
        run: |json| program("portcullis-data-plane", "worker", &["root-tests"], json),
    },
    Suite {
        name: "xdp",
        what: "the XDP programs, run by the kernel on frames, beside one that only drops",
        run: xdp,
    },
    Suite {
        name: "scale",
        what: "SA table and policies with up to a million SAs, and a rekey storm under traffic",
        run: scale,
    },
    Suite {
        name: "tunnel",
        what: "TCP and UDP from host to host through two gateways, against boringtun and strongSwan's user-space ESP",
        run: |_| tunnel::run(),
    },
    Suite {
        name: "gateway",
        what: "one worker between two AF_XDP interfaces, beside the same rings without its work",
        run: gateway,
    },
    Suite {
        name: "flood",
        what: "one TCP flow through two data planes beside floods from outside",
        run: flood,
    },
    Suite {
        name: "memory",
        what: "what an established IKE SA with one Child SA keeps in a running daemon",
        run: |_| memory::run(),
    },
    Suite {
        name: "scrape",
        what: "/metrics of a running gateway with ten thousand connections",
        run: |_| scrape::run(),
    },
    Suite {
        name: "soak",
        what: "ten minutes at full rate with a rekey every five seconds: loss, leaks, books; only by its name",
        run: |_| soak::run(),
    },
];

impl Bench {
    /// Runs it. A goal that is missed is a figure, not an error.
    ///
    /// # Errors
    /// If there is no such suite, or one fails.
    pub fn run(self) -> Result<()> {
        let wanted = |suite: &&Suite| match self.suite.as_deref() {
            Some(name) => name == suite.name,
            None => !BY_NAME_ONLY.contains(&suite.name),
        };
        let suites: Vec<_> = SUITES.iter().filter(wanted).collect();
        let names: Vec<_> = SUITES.iter().map(|suite| suite.name).collect();
        anyhow::ensure!(!suites.is_empty(), "there are the suites {}", names.join(", "));
        let directory = workspace::target_directory()?.join("bench");
        std::fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
        let _priority = priority::before_others();
        let (mut figures, mut times) = (Vec::new(), Vec::new());
        for suite in suites {
            println!("\n=== {}: {}", suite.name, suite.what);
            let began = Instant::now();
            let of_suite = (suite.run)(&directory.join(suite.name).with_extension("json"))?;
            times.push((suite.name, began.elapsed()));
            schema::check(suite.name, &of_suite)?;
            figures.extend(of_suite.as_array().into_iter().flatten().cloned());
        }
        print_times(&times);
        if let Some(directory) = self.plots {
            plots::write(&directory, &figures)?;
        }
        if let Some(file) = self.json {
            let text = serde_json::to_string_pretty(&Value::Array(figures))?;
            std::fs::write(&file, text + "\n").with_context(|| format!("writing {}", file.display()))?;
        }
        Ok(())
    }
}

/// How long each suite took, what it had to build included.
fn print_times(times: &[(&str, Duration)]) {
    println!("\n=== seconds");
    let total = times.iter().map(|(_, time)| *time).sum();
    for (name, time) in times.iter().chain(&[("all", total)]) {
        println!("{name:<12} {:>6.0}", time.as_secs_f64());
    }
}

/// A suite that is a bench target of the crate it measures: it prints its table and takes `--json FILE`.
fn program(package: &str, target: &str, features: &[&str], json: &Path) -> Result<Value> {
    let mut cargo = workspace::cargo();
    cargo.args(["bench", "--quiet", "--package", package, "--bench", target]);
    cargo.args(features.iter().flat_map(|feature| ["--features", feature]));
    workspace::run(cargo.args(["--", "--json"]).arg(json))?;
    let text = std::fs::read_to_string(json).with_context(|| format!("reading {}", json.display()))?;
    serde_json::from_str(&text).with_context(|| format!("parsing {}", json.display()))
}

fn xdp(json: &Path) -> Result<Value> {
    build_ebpf::run()?;
    program("portcullis-data-plane", "xdp", &["root-tests"], json)
}

fn scale(json: &Path) -> Result<Value> {
    build_ebpf::run()?;
    program("portcullis-data-plane", "scale", &["root-tests"], json)
}

fn gateway(json: &Path) -> Result<Value> {
    build_ebpf::run()?;
    program("portcullis-data-plane", "gateway", &["root-tests"], json)
}

fn flood(json: &Path) -> Result<Value> {
    build_ebpf::run()?;
    program("portcullis-data-plane", "flood", &["root-tests"], json)
}

fn esp_in_tcp(json: &Path) -> Result<Value> {
    build_ebpf::run()?;
    program("portcullis-data-plane", "esp_in_tcp", &["root-tests"], json)
}
