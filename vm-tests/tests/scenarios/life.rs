//! A life under the eyes of a real Prometheus: start, traffic, rekeys, IKE blocked, IP blocked, ESP blocked and back, ESP in TCP and back, forgeries, a flood,
//! a full SA table, a certificate that expires, overload, `kill -9`, alone with a damaged policy store, without a guard. Every panel and every alert has to show what
//! `dashboards/evidence.yaml` says it shows.

use std::collections::BTreeMap;
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use portcullis_vm_tests::dashboards::{Dashboards, Expression, Proof};
use portcullis_vm_tests::prometheus::{Answer, Prometheus, program};
use portcullis_vm_tests::{Authority, CHILD, DataPlaneMode, Kernel, Pair, PairOptions, Ping, Side, until};

use crate::{SOON, add_site, artefacts, change, flow, wait_more};

/// A connection that nearly fills the SA table.
const MANY: &str = "many";
/// A connection for peers with any address.
const ANYBODY: &str = "anybody";
/// The smallest table, and children for nine tenths of it.
const SLOTS: usize = 256;
const CHILDREN: usize = 235;
/// Child SAs get new keys within this time.
const REKEY_AFTER: &str = "20s";
/// How long it may take until Prometheus shows a stage: its windows are up to 10 s, attempts are up to 60 s apart.
const SHOWN_WITHIN: Duration = Duration::from_secs(100);
/// Both direct carriers of ESP.
const DIRECT: &str = "meta l4proto esp drop; udp dport 4500 drop; udp sport 4500 drop;";
/// Above this strangers get cookies.
const COOKIE_THRESHOLD: usize = 8;

