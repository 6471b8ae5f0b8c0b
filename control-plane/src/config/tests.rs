//! What is refused, and where. A `§` in a text stands where the problem has to be reported; it is removed before the
//! text is parsed.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use portcullis_common::limit::Rate;
use portcullis_common::opening::IkePorts;
use portcullis_data_plane::config::OpeningLimits;
use portcullis_data_plane::packet::DontFragment;
use portcullis_data_plane::policy::Disposition;
use portcullis_esp::EchoSubTypes;
use portcullis_ike::config::{ProbePolicy, SeparateTransports, StartTransport, UnverifiedTimeout};

use super::*;

const DATA_PLANE: &str = "data_plane: { interfaces: { wan0: { role: wan } } }\n";
const AUTH: &str = "auth: psk, secret_file: /x";
const PROPOSAL: &str = "aes256gcm16-prfsha384-x25519";

#[test]
fn the_examples_that_ship_are_valid() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    for file in ["gw-a.yaml", "gw-b.yaml"] {
        let checked =
            load(&directory.join(file), None, &Secrets::Skip).unwrap_or_else(|refused| panic!("{refused}"));
        assert_eq!(checked.warnings, [], "{file}");
        let connection = &checked.config.connections[0];
        assert_eq!(connection.ike.ike.transport, StartTransport::UdpThenTcp);
        assert_eq!(connection.ike.ike.separate_transports, SeparateTransports::Prefer);
        assert!(!connection.children[0].ike.local_ts.is_empty());
    }
}

