//! tshark, which shares no code with us, reads a captured run with the key log: it sees what was negotiated, and
//! the pings inside ESP.

use std::fs;
use std::path::Path;
use std::process::Command;

use portcullis_vm_tests::capture::Capture;
use portcullis_vm_tests::{Nat, Pair, PairOptions, Ping, Side, inner_prefixes};

use crate::artefacts;

#[test]
fn tshark_sees_transforms_and_inner_pings_of_a_start_on_tcp() {
    dissect(PairOptions::USUAL);
}

#[test]
fn tshark_sees_transforms_and_inner_pings_of_a_start_on_udp_behind_nat() {
    dissect(PairOptions { transport: "udp-then-tcp", nat: Nat::BeforeA, ..PairOptions::USUAL });
}

fn dissect(options: PairOptions) {
    let mut pair = Pair::new(options, &artefacts()).unwrap();
    let profile = pair.lab.instance.directory().join("keys");
    let file = pair.lab.instance.directory().join("router.pcap");
    fs::create_dir(&profile).unwrap();
    let capture = Capture::start_with_file(&pair.lab.router, inner_prefixes(), &file).unwrap();
    pair.b.start().unwrap();
    pair.a.start_with(&["--keylog", profile.to_str().unwrap()]).unwrap();
    pair.wait_up(crate::SOON).unwrap();
    let pings = Ping::to(Side::B.host().0).run(&pair.lab.host_a).unwrap();
    assert_eq!(pings.answered, pings.sent);
    capture.finish().unwrap();

    // IKE_SA_INIT and IKE_INTERMEDIATE, then, with the keys that IKE_INTERMEDIATE led to, IKE_AUTH.
    let first = profile.join("generation-0");
    let second = profile.join("generation-1");
    let exchanges = tshark(&first, &file, "isakmp", &["isakmp.exchangetype"]);
    for exchange in ["34", "43", "35"] {
        assert!(holds(&exchanges, exchange), "exchange {exchange}: {exchanges}");
    }
    let proposals =
        ["isakmp.tf.id.encr", "isakmp.tf.id.prf", "isakmp.tf.id.dh", "isakmp.ike2.attr.key_length"];
    let ike = tshark(&first, &file, "isakmp.exchangetype == 34", &proposals);
    // AES-GCM with a 16-octet ICV and 256-bit keys, PRF_HMAC_SHA2_384, Curve25519.
    for number in ["20", "256", "6", "31"] {
        assert!(holds(&ike, number), "transform {number} of the IKE SA: {ike}");
    }
    let intermediate =
        tshark(&first, &file, "isakmp.exchangetype == 43 && isakmp.enc.decrypted", &["isakmp.typepayload"]);
    assert!(holds(&intermediate, "34"), "a KE payload, decrypted, in IKE_INTERMEDIATE: {intermediate}");
    let child =
        tshark(&second, &file, "isakmp.exchangetype == 35", &["isakmp.tf.id.encr", "isakmp.tf.id.esn"]);
    assert!(holds(&child, "20"), "the transform of the Child SA, decrypted, in IKE_AUTH: {child}");
    let inner = tshark(&second, &file, "esp && icmp", &["icmp.type"]);
    let count = |wanted: &str| inner.lines().filter(|line| *line == wanted).count();
    assert_eq!((count("8"), count("0")), (10, 10), "echo requests and replies inside ESP: {inner}");
}

/// The fields of the packets that a filter selects, with the key log as tshark's profile.
pub fn tshark(profile: &Path, file: &Path, filter: &str, fields: &[&str]) -> String {
    let mut command = Command::new("tshark");
    command.env("WIRESHARK_CONFIG_DIR", profile).arg("-r").arg(file).args(["-Y", filter, "-T", "fields"]);
    for field in fields {
        command.args(["-e", field]);
    }
    let output = command.output().expect("tshark is installed by `cargo xtask setup`");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// True if a field of any packet is `wanted`; several of one name in a packet are joined by commas.
fn holds(fields: &str, wanted: &str) -> bool {
    fields.split(['\t', '\n', ',']).any(|field| field == wanted)
}
