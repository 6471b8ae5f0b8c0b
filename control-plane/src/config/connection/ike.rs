//! The `ike:` section of a connection.

use std::time::Duration;

use portcullis_ike::config::{
    Contradiction, EspPolicy, FirstChild, FullTranscriptAuth, IkePolicy, SeparateTransports, StartTransport,
};
use portcullis_ike::proposal::IkeProposal;

use crate::config::field::{Field, Section};
use crate::config::scalar::duration;

/// What a connection proposes unless its configuration says otherwise: hybrid key exchange, AES-GCM.
const DEFAULT_PROPOSAL: &str = "aes256gcm16-prfsha384-x25519-ke1_mlkem768";

/// RFC 4478 section 3 calls less than five minutes cumbersome; nobody types a password here.
const SHORTEST_REAUTH: Duration = Duration::from_secs(60);

/// The section, with the places that contradictions are reported at.
pub(super) struct Ike<'a> {
    pub(super) policy: IkePolicy,
    separate: Option<Field<'a>>,
    transport: Option<Field<'a>>,
    proposals: Option<Field<'a>>,
    first_child: Option<Field<'a>>,
}

/// Reads the section; everything in it has a default.
pub(super) fn read(field: Option<Field<'_>>) -> Option<Ike<'_>> {
    match field {
        Some(field) => field.section(section),
        None => Some(Ike {
            policy: default_policy(),
            separate: None,
            transport: None,
            proposals: None,
            first_child: None,
        }),
    }
}

fn section<'a>(s: &mut Section<'a>) -> Option<Ike<'a>> {
    let transports = [
        ("udp", StartTransport::Udp),
        ("udp-then-tcp", StartTransport::UdpThenTcp),
        ("tcp", StartTransport::Tcp),
    ];
    let separates = [
        ("require", SeparateTransports::Require),
        ("prefer", SeparateTransports::Prefer),
        ("off", SeparateTransports::Off),
    ];
    let transcripts = [
        ("require", FullTranscriptAuth::Require),
        ("prefer", FullTranscriptAuth::Prefer),
        ("off", FullTranscriptAuth::Off),
    ];
    let first_children = [
        ("in-auth", FirstChild::InAuth),
        ("childless", FirstChild::Childless),
        ("after-rekey", FirstChild::AfterRekey),
    ];
    let default = default_policy();
    let first_child = s.get("first_child");
    let transport = s.get("transport");
    let separate = s.get("separate_transports");
    let proposals = s.get("proposals");
    let list =
        proposals.as_ref().map(|field| field.items("proposal", |item| item.read(str::parse::<IkeProposal>)));
    let time = |field: &Field<'_>| field.read(duration);
    let policy = IkePolicy {
        transport: transport.as_ref().and_then(|field| field.word(&transports)).unwrap_or(default.transport),
        separate_transports: separate
            .as_ref()
            .and_then(|field| field.word(&separates))
            .unwrap_or(default.separate_transports),
        proposals: list.unwrap_or(default.proposals),
        assume_code_points: s.or("assume_code_points", default.assume_code_points, Field::flag),
        full_transcript_auth: s
            .or("full_transcript_auth", default.full_transcript_auth, |field| field.word(&transcripts)),
        first_child: first_child
            .as_ref()
            .and_then(|field| field.word(&first_children))
            .unwrap_or(default.first_child),
        rekey_after: s.or("rekey_after", default.rekey_after, time),
        reauth_after: s.get("reauth_after").and_then(|field| time(&field)),
        lifetime: s.or("lifetime", default.lifetime, time),
        rekey_jitter_percent: s
            .or("rekey_jitter_percent", default.rekey_jitter_percent, |field| field.number(0, 50)),
        liveness_after: s.or("liveness_after", default.liveness_after, time),
        dead_after: s.or("dead_after", default.dead_after, time),
        retransmit_after: s.or("retransmit_after", default.retransmit_after, time),
        retransmissions: s.or("retransmissions", default.retransmissions, |field| field.number(1, 20)),
        tcp_timeout: s.or("tcp_timeout", default.tcp_timeout, time),
        fragment_size: s.or("fragment_size", default.fragment_size, |field| field.number(576, 9000)),
        retry_min: s.or("retry_min", default.retry_min, time),
        retry_max: s.or("retry_max", default.retry_max, time),
    };
    for (shorter, longer, names) in [
        (policy.rekey_after, policy.lifetime, "rekey_after has to be shorter than lifetime"),
        (policy.liveness_after, policy.dead_after, "liveness_after has to be shorter than dead_after"),
    ] {
        if shorter >= longer {
            s.refuse::<()>(names);
        }
    }
    if policy.reauth_after.is_some_and(|after| after < SHORTEST_REAUTH) {
        s.refuse::<()>("reauth_after is at least 1min: each authentication is a set-up anew");
    }
    if policy.retry_min > policy.retry_max {
        s.refuse::<()>("retry_min is longer than retry_max");
    }
    Some(Ike { policy, separate, transport, proposals, first_child })
}

/// Reports combinations that cannot work (transport policy, "Configuration").
pub(super) fn refuse_contradictions(ike: &Ike<'_>, esp: &EspPolicy, esp_place: &super::esp::Places<'_>) {
    for contradiction in ike.policy.contradictions(esp.on_unreachable) {
        let field = match contradiction {
            Contradiction::OffOnTcpFailsClosed | Contradiction::RequireOnUdp => &ike.separate,
            Contradiction::NothingAfterRekey => &ike.first_child,
            Contradiction::FallbackOnUdp => &esp_place.on_unreachable,
            Contradiction::DoesNotFitUdp if ike.proposals.is_some() => &ike.proposals,
            Contradiction::DoesNotFitUdp => &ike.transport,
        };
        if let Some(field) = field {
            field.refuse::<()>(contradiction.to_string());
        }
    }
}

fn default_policy() -> IkePolicy {
    let proposals = DEFAULT_PROPOSAL.parse().into_iter().collect();
    IkePolicy { proposals, ..IkePolicy::default() }
}