#[test]
fn every_panel_and_alert_shows_what_it_is_for() {
    let options = PairOptions { mode: DataPlaneMode::Xdp, ..PairOptions::USUAL };
    let mut pair = Pair::new(options, &artefacts()).unwrap().leave_books();
    for side in [Side::A, Side::B] {
        change(pair.gateway(side), |config| {
            config.set("ike/max_children", 1000);
            let esp = format!("connections/{}/esp", side.connection());
            config.set(&format!("{esp}/hold_time"), "2s");
            config.set(&format!("{esp}/fallback/trial_first"), "5s");
            add_site(config, side, MANY, 0);
            config.remove(&format!("connections/{MANY}/children"));
            for child in 0..CHILDREN {
                let to = format!("connections/{MANY}/children/c{child}");
                let end = |net: u8| format!("[172.{net}.0.{child}/32]");
                let (local, remote) = if side == Side::A { (16, 17) } else { (17, 16) };
                config.set_yaml(&format!("{to}/local_ts"), &end(local)).unwrap();
                config.set_yaml(&format!("{to}/remote_ts"), &end(remote)).unwrap();
                config.set(&format!("{to}/start"), "none");
            }
        });
    }
    change(&pair.a, |config| {
        // Without a connection for anybody strangers would have nothing to ask for.
        add_site(config, Side::A, ANYBODY, 1);
        let anybody = format!("connections/{ANYBODY}");
        config.set(&format!("{anybody}/remote/address"), "any");
        config.set(&format!("{anybody}/children/{CHILD}/start"), "none");
        config.set(&format!("{anybody}/ike/transport"), "udp-then-tcp");
        config.set_yaml(&format!("{anybody}/ike/proposals"), "[aes256gcm16-prfsha384-x25519]").unwrap();
        config.set("data_plane/sa_slots", SLOTS);
        config.set("ike/cookie_threshold", COOKIE_THRESHOLD);
        let connection = format!("connections/{}", Side::A.connection());
        config.set(&format!("{connection}/children/{CHILD}/rekey_after"), REKEY_AFTER);
        config.set(&format!("{connection}/ike/retry_max"), "5s");
    });
    let target = pair.a.metrics_address();
    let gateway = pair.lab.gateway(Side::A);
    let prometheus =
        Prometheus::start(&pair.lab.instance, gateway, &[target], &Dashboards::rules_file()).unwrap();
    let mut watch = Watch::new(&prometheus);

    pair.a.start().unwrap();
    watch.stage("start");
    pair.b.start().unwrap();
    pair.wait_up(SOON).unwrap();
    watch.stage("up");
    check_metrics(&pair);

    let flows = [flow(&pair.lab, Side::A, 500), flow(&pair.lab, Side::B, 500)];
    wait_more(&flows, 500);
    watch.stage("traffic");
    pair.a.verb(&["rekey", Side::A.connection()]).unwrap();
    pair.a.verb(&["rekey", Side::A.connection(), "--ike"]).unwrap();
    watch.stage("rekeyed");

    filter(&pair, "tcp dport 4500 reject with tcp reset; tcp sport 4500 reject with tcp reset;");
    watch.stage("ike_blocked");
    unfilter(&pair);
    filter(&pair, "meta l4proto esp drop;");
    watch.stage("ip_blocked");
    unfilter(&pair);
    filter(&pair, DIRECT);
    watch.stage("esp_blocked");
    unfilter(&pair);
    // A flow that nothing comes through for long has ended.
    drop(flows);
    let answered = Ping { count: 1, timeout: Duration::from_millis(200), ..Ping::to(Side::B.host().0) };
    until(SHOWN_WITHIN, || (answered.run(&pair.lab.host_a).unwrap().answered == 1).then_some(()))
        .expect("ESP passes again");
    let flows = [flow(&pair.lab, Side::A, 500), flow(&pair.lab, Side::B, 500)];
    wait_more(&flows, 500);
    watch.stage("back");
    for side in [Side::A, Side::B] {
        pair.gateway(side).verb(&["policy", "set", "tcp-fallback", side.connection()]).unwrap();
    }
    filter(&pair, DIRECT);
    watch.stage("fell_back");
    unfilter(&pair);
    watch.stage("returned");

    // Somebody outside sends in clear as if it were host-b.
    gateway.ip(&["address", "add", "10.1.0.9/24", "dev", "lan0"]).unwrap();
    let (forged, target) = (Side::B.host().0, Side::A.host().0);
    pair.lab.router.ip(&["address", "add", &format!("{forged}/32"), "dev", "lo"]).unwrap();
    let forger = pair.lab.router.enter(|| UdpSocket::bind((forged, 0))).unwrap();
    for _ in 0..50 {
        forger.send_to(b"forged", (target, 9)).unwrap();
    }
    watch.stage("forged");
    pair.lab.router.ip(&["address", "del", &format!("{forged}/32"), "dev", "lo"]).unwrap();

    let strangers = flood(&pair);
    watch.stage("flooded");
    drop(strangers);
    pair.a.verb(&["up", MANY]).unwrap();
    watch.stage("crowded");
    pair.a.verb(&["down", MANY]).unwrap();
    add_certificate(&pair);
    watch.stage("expiring");

    let burst = flow(&pair.lab, Side::A, 20_000);
    wait_more(std::slice::from_ref(&burst), 1000);
    pair.a.process().unwrap().freeze().unwrap();
    let before = burst.progress().sent;
    burst.wait(SOON, |p| p.sent >= before + 40_000).expect("a burst while nobody reads");
    pair.a.signal(Signal::SIGCONT).unwrap();
    watch.stage("overloaded");
    drop(burst);

    pair.a.kill().unwrap();
    watch.stage("killed");
    drop(flows);
    pair.b.kill().unwrap();
    change(&pair.a, |config| config.set("data_plane/mode", "tun"));
    std::fs::write(pair.a.directory().join("state/policy-store.json"), "{").unwrap();
    pair.a.start().unwrap();
    watch.stage("alone");
    pair.a.kill().unwrap();
    pair.a.release().unwrap();
    pair.a.run_on(Kernel::WithoutXfrmAndNftables);
    pair.a.start().unwrap();
    watch.stage("unguarded");
    watch.close();
}

