//! `portcullis capture`: what workers see of pings, in clear and as ESP, as tshark reads it with the key log.

use std::fs;
use std::process::Command;

use portcullis_vm_tests::{DataPlaneMode, Exit, Pair, PairOptions, Ping, Process, Side};

use crate::dissected::tshark;
use crate::{SOON, artefacts};

/// A ping is seen four times.
const PACKETS: usize = 40;

#[test]
fn every_packet_is_seen_in_clear_and_as_esp_on_xdp() {
    every_packet_is_seen_in_clear_and_as_esp(DataPlaneMode::Xdp, "tcp");
}

#[test]
fn every_packet_is_seen_in_clear_and_as_esp_on_tun() {
    every_packet_is_seen_in_clear_and_as_esp(DataPlaneMode::Tun, "udp");
}

fn every_packet_is_seen_in_clear_and_as_esp(mode: DataPlaneMode, transport: &'static str) {
    let mut pair = Pair::new(PairOptions { mode, transport, ..PairOptions::USUAL }, &artefacts()).unwrap();
    let directory = pair.lab.instance.directory().to_owned();
    let (profile, file) = (directory.join("keys"), directory.join("seen.pcapng"));
    fs::create_dir(&profile).unwrap();
    pair.b.start().unwrap();
    pair.a.start_with(&["--keylog", profile.to_str().unwrap()]).unwrap();
    pair.wait_up(SOON).unwrap();

    let socket = pair.a.directory().join("control.sock");
    let mut command = Command::new(&artefacts().binary);
    command.args(["capture", "--connection", Side::A.connection(), "--packets", &PACKETS.to_string()]);
    command.arg("--write").arg(&file).arg("--socket").arg(&socket);
    let process = Process::start(pair.a.namespace(), &mut command).unwrap();
    let ping = Ping { count: 1, ..Ping::to(Side::B.host().0) };
    portcullis_vm_tests::until(SOON, || {
        ping.run(&pair.lab.host_a).unwrap();
        process.exit()
    })
    .expect("it ends by itself after so many packets");
    assert_eq!(process.exit(), Some(Exit::Status(0)), "{:?}", process.output());

    let latest = (0..9).rev().map(|n| profile.join(format!("generation-{n}"))).find(|p| p.exists()).unwrap();
    let fields = ["frame.interface_name", "icmp.type", "frame.packet_flags_direction"];
    let seen = tshark(&latest, &file, "icmp", &fields);
    // The capture may have begun and ended in the middle of a ping; one at a time was on its way.
    let whole = ["clear\t8\t0x00000002", "esp\t8\t0x00000002", "esp\t0\t0x00000001", "clear\t0\t0x00000001"];
    let lines: Vec<_> = seen.lines().skip_while(|line| *line != whole[0]).collect();
    let mut pings = lines.chunks(whole.len());
    assert!(pings.len() >= 5 && pings.all(|ping| whole.starts_with(ping)), "{seen}");
    let comments = tshark(&latest, &file, "icmp", &["frame.comment"]);
    let of_connection = format!("{} net, SPI ", Side::A.connection());
    assert!(comments.lines().all(|comment| comment.starts_with(&of_connection)), "{comments}");
}
