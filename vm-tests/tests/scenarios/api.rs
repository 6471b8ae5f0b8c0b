//! The control API of a real daemon: changes act, are kept and survive `kill -9`; disks that take nothing, stores that
//! cannot be read, callers that may not.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use portcullis_vm_tests::api::{receive, send};
use portcullis_vm_tests::{CHILD, Gateway, Process, is_busy, until};
use serde_json::{Value, json};

use super::*;

/// Where the API listens on gw-a.
pub const LISTEN: &str = "192.0.2.2:8443";
/// The one token of [`with_tls`].
pub const TOKEN: &str = "a-token-of-forty-octets-0123456789abcdef";

const CONNECTION: &str = "/v1/connections/site-b";
const POLICY: &str = "/v1/connections/site-b/esp-policy";

/// A policy is shown by status, API and events within a second, and a connection that changes is set up anew.
#[test]
fn changes_act_and_show() {
    let pair = up(DataPlaneMode::Tun);
    let mut command = Command::new(artefacts().binary);
    command.args(["events", "--json", "--socket"]).arg(pair.a.directory().join("control.sock"));
    let reader = Process::start(pair.a.namespace(), &mut command).unwrap();
    until(SOON, || {
        (pair.a.metrics().ok()?.sum("portcullis_api_event_readers", &[]) == Some(1.0)).then_some(())
    })
    .expect("the reader has come");

    let start = Instant::now();
    assert_eq!(pair.a.verb(&["policy", "set", "fail-closed", "site-b"]).unwrap(), "fail-closed by api\n");
    assert_eq!(pair.a.connection("site-b").unwrap().policy.source, "api");
    assert!(start.elapsed() < Duration::from_secs(1) || is_busy(), "{:?}", start.elapsed());
    reader
        .wait_for_line(SOON, |line| line.contains("\"policy_changed\"") && line.contains("\"site-b\""))
        .expect("the event");

    let read = pair.a.api("GET", CONNECTION, "", &Value::Null).unwrap();
    let mut document = read.body["configuration"].clone();
    assert!(document["local"].get("secret_file").is_none(), "where secrets are is not told");
    document["ike"]["dead_after"] = json!("77s");
    let if_match = format!("If-Match: {}\r\n", read.etag());
    let put = pair.a.api("PUT", CONNECTION, &if_match, &document).unwrap();
    assert_eq!((put.status, &put.body["result"]), (200, &json!("replaced")), "{put:?}");
    reader
        .wait_for_line(SOON, |line| line.contains("\"ike_established\"") && line.contains("\"site-b\""))
        .expect("it is set up anew, with the secret that it had");
    pair.wait_up(SOON).unwrap();
    wait_answered(&pair.lab);
    let stale = pair.a.api("PUT", CONNECTION, &if_match, &document).unwrap();
    assert_eq!((stale.status, stale.problem()), (412, "stale"));
    let audit = audit(&pair.a);
    let puts: Vec<_> = audit.iter().filter(|entry| entry["action"] == format!("PUT {CONNECTION}")).collect();
    assert_eq!(puts.len(), 2, "accepted and done; the stale one changed nothing: {audit:?}");
    assert_eq!((&puts[1]["who"], &puts[1]["result"]), (&json!("uid:0"), &json!("done")));
}

/// Whatever moment the daemon dies at: the store is whole, and an answer that was given holds.
#[test]
fn kill_9_between_request_and_answer() {
    let mut pair = alone();
    for wait_for_answer in [true, false, false, true, false] {
        pair.a.start().unwrap();
        let put = send(&control(&pair.a), "PUT", POLICY, "", &closed()).unwrap();
        if wait_for_answer {
            assert_eq!(receive(put).unwrap().status, 200);
        }
        pair.a.kill().unwrap();
        pair.a.start().unwrap();
        let policy = pair.a.api("GET", POLICY, "", &Value::Null).unwrap();
        let sources: &[&str] = if wait_for_answer { &["api"] } else { &["api", "configuration"] };
        assert!(sources.contains(&policy.body["source"].as_str().unwrap()), "{policy:?}");
        assert_eq!(metric(&pair.a, "portcullis_policy_store_ok"), 1.0);
        assert_eq!(pair.a.verb(&["policy", "unset", "site-b"]).unwrap(), "fail-closed by configuration\n");
        pair.a.kill().unwrap();
    }
}