/// A connection whose certificate is good for three days more.
fn add_certificate(pair: &Pair) {
    const NAME: &str = "certified";
    let directory = pair.lab.instance.directory().join("authority");
    let authority = Authority::new(&artefacts().binary, directory, "ecdsa-p256").unwrap();
    let id = format!("{}-{NAME}.example.net", Side::A.gateway_name());
    authority.issue_for_days(&id, 3).unwrap();
    change(&pair.a, |config| {
        add_site(config, Side::A, NAME, 2);
        config.set(&format!("connections/{NAME}/children/{CHILD}/start"), "none");
        let local = format!("connections/{NAME}/local");
        config.remove(&format!("{local}/secret_file"));
        config.set(&format!("{local}/auth"), "cert");
        config.set(&format!("{local}/certificate"), authority.certificate(&id).display().to_string());
        config.set(&format!("{local}/key"), authority.key(&id).display().to_string());
    });
    pair.a.verb(&["reload"]).unwrap();
}

/// What Prometheus answered, stage by stage.
struct Watch<'a> {
    prometheus: &'a Prometheus,
    expressions: Vec<Expression>,
    /// Answers at the first of their two stages.
    before: BTreeMap<String, Vec<Answer>>,
    failures: Vec<String>,
    stages: Vec<&'static str>,
}

impl<'a> Watch<'a> {
    fn new(prometheus: &'a Prometheus) -> Self {
        let expressions = Dashboards::read().unwrap().expressions().unwrap();
        let (before, failures, stages) = Default::default();
        Self { prometheus, expressions, before, failures, stages }
    }

    /// Waits until all that is to be shown at this stage has been, each at some moment of it; then looks at what is about to be.
    fn stage(&mut self, name: &'static str) {
        let mut missing: Vec<&Expression> =
            self.expressions.iter().filter(|expression| expression.proof.shown == name).collect();
        let mut last = BTreeMap::new();
        until(SHOWN_WITHIN, || {
            missing.retain(|expression| {
                let now = ask(self.prometheus, expression);
                let is_shown = shows(expression, self.before.get(&expression.of), &now);
                last.insert(expression.of.clone(), now);
                !is_shown
            });
            missing.is_empty().then_some(())
        });
        for expression in missing {
            let now = last.remove(&expression.of);
            let before = self.before.get(&expression.of);
            let failure = format!(
                "{} at {name}:\n  {:?}\n  before {before:?}\n  now {now:?}",
                expression.of, expression.queries
            );
            eprintln!("{failure}");
            self.failures.push(failure);
        }
        for expression in &self.expressions {
            if expression.proof.before == name {
                let now = ask(self.prometheus, expression);
                if expression.is_alert && now.iter().any(|answer| !answer.is_empty()) {
                    self.failures.push(format!("{} fires at {name}: {now:?}", expression.of));
                }
                self.before.insert(expression.of.clone(), now);
            }
        }
        self.stages.push(name);
    }

    fn close(self) {
        assert!(self.failures.is_empty(), "{}", self.failures.join("\n"));
        for Expression { of, proof: Proof { before, shown }, .. } in &self.expressions {
            let place = |name: &str| self.stages.iter().position(|stage| *stage == name);
            assert!(place(before).is_some() && place(before) < place(shown), "{of}: {before}, {shown}");
        }
    }
}

fn ask(prometheus: &Prometheus, expression: &Expression) -> Vec<Answer> {
    expression.queries.iter().map(|query| prometheus.query(query).unwrap()).collect()
}

/// Every question has an answer, and one at least another than before.
fn shows(expression: &Expression, before: Option<&Vec<Answer>>, now: &[Answer]) -> bool {
    now.iter().all(|answer| !answer.is_empty())
        && before.is_some_and(|before| expression.is_alert || before.as_slice() != now)
}

