//! The guard against the kernel, with real packets: what it stops, what it leaves alone, what it survives.

mod gateway;
mod seccomp;

use std::sync::mpsc;

use gateway::{Gateway, Leaks, Namespace, PATIENCE, address, leaks, leaks_v6, wait_until};
use portcullis_data_plane::guard::{
    AddressRange, BackendKind, Guard, GuardConfig, GuardError, GuardEvent, GuardSpec, Pair, Rule, RuleAction,
    release, restore,
};
use portcullis_data_plane::netlink::raw::NetlinkSocket;

/// `XFRMNLGRP_POLICY`.
const POLICY_GROUP: u32 = 4;
/// `XFRM_MSG_UPDPOLICY`.
const UPDATE_POLICY: u16 = 0x19;
/// `XFRM_MSG_DELPOLICY`.
const DELETE_POLICY: u16 = 0x14;

#[test]
fn clear_text_passes_without_the_guard_and_in_no_direction_with_it() {
    for backend in [BackendKind::Xfrm, BackendKind::Nftables] {
        let net = Gateway::new();
        let dir = tempfile::tempdir().unwrap();
        let config = GuardConfig { backend: Some(backend), ..GuardConfig::new("gw", dir.path()) };
        assert_eq!((leaks(&net), leaks_v6(&net)), (Leaks::ALL, Leaks::ALL), "control");

        let guard = net.gateway.run(|| Guard::start(config.clone(), spec(), |_| {})).unwrap();
        assert_eq!((leaks(&net), leaks_v6(&net)), (Leaks::NONE, Leaks::NONE), "{backend}");
        let state = net.gateway.run(|| guard.state());
        assert!(state.installed && state.backend == backend && state.policies == 6, "{state:?}");
        // XFRM checks a forwarded packet on arrival and on departure, and each leak was tried in both families.
        assert!(state.drops.outbound >= 2 && state.drops.inbound == 4, "{state:?}");

        drop(guard);
        assert_eq!(leaks(&net), Leaks::NONE, "{backend}, without a process");
        assert_eq!(net.gateway.run(|| release(&config)).unwrap(), 6);
        assert_eq!((leaks(&net), leaks_v6(&net)), (Leaks::ALL, Leaks::ALL), "released");
    }
}

#[test]
fn a_kernel_without_xfrm_has_its_guard_in_nftables() {
    let net = Gateway::new();
    let dir = tempfile::tempdir().unwrap();
    let config = GuardConfig::new("gw", dir.path());
    let guard = net.gateway.run(|| {
        seccomp::restrict(seccomp::Without::Xfrm).unwrap();
        let refused = NetlinkSocket::open(libc::NETLINK_XFRM).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EPROTONOSUPPORT), "as without CONFIG_XFRM_USER");
        let guard = Guard::start(config.clone(), spec(), |_| {}).unwrap();
        assert_eq!(guard.state().backend, BackendKind::Nftables);
        guard
    });
    assert_eq!((leaks(&net), leaks_v6(&net)), (Leaks::NONE, Leaks::NONE));
    net.gateway.command("nft", &["flush", "ruleset"]);
    wait_until("it is back", || net.gateway.run(|| guard.state()).restores == 1);
    assert_eq!(leaks(&net), Leaks::NONE);
    drop(guard);
    net.gateway.run(|| {
        seccomp::restrict(seccomp::Without::Xfrm).unwrap();
        assert_eq!(release(&config).unwrap(), 6);
    });
    assert_eq!(leaks(&net), Leaks::ALL, "released");
}

#[test]
fn a_kernel_with_neither_is_refused_with_cause_and_remedy() {
    let namespace = Namespace::new();
    let dir = tempfile::tempdir().unwrap();
    let config = GuardConfig::new("gw", dir.path());
    let refused = namespace.run(|| {
        seccomp::restrict(seccomp::Without::XfrmAndNftables).unwrap();
        Guard::start(config, spec(), |_| {}).map(drop)
    });
    let refused = refused.unwrap_err();
    assert!(matches!(refused, GuardError::NoBackend { .. }), "{refused:?}");
    let said = refused.to_string();
    for part in ["XFRM: Protocol not supported", "nftables: ", "CONFIG_XFRM_USER", "refused"] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

#[test]
fn it_is_restored_from_its_file_before_any_daemon_runs() {
    let dir = tempfile::tempdir().unwrap();
    let config = GuardConfig::new("gw", dir.path());
    let before_reboot = Namespace::new();
    drop(before_reboot.run(|| Guard::start(config.clone(), spec(), |_| {})).unwrap());
    drop(before_reboot);

    let net = Gateway::new();
    assert_eq!(leaks(&net), Leaks::ALL, "control");
    let (backend, restored) = net.gateway.run(|| restore(&config)).unwrap().unwrap();
    assert_eq!((backend, restored.installed, restored.missing), (BackendKind::Xfrm, 6, 6));
    assert_eq!(leaks(&net), Leaks::NONE);
    let again = net.gateway.run(|| restore(&config)).unwrap().unwrap().1;
    assert_eq!((again.missing, again.changed), (0, 0));
}

#[test]
fn nothing_remembered_means_nothing_to_restore_and_a_damaged_memory_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let config = GuardConfig::new("gw", dir.path());
    assert!(restore(&config).unwrap().is_none());
    std::fs::write(portcullis_data_plane::guard::file(dir.path()), "{").unwrap();
    assert!(matches!(restore(&config), Err(GuardError::File { .. })));
}

