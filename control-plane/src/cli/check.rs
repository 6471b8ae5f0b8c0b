//! `portcullis check`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::config::{self, Problem, Secrets};

/// Validate a configuration without running it: every error with file, line, column and key.
#[derive(Debug, Args)]
pub struct Check {
    /// The configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Do not read the secrets: for the configuration of another host.
    #[arg(long)]
    without_secrets: bool,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    valid: bool,
    file: String,
    connections: Vec<&'a str>,
    errors: &'a [Problem],
    warnings: &'a [Problem],
}

impl Check {
    /// Prints what is found; success if the configuration would be accepted.
    pub fn run(&self) -> ExitCode {
        let secrets = if self.without_secrets { Secrets::Skip } else { Secrets::of_this_process() };
        let file = self.config.display().to_string();
        let result = config::load(&self.config, None, &secrets);
        let report = match &result {
            Ok(checked) => Report {
                valid: true,
                file,
                connections: checked
                    .config
                    .connections
                    .iter()
                    .map(|connection| &*connection.ike.name)
                    .collect(),
                errors: &[],
                warnings: &checked.warnings,
            },
            Err(refused) => Report {
                valid: false,
                file,
                connections: Vec::new(),
                errors: &refused.errors,
                warnings: &refused.warnings,
            },
        };
        if self.json {
            println!("{}", serde_json::to_string_pretty(&report).unwrap_or_default());
        } else {
            for problem in report.errors.iter().chain(report.warnings) {
                eprintln!("{}:{problem}", report.file);
            }
            if report.valid {
                let count = report.connections.len();
                println!("{}: valid, {count} connection{}", report.file, if count == 1 { "" } else { "s" });
            }
        }
        if report.valid { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
