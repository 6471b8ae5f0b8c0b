//! A real Prometheus that scrapes a gateway from beside it, and Debian's `promtool`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::instance::Instance;
use crate::metrics::get;
use crate::netns::Namespace;
use crate::process::Process;
use crate::wait::until;

/// Job that its targets have.
pub const JOB: &str = "portcullis";
/// Where `cargo xtask setup` unpacks the package.
const UNPACKED: &str = "../target/tools/prometheus/usr/bin";
const READY_LIMIT: Duration = Duration::from_secs(30);

/// A running Prometheus; dropping it kills it, and its files go with the instance.
#[derive(Debug)]
pub struct Prometheus {
    namespace: Namespace,
    address: SocketAddr,
    process: Process,
}

/// What an expression gives now: the value of each series by its labels, without series that are not a number.
pub type Answer = BTreeMap<String, String>;

#[derive(Deserialize)]
struct Response {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    result: Vec<Sample>,
}

#[derive(Deserialize)]
struct Sample {
    metric: BTreeMap<String, String>,
    value: (f64, String),
}

impl Prometheus {
    /// Starts one inside `namespace` that scrapes `targets` twice a second and evaluates the rules of `rules` every
    /// second; waits until it is ready.
    ///
    /// # Errors
    /// If the program is missing, refuses the rules, or does not become ready.
    pub fn start(
        instance: &Instance,
        namespace: &Namespace,
        targets: &[SocketAddr],
        rules: &Path,
    ) -> Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], 9090));
        let directory = instance.directory().join("prometheus");
        std::fs::create_dir_all(&directory)?;
        let targets: Vec<_> = targets.iter().map(|target| format!("'{target}'")).collect();
        let config = directory.join("prometheus.yml");
        let text = format!(
            "global: {{ scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 1s }}\n\
             rule_files: ['{}']\n\
             scrape_configs: [{{ job_name: {JOB}, static_configs: [{{ targets: [{}] }}] }}]\n",
            rules.canonicalize()?.display(),
            targets.join(", ")
        );
        std::fs::write(&config, text)?;
        let mut command = Command::new(program("prometheus")?);
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .args(["--storage.tsdb.retention.time=1h", "--log.level=warn"]);
        let process = Process::start(namespace, &mut command)?;
        let prometheus = Self { namespace: namespace.clone(), address, process };
        let ready = || get(&prometheus.namespace, address, "/-/ready").ok();
        until(READY_LIMIT, ready).with_context(|| prometheus.process.output().join("\n"))?;
        Ok(prometheus)
    }

    /// What an expression gives now.
    ///
    /// # Errors
    /// If Prometheus does not answer or refuses the expression.
    pub fn query(&self, expression: &str) -> Result<Answer> {
        let encoded: String = expression
            .bytes()
            .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
            .collect();
        let text = get(&self.namespace, self.address, &format!("/api/v1/query?query={encoded}"))
            .with_context(|| expression.to_owned())?;
        let response: Response = serde_json::from_str(&text).with_context(|| text.clone())?;
        let numbers = response.data.result.into_iter().filter(|sample| sample.value.1 != "NaN");
        Ok(numbers.map(|sample| (format!("{:?}", sample.metric), sample.value.1)).collect())
    }
}

/// Where a program of the package is.
///
/// # Errors
/// If it is neither in `PATH` nor unpacked.
pub fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join(UNPACKED);
    std::env::split_paths(&path)
        .chain([unpacked])
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
        .with_context(|| format!("there is no {name}; `cargo xtask setup` unpacks it"))
}