#[test]
fn problems_of_the_gateway_are_reported_where_they_are() {
    for (text, key, message) in [
        ("§colour: red\n", "colour", "unknown key; known here: api, connections, control, data_plane"),
        ("instance: §bad name\n", "instance", "is not a name"),
        ("state_dir: §relative\n", "state_dir", "absolute path"),
        ("control: { socket: §run.sock }\n", "control.socket", "absolute path"),
        ("control: { group_role: §root }\n", "control.group_role", "read-only, operator, admin"),
        ("api: §{ listen: '192.0.2.1:8443' }\n", "api", "listen needs tls"),
        ("api: { listen: §everywhere }\n", "api.listen", "such as 192.0.2.1:8443"),
        ("api: { tls: §{ key: /k } }\n", "api.tls", "'certificate' is missing"),
        ("api: { clients: §[{ subject: CN=a, role: admin }] }\n", "api.clients", "need tls.client_ca"),
        ("api: { tokens: [{ name: a, role: §root, file: /t }] }\n", "api.tokens[0].role", "operator, admin"),
        ("api: { tokens: [§{ name: a, role: admin }] }\n", "api.tokens[0]", "needs file: PATH"),
        (
            "api: §{ tokens: [{ name: a, role: admin, file: /t }, { name: a, role: admin, file: /u }] }\n",
            "api",
            "two tokens are named a",
        ),
        ("metrics:\n  listen: §localhost\n", "metrics.listen", "127.0.0.1:9464"),
        ("metrics: { per_connection: §some }\n", "metrics.per_connection", "not one of all, listed, off"),
        ("metrics: { §port: 1 }\n", "metrics.port", "unknown key"),
        ("log: { level: §loud }\n", "log.level", "error, warn, info"),
        ("ike: { separate_transports_notify: §16447 }\n", "ike.separate_transports_notify", "40960 to 65535"),
        ("ike: { esp_echo_notify: §16400 }\n", "ike.esp_echo_notify", "40960 to 65535"),
        ("ike: { half_open_timeout: §30 }\n", "ike.half_open_timeout", "such as 250ms"),
        ("ike: { listen: [§nowhere] }\n", "ike.listen[0]", "not an IP address"),
        ("ike: { shards: §0 }\n", "ike.shards", "from 1 to 64"),
        ("ike: { crypto: §openssl }\n", "ike.crypto", "aws-lc"),
        ("policies:\n  - { action: §allow }\n", "policies[0].action", "bypass, discard"),
        ("policies: [{ action: bypass, local: §10.0.0.1/8 }]\n", "policies[0].local", "10.0.0.0/8"),
        (
            "policies: [{ action: bypass, remote_ports: §80 }]\n",
            "policies[0].remote_ports",
            "need a protocol",
        ),
        ("policies: [§{ action: bypass, local: 10.0.0.0/8, remote: '::/0' }]\n", "policies[0]", "family"),
        ("connections: §[]\n", "connections", "keys with values"),
    ] {
        refused(&format!("{DATA_PLANE}{text}"), key, message);
    }
    refused("§instance: a\n", "", "'data_plane' is missing");
    refused("data_plane: §{}\n", "data_plane", "'interfaces' is missing");
    refused("data_plane: { interfaces: §{ lan0: { role: lan } } }\n", "data_plane.interfaces", "role wan");
    refused(
        "data_plane: { interfaces: { wan0: { role: §dmz } } }\n",
        "data_plane.interfaces.wan0.role",
        "wan, lan",
    );
    refused(
        "data_plane: { mode: §dpdk, interfaces: { w: { role: wan } } }\n",
        "data_plane.mode",
        "auto, xdp, tun",
    );
    refused(
        "data_plane: { mode: xdp, xdp: §off, interfaces: { w: { role: wan } } }\n",
        "data_plane.xdp",
        "mode xdp needs XDP",
    );
    refused(
        "data_plane: { xdp: §never, interfaces: { w: { role: wan } } }\n",
        "data_plane.xdp",
        "auto, on, off",
    );
    refused(
        "data_plane: { idle: §never, interfaces: { w: { role: wan } } }\n",
        "data_plane.idle",
        "sleep, spin, busy_poll",
    );
    refused(
        "data_plane: { mode: tun, idle: §busy_poll, interfaces: { w: { role: wan } } }\n",
        "data_plane.idle",
        "no queue",
    );
    refused(
        "data_plane: { busy_poll_budget: §64, interfaces: { w: { role: wan } } }\n",
        "data_plane.busy_poll_budget",
        "only `idle: busy_poll`",
    );
    refused(
        "data_plane: { idle: busy_poll, busy_poll_budget: §0, interfaces: { w: { role: wan } } }\n",
        "data_plane.busy_poll_budget",
        "from 1 to 1024",
    );
    refused(
        "data_plane: { replay_window: §100, interfaces: { w: { role: wan } } }\n",
        "data_plane.replay_window",
        "64",
    );
    refused(
        "data_plane: { echo: §{ request: 1 }, interfaces: { w: { role: wan } } }\n",
        "data_plane.echo",
        "two different numbers above 1",
    );
    refused(
        "data_plane: { echo: { reply: §300 }, interfaces: { w: { role: wan } } }\n",
        "data_plane.echo.reply",
        "from 0 to 255",
    );
    refused(
        "data_plane: { xdp_limits: { ipv6_prefix: §65 }, interfaces: { w: { role: wan } } }\n",
        "data_plane.xdp_limits.ipv6_prefix",
        "from 16 to 64",
    );
    refused(
        "data_plane: { xdp_limits: { tcp_syn: §{ per_second: 1000, burst: 9 } }, interfaces: { w: { role: wan } } }\n",
        "data_plane.xdp_limits.tcp_syn",
        "at least a 100th of per_second",
    );
    refused(
        "data_plane: { xdp_limits: { ike_sa_init: { burst: §0 } }, interfaces: { w: { role: wan } } }\n",
        "data_plane.xdp_limits.ike_sa_init.burst",
        "from 1 to 1000000",
    );
}

#[test]
fn xdp_limits_are_read_with_the_ports_of_ike() {
    let text = "data_plane: { xdp_limits: { ipv4_prefix: 32, ike_sa_init: { per_second: 0 }, \
        tcp_syn: { per_second: 10, burst: 20 } }, interfaces: { w: { role: wan } } }\n\
        ike: { port: 5500, nat_port: 6600, tcp: false }\n";
    let config = parse(text, None, &Secrets::Skip).unwrap_or_else(|(errors, _)| panic!("{errors:?}")).config;
    let expected = OpeningLimits {
        ipv4_prefix: 32,
        init: Rate::NONE,
        syn: Rate::new(10, 20),
        ports: IkePorts { udp: 5500, tcp: 0 },
        ..OpeningLimits::default()
    };
    assert_eq!(config.data_plane.limits, expected);
    let config = parse(DATA_PLANE, None, &Secrets::Skip).unwrap_or_else(|(errors, _)| panic!("{errors:?}"));
    assert_eq!(config.config.data_plane.limits, OpeningLimits::default());
}

