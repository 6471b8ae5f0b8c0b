//! What `dashboards/` holds, typed as far as its tests read it: panels, rules, and the evidence that each shows something.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Dashboards, rules and evidence.
#[derive(Debug)]
pub struct Dashboards {
    /// By file name.
    pub dashboards: BTreeMap<String, Dashboard>,
    /// `alerts.yaml`.
    pub rules: Rules,
    /// `evidence.yaml`.
    pub evidence: Evidence,
}

/// A dashboard of Grafana.
#[derive(Debug, Deserialize)]
pub struct Dashboard {
    /// Its panels.
    pub panels: Vec<Panel>,
    /// Its variables.
    pub templating: Templating,
    /// Identifies it in Grafana.
    pub uid: String,
}

/// A panel.
#[derive(Debug, Deserialize)]
pub struct Panel {
    /// Unique in its dashboard.
    pub id: u32,
    /// Unique in its dashboard, too.
    pub title: String,
    /// What to do about what it shows.
    pub description: String,
    /// Where it is.
    #[serde(rename = "gridPos")]
    pub grid: Grid,
    /// What it asks.
    pub targets: Vec<Target>,
}

/// A place on a grid of 24 columns.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Grid {
    /// Column.
    pub x: u32,
    /// Row.
    pub y: u32,
    /// Columns.
    pub w: u32,
    /// Rows.
    pub h: u32,
}

/// A question of a panel.
#[derive(Debug, Deserialize)]
pub struct Target {
    /// PromQL with variables of Grafana.
    pub expr: String,
}

/// Variables of a dashboard.
#[derive(Debug, Deserialize)]
pub struct Templating {
    /// In their order.
    pub list: Vec<Variable>,
}

/// A variable.
#[derive(Debug, Deserialize)]
pub struct Variable {
    /// Its name.
    pub name: String,
}

/// Rules of Prometheus.
#[derive(Debug, Deserialize)]
pub struct Rules {
    groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

/// A rule.
#[derive(Debug, Deserialize)]
pub struct Rule {
    /// The series that it records.
    pub record: Option<String>,
    /// The alert that it raises.
    pub alert: Option<String>,
    /// PromQL.
    pub expr: String,
    /// What an alert says.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// Where each panel and alert shows something.
#[derive(Debug, Deserialize)]
pub struct Evidence {
    /// By file and title.
    pub panels: BTreeMap<String, BTreeMap<String, Proof>>,
    /// By name.
    pub alerts: BTreeMap<String, Proof>,
}

/// Two stages of the scenario.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(from = "(String, String)")]
pub struct Proof {
    /// Nothing is shown, or something else.
    pub before: String,
    /// It is shown.
    pub shown: String,
}

impl From<(String, String)> for Proof {
    fn from((before, shown): (String, String)) -> Self {
        Self { before, shown }
    }
}

/// One question with its proof.
#[derive(Clone, Debug)]
pub struct Expression {
    /// For messages: file and title, or the alert.
    pub of: String,
    /// PromQL without variables; all of a panel.
    pub queries: Vec<String>,
    /// It is an alert.
    pub is_alert: bool,
    /// Its proof.
    pub proof: Proof,
}

impl Dashboards {
    /// Reads `dashboards/` of this workspace.
    ///
    /// # Errors
    /// Naming the file that cannot be read or parsed.
    pub fn read() -> Result<Self> {
        let mut dashboards = BTreeMap::new();
        for entry in std::fs::read_dir(directory()).context("reading dashboards/")? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                // JSON is YAML.
                dashboards.insert(name, parse(&path)?);
            }
        }
        Ok(Self {
            dashboards,
            rules: parse(&Self::rules_file())?,
            evidence: parse(&directory().join("evidence.yaml"))?,
        })
    }

    /// The rules.
    pub fn rules_file() -> PathBuf {
        directory().join("alerts.yaml")
    }

    /// The unit tests of the rules.
    pub fn rules_tests() -> PathBuf {
        directory().join("alerts_test.yaml")
    }

    /// Every panel and alert with its proof.
    ///
    /// # Errors
    /// Naming what has no proof, and proof of what is not there.
    pub fn expressions(&self) -> Result<Vec<Expression>> {
        let mut proofs: BTreeMap<String, &Proof> = BTreeMap::new();
        for (file, panels) in &self.evidence.panels {
            proofs.extend(panels.iter().map(|(title, proof)| (format!("{file}: {title}"), proof)));
        }
        proofs.extend(self.evidence.alerts.iter().map(|(alert, proof)| (alert.clone(), proof)));
        let mut found = Vec::new();
        for (file, panel) in self.panels() {
            let queries = panel.targets.iter().map(|target| without_variables(&target.expr)).collect();
            found.push((format!("{file}: {}", panel.title), queries, false));
        }
        for (alert, rule) in self.rules.alerts() {
            found.push((alert.to_owned(), vec![rule.expr.clone()], true));
        }
        let mut expressions = Vec::new();
        for (of, queries, is_alert) in found {
            let proof = proofs.remove(&of).with_context(|| format!("evidence.yaml has nothing on {of}"))?;
            expressions.push(Expression { of, queries, is_alert, proof: proof.clone() });
        }
        anyhow::ensure!(proofs.is_empty(), "evidence.yaml is about what is not there: {:?}", proofs.keys());
        Ok(expressions)
    }

    /// Every panel with the file it is in.
    pub fn panels(&self) -> impl Iterator<Item = (&str, &Panel)> {
        self.dashboards.iter().flat_map(|(file, d)| d.panels.iter().map(move |panel| (file.as_str(), panel)))
    }
}

