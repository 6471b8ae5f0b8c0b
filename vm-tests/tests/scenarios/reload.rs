//! SIGHUP: what differs changes, what does not goes on without losing a packet, and a file with an error changes
//! nothing.

use nix::sys::signal::Signal;
use portcullis_vm_tests::{Pair, PairOptions, Side, until};

use crate::{SOON, add_site, artefacts, assert_perfect, change, flow, wait_more};

/// Two connections besides the one that stays.
const GOES: (&str, u8) = ("goes", 1);
const COMES: (&str, u8) = ("comes", 2);

#[test]
fn reload_takes_away_and_adds_and_loses_nothing_of_what_stays() {
    let mut pair = Pair::new(PairOptions::USUAL, &artefacts()).unwrap();
    change(&pair.b, |config| {
        for (name, site) in [GOES, COMES] {
            add_site(config, Side::B, name, site);
        }
    });
    change(&pair.a, |config| add_site(config, Side::A, GOES.0, GOES.1));
    pair.b.start().unwrap();
    pair.a.start().unwrap();
    let (stays, _) = pair.wait_up(SOON).unwrap();
    pair.a.wait_connection(GOES.0, SOON, |c| c.is_up()).unwrap();
    assert!(guards(&pair, GOES.1) && !guards(&pair, COMES.1));

    let flows = vec![flow(&pair.lab, Side::A, 2000), flow(&pair.lab, Side::B, 2000)];
    wait_more(&flows, 500);
    change(&pair.a, |config| {
        config.remove(&format!("connections/{}", GOES.0));
        add_site(config, Side::A, COMES.0, COMES.1);
    });
    pair.a.signal(Signal::SIGHUP).unwrap();
    pair.a.wait_connection(COMES.0, SOON, |c| c.is_up()).unwrap();
    pair.a.agreed(COMES.0).unwrap();
    // gw-b has it still, and got its DELETE.
    pair.b.wait_connection(GOES.0, SOON, |c| c.ike_sas.is_empty()).unwrap();
    let status = pair.a.status().unwrap();
    assert!(status.connection(GOES.0).is_none());
    until(SOON, || (!guards(&pair, GOES.1) && guards(&pair, COMES.1)).then_some(()))
        .expect("the guard covers what came and no longer what went");
    assert_eq!(spis(&pair), spis_of(&stays), "the SAs of what stays are the same");
    wait_more(&flows, 500);

    // gw-b's turn: a change of a connection that stays down is no business of the others.
    change(&pair.b, |config| config.remove(&format!("connections/{}", GOES.0)));
    pair.b.signal(Signal::SIGHUP).unwrap();
    until(SOON, || pair.b.status().unwrap().connection(GOES.0).is_none().then_some(())).expect("it is gone");
    wait_more(&flows, 500);
    assert_eq!(spis(&pair), spis_of(&stays));
    assert_perfect(flows);
}

#[test]
fn reload_of_a_file_with_an_error_changes_nothing_and_names_the_place() {
    let pair = Pair::up(PairOptions::USUAL, &artefacts()).unwrap();
    let before = spis(&pair);
    let flows = vec![flow(&pair.lab, Side::A, 1000)];
    let good = pair.a.configuration().unwrap();

    // A good part and a bad one: neither comes into force.
    change(&pair.a, |config| {
        add_site(config, Side::A, COMES.0, COMES.1);
        config.remove(&format!("connections/{}", Side::A.connection()));
        config.set(&format!("connections/{}/esp/carriers", COMES.0), "ip");
    });
    let text = std::fs::read_to_string(pair.a.config_file()).unwrap();
    let (line, column) = text
        .lines()
        .enumerate()
        .find_map(|(index, line)| Some((index + 1, line.find("carriers")? + 1)))
        .unwrap();
    let place = format!("{}:{line}:{column}", pair.a.config_file().display());
    refused(&pair, &[&place, "carriers"]);
    assert_eq!((spis(&pair), guards(&pair, COMES.1)), (before.clone(), false));

    // What only a restart can change.
    pair.a.configure(good.clone().with("data_plane/workers", 2)).unwrap();
    refused(&pair, &["data_plane", "restart"]);
    assert_eq!(spis(&pair), before);

    pair.a.configure(good).unwrap();
    pair.a.signal(Signal::SIGHUP).unwrap();
    said(&pair, &["in force"]);
    wait_more(&flows, 100);
    assert_eq!(spis(&pair), before);
    assert_perfect(flows);
}

fn refused(pair: &Pair, words: &[&str]) {
    pair.a.signal(Signal::SIGHUP).unwrap();
    said(pair, words);
}

/// A line of gw-a's log holds all of these.
fn said(pair: &Pair, words: &[&str]) {
    let process = pair.a.process().unwrap();
    let found = process.wait_for_line(SOON, |line| words.iter().all(|word| line.contains(word)));
    assert!(found.is_some(), "{words:?} is not in:\n{}", pair.a.log_tail());
}

/// gw-a's kernel has guard policies for a site's selectors.
fn guards(pair: &Pair, site: u8) -> bool {
    pair.lab.gw_a.ip(&["xfrm", "policy"]).unwrap().contains(&format!("172.17.{site}.0/24"))
}

fn spis(pair: &Pair) -> Vec<String> {
    spis_of(&pair.a.connection(Side::A.connection()).unwrap())
}

fn spis_of(connection: &portcullis_vm_tests::status::ConnectionStatus) -> Vec<String> {
    let of = |sa: &portcullis_vm_tests::status::IkeSaStatus| {
        let children = sa.children.iter().flat_map(|child| [child.spi_in.clone(), child.spi_out.clone()]);
        [sa.spi_i.clone(), sa.spi_r.clone()].into_iter().chain(children).collect::<Vec<_>>()
    };
    connection.ike_sas.iter().flat_map(of).collect()
}
