//! Over real sockets: TLS, tokens, client certificates, and callers that take their time.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsConnector;

use super::*;
use crate::api::serve;

#[test]
fn tokens_and_certificates_over_tls() {
    run(async {
        let pki = Pki::new();
        let (bench, address) = served(&pki).await;
        let get = "GET /v1/connections HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
        let authorized = format!("{get}Authorization: {}\r\n\r\n", bearer(READER));
        assert!(pki.talk(address, None, &authorized).await.unwrap().starts_with("HTTP/1.1 200 "));
        let anonymous = format!("{get}\r\n");
        assert!(pki.talk(address, None, &anonymous).await.unwrap().starts_with("HTTP/1.1 401 "));
        assert!(pki.talk(address, Some("noc"), &anonymous).await.unwrap().starts_with("HTTP/1.1 200 "));
        let put = format!("PUT /v1/defaults/esp-policy {}", &anonymous["GET /v1/connections ".len()..]);
        assert!(pki.talk(address, Some("noc"), &put).await.unwrap().starts_with("HTTP/1.1 403 "));
        assert!(pki.talk(address, Some("guest"), &anonymous).await.unwrap().starts_with("HTTP/1.1 403 "));
        // TLS 1.3: the refusal of a client certificate arrives with the first read.
        assert!(pki.talk(address, Some("forged"), &anonymous).await.is_err());
        let audit = bench.audit();
        let whos: Vec<_> = audit.iter().map(|entry| entry["who"].as_str().unwrap()).collect();
        assert_eq!(whos, ["nobody", "certificate:CN=noc", "certificate:CN=guest"]);
        let mut plain = TcpStream::connect(address).await.unwrap();
        plain.write_all(anonymous.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = plain.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP"), "no clear text");
    });
}

#[test]
fn long_heads_are_refused() {
    run(async {
        let (_bench, socket) = on_unix().await;
        let long = format!("GET /v1/status HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(64 * 1024));
        let answer = tell(&socket, &long).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        let many: String = (0..100).map(|n| format!("X-{n}: 1\r\n")).collect();
        let answer = tell(&socket, &format!("GET /v1/status HTTP/1.1\r\nHost: x\r\n{many}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        let answer = tell(&socket, "nonsense\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        let answer = tell(&socket, "GET /healthz HTTP/1.0\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
    });
}

#[test]
fn a_caller_that_never_finishes_is_cut_off() {
    run(async {
        let (bench, socket) = on_unix().await;
        let head = "PUT /v1/defaults/esp-policy HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{";
        let (half_head, half_body) =
            tokio::join!(tell(&socket, "GET /v1/status HTTP/1.1\r\nHost: "), tell(&socket, head));
        assert!(!half_head.contains("200"), "{half_head}");
        assert!(half_body.starts_with("HTTP/1.1 408 "), "{half_body}");
        assert_eq!(bench.api.counters.read().denied[3], 1, "the head that never ended");
        assert_eq!(bench.applied(), 0);
    });
}

/// Sends something, then waits until the other end closes.
async fn tell(socket: &std::path::Path, request: &str) -> String {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    // It may be refused while it is sent.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

async fn on_unix() -> (Bench, std::path::PathBuf) {
    let bench = Bench::new();
    let socket = bench.directory.path().join("test.sock");
    serve::unix(UnixListener::bind(&socket).unwrap(), bench.router.clone(), Arc::clone(&bench.api.counters));
    (bench, socket)
}

async fn served(pki: &Pki) -> (Bench, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let d = pki.directory.path().display();
    let bench = Bench::with("");
    let file = bench.directory.path().join("portcullis.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let api = format!(
        "api:\n  listen: {address}\n  tls: {{ certificate: {d}/server.pem, key: {d}/server.key, client_ca: {d}/ca.pem }}\n  clients: [{{ subject: CN=noc, role: read-only }}]\n"
    );
    std::fs::write(&file, text.replacen("api:\n", &api, 1)).unwrap();
    assert_eq!(bench.ask("POST", "/v1/reload", "").await.status, StatusCode::OK);
    std::fs::remove_file(bench.state().join("audit.log")).unwrap();
    let running = Arc::clone(&bench.running) as Arc<dyn Running>;
    serve::tls(listener, bench.router.clone(), running, Arc::clone(&bench.api.counters));
    (bench, address)
}

/// An authority, a server, clients.
struct Pki {
    directory: tempfile::TempDir,
}

impl Pki {
    fn new() -> Self {
        let pki = Self { directory: tempfile::tempdir().unwrap() };
        let authority = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let certificate = params.self_signed(&key).unwrap();
            (certificate.pem(), Issuer::new(params, key))
        };
        let (pem, ours) = authority("ca");
        let (_, theirs) = authority("foreign");
        pki.write("ca.pem", &pem);
        for (name, issuer) in [("server", &ours), ("noc", &ours), ("guest", &ours), ("forged", &theirs)] {
            let key = KeyPair::generate().unwrap();
            let names = if name == "server" { vec!["gw.example".to_owned()] } else { Vec::new() };
            let mut params = CertificateParams::new(names).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, if name == "forged" { "noc" } else { name });
            let certificate = params.signed_by(&key, issuer).unwrap();
            pki.write(&format!("{name}.pem"), &certificate.pem());
            pki.write(&format!("{name}.key"), &key.serialize_pem());
        }
        pki
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn certificate(&self, name: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.directory.path().join(format!("{name}.pem"))).unwrap()
    }

    async fn talk(
        &self,
        address: SocketAddr,
        client: Option<&str>,
        request: &str,
    ) -> std::io::Result<String> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate("ca")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let config = match client {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let key = PrivateKeyDer::from_pem_file(self.directory.path().join(format!("{name}.key")));
                builder.with_client_auth_cert(vec![self.certificate(name)], key.unwrap()).unwrap()
            }
        };
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("gw.example").unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}