#[test]
fn problems_of_a_connection_are_reported_where_they_are() {
    for (text, key, message) in [
        ("{ id: a, §auht: psk }", "auht", "unknown key"),
        ("{ id: a, auth: §certificate, secret_file: /x }", "auth", "psk, cert"),
        (
            "{ id: a, auth: cert, certificate: /c, key: /k, secret_file: §/x }",
            "secret_file",
            "belongs to auth: psk",
        ),
        ("§{ id: a, auth: cert, certificate: /c }", "", "'key' is missing"),
        ("§{ id: a, auth: psk }", "", "secret_file: PATH or credential: NAME"),
        ("{ id: a, auth: psk, secret_file: /x, credential: §y }", "credential", "not both"),
        (
            "{ id: a, auth: psk, secret_file: /x }\n    ppk: §{ id: p, required: true }",
            "ppk",
            "secret_file: PATH or credential: NAME",
        ),
        (
            "{ id: a, auth: psk, secret_file: /x }\n    ppk: { secret_file: /y, §id: '' }",
            "ppk.id",
            "1 to 255",
        ),
        ("{ id: §'a b', auth: psk, secret_file: /x }", "id", "without spaces"),
        ("{ id: a, auth: psk, secret_file: /x, address: §0.0.0.0 }", "address", "address of a host"),
    ] {
        let yaml = format!(
            "{DATA_PLANE}connections:\n  dc:\n    local: {text}\n    remote: {{ address: any, id: b, {AUTH} }}\n    children: {{ net: {{ local_ts: 10.1.0.0/16, remote_ts: 10.2.0.0/16 }} }}\n"
        );
        let key = if key.starts_with("ppk") {
            format!("connections.dc.{key}")
        } else if key.is_empty() {
            "connections.dc.local".to_owned()
        } else {
            format!("connections.dc.local.{key}")
        };
        refused(&yaml, &key, message);
    }
    for (ike, esp, key, message) in [
        ("{ proposals: [aes256gcm16-prfsha384-§x25518] }", "{}", "", ""),
        ("{ transport: §quic }", "{}", "ike.transport", "udp, udp-then-tcp, tcp"),
        ("{ transport: tcp, separate_transports: §off }", "{}", "ike.separate_transports", "fail-closed"),
        ("{ transport: udp, separate_transports: §require }", "{}", "ike.separate_transports", "IKE on TCP"),
        (
            "{ first_child: §after-rekey, proposals: [aes256gcm16-prfsha384-x25519] }",
            "{}",
            "ike.first_child",
            "behind authentication",
        ),
        ("§{ reauth_after: 10s }", "{}", "ike", "at least 1min"),
        (
            "{}",
            "{}\n    redirect: { follow: [§'192.0.2.0/24[tcp/1]'] }",
            "redirect.follow[0]",
            "without protocol",
        ),
        ("{}", "{}\n    redirect: { to: §0.0.0.0 }", "redirect.to", "address of a host"),
        ("{}", "{}\n    redirect: { when: §later }", "redirect.when", "ike-sa-init, ike-auth"),
        ("{}", "{ fallback: §{ trial_first: 1h } }", "esp.fallback", "trial_longest"),
        ("{}", "{ fallback: { §trial: 1h } }", "esp.fallback.trial", "unknown key"),
        ("{ transport: udp }", "{ on_unreachable: §tcp-fallback }", "esp.on_unreachable", "no TCP stream"),
        (
            "{ transport: udp, proposals: §[aes256gcm16-prfsha384-mlkem1024] }",
            "{}",
            "ike.proposals",
            "does not fit",
        ),
        ("{ proposals: §[] }", "{}", "ike.proposals", "at least one"),
        ("§{ rekey_after: 2h, lifetime: 1h }", "{}", "ike", "shorter than lifetime"),
        ("§{ retry_min: 2min }", "{}", "ike", "retry_max"),
        ("{ dead_after: §-1s }", "{}", "ike.dead_after", "duration"),
        ("{}", "{ transports: [ip, §tcp] }", "esp.transports[1]", "only way"),
        ("{}", "{ transports: §[ip, ip] }", "esp.transports", "twice"),
        ("{}", "{ transports: §[] }", "esp.transports", "at least one"),
        ("{}", "{ probe: { tries: 3 } }", "esp.probe.tries", "unknown key"),
        ("{}", "{ probe: { timeout: §10ms } }", "esp.probe.timeout", "between 50ms and 30s"),
        ("{}", "{ probe: { stagger: §1min } }", "esp.probe.stagger", "between 1ms and 30s"),
        ("{}", "{ probe: { attempts: §0 } }", "esp.probe.attempts", "from 1 to 20"),
        ("{}", "{ probe: { idle_interval: §never } }", "esp.probe.idle_interval", "duration"),
        ("{}", "{ hold_time: §2h }", "esp.hold_time", "between 1s and 1h"),
        ("{}", "{ unverified_timeout: §soon }", "esp.unverified_timeout", "duration"),
    ] {
        let ike = ike.replace("aes256gcm16-prfsha384-§x25518", "§aes256gcm16-prfsha384-x25518");
        let (key, message) = match key {
            "" => ("ike.proposals[0]", "x25518"),
            key => (key, message),
        };
        let esp = esp.replace("{ tries", "{ §tries");
        let yaml = format!(
            "{DATA_PLANE}connections:\n  dc:\n    local: {{ id: a, {AUTH} }}\n    remote: {{ address: 192.0.2.2, id: b, auth: psk }}\n    ike: {ike}\n    esp: {esp}\n    children: {{ net: {{ local_ts: 10.1.0.0/16, remote_ts: 10.2.0.0/16 }} }}\n"
        );
        refused(&yaml, &format!("connections.dc.{key}"), message);
    }
}

