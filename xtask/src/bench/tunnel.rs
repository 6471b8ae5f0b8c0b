//! Flows from host to host through two gateways: ours on either path, and in the same run those of others, each in a
//! laboratory of its own; they take turns, so that the time of day favours none.
//!
//! Everything runs on this machine and shares its cores: hosts, router and both gateways.

mod boringtun;
mod charon;
mod flow;
mod ours;

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::Result;
use portcullis_vm_tests::Lab;
use serde_json::Value;

use super::figure::{Better, Figure, Report};
use crate::{daemon, setup};

const RUNS: usize = 5;

/// Two gateways that are up, and what is between the hosts. Fields drop in order: daemons end before their namespaces.
struct Contender {
    name: &'static str,
    _daemons: Box<dyn std::any::Any>,
    lab: Lab,
    /// Their daemons.
    processes: Vec<i32>,
    /// Mbit/s with one TCP flow, with four, with UDP; Mbit/s of one flow for each core that the daemons were busy.
    results: [Vec<f64>; CASES.len()],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    OneFlow,
    FourFlows,
    Datagrams,
    PerCore,
}

const CASES: [Case; 4] = [Case::OneFlow, Case::FourFlows, Case::Datagrams, Case::PerCore];

/// Ours, case, theirs, and what the ratio has to reach.
const GOALS: &[(&str, Case, &str, Option<f64>)] = &[
    (ours::TUN, Case::OneFlow, boringtun::NAME, Some(3.0)),
    (ours::TUN, Case::OneFlow, charon::NAME, Some(7.0)),
    (ours::TUN, Case::FourFlows, boringtun::NAME, Some(4.0)),
    (ours::TUN, Case::FourFlows, charon::NAME, None),
    (ours::TUN_TWO, Case::FourFlows, ours::TUN, None),
    (ours::TUN, Case::Datagrams, boringtun::NAME, None),
    (ours::TUN, Case::Datagrams, charon::NAME, None),
    (ours::TUN, Case::PerCore, boringtun::NAME, None),
    (ours::TUN_IP, Case::OneFlow, boringtun::NAME, None),
    (ours::XDP, Case::OneFlow, boringtun::NAME, Some(1.4)),
    (ours::XDP, Case::FourFlows, boringtun::NAME, None),
    (ours::XDP, Case::Datagrams, boringtun::NAME, None),
    (ours::XDP, Case::PerCore, boringtun::NAME, Some(1.5)),
];

/// Runs the suite.
///
/// # Errors
/// If our gateways do not come up. Without root nothing is measured, and a peer that is missing is left out, which are no
/// errors.
pub fn run() -> Result<Value> {
    let mut report = Report::begin();
    if fs::metadata("/proc/self")?.uid() != 0 {
        eprintln!("tunnel: left out: network namespaces and TUN devices need root");
        return Ok(report.to_json());
    }
    let artefacts = daemon::build()?;
    let mut contenders = vec![
        ours::tun(&artefacts)?,
        ours::tun_two(&artefacts)?,
        ours::tun_ip(&artefacts)?,
        ours::xdp(&artefacts)?,
    ];
    let others = [
        (boringtun::NAME, setup::boringtun::install().and_then(|program| boringtun::start(&program))),
        (charon::NAME, setup::strongswan::install().and_then(|()| charon::start(&setup::strongswan::root()))),
    ];
    for (name, other) in others {
        match other {
            Ok(other) => contenders.push(other),
            Err(error) => eprintln!("tunnel: {name} is left out: {error:#}"),
        }
    }
    for _ in 0..RUNS {
        for contender in &mut contenders {
            contender.measure()?;
        }
    }
    for (ours, case, theirs, goal) in GOALS {
        let find = |name| contenders.iter().find(|contender| contender.name == name);
        let (Some(ours), Some(theirs)) = (find(*ours), find(*theirs)) else { continue };
        report.add(Figure {
            suite: "tunnel",
            case: format!("{}, {}", ours.name, case.label()),
            unit: case.unit(),
            better: Better::Higher,
            runs: ours.of(*case).clone(),
            against: theirs.name,
            against_runs: theirs.of(*case).clone(),
            goal: *goal,
        });
    }
    Ok(report.to_json())
}

impl Contender {
    fn new(name: &'static str, lab: Lab, processes: Vec<i32>, daemons: impl std::any::Any) -> Self {
        Self { name, lab, processes, results: Default::default(), _daemons: Box::new(daemons) }
    }

    fn measure(&mut self) -> Result<()> {
        let before = self.busy_seconds()?;
        let one = flow::tcp(&self.lab, 1)?;
        let busy = self.busy_seconds()? - before;
        let results = [
            one.mbit_per_second(),
            flow::tcp(&self.lab, 4)?.mbit_per_second(),
            flow::udp(&self.lab)?,
            one.mbit() / busy,
        ];
        self.results.iter_mut().zip(results).for_each(|(runs, result)| runs.push(result));
        Ok(())
    }

    /// Processor time of both daemons so far.
    fn busy_seconds(&self) -> Result<f64> {
        let mut ticks = 0;
        for id in &self.processes {
            let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
            // Behind the name, which is in brackets: state, then user and system time as fields 14 and 15 of all.
            let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            ticks +=
                fields.get(11..13).into_iter().flatten().filter_map(|t| t.parse::<u64>().ok()).sum::<u64>();
        }
        const TICKS_PER_SECOND: f64 = 100.0;
        Ok(ticks as f64 / TICKS_PER_SECOND)
    }

    fn of(&self, case: Case) -> &Vec<f64> {
        let [one, four, datagrams, per_core] = &self.results;
        match case {
            Case::OneFlow => one,
            Case::FourFlows => four,
            Case::Datagrams => datagrams,
            Case::PerCore => per_core,
        }
    }
}

impl Case {
    const fn label(self) -> &'static str {
        match self {
            Self::OneFlow => "one TCP flow",
            Self::FourFlows => "four TCP flows",
            Self::Datagrams => "UDP of 1300 octets",
            Self::PerCore => "one flow, per busy core of the daemons",
        }
    }

    const fn unit(self) -> &'static str {
        match self {
            Self::OneFlow | Self::FourFlows | Self::Datagrams => "Mbit/s",
            Self::PerCore => "Mbit/s/core",
        }
    }
}