/// A change that nobody confirms is undone, also after the daemon was killed in between.
#[test]
fn an_unconfirmed_change_is_undone() {
    let mut pair = alone();
    pair.a.start().unwrap();
    let put = pair.a.api("PUT", &format!("{POLICY}?confirm_within=4s"), "", &closed()).unwrap();
    assert_eq!(put.body["source"], "api");
    assert_eq!(metric(&pair.a, "portcullis_policy_change_pending"), 1.0);
    pair.a.kill().unwrap();
    pair.a.start().unwrap();
    until(SOON, || {
        let policy = pair.a.api("GET", POLICY, "", &Value::Null).ok()?;
        (policy.body["source"] == "configuration").then_some(())
    })
    .expect("it is undone");
    assert_eq!(metric(&pair.a, "portcullis_policy_change_pending"), 0.0);
    let set = pair.a.verb(&["policy", "set", "fail-closed", "site-b", "--confirm-within", "60s"]).unwrap();
    let id = set.trim().rsplit(' ').next().unwrap().to_owned();
    pair.a.verb(&["policy", "confirm", &id]).unwrap();
    pair.a.kill().unwrap();
    pair.a.start().unwrap();
    assert_eq!(pair.a.verb(&["policy", "get", "site-b"]).unwrap(), "fail-closed by api\n");
}

/// A state directory that is full, then read-only: changes are refused, the running policy stays.
#[test]
fn a_disk_that_takes_nothing_refuses_changes() {
    let mut pair = alone();
    let state = Tmpfs::mount(pair.a.directory().join("state"));
    pair.a.start().unwrap();
    assert_eq!(pair.a.api("PUT", POLICY, "", &closed()).unwrap().status, 200);
    let ballast = state.path.join("ballast");
    let full = std::fs::write(&ballast, vec![0; 1 << 20]).unwrap_err();
    assert_eq!(full.raw_os_error(), Some(nix::libc::ENOSPC));
    let changes = [("DELETE", POLICY), ("PUT", "/v1/defaults/esp-policy"), ("POST", "/v1/reload")];
    let refused = |changes: &[(&str, &str)]| {
        for (method, path) in changes {
            let answer = pair.a.api(method, path, "", &closed()).unwrap();
            assert_eq!((answer.status, answer.problem()), (507, "state-not-writable"), "{method} {path}");
        }
        assert_eq!(pair.a.connection("site-b").unwrap().policy.source, "api");
    };
    // A reload adds one line to the audit log, for which the last page may have room.
    refused(&changes[..2]);
    std::fs::remove_file(&ballast).unwrap();
    state.remount(MsFlags::MS_RDONLY);
    refused(&changes);
    state.remount(MsFlags::empty());
    assert_eq!(pair.a.api("DELETE", POLICY, "", &Value::Null).unwrap().status, 200);
    pair.a.stop().unwrap();
}

/// A store that cannot be read: fail-closed, alarm, and what was guarded stays guarded.
#[test]
fn an_unreadable_store_fails_closed() {
    let mut pair = alone();
    pair.a.start().unwrap();
    let mut document = pair.a.api("GET", CONNECTION, "", &Value::Null).unwrap().body["configuration"].clone();
    document["local"]["secret_file"] = json!(pair.lab.instance.directory().join("psk"));
    document["remote"]["id"] = json!("gw-c.example.net");
    document["children"][CHILD] = json!({"local_ts": ["10.1.0.0/16"], "remote_ts": ["10.99.0.0/16"]});
    let put = pair.a.api("PUT", "/v1/connections/site-c", "", &document).unwrap();
    assert_eq!(put.status, 201, "{put:?}");
    let guarded = || pair.lab.gw_a.ip(&["xfrm", "policy"]).unwrap().contains("10.99.0.0/16");
    assert!(guarded());
    pair.a.kill().unwrap();
    let store = pair.a.directory().join("state/policy-store.json");
    std::fs::write(&store, "{").unwrap();
    pair.a.start().unwrap();
    assert!(guarded(), "nobody knows the connection any more, and its traffic stays shut");
    assert_eq!(metric(&pair.a, "portcullis_policy_store_ok"), 0.0);
    assert_eq!(pair.a.connection("site-b").unwrap().policy.source, "store-unreadable");
    assert!(pair.a.verb(&["status"]).unwrap().contains("THE POLICY STORE CANNOT BE READ"));
    assert!(pair.a.log_tail().contains("THE POLICY STORE CANNOT BE READ"));
    let answer = pair.a.api("PUT", POLICY, "", &closed()).unwrap();
    assert_eq!((answer.status, answer.problem()), (503, "store-unreadable"));
    std::fs::remove_file(&store).unwrap();
    pair.a.verb(&["reload"]).unwrap();
    assert_eq!(metric(&pair.a, "portcullis_policy_store_ok"), 1.0);
    assert!(!guarded(), "now it is known that there is no such connection");
}