#[test]
fn policies_that_somebody_removes_come_back() {
    for (backend, program, arguments) in [
        (BackendKind::Xfrm, "ip", ["xfrm", "policy", "flush"]),
        (BackendKind::Nftables, "nft", ["flush", "ruleset", ""]),
    ] {
        let namespace = Namespace::new();
        let dir = tempfile::tempdir().unwrap();
        let config = GuardConfig { backend: Some(backend), ..GuardConfig::new("gw", dir.path()) };
        let (events, heard) = mpsc::channel();
        let guard = namespace.run(|| Guard::start(config, spec(), move |e| events.send(e).unwrap())).unwrap();
        let arguments: Vec<_> = arguments.into_iter().filter(|a| !a.is_empty()).collect();
        namespace.command(program, &arguments);
        assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), GuardEvent::Restored { changed: 6 }, "{backend}");
        let state = namespace.run(|| guard.state());
        assert!(state.installed && state.restores == 1, "{state:?}");
    }
}

#[test]
fn a_single_policy_that_is_removed_or_turned_into_an_allow_comes_back() {
    let net = Gateway::new();
    let dir = tempfile::tempdir().unwrap();
    let (events, heard) = mpsc::channel();
    let guard = net
        .gateway
        .run(|| Guard::start(GuardConfig::new("gw", dir.path()), spec(), move |e| events.send(e).unwrap()))
        .unwrap();
    let index = |namespace: &Namespace| -> String {
        let listing = namespace.ip(&["-s", "xfrm", "policy", "list", "dir", "out"]);
        let line = listing.lines().find(|l| l.contains("index")).unwrap();
        line.split_whitespace().skip_while(|w| *w != "index").nth(1).unwrap().to_owned()
    };
    net.gateway.ip(&["xfrm", "policy", "delete", "dir", "out", "index", &index(&net.gateway)]);
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), GuardEvent::Restored { changed: 1 });
    assert_eq!(leaks(&net), Leaks::NONE);
    drop(guard);
}

#[test]
fn other_peoples_policies_and_other_instances_are_left_alone() {
    let namespace = Namespace::new();
    let dir = tempfile::tempdir().unwrap();
    let foreign = ["src", "10.1.0.0/16", "dst", "10.2.0.0/16", "dir", "out", "priority", "9"];
    namespace.ip(&[&["xfrm", "policy", "add"], &foreign[..]].concat());
    let other = GuardConfig::new("other", dir.path().join("other"));
    let config = GuardConfig::new("gw", dir.path().join("gw"));
    namespace.run(|| {
        drop(Guard::start(other.clone(), spec(), |_| {}).unwrap());
        drop(Guard::start(config.clone(), spec(), |_| {}).unwrap());
    });
    assert_eq!(policies(&namespace), 1 + 6 + 6, "the same selectors, three owners");
    assert_eq!(namespace.run(|| release(&config)).unwrap(), 6);
    assert_eq!(policies(&namespace), 1 + 6);
    assert_eq!(namespace.run(|| release(&other)).unwrap(), 6);
    assert!(namespace.ip(&["xfrm", "policy"]).contains("priority 9"));
    assert_eq!(policies(&namespace), 1);
}

#[test]
fn a_restart_changes_nothing_and_a_new_spec_replaces_the_old_one() {
    let net = Gateway::new();
    let dir = tempfile::tempdir().unwrap();
    let config = GuardConfig::new("gw", dir.path());
    drop(net.gateway.run(|| Guard::start(config.clone(), spec(), |_| {})).unwrap());
    let mut watch = net.gateway.run(|| {
        let socket = NetlinkSocket::open(libc::NETLINK_XFRM).unwrap();
        socket.subscribe(POLICY_GROUP, 1 << 20).unwrap();
        socket
    });
    let guard = net.gateway.run(|| Guard::start(config.clone(), spec(), |_| {})).unwrap();
    net.gateway
        .run(|| guard.set(GuardSpec { rules: vec![protect("10.9.0.0/16", "10.8.0.0/16")], ..spec() }))
        .unwrap();
    assert_eq!(policies(&net.gateway), 3);
    assert_eq!(leaks(&net), Leaks::ALL);
    let learned = |s: &mut GuardSpec| assert!(s.local_addresses.insert(address("192.0.2.1")));
    net.gateway.run(|| guard.update(learned)).unwrap();
    assert_eq!(policies(&net.gateway), 3, "an address outside all protection needs no allow");
    let mut kinds = Vec::new();
    watch.drain(|header, _| kinds.push(header.kind)).unwrap();
    let expected = [[UPDATE_POLICY; 3].as_slice(), &[DELETE_POLICY; 6]].concat();
    assert_eq!(kinds, expected, "nothing at the restart; at the replacement additions, then removals");
}

