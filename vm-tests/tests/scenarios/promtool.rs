//! Debian's `promtool` on the rules that ship, and on every expression of the dashboards.

use std::path::Path;
use std::process::Command;

use portcullis_vm_tests::Instance;
use portcullis_vm_tests::dashboards::Dashboards;
use portcullis_vm_tests::prometheus::program;

#[test]
fn rules_are_valid_and_pass_their_unit_tests() {
    promtool(&["check", "rules"], &Dashboards::rules_file());
    promtool(&["test", "rules"], &Dashboards::rules_tests());
}

#[test]
fn every_expression_of_the_dashboards_is_promql() {
    let instance = Instance::new().unwrap();
    let file = instance.directory().join("rules.yaml");
    let expressions = Dashboards::read().unwrap().expressions().unwrap();
    let queries = expressions.iter().flat_map(|expression| &expression.queries);
    let rules: Vec<_> = queries
        .enumerate()
        .map(|(number, expr)| serde_json::json!({ "record": format!("panel:{number}"), "expr": expr }))
        .collect();
    assert!(rules.len() > 60);
    let groups = serde_json::json!({ "groups": [{ "name": "panels", "rules": rules }] });
    std::fs::write(&file, groups.to_string()).unwrap();
    promtool(&["check", "rules"], &file);
}

fn promtool(arguments: &[&str], file: &Path) {
    let output = Command::new(program("promtool").unwrap()).args(arguments).arg(file).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}