/// Tokens over TLS, as another program speaks it.
#[test]
fn tokens_over_tls() {
    let mut pair = alone();
    with_tls(&pair.a, "read-only");
    pair.a.start().unwrap();
    let curl = |method: &str, path: &str, token: &str| {
        let url = format!("https://{LISTEN}{path}");
        let header = format!("Authorization: Bearer {token}");
        let certificate = pair.a.directory().join("tls.pem").display().to_string();
        let arguments = [
            "-sS",
            "--max-time",
            "20",
            "--cacert",
            &certificate,
            "-X",
            method,
            "-H",
            &header,
            "-w",
            "%{http_code}",
            "-o",
            "/dev/null",
            &url,
        ];
        pair.a.namespace().run("curl", &arguments).unwrap()
    };
    assert_eq!(curl("GET", "/v1/status", TOKEN), "200");
    assert_eq!(curl("GET", "/v1/status", "wrong"), "401");
    assert_eq!(curl("DELETE", POLICY, TOKEN), "403");
    let audit = audit(&pair.a);
    let whos: Vec<_> = audit.iter().map(|entry| entry["who"].as_str().unwrap()).collect();
    assert_eq!(whos, ["nobody", "token:wall"]);
    assert!(audit[1]["from"].as_str().unwrap().starts_with("192.0.2.2:"));
    let told = format!("{}{audit:?}", pair.a.process().unwrap().output().join("\n"));
    assert!(!told.contains(TOKEN));
}

/// The difference of a reload is shown, and a file with an error is told line by line.
#[test]
fn reload_shows_the_difference() {
    let mut pair = alone();
    pair.a.start().unwrap();
    assert_eq!(pair.a.verb(&["reload", "--dry-run"]).unwrap(), "nothing changes\n");
    let config = pair.a.configuration().unwrap();
    pair.a.configure(config.clone().with("connections/site-b/ike/dead_after", "77s")).unwrap();
    let expected = "~ site-b\n    ike.dead_after: 77s\n";
    assert_eq!(pair.a.verb(&["reload", "--dry-run"]).unwrap(), expected);
    assert_eq!(pair.a.verb(&["reload"]).unwrap(), expected);
    pair.a
        .configure(
            config.with("connections/site-b/ike/dead_after", "soon").with("connections/site-b/nonsense", 1),
        )
        .unwrap();
    let refused = format!("{:#}", pair.a.verb(&["reload"]).unwrap_err());
    assert!(
        refused.contains("dead_after: 'soon' is not a duration") && refused.contains("nonsense: unknown key"),
        "{refused}"
    );
    let mut rest = String::new();
    let mut stream = send(&control(&pair.a), "POST", "/v1/reload", "", &Value::Null).unwrap();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.starts_with("HTTP/1.0 422 "), "{rest}");
}

/// Makes the API listen with a certificate and one token.
pub fn with_tls(gateway: &Gateway, role: &str) {
    let file = |name: &str| gateway.directory().join(name).display().to_string();
    let mut command = Command::new("openssl");
    command.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "1",
    ]);
    command.args(["-subj", "/CN=gw-a", "-addext", "subjectAltName=IP:192.0.2.2"]);
    command.args(["-keyout", &file("tls.key"), "-out", &file("tls.pem")]);
    let made = command.output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    write_private(&gateway.directory().join("token"), TOKEN);
    let (certificate, key, token) = (file("tls.pem"), file("tls.key"), file("token"));
    let api = format!(
        "{{ listen: '{LISTEN}', tls: {{ certificate: {certificate}, key: {key} }}, tokens: [{{ name: wall, role: {role}, file: {token} }}] }}"
    );
    let mut config = gateway.configuration().unwrap();
    config.set_yaml("api", &api).unwrap();
    gateway.configure(config).unwrap();
}

/// A gateway without its peer; its daemon is not started yet.
pub fn alone() -> Pair {
    Pair::new(PairOptions { mode: DataPlaneMode::Tun, ..PairOptions::USUAL }, &artefacts()).unwrap()
}

fn closed() -> Value {
    json!({"on_unreachable": "fail-closed"})
}

fn control(gateway: &Gateway) -> PathBuf {
    gateway.directory().join("control.sock")
}

fn metric(gateway: &Gateway, name: &str) -> f64 {
    gateway.metrics().unwrap().sum(name, &[]).unwrap()
}

fn audit(gateway: &Gateway) -> Vec<Value> {
    let text = std::fs::read_to_string(gateway.directory().join("state/audit.log")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn write_private(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// A file system of 64 KiB.
struct Tmpfs {
    path: PathBuf,
}

impl Tmpfs {
    fn mount(path: PathBuf) -> Self {
        std::fs::create_dir_all(&path).unwrap();
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some("size=64k,mode=700")).unwrap();
        Self { path }
    }

    fn remount(&self, flags: MsFlags) {
        let flags = MsFlags::MS_REMOUNT | flags;
        mount(Some("tmpfs"), &self.path, Some("tmpfs"), flags, Some("size=64k,mode=700")).unwrap();
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        if let Err(error) = umount2(&self.path, MntFlags::MNT_DETACH) {
            eprintln!("{}: {error}", self.path.display());
        }
    }
}
