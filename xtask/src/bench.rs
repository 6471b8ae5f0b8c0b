//! `cargo xtask bench`: the suites of every crate in one run, their figures in one file.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;

use crate::workspace;

/// Runs benchmark suites.
#[derive(Args, Debug)]
pub struct Bench {
    /// Only this suite.
    suite: Option<String>,
    /// Write all figures to this file, an array of objects.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A suite is a bench target of its name in the crate that it measures. It prints its table, takes `--json FILE`
/// and writes the array there.
struct Suite {
    name: &'static str,
    package: &'static str,
}

const SUITES: &[Suite] = &[
    Suite { name: "esp", package: "portcullis-esp" },
    Suite { name: "handshake", package: "portcullis-ike" },
    Suite { name: "memory", package: "portcullis-control-plane" },
];

impl Bench {
    /// Runs it.
    ///
    /// # Errors
    /// If there is no such suite, or one fails.
    pub fn run(self) -> Result<()> {
        let known: Vec<_> = SUITES.iter().map(|suite| suite.name).collect();
        if let Some(name) = &self.suite {
            anyhow::ensure!(
                known.contains(&name.as_str()),
                "no suite {name}; there are {}",
                known.join(", ")
            );
        }
        let directory = workspace::target_directory()?.join("bench");
        std::fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
        let mut figures = Vec::new();
        for suite in SUITES.iter().filter(|s| self.suite.as_deref().is_none_or(|name| name == s.name)) {
            figures.extend(suite.run(&directory)?);
        }
        if let Some(file) = self.json {
            let text = serde_json::to_string_pretty(&Value::Array(figures))?;
            std::fs::write(&file, text + "\n").with_context(|| format!("writing {}", file.display()))?;
        }
        Ok(())
    }
}

impl Suite {
    fn run(&self, directory: &Path) -> Result<Vec<Value>> {
        println!("\n=== {}", self.name);
        let file = directory.join(self.name).with_extension("json");
        workspace::run(
            workspace::cargo()
                .args(["bench", "--quiet", "--package", self.package, "--bench", self.name, "--", "--json"])
                .arg(&file),
        )?;
        let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no array of figures", file.display()))
    }
}
