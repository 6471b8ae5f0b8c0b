//! What the machine refuses: the daemon ends at once, and its last words name the cause and the remedy.

use std::net::{TcpListener, UdpSocket};

use portcullis_vm_tests::{Exit, Gateway, Pair, PairOptions};

use crate::{SOON, artefacts};

#[test]
fn port_in_use_is_named() {
    let pair = Pair::new(PairOptions::USUAL, &artefacts()).unwrap();
    let udp = pair.lab.gw_a.enter(|| UdpSocket::bind("0.0.0.0:4500")).unwrap();
    says(&pair.a, &["4500", "UDP", "use"]);
    drop(udp);
    let _tcp = pair.lab.gw_a.enter(|| TcpListener::bind("0.0.0.0:4500")).unwrap();
    says(&pair.a, &["4500", "TCP", "use"]);
}

#[test]
fn missing_interface_is_named() {
    let pair = Pair::new(PairOptions::USUAL, &artefacts()).unwrap();
    pair.lab.gw_a.ip(&["link", "set", "lan0", "down"]).unwrap();
    pair.lab.gw_a.ip(&["link", "set", "lan0", "name", "other0"]).unwrap();
    says(&pair.a, &["lan0"]);
}

#[test]
fn hook_held_by_another_program_is_named_with_the_program() {
    let artefacts = artefacts();
    let mut pair = Pair::new(PairOptions::USUAL, &artefacts).unwrap();
    // Another gateway's programs: killed, it leaves them attached, as it should.
    pair.a.start().unwrap();
    pair.a.kill().unwrap();
    let config = pair.a.configuration().unwrap();
    let second =
        Gateway::new(&pair.lab.instance, &pair.lab.gw_a, "second", &artefacts.binary, config).unwrap();
    let links = pair.lab.gw_a.ip(&["-d", "link", "show", "wan0"]).unwrap();
    let id = links.split("prog/xdp id ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    says(&second, &["wan0", "XDP", id]);
}

/// As on a kernel or a card without XDP: the hook cannot be had, whatever the mode. Here because a device above the
/// interface has a program.
#[test]
fn interface_without_xdp_is_named_and_auto_takes_the_tun_path() {
    let artefacts = artefacts();
    let mut pair = Pair::new(PairOptions::USUAL, &artefacts).unwrap();
    let gw_a = &pair.lab.gw_a;
    gw_a.ip(&["link", "add", "link", "wan0", "name", "above0", "type", "macvlan"]).unwrap();
    gw_a.ip(&["link", "set", "above0", "up"]).unwrap();
    let mut config = pair.a.configuration().unwrap();
    config.set_yaml("data_plane/interfaces", "{above0: {role: wan}}").unwrap();
    let mut above = Gateway::new(&pair.lab.instance, gw_a, "above", &artefacts.binary, config).unwrap();
    above.start().unwrap();
    above.kill().unwrap();

    says(&pair.a, &["wan0", "XDP", "data_plane.mode"]);
    for mode in ["auto", "tun"] {
        let config =
            pair.a.configuration().unwrap().with("data_plane/mode", mode).with("data_plane/xdp", "on");
        pair.a.configure(config).unwrap();
        pair.a.start().unwrap();
        let data_plane = pair.a.status().unwrap().data_plane;
        assert_eq!(data_plane.mode, "tun");
        let wan = data_plane.interfaces.iter().find(|i| i.name == "wan0").unwrap();
        assert!(wan.path == "tun" && wan.reason.contains("without XDP: "), "{wan:?}");
        let lan = data_plane.interfaces.iter().find(|i| i.name == "lan0").unwrap();
        assert!(!lan.reason.contains("without XDP"), "{lan:?}");
        pair.a.stop().unwrap();
    }
    pair.b.start().unwrap();
    pair.a.start().unwrap();
    pair.wait_up(SOON).unwrap();
    crate::wait_answered(&pair.lab);
}

#[test]
fn missing_privilege_is_named() {
    let pair = Pair::new(PairOptions::USUAL, &artefacts()).unwrap();
    let (exit, output) = pair.a.start_without_privilege(SOON).unwrap();
    assert!(matches!(exit, Exit::Status(code) if code != 0), "{exit:?}: {output}");
    assert!(output.contains("CAP_NET_ADMIN"), "{output}");
}

#[test]
fn configuration_errors_name_file_line_and_column() {
    let pair = Pair::new(PairOptions::USUAL, &artefacts()).unwrap();
    let config = pair.a.configuration().unwrap().with("connections/site-b/esp/carriers", "ip");
    pair.a.configure(config).unwrap();
    let (exit, output) = pair.a.start_failing(SOON).unwrap();
    assert!(matches!(exit, Exit::Status(code) if code != 0), "{exit:?}");
    let file = pair.a.config_file();
    let text = std::fs::read_to_string(file).unwrap();
    let line = text.lines().position(|l| l.contains("carriers")).unwrap() + 1;
    assert!(output.contains(&format!("{}:{line}:", file.display())), "{output}");
    assert!(output.contains("carriers"), "{output}");
}

fn says(gateway: &Gateway, words: &[&str]) {
    let (exit, output) = gateway.start_failing(SOON).unwrap();
    assert!(matches!(exit, Exit::Status(code) if code != 0), "{exit:?}: {output}");
    for word in words {
        assert!(output.contains(word), "{word} is not in: {output}");
    }
}
