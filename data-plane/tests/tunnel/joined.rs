//! A tunnel whose ESP goes through a TCP connection between its gateways.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::task::{Context, Poll};

use portcullis_data_plane::sa::{Carrier, Path};
use portcullis_data_plane::stream::{Ended, Ike, Incoming, StreamKey, StreamPort, carry};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{PATH, Side, Tunnel};
use crate::gateway::wait_until;

/// Two ends of one connection, and the paths of both sides in it.
pub struct Joined {
    pub a: End,
    pub b: End,
}

/// One end.
pub struct End {
    pub port: StreamPort,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub say: mpsc::UnboundedSender<Vec<u8>>,
    pub heard: mpsc::UnboundedReceiver<Vec<u8>>,
    pub task: JoinHandle<Ended>,
}

/// Speaks IKE over channels.
struct Speaker {
    out: mpsc::UnboundedReceiver<Vec<u8>>,
    heard: mpsc::UnboundedSender<Vec<u8>>,
}

impl Joined {
    pub fn new(tunnel: &Tunnel, runtime: &Runtime) -> Self {
        let (a, b) = connect(tunnel);
        let joined =
            Self { a: End::new(&tunnel.a, a, false, runtime), b: End::new(&tunnel.b, b, false, runtime) };
        joined.use_it(tunnel);
        joined
    }

    /// Both sides send ESP through it.
    pub fn use_it(&self, tunnel: &Tunnel) {
        tunnel.a.use_stream(self.a.port.key());
        tunnel.b.use_stream(self.b.port.key());
    }
}

impl End {
    pub fn new(side: &Side, tcp: TcpStream, has_prefix: bool, runtime: &Runtime) -> Self {
        let (local, remote) = (tcp.local_addr().unwrap(), tcp.peer_addr().unwrap());
        let (port, end) = side.plane.open_stream();
        port.accept(Some(PATH));
        let ((say, out), (tell, heard)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        let incoming = if has_prefix { Incoming::accepted() } else { Incoming::dialled() };
        tcp.set_nonblocking(true).unwrap();
        let task = runtime.spawn(async move {
            let tcp = tokio::net::TcpStream::from_std(tcp).unwrap();
            carry(&tcp, end, incoming, &mut Speaker { out, heard: tell }).await
        });
        Self { port, local, remote, say, heard, task }
    }

    pub fn say(&self, octets: Vec<u8>) {
        self.say.send(octets).unwrap();
    }

    /// At least so many octets of what arrived and was not opened.
    pub fn heard(&mut self, len: usize) -> Vec<u8> {
        let mut octets = Vec::new();
        wait_until("it is heard", || {
            octets.extend(self.heard_so_far());
            octets.len() >= len
        });
        octets
    }

    /// What has arrived by now and was not opened.
    pub fn heard_so_far(&mut self) -> Vec<u8> {
        std::iter::from_fn(|| self.heard.try_recv().ok()).flatten().collect()
    }
}

impl Ike for Speaker {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Vec<u8>>> {
        self.out.poll_recv(context)
    }

    fn written(&mut self, _octets: usize) {}

    async fn arrived(&mut self, octets: Vec<u8>) -> bool {
        // A test that hears nothing has dropped its end.
        let _ = self.heard.send(octets);
        true
    }
}

impl Side {
    pub fn use_stream(&self, key: StreamKey) {
        self.set_stream_path(Carrier::Stream(key), true);
    }

    pub fn set_stream_path(&self, carrier: Carrier, takes_tcp: bool) {
        let (local, remote) = (self.wan_address(false), self.other_wan_address());
        let path = Path {
            carrier,
            local,
            local_port: 4500,
            remote,
            remote_port: 4500,
            echo: Default::default(),
            takes_tcp,
        };
        self.plane.update_path(PATH, path);
    }
}

pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A TCP connection from gateway to gateway.
pub fn connect(tunnel: &Tunnel) -> (TcpStream, TcpStream) {
    let listener = tunnel.b.gateway.run(|| TcpListener::bind((tunnel.b.wan_address(false), 4500)).unwrap());
    let near = tunnel.a.gateway.run(|| TcpStream::connect(listener.local_addr().unwrap()).unwrap());
    (near, listener.accept().unwrap().0)
}