/// Transport policy, configuration part: the timers of `esp:` with their defaults, and what `never` means.
#[test]
fn the_timers_of_esp_are_read() {
    let read = |esp: &str| {
        let yaml = format!(
            "{DATA_PLANE}connections:\n  dc:\n    local: {{ id: a, {AUTH} }}\n    remote: {{ address: 192.0.2.2, id: b, auth: psk }}\n    esp: {esp}\n    children: {{ net: {{ local_ts: 10.1.0.0/16, remote_ts: 10.2.0.0/16 }} }}\n"
        );
        let checked = parse(&yaml, None, &Secrets::Skip).unwrap_or_else(|refused| panic!("{refused:?}"));
        checked.config.connections[0].ike.esp.clone()
    };
    let esp = read("{}");
    assert_eq!((esp.probe, esp.unverified_timeout), (ProbePolicy::default(), UnverifiedTimeout::ByRow));
    let esp = read(
        "{ probe: { timeout: 500ms, attempts: 5, stagger: 100ms, idle_interval: 5s }, hold_time: 2min, unverified_timeout: never }",
    );
    let ms = Duration::from_millis;
    let probe = ProbePolicy { timeout: ms(500), attempts: 5, stagger: ms(100), idle_interval: ms(5000) };
    assert_eq!((esp.probe, esp.hold_time), (probe, ms(120_000)));
    assert_eq!(esp.unverified_timeout, UnverifiedTimeout::Never);
    let esp = read("{ unverified_timeout: 45s }");
    assert_eq!(esp.unverified_timeout, UnverifiedTimeout::After(ms(45_000)));
}