impl Rules {
    /// Every alert.
    pub fn alerts(&self) -> impl Iterator<Item = (&str, &Rule)> {
        self.all().filter_map(|rule| Some((rule.alert.as_deref()?, rule)))
    }

    /// Every recorded series.
    pub fn recorded(&self) -> BTreeSet<&str> {
        self.all().filter_map(|rule| rule.record.as_deref()).collect()
    }

    /// Every rule.
    pub fn all(&self) -> impl Iterator<Item = &Rule> {
        self.groups.iter().flat_map(|group| &group.rules)
    }
}

/// PromQL as Grafana sends it with everything selected, in steps of some seconds.
fn without_variables(expr: &str) -> String {
    expr.replace("$instance", ".*")
        .replace("$connection", "site-b")
        .replace("$__rate_interval", "10s")
        .replace("$__range", "10m")
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards")
}

fn parse<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_yaml::from_str(&text).with_context(|| format!("parsing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_have_numbers_titles_and_places_of_their_own_and_say_what_to_do() {
        let all = Dashboards::read().unwrap();
        assert_eq!(all.dashboards.len(), 3);
        let uids: BTreeSet<_> = all.dashboards.values().map(|dashboard| &dashboard.uid).collect();
        assert_eq!(uids.len(), all.dashboards.len());
        for (file, dashboard) in &all.dashboards {
            let variables: Vec<_> = dashboard.templating.list.iter().map(|v| v.name.as_str()).collect();
            assert!(variables.starts_with(&["datasource", "instance"]), "{file}: {variables:?}");
            let ids: BTreeSet<_> = dashboard.panels.iter().map(|panel| panel.id).collect();
            let titles: BTreeSet<_> = dashboard.panels.iter().map(|panel| &panel.title).collect();
            assert_eq!((ids.len(), titles.len()), (dashboard.panels.len(), dashboard.panels.len()), "{file}");
            let mut taken = BTreeSet::new();
            for Panel { title, description, grid, targets, .. } in &dashboard.panels {
                assert!(!targets.is_empty() && description.len() > 10, "{file}: {title}");
                assert!(grid.w > 0 && grid.h > 0 && grid.x + grid.w <= 24, "{file}: {title}: {grid:?}");
                for x in grid.x..grid.x + grid.w {
                    for y in grid.y..grid.y + grid.h {
                        assert!(taken.insert((x, y)), "{file}: {title} covers another panel at {x}, {y}");
                    }
                }
            }
        }
    }

    /// Names in expressions are documented, and docs/metrics.md is held against the code by a test of control-plane.
    #[test]
    fn every_name_in_panels_and_rules_is_documented_or_recorded() {
        let documented = include_str!("../../docs/metrics.md");
        let all = Dashboards::read().unwrap();
        let recorded = all.rules.recorded();
        let panels = all.panels().flat_map(|(_, panel)| panel.targets.iter().map(|target| &target.expr));
        let mut seen = 0;
        for expr in panels.chain(all.rules.all().map(|rule| &rule.expr)) {
            for name in names(expr) {
                seen += 1;
                let base = name.strip_suffix("_bucket").unwrap_or(name);
                let known = recorded.contains(name) || documented.contains(&format!("| `{base}` |"));
                assert!(known, "{name} in {expr}");
            }
        }
        assert!(seen > 80, "only {seen} names were found");
    }

    #[test]
    fn the_transport_of_esp_is_never_told_from_that_of_ike() {
        for (file, panel) in Dashboards::read().unwrap().panels() {
            let names: Vec<_> = panel.targets.iter().flat_map(|target| names(&target.expr)).collect();
            let of = |what: &str| names.iter().any(|name| name.contains(what));
            assert!(
                !(of("esp_transport") && of("ike_transport")),
                "{file}: {} mixes both transports",
                panel.title
            );
        }
    }

    #[test]
    fn every_panel_and_alert_has_its_evidence() {
        let expressions = Dashboards::read().unwrap().expressions().unwrap();
        for Expression { of, proof: Proof { before, shown }, .. } in expressions {
            assert_ne!(before, shown, "{of}");
        }
    }

    #[test]
    fn every_alert_leads_to_a_runbook_that_is_there_and_has_tests_both_ways() {
        let runbooks = include_str!("../../docs/runbooks.md");
        let tests = std::fs::read_to_string(Dashboards::rules_tests()).unwrap();
        for (alert, rule) in Dashboards::read().unwrap().rules.alerts() {
            let url = &rule.annotations["runbook_url"];
            assert_eq!(url, &format!("docs/runbooks.md#{}", alert.to_lowercase()));
            assert!(runbooks.contains(&format!("\n## {alert}\n")), "{alert} has no runbook");
            let about: Vec<_> = tests.split("eval_time").filter(|test| test.contains(alert)).collect();
            let silent = about.iter().filter(|t| t.contains("_samples: []") || t.contains("_alerts: []"));
            assert!(
                silent.count() > 0 && about.len() > 1,
                "{alert} needs a test that it fires and one that it does not"
            );
        }
        let named = runbooks.lines().filter(|line| line.starts_with("## Portcullis")).count();
        assert_eq!(named, Dashboards::read().unwrap().rules.alerts().count());
    }

    /// Words that start as our metrics do.
    fn names(expr: &str) -> Vec<&str> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        expr.split(|c| !is_part(c))
            .filter(|word| word.starts_with("portcullis_") || word.starts_with("portcullis:"))
            .collect()
    }
}