#[test]
fn ten_thousand_policies_are_loaded_compared_and_released() {
    let namespace = Namespace::new();
    let dir = tempfile::tempdir().unwrap();
    let config = GuardConfig::new("gw", dir.path());
    let rules = (0..3334_u32).map(|i| {
        let remote = format!("10.{}.{}.0/24", 100 + i / 256, i % 256);
        protect("10.1.0.0/16", &remote)
    });
    let spec = GuardSpec { rules: rules.collect(), ..GuardSpec::default() };
    // Some of the same selectors, of another owner: the kernel's numbers are what tells them apart.
    let other = GuardConfig::new("other", dir.path().join("other"));
    let few = GuardSpec { rules: spec.rules[..10].to_vec(), ..GuardSpec::default() };
    drop(namespace.run(|| Guard::start(other.clone(), few, |_| {})).unwrap());
    let guard = namespace.run(|| Guard::start(config.clone(), spec.clone(), |_| {})).unwrap();
    assert_eq!(namespace.run(|| guard.state()).policies, 10_002);
    namespace.run(|| guard.set(spec)).unwrap();
    drop(guard);
    assert_eq!(namespace.run(|| release(&config)).unwrap(), 10_002);
    assert_eq!(policies(&namespace), 30);
    assert_eq!(namespace.run(|| release(&other)).unwrap(), 30);
    assert_eq!(policies(&namespace), 0);
}

#[test]
fn a_state_directory_that_cannot_be_written_refuses_the_change_and_keeps_the_guard() {
    let net = Gateway::new();
    let dir = tempfile::tempdir().unwrap();
    let config = GuardConfig::new("gw", dir.path().join("state"));
    let guard = net.gateway.run(|| Guard::start(config.clone(), spec(), |_| {})).unwrap();
    std::fs::create_dir(dir.path().join("state/guard.json.new")).unwrap();
    let refused = net.gateway.run(|| guard.set(GuardSpec::default()));
    assert!(matches!(refused, Err(GuardError::File { path, .. }) if path.starts_with(dir.path())));
    assert_eq!(leaks(&net), Leaks::NONE);
}

#[test]
fn a_more_specific_route_does_not_lead_around_it() {
    let net = Gateway::new();
    let dir = tempfile::tempdir().unwrap();
    let _guard =
        net.gateway.run(|| Guard::start(GuardConfig::new("gw", dir.path()), spec(), |_| {})).unwrap();
    net.gateway.ip(&["route", "add", "10.2.0.7/32", "via", gateway::FAR_WAN]);
    assert_eq!(leaks(&net), Leaks::NONE);
}

#[test]
fn neighbour_discovery_works_where_everything_is_protected() {
    let net = Gateway::new();
    let dir = tempfile::tempdir().unwrap();
    let mut spec = GuardSpec { rules: vec![protect("::/0", "::/0")], ..GuardSpec::default() };
    spec.local_addresses = [address("2001:db8::1"), address(gateway::GATEWAY_LAN_V6)].into();
    let _guard = net.gateway.run(|| Guard::start(GuardConfig::new("gw", dir.path()), spec, |_| {})).unwrap();
    // The neighbours ask, and the gateway must answer.
    for namespace in [&net.far, &net.host] {
        namespace.ip(&["-6", "neigh", "flush", "dev", "eth0"]);
    }
    for (from, source, to) in [
        (&net.far, gateway::FAR_WAN_V6, "2001:db8::1"),
        (&net.host, gateway::HOST_V6, gateway::GATEWAY_LAN_V6),
    ] {
        from.run(|| gateway::bind(source).send_to(b"inner", (address(to), 9)).unwrap());
    }
    let resolved = |ns: &Namespace, at: &str| ns.ip(&["-6", "neigh", "show", at]).contains("lladdr");
    wait_until("both neighbours know the gateway", || {
        resolved(&net.far, "2001:db8::1") && resolved(&net.host, gateway::GATEWAY_LAN_V6)
    });
}

fn policies(namespace: &Namespace) -> usize {
    namespace.ip(&["xfrm", "policy"]).lines().filter(|l| l.starts_with("src")).count()
}

fn spec() -> GuardSpec {
    GuardSpec {
        rules: vec![protect("10.1.0.0/16", "10.2.0.0/16"), protect("fd01::/16", "fd02::/16")],
        peers: [Some(address(gateway::FAR_WAN))].into(),
        local_addresses: [address(gateway::GATEWAY_WAN), address(gateway::GATEWAY_LAN)].into(),
        ..GuardSpec::default()
    }
}

fn protect(local: &str, remote: &str) -> Rule {
    let range = |text: &str| {
        let (prefix, length) = text.split_once('/').unwrap();
        AddressRange::prefix(address(prefix), length.parse().unwrap())
    };
    Rule { action: RuleAction::Protect, pairs: vec![Pair::addresses(range(local), range(remote))] }
}