#[test]
fn problems_of_children_are_reported_where_they_are() {
    for (children, key, message) in [
        ("§{}", "children", "at least one child"),
        ("{ §net: { local_ts: 10.1.0.0/16 } }", "children.net", "'remote_ts' is missing"),
        (
            "{ net: { local_ts: §10.1.0.5/16, remote_ts: 10.2.0.0/16 } }",
            "children.net.local_ts",
            "10.1.0.0/16",
        ),
        ("{ §net: { local_ts: 10.1.0.0/16, remote_ts: '::/0' } }", "children.net", "family"),
        (
            "{ net: { local_ts: 10.1.0.0/16, remote_ts: 10.2.0.0/16, start: §now } }",
            "children.net.start",
            "always",
        ),
        (
            "{ net: { local_ts: 10.1.0.0/16, remote_ts: 10.2.0.0/16, proposals: [§aes257gcm16] } }",
            "children.net.proposals[0]",
            "aes257gcm16",
        ),
        ("{ §vti: { interface: ipsec0 } }", "children.vti", "guard: [prefixes]"),
        ("{ vti: { interface: ipsec0, guard: §[] } }", "children.vti.guard", "at least one prefix"),
        ("{ vti: { interface: §a-name-far-too-long, guard: [10.0.0.0/8] } }", "children.vti.interface", "15"),
        (
            "{ net: { local_ts: 10.1.0.0/16, remote_ts: 10.2.0.0/16, guard: §[10.0.0.0/8] } }",
            "children.net.guard",
            "belongs to a child with interface",
        ),
        (
            "{ §net: { local_ts: 10.1.0.0/16, remote_ts: 10.2.0.0/16, rekey_bytes: 1GB } }",
            "children.net",
            "belong together",
        ),
        (
            "{ §net: { local_ts: 10.1.0.0/16, remote_ts: 10.2.0.0/16, rekey_bytes: 2GB, lifetime_bytes: 1GB } }",
            "children.net",
            "less than lifetime_bytes",
        ),
        (
            "{ a: { local_ts: 10.1.0.0/16, remote_ts: 10.2.0.0/16 }, §b: { local_ts: 10.1.5.0/24, remote_ts: 10.2.0.0/15 } }",
            "children.b",
            "claims packets of child dc.a",
        ),
        (
            "{ a: { interface: i0, guard: [10.0.0.0/8] }, §b: { interface: i0, guard: [172.16.0.0/12] } }",
            "children.b",
            "belongs to child dc.a",
        ),
        ("{ §a: { interface: wan0, guard: [10.0.0.0/8] } }", "children.a", "used by data_plane already"),
    ] {
        refused(&connection("dc", "192.0.2.2", children), &format!("connections.dc.{key}"), message);
    }
    let any = "{ §net: { local_ts: 10.1.0.0/16, remote_ts: 10.2.0.0/16, start: always } }";
    refused(&connection("dc", "any", any), "connections.dc.children.net", "needs an address to dial");
}

#[test]
fn connections_that_cannot_be_told_apart_are_refused() {
    let first = connection("one", "192.0.2.2", "{ net: { local_ts: 10.1.0.0/16, remote_ts: 10.2.0.0/16 } }");
    let second = connection("two", "192.0.2.2", "{ net: { local_ts: 10.1.0.0/16, remote_ts: 10.3.0.0/16 } }");
    let second = second.split_once("connections:\n").unwrap().1.replacen("two:", "§two:", 1);
    refused(
        &format!("{first}{second}"),
        "connections.two",
        "cannot be told apart from connection one in line 3",
    );
}

#[test]
fn every_problem_is_shown_at_once_in_the_order_of_the_text() {
    let yaml = "instance: bad name\ncolour: red\nlog: { level: loud }\n";
    let (errors, _) = parse(yaml, None, &Secrets::Skip).unwrap_err();
    let lines: Vec<usize> = errors.iter().map(|error| error.mark.line).collect();
    assert_eq!(lines, [1, 1, 2, 3], "{errors:?}");
}

#[test]
fn a_message_names_file_line_column_and_key() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "{DATA_PLANE}log: {{ level: loud }}").unwrap();
    let refused = load(file.path(), None, &Secrets::Skip).unwrap_err().to_string();
    let expected = format!(
        "{}:2:15: log.level: 'loud' is not one of error, warn, info, debug, trace",
        file.path().display()
    );
    assert_eq!(refused, expected);
    let missing = load(Path::new("/nonexistent.yaml"), None, &Secrets::Skip).unwrap_err().to_string();
    assert!(missing.starts_with("/nonexistent.yaml:1:1: cannot be read: "), "{missing}");
}

#[test]
fn bypass_and_discard_come_before_the_children_and_defaults_hold() {
    let text = format!(
        "{}policies: [{{ action: bypass, remote: 10.2.0.9, protocol: tcp, remote_ports: 22 }}, {{ action: discard }}]\n",
        connection(
            "dc",
            "192.0.2.2",
            "{ net: { local_ts: 10.1.0.0/16, remote_ts: 10.2.0.0/16, start: on-traffic, per_resource: 4 } }"
        )
    );
    let config =
        parse(&text, Some("other"), &Secrets::Skip).unwrap_or_else(|(errors, _)| panic!("{errors:?}")).config;
    assert_eq!(&*config.instance, "other");
    assert_eq!(config.control.socket, Path::new("/run/portcullis/other/control.sock"));
    assert_eq!(config.data_plane.tunnel.dont_fragment, DontFragment::Copy);
    assert_eq!(config.data_plane.echo, EchoSubTypes::DEFAULT);
    let set = config.policy_set();
    let [bypass, discard, protect] = set.policies.as_slice() else { panic!("{:?}", set.policies) };
    assert_eq!((bypass.disposition.clone(), bypass.remote[0].ports.clone()), (Disposition::Bypass, 22..=22));
    assert_eq!(discard.disposition, Disposition::Discard);
    assert!(matches!(&protect.disposition, Disposition::Protect { acquire: true, .. }));
    assert_eq!(set.peers, [Some("192.0.2.2".parse().unwrap())]);
    assert_eq!(config.connections[0].ike.children[0].per_resource, 4);
    assert!(parse(&text.replace("resource: 4", "resource: 0"), None, &Secrets::Skip).is_err());
    assert_eq!(config.connections[0].children[0].parallel_seal, None);
}

