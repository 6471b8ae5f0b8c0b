//! Who a caller is, and whether it may do what it asks for.
//!
//! On the control socket the kernel says who is there: root and the daemon's own user are admin, everybody else that the
//! socket's permissions let in (its group) has `control.group_role`. Over TLS a bearer token or a client certificate says
//! it. What a route needs is in [`routes`]; a route without an entry there is open to nobody.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::{Choice, ConstantTimeEq};
use x509_cert::Certificate;
use x509_cert::der::Decode;

use super::Api;
use super::counters::Denial;
use super::problem::{Kind, Problem};
use super::routes;
use crate::audit::Entry;
use crate::config::{ApiRole, Config, Token};
use crate::digest::sha256;

/// The other end of a connection.
#[derive(Clone, Debug)]
pub enum Peer {
    /// A process on this host.
    Unix {
        /// Its effective user when it connected.
        uid: u32,
    },
    /// Somebody over TCP.
    Tls {
        /// Its address.
        address: SocketAddr,
        /// Its certificate, which a configured authority has issued.
        certificate: Option<Arc<[u8]>>,
    },
}

/// Somebody that is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// As the audit log calls it.
    pub who: String,
    /// From where.
    pub from: String,
    /// What it may do.
    pub role: ApiRole,
}

/// Lets a request pass to its handler, or answers 401, 403 or 405.
pub async fn check(
    State(api): State<Arc<Api>>,
    path: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Response {
    let response = match admit(&api, path.as_ref().map(MatchedPath::as_str), &request) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(response) => *response,
    };
    api.counters.answered(response.status().as_u16());
    response
}

fn admit(api: &Api, path: Option<&str>, request: &Request) -> Result<Caller, Box<Response>> {
    let peer = request.extensions().get::<Peer>();
    let caller = match peer.map(|peer| identify(&api.running.config(), peer, request.headers())) {
        Some(Ok(caller)) => caller,
        Some(Err((who, problem))) => {
            turned_away(api, &who, &from(peer), request, &problem, Denial::Unauthenticated);
            return Err(Box::new(problem.into_response()));
        }
        None => return Err(Box::new(Problem::of(Kind::Unauthenticated).into_response())),
    };
    let needed = match path {
        None => ApiRole::ReadOnly,
        Some(path) => match routes::role_of(request.method(), path) {
            Some(role) => role,
            None => return Err(Box::new(not_allowed(path, request.method()))),
        },
    };
    if caller.role < needed {
        let problem = Problem::new(
            Kind::Forbidden,
            format!("{} is {}, and this needs {needed}", caller.who, caller.role),
        );
        turned_away(api, &caller.who, &caller.from, request, &problem, Denial::Role);
        return Err(Box::new(problem.into_response()));
    }
    Ok(caller)
}

/// Who a caller is; the name that it claims and what is wrong with it, if it is nobody.
pub fn identify(config: &Config, peer: &Peer, headers: &HeaderMap) -> Result<Caller, (String, Problem)> {
    match peer {
        Peer::Unix { uid } => {
            let is_owner = *uid == 0 || *uid == nix::unistd::geteuid().as_raw();
            let role = if is_owner { ApiRole::Admin } else { config.control.group_role };
            Ok(Caller { who: format!("uid:{uid}"), from: "unix".to_owned(), role })
        }
        Peer::Tls { address, certificate } => {
            let from = address.to_string();
            match (headers.get(header::AUTHORIZATION), certificate) {
                (Some(value), _) => match by_token(&config.api.tokens, value) {
                    Some(token) => {
                        Ok(Caller { who: format!("token:{}", token.name), from, role: token.role })
                    }
                    None => Err((
                        "nobody".to_owned(),
                        Problem::new(Kind::Unauthenticated, "the token is not known here"),
                    )),
                },
                (None, Some(certificate)) => {
                    let subject = subject(certificate);
                    let client = config.api.clients.iter().find(|client| *client.subject == *subject);
                    let who = format!("certificate:{subject}");
                    match client {
                        Some(client) => Ok(Caller { who, from, role: client.role }),
                        None => {
                            let detail = format!("no role is configured for the certificate of {subject}");
                            Err((who, Problem::new(Kind::Forbidden, detail)))
                        }
                    }
                }
                (None, None) => Err(("nobody".to_owned(), Problem::of(Kind::Unauthenticated))),
            }
        }
    }
}

/// Compares with every token, so that the time taken says neither which one nor how much of it is right.
fn by_token<'a>(tokens: &'a [Token], header: &HeaderValue) -> Option<&'a Token> {
    let value = header.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    if !scheme.eq_ignore_ascii_case(b"bearer ") {
        return None;
    }
    let digest = sha256(token.trim_ascii());
    let mut found = None;
    for candidate in tokens {
        let is_it: Choice = candidate.digest.ct_eq(&digest);
        if bool::from(is_it) {
            found = Some(candidate);
        }
    }
    found
}

/// The subject as RFC 4514 writes it.
fn subject(certificate: &[u8]) -> String {
    match Certificate::from_der(certificate) {
        Ok(certificate) => certificate.tbs_certificate().subject().to_string(),
        Err(error) => format!("unreadable: {error}"),
    }
}

fn turned_away(api: &Api, who: &str, from: &str, request: &Request, problem: &Problem, denial: Denial) {
    api.counters.denied(denial);
    let action = format!("{} {}", request.method(), request.uri().path());
    let result = format!("refused: {problem}");
    let entry = Entry { who, from, action: &action, detail: "", result: &result, suppressed: 0 };
    api.audit.record_denied(&entry);
}

fn not_allowed(path: &str, method: &Method) -> Response {
    let allowed = routes::methods_of(path).join(", ");
    let problem = Problem::new(Kind::MethodNotAllowed, format!("{method} is not for {path}; {allowed} is"));
    let mut response = problem.into_response();
    if let Ok(value) = HeaderValue::from_str(&allowed) {
        response.headers_mut().insert(header::ALLOW, value);
    }
    response
}

fn from(peer: Option<&Peer>) -> String {
    match peer {
        Some(Peer::Tls { address, .. }) => address.to_string(),
        Some(Peer::Unix { .. }) | None => "unix".to_owned(),
    }
}
