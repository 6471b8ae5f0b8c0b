//! What would become of a packet.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use portcullis_data_plane::packet::inner::Ports;
use portcullis_data_plane::packet::protocol;
use portcullis_data_plane::spd::Flow;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Api;
use super::extract::query;
use super::problem::{Kind, Problem};
use crate::status::explain::Explained;

/// A packet.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Packet {
    /// `tcp`, `udp`, `icmp`, `icmpv6`, or a protocol number.
    protocol: String,
    /// Its source: an address of the protected side, with `:PORT` for TCP and UDP (`[2001:db8::1]:80`).
    source: String,
    /// Its destination, likewise.
    destination: String,
    /// The TUN device of a route-based connection that it comes from.
    #[param(required = false)]
    interface: Option<String>,
}

/// What would become of a packet from the protected side: policy, SAs, worker, carrier, way. Nothing is sent.
#[utoipa::path(get, path = "/v1/explain", tag = "status", params(Packet),
    responses((status = 200, body = Explained)))]
pub async fn explain(State(api): State<Arc<Api>>, uri: Uri) -> Result<Json<Explained>, Problem> {
    let packet: Packet = query(&uri)?;
    let flow = packet.flow().map_err(|detail| Problem::new(Kind::BadRequest, detail))?;
    Ok(Json(api.running.explain(&flow, packet.interface.as_deref())))
}

impl Packet {
    fn flow(&self) -> Result<Flow, String> {
        let protocol = protocol_number(&self.protocol)?;
        let (local, source_port) = end(&self.source)?;
        let (remote, destination_port) = end(&self.destination)?;
        if local.is_ipv4() != remote.is_ipv4() {
            return Err(format!("{local} and {remote} are of different families"));
        }
        let has_ports = matches!(protocol, protocol::TCP | protocol::UDP);
        let ports = match (has_ports, source_port, destination_port) {
            (true, Some(source), Some(destination)) => Ports::Known(source, destination),
            (true, None, None) => Ports::Unknown,
            (false, None, None) => Ports::Absent,
            (true, ..) => return Err("a port at one end needs one at the other".to_owned()),
            (false, ..) => return Err(format!("{} has no ports", self.protocol)),
        };
        Ok(Flow { local, remote, protocol, ports })
    }
}

fn protocol_number(text: &str) -> Result<u8, String> {
    match text {
        "tcp" => Ok(protocol::TCP),
        "udp" => Ok(protocol::UDP),
        "icmp" => Ok(protocol::ICMP),
        "icmpv6" => Ok(protocol::ICMPV6),
        number => {
            number.parse().map_err(|_| format!("'{text}' is no protocol: tcp, udp, icmp, icmpv6 or a number"))
        }
    }
}

fn end(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    if let Ok(address) = text.parse() {
        return Ok((address, None));
    }
    let with_port: Result<SocketAddr, _> = text.parse();
    with_port
        .map(|end| (end.ip(), Some(end.port())))
        .map_err(|_| format!("'{text}' is no address, with or without a port"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(protocol: &str, source: &str, destination: &str) -> Result<Flow, String> {
        let [protocol, source, destination] = [protocol, source, destination].map(str::to_owned);
        Packet { protocol, source, destination, interface: None }.flow()
    }

    #[test]
    fn a_packet_is_read_as_people_write_it() {
        let tcp = flow("tcp", "10.1.0.5:4000", "10.2.0.5:443").unwrap();
        assert_eq!((tcp.protocol, tcp.ports), (6, Ports::Known(4000, 443)));
        let v6 = flow("udp", "[2001:db8::1]:53", "[2001:db8::2]:53").unwrap();
        assert_eq!(v6.local, "2001:db8::1".parse::<IpAddr>().unwrap());
        assert_eq!(flow("udp", "10.1.0.5", "10.2.0.5").unwrap().ports, Ports::Unknown);
        assert_eq!(flow("47", "10.1.0.5", "10.2.0.5").unwrap().ports, Ports::Absent);
    }

    #[test]
    fn what_is_no_packet_is_refused_with_the_reason() {
        for (protocol, source, destination, reason) in [
            ("tpc", "10.1.0.5", "10.2.0.5", "no protocol"),
            ("256", "10.1.0.5", "10.2.0.5", "no protocol"),
            ("tcp", "10.1.0.5:x", "10.2.0.5", "no address"),
            ("tcp", "10.1.0.5:1", "10.2.0.5", "at the other"),
            ("icmp", "10.1.0.5:1", "10.2.0.5:2", "has no ports"),
            ("udp", "10.1.0.5", "2001:db8::2", "families"),
        ] {
            let error = flow(protocol, source, destination).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