/// Four batches of 64 packets for each worker.
#[test]
fn sealing_in_parallel_needs_a_peer_with_a_wide_window() {
    let parsed = |workers: u32, window: u32| {
        let child = format!(
            "{{ net: {{ local_ts: 10.1.0.0/16, remote_ts: 10.2.0.0/16, parallel_seal: {{ peer_window: {window} }} }} }}"
        );
        let data_plane = format!("data_plane: {{ workers: {workers}, ");
        let text = connection("dc", "192.0.2.2", &child).replacen("data_plane: { ", &data_plane, 1);
        parse(&text, None, &Secrets::Skip)
    };
    let accepted = parsed(4, 1024).unwrap_or_else(|(errors, _)| panic!("{errors:?}"));
    assert_eq!(accepted.config.connections[0].children[0].parallel_seal, Some(1024));
    let (errors, _) = parsed(4, 1023).unwrap_err();
    assert!(errors[0].message.contains("at least 1024 packets, not 1023"), "{errors:?}");
    let useless = parsed(1, 1024).unwrap_or_else(|(errors, _)| panic!("{errors:?}"));
    assert!(useless.warnings[0].message.contains("one worker"), "{:?}", useless.warnings);
}

#[test]
fn tokens_are_long_and_kept_as_hashes() {
    use std::os::unix::fs::PermissionsExt;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
    let text = format!(
        "{DATA_PLANE}api: {{ tokens: [{{ name: ci, role: admin, file: {} }}] }}\n",
        file.path().display()
    );
    let secrets = Secrets::Read { credentials: None };
    for bad in ["short", "long enough but with spaces in between it", "ümläute-sind-keine-sichtbaren-zeichen"]
    {
        std::fs::write(file.path(), bad).unwrap();
        let (errors, _) = parse(&text, None, &secrets).unwrap_err();
        assert!(errors[0].message.contains("at least 32 visible"), "{bad}: {errors:?}");
    }
    let token = "0123456789abcdef0123456789abcdef";
    std::fs::write(file.path(), format!("{token}\n")).unwrap();
    let config = parse(&text, None, &secrets).unwrap().config;
    assert_eq!(config.api.tokens[0].digest, crate::digest::sha256(token.as_bytes()));
    assert!(!format!("{config:?}").contains(token));
}