/// `promtool check metrics` on what the gateway serves.
fn check_metrics(pair: &Pair) {
    let page = pair.a.http("/metrics").unwrap();
    let mut promtool = Command::new(program("promtool").unwrap())
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut promtool.stdin.take().unwrap(), as_text_format(&page).as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// OpenMetrics as the older text format, which is what promtool reads: there a counter's family has the name of its samples.
fn as_text_format(page: &str) -> String {
    let counters: Vec<_> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut text = String::new();
    for line in page.lines().filter(|line| *line != "# EOF") {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(kind), Some(name), Some(rest)) if counters.contains(&name) => {
                text += &format!("# {kind} {name}_total {rest}\n");
            }
            _ => text += &format!("{line}\n"),
        }
    }
    text
}

fn filter(pair: &Pair, rules: &str) {
    let rules: Vec<_> =
        rules.split_terminator(';').map(|rule| format!("add rule inet blocked f {rule};")).collect();
    let chain = "add table inet blocked; add chain inet blocked f { type filter hook forward priority 0; };";
    pair.lab.router.nft(&format!("{chain} {}", rules.join(" "))).unwrap();
}

fn unfilter(pair: &Pair) {
    pair.lab.router.nft("delete table inet blocked").unwrap();
}

/// IKE_SA_INIT requests of strangers, more than the threshold, garbage, and streams that stay open.
fn flood(pair: &Pair) -> Vec<TcpStream> {
    const REQUESTS: u32 = 1000;
    let gateway = IpAddr::from(Side::A.wan().0);
    pair.lab.router.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for number in 0..REQUESTS {
            socket.send_to(&ike_sa_init(number), (gateway, 500)).unwrap();
        }
        let mut garbage = ike_sa_init(REQUESTS);
        garbage.truncate(60);
        for _ in 0..10 {
            socket.send_to(&garbage, (gateway, 500)).unwrap();
        }
        (0..3).map(|_| TcpStream::connect((gateway, 4500)).unwrap()).collect()
    })
}

/// A request that a gateway has to take for real (RFC 7296 section 1.2): AES-256-GCM, PRF-HMAC-SHA2-384, Curve25519.
fn ike_sa_init(number: u32) -> Vec<u8> {
    const SA: u8 = 33;
    const KE: u8 = 34;
    const NONCE: u8 = 40;
    let transform = |is_last: bool, kind: u8, id: u16, attributes: &[u8]| {
        let length = 8 + attributes.len() as u16;
        let head = [if is_last { 0 } else { 3 }, 0, (length >> 8) as u8, length as u8, kind, 0];
        [&head[..], &id.to_be_bytes(), attributes].concat()
    };
    let transforms = [
        transform(false, 1, 20, &[0x80, 0x0e, 0x01, 0x00]),
        transform(false, 2, 6, &[]),
        transform(true, 4, 31, &[]),
    ]
    .concat();
    let proposal_length = 8 + transforms.len() as u16;
    let proposal = [&[0, 0][..], &proposal_length.to_be_bytes(), &[1, 1, 0, 3], &transforms].concat();
    let payload =
        |next: u8, body: &[u8]| [&[next, 0][..], &(4 + body.len() as u16).to_be_bytes(), body].concat();
    // The u-coordinate of the base point, a valid public value.
    let mut public = [0; 32];
    public[0] = 9;
    let key = [&31u16.to_be_bytes()[..], &[0, 0], &public].concat();
    let body =
        [payload(KE, &proposal), payload(NONCE, &key), payload(0, &[number as u8 ^ 0x5a; 32])].concat();
    let spi = (u64::from(number) << 32 | 0x5157).to_be_bytes();
    let length = 28 + body.len() as u32;
    [&spi[..], &[0; 8], &[SA, 0x20, 34, 0x08], &[0; 4], &length.to_be_bytes(), &body].concat()
}
