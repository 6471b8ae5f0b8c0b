//! `portcullis bench ike` against a real responder.

use std::process::{Command, Output};

use portcullis_vm_tests::{Pair, PairOptions, Side, until};

use crate::{SOON, add_site, artefacts, change};

const TUNNELS: u8 = 20;

/// Every tunnel comes up on either transport, and nothing of them is left.
#[test]
fn a_load_generator_sets_up_what_it_is_told_and_cleans_up() {
    let mut pair = pair();
    pair.b.start().unwrap();
    for (transport, rate) in [("udp", "1000"), ("tcp", "100")] {
        let output = bench(
            &pair,
            &["--tunnels", &TUNNELS.to_string(), "--transport", transport, "--rate", rate, "--json"],
            "psk",
        );
        assert!(output.status.success(), "{transport}: {output:?}\n{}", pair.b.log_tail());
        let outcome: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(outcome["up"], TUNNELS, "{outcome}");
        assert!(outcome["latency"]["p99"].as_f64().unwrap() > 0.0, "{outcome}");
        until(SOON, || {
            let left = pair.b.status().unwrap().connections.iter().filter(|c| c.is_up()).count();
            (left == 0).then_some(())
        })
        .expect("the SAs were deleted");
    }
    let metrics = pair.b.metrics().unwrap();
    let established = metrics.sum("portcullis_ike_established_total", &[("role", "responder")]);
    assert_eq!(established, Some(f64::from(TUNNELS) * 2.0));
}

#[test]
fn a_load_generator_says_why_tunnels_fail() {
    let mut pair = pair();
    pair.b.start().unwrap();
    let output = bench(&pair, &["--tunnels", "1"], "another-psk");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("0 of 1 tunnels up") && said.contains("failed 1: "), "{said}");
}

fn pair() -> Pair {
    let pair = Pair::new(PairOptions::USUAL, &artefacts()).unwrap();
    change(&pair.b, |config| {
        for site in 0..TUNNELS {
            add_site(config, Side::B, &format!("c{site}"), site);
            config.remove(&format!("connections/c{site}/ike/transport"));
        }
    });
    let directory = pair.lab.instance.directory();
    let another = directory.join("another-psk");
    std::fs::write(&another, "not the key of anybody here: 0123456789").unwrap();
    std::fs::set_permissions(&another, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    pair
}

fn bench(pair: &Pair, options: &[&str], secret: &str) -> Output {
    let ends = [Side::A, Side::B].map(|side| format!("{}-c{{}}.example.net", side.gateway_name()));
    let secret = match secret {
        "psk" => {
            let config = pair.b.configuration().unwrap();
            config.text(&format!("connections/{}/local/secret_file", Side::B.connection())).unwrap().into()
        }
        other => pair.lab.instance.directory().join(other),
    };
    let mut command = Command::new(artefacts().binary);
    command
        .args(["bench", "ike", "--peer", &Side::B.wan().0.to_string()])
        .args(["--id", &ends[0], "--remote-id", &ends[1]])
        .args(["--local-ts", "172.16.0.0/16", "--remote-ts", "172.17.0.0/16"])
        .arg("--secret-file")
        .arg::<std::path::PathBuf>(secret)
        .args(options);
    pair.lab.gw_a.enter(|| command.output()).unwrap()
}