#[test]
fn secrets_come_from_files_that_others_cannot_read() {
    let directory = tempfile::tempdir().unwrap();
    let secret = |name: &str, mode: u32, content: &str| {
        let path = directory.path().join(name);
        let mut file =
            std::fs::OpenOptions::new().create_new(true).write(true).mode(mode).open(&path).unwrap();
        file.write_all(content.as_bytes()).unwrap();
        // The process's umask may have taken bits away.
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        path
    };
    let long = "0123456789abcdef0123456789abcdef";
    let with = |local: &str| {
        let text =
            connection("dc", "192.0.2.2", "{ net: { local_ts: 10.1.0.0/16, remote_ts: 10.2.0.0/16 } }")
                .replacen("secret_file: /x", local, 1);
        parse(&text, None, &Secrets::Read { credentials: Some(directory.path().to_owned()) })
    };
    let file = |path: &Path| format!("secret_file: {}", path.display());

    let good = with(&file(&secret("good", 0o600, &format!("{long}\n")))).unwrap();
    let portcullis_ike::config::LocalAuth::Psk(psk) = &good.config.connections[0].ike.local_auth else {
        panic!()
    };
    assert_eq!(psk.expose(), long.as_bytes(), "without the line end");
    assert!(!format!("{:?}", good.config).contains(long), "a secret is never printed");
    let hex = with(&file(&secret("hex", 0o600, &format!("0x{long}")))).unwrap();
    let portcullis_ike::config::RemoteAuth::Psk(psk) = &hex.config.connections[0].ike.remote_auth else {
        panic!()
    };
    assert_eq!(
        psk.expose()[..4],
        [0x01, 0x23, 0x45, 0x67],
        "the remote side has the same unless it says otherwise"
    );
    // RFC 7296 section 2.15: 64 octets and more.
    let longest = with(&file(&secret("longest", 0o600, &"s".repeat(4096)))).unwrap();
    let portcullis_ike::config::LocalAuth::Psk(psk) = &longest.config.connections[0].ike.local_auth else {
        panic!()
    };
    assert_eq!(psk.expose().len(), 4096);
    assert!(with(&file(&secret("longer", 0o600, &"s".repeat(4098)))).is_err());
    assert!(with("credential: good").is_ok());
    let both = with(&format!(
        "credential: good }}\n    ppk: {{ id: p, {}",
        file(&secret("ppk", 0o600, "0123456789abcdef01234567"))
    ));
    let both = both.unwrap();
    let ppk = both.config.connections[0].ike.ppk.clone().unwrap();
    assert_eq!((&*ppk.id, ppk.secret.expose().len()), (&b"p"[..], 24));
    assert!(ppk.required && !ppk.intermediate);
    assert!(both.warnings[0].message.contains("RFC 8784"), "{:?}", both.warnings);
    assert!(with(&file(&secret("short", 0o600, "1234"))).unwrap().warnings[0].message.contains("4 octets"));
    assert!(with(&file(&secret("group", 0o640, long))).unwrap().warnings[0].message.contains("group"));
    for (bad, message) in [
        (file(&secret("world", 0o644, long)), "mode 0644"),
        (file(&secret("empty", 0o600, "\n")), "is empty"),
        (file(&secret("odd", 0o600, "0x123")), "hexadecimal"),
        ("secret_file: /nonexistent/psk".to_owned(), "No such file"),
        ("credential: ../psk".to_owned(), "is a path"),
    ] {
        let (errors, _) = with(&bad).unwrap_err();
        assert!(errors[0].message.contains(message), "{bad}: {errors:?}");
        assert_eq!(errors[0].mark.line, 4, "{bad}");
    }
}

/// One connection with these children.
fn connection(name: &str, remote: &str, children: &str) -> String {
    format!(
        "{DATA_PLANE}connections:\n  {name}:\n    local: {{ id: a, {AUTH} }}\n    remote: {{ address: {remote}, id: b, auth: psk }}\n    ike: {{ proposals: [{PROPOSAL}] }}\n    children: {children}\n"
    )
}

/// This error is among those reported, at the `§`.
fn refused(marked: &str, key: &str, message: &str) {
    let before = marked.split_once('§').unwrap_or_else(|| panic!("no § in {marked}")).0;
    let mark = Mark {
        line: before.lines().count().max(1) + usize::from(before.ends_with('\n') && !before.is_empty()),
        column: before.rsplit('\n').next().unwrap_or_default().chars().count() + 1,
    };
    let text = marked.replacen('§', "", 1);
    let (errors, _) = match parse(&text, None, &Secrets::Skip) {
        Err(problems) => problems,
        Ok(_) => panic!("accepted: {text}"),
    };
    let is_it = |error: &&Problem| error.mark == mark && error.key == key && error.message.contains(message);
    assert!(
        errors.iter().any(|error| is_it(&error)),
        "wanted {mark:?} {key} {message}, got {errors:?}\n{text}"
    );
}

/// The same rules as for a secret that a configuration names.
#[test]
fn a_secret_of_a_command_is_read_as_one_of_a_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, mode: u32, text: &str| {
        let path = directory.path().join(name);
        let mut options = std::fs::OpenOptions::new();
        options
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&path)
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        path
    };
    let read = |path: std::path::PathBuf| secret_in(&path).map(|secret| secret.expose().to_vec());
    assert_eq!(read(write("text", 0o600, "a key\n")).unwrap(), b"a key");
    assert_eq!(read(write("hex", 0o600, "0x6b6579\r\n")).unwrap(), b"key");
    for (name, mode, text, cause) in [
        ("public", 0o644, "a key", "chmod 600"),
        ("empty", 0o600, "\n", "empty"),
        ("odd", 0o600, "0x6", "even"),
    ] {
        let error = read(write(name, mode, text)).unwrap_err().to_string();
        assert!(error.contains(cause), "{name}: {error}");
    }
}
