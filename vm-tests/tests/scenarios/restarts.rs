//! A daemon that is killed starts again on what it left behind: pinned links, guard, hooks.

use portcullis_vm_tests::{DataPlaneMode, Pair, PairOptions, Side};

use crate::{SOON, artefacts, wait_answered};

#[test]
fn killed_gateway_comes_back_on_its_own_pins() {
    let options = PairOptions { mode: DataPlaneMode::Xdp, b_starts: true, ..PairOptions::USUAL };
    let mut pair = Pair::up(options, &artefacts()).unwrap();
    for side in [Side::A, Side::B, Side::A] {
        let before = programs(&pair, side);
        pair.gateway_mut(side).kill().unwrap();
        assert_eq!(programs(&pair, side), before, "the programs stay attached without their process");
        pair.gateway_mut(side).start().unwrap();
        pair.wait_up(SOON).unwrap();
        wait_answered(&pair.lab);
        for side in [Side::A, Side::B] {
            pair.gateway(side).agreed(side.connection()).unwrap();
        }
    }
}

#[test]
fn release_leaves_neither_programs_nor_policies_nor_rules() {
    let mut pair = Pair::up(PairOptions::USUAL, &artefacts()).unwrap();
    assert!(!pair.lab.gw_a.ip(&["xfrm", "policy"]).unwrap().is_empty());
    assert_eq!(programs(&pair, Side::A).len(), 2);
    pair.a.stop().unwrap();
    assert!(!pair.lab.gw_a.ip(&["xfrm", "policy"]).unwrap().is_empty(), "the guard outlives a graceful stop");
    let rules = || {
        let both = ["-4", "-6"].map(|family| pair.lab.gw_a.ip(&[family, "rule"]).unwrap()).concat();
        both.lines().filter(|line| line.starts_with("187")).count()
    };
    assert_eq!(rules(), 2, "and so does what keeps the protected interface shut");
    pair.a.release().unwrap();
    assert_eq!(rules(), 0);
    assert_eq!(pair.lab.gw_a.ip(&["xfrm", "policy"]).unwrap(), "");
    portcullis_vm_tests::until(SOON, || programs(&pair, Side::A).is_empty().then_some(()))
        .expect("the programs go with their pins");
}

/// Interfaces with an XDP program.
fn programs(pair: &Pair, side: Side) -> Vec<String> {
    let links = pair.lab.gateway(side).ip(&["-o", "link", "show"]).unwrap();
    links
        .lines()
        .filter(|l| l.contains("prog/xdp"))
        .filter_map(|l| Some(l.split(": ").nth(1)?.to_owned()))
        .collect()
}
