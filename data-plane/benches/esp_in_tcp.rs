//! One TCP flow through two data planes, whose ESP goes through a TCP connection or over UDP: `cargo xtask bench esp-in-tcp`.
//!
//! Two gateways with static keys between two hosts, in network namespaces; everything runs on this machine and shares
//! its cores. The carriers take turns over the same SAs, so that neither neighbours nor time of day favour one.

#[path = "../../xtask/src/bench/figure.rs"]
mod figure;
#[path = "../tests/gateway/mod.rs"]
mod gateway;
#[path = "../tests/tunnel/mod.rs"]
mod tunnel;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use figure::{Better, Figure, Report};
use portcullis_data_plane::sa::Carrier;

use gateway::address;
use tunnel::joined::{Joined, runtime};
use tunnel::{HOST_A, HOST_B, Shape, TUN, Tunnel, XDP};

const RUNS: usize = 7;
/// Before a flow is measured: its window is open by then.
const WARM_UP: Duration = Duration::from_millis(500);
const MEASURED: Duration = Duration::from_secs(2);
/// Of the speed over UDP.
const GOAL: f64 = 0.4;

fn main() -> ExitCode {
    let mut report = Report::begin();
    if !std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
        eprintln!("esp-in-tcp: left out: network namespaces and TUN devices need root");
        return report.finish();
    }
    for (case, shape) in
        [("one TCP flow, ESP in TCP, TUN", TUN), ("one TCP flow, ESP in TCP, AF_XDP copy", XDP)]
    {
        report.add(measure(case, shape));
    }
    report.finish()
}

fn measure(case: &str, shape: Shape) -> Figure {
    let tunnel = Tunnel::new(shape);
    let runtime = runtime();
    let joined = Joined::new(&tunnel, &runtime);
    let (mut tcp, mut udp) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        tunnel.set_path(Carrier::Udp, false);
        udp.push(flow(&tunnel));
        joined.use_it(&tunnel);
        tcp.push(flow(&tunnel));
    }
    Figure {
        suite: "esp-in-tcp",
        case: case.to_owned(),
        unit: "Mbit/s",
        better: Better::Higher,
        runs: tcp,
        against: "ESP in UDP",
        against_runs: udp,
        goal: Some(GOAL),
    }
}

/// Inner octets of one flow from host to host, Mbit/s.
fn flow(tunnel: &Tunnel) -> f64 {
    let listener = tunnel.b.host.run(|| TcpListener::bind((address(HOST_B), 0)).unwrap());
    let destination = listener.local_addr().unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut tcp = tunnel.a.host.run(|| {
                let socket =
                    socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
                socket.bind(&std::net::SocketAddr::new(address(HOST_A), 0).into()).unwrap();
                socket.connect(&destination.into()).unwrap();
                TcpStream::from(socket)
            });
            tcp.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
            let octets = vec![0x5a; 1 << 17];
            while !done.load(Ordering::Relaxed) {
                match tcp.write(&octets) {
                    Ok(_) => {}
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
        let (mut tcp, _) = listener.accept().unwrap();
        let mut buffer = vec![0; 1 << 17];
        let mut read_for = |time: Duration| {
            let (start, mut bytes) = (Instant::now(), 0);
            while start.elapsed() < time {
                bytes += tcp.read(&mut buffer).unwrap();
            }
            bytes as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e6
        };
        read_for(WARM_UP);
        let speed = read_for(MEASURED);
        done.store(true, Ordering::Relaxed);
        // What is under way arrives, so that the writer ends.
        while tcp.read(&mut buffer).unwrap() > 0 {}
        speed
    })
}
