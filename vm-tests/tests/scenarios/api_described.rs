//! Requests made from the API's description, good and bad, against a real daemon: no answer that the description does not
//! know, no server error, no way around authentication. The time is bounded.

use std::process::Command;

use portcullis_vm_tests::Process;

use crate::api::{LISTEN, TOKEN, alone, with_tls};
use crate::{artefacts, *};

/// How long requests are made up.
const BUDGET: &str = "60";
/// How long all of it may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);

#[test]
fn the_description_holds_against_generated_requests() {
    let mut pair = alone();
    with_tls(&pair.a, "admin");
    pair.a.start().unwrap();
    let artefacts = artefacts();
    let description = artefacts.config.parent().unwrap().join("control-plane/openapi.json");
    let mut command = Command::new(artefacts.schemathesis().unwrap());
    command.current_dir(pair.a.directory());
    command.arg("--config-file").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/schemathesis.toml"));
    command.arg("run").arg(description).args(["--url", &format!("https://{LISTEN}")]);
    command.arg("--tls-verify").arg(pair.a.directory().join("tls.pem"));
    command.args(["--header", &format!("Authorization: Bearer {TOKEN}")]);
    command.args(["--max-time", BUDGET, "--seed", "1", "--request-timeout", "20", "--warnings", "off"]);
    command.args(["--phases", "examples,coverage,fuzzing", "--continue-on-failure"]);
    // A document of the right form may still contradict itself: 422.
    command.args(["--exclude-checks", "positive_data_acceptance"]);
    // It does not end.
    command.args([
        "--exclude-path",
        "/v1/events",
        "--exclude-path",
        "/v1/capture",
        "--suppress-health-check",
        "all",
    ]);
    let process = Process::start(pair.a.namespace(), &mut command).unwrap();
    let exit = process.wait(LIMIT);
    let output = process.output().join("\n");
    assert_eq!(exit, Some(portcullis_vm_tests::Exit::Status(0)), "{output}\n{}", pair.a.log_tail());
    // The daemon is none the worse for it.
    assert!(pair.a.status().unwrap().connection("site-b").is_some());
    assert!(
        pair.a.metrics().unwrap().sum("portcullis_api_requests_total", &[("status", "4xx")]) > Some(20.0)
    );
}
