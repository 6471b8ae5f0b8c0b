//! The `redirect:` section of a connection.

use portcullis_ike::codec::AddressRange;
use portcullis_ike::config::{RedirectPolicy, RedirectWhen};

use super::unicast;
use crate::config::field::{Field, Section};
use crate::config::scalar::duration;
use crate::config::selector::selector;

/// Reads the section; without it nothing is followed and nobody is sent anywhere.
pub(super) fn read(field: Option<Field<'_>>) -> Option<RedirectPolicy> {
    match field {
        Some(field) => field.section(section),
        None => Some(RedirectPolicy::default()),
    }
}

fn section(s: &mut Section<'_>) -> Option<RedirectPolicy> {
    let default = RedirectPolicy::default();
    let whens = [("ike-sa-init", RedirectWhen::Init), ("ike-auth", RedirectWhen::Auth)];
    let time = |field: &Field<'_>| field.read(duration);
    let follow = s.get("follow").map(|field| field.list(|item| item.read(addresses)));
    let to = s.get("to");
    Some(RedirectPolicy {
        follow: follow.unwrap_or_default(),
        most: s.or("most", default.most, |field| field.number(1, 100)),
        within: s.or("within", default.within, time),
        to: match to {
            None => None,
            Some(field) => Some(field.read(unicast)?),
        },
        when: s.or("when", default.when, |field| field.word(&whens)),
        grace: s.or("grace", default.grace, time),
    })
}

/// An address, a prefix or a range.
fn addresses(text: &str) -> Result<AddressRange, String> {
    let selector = selector(text)?;
    match selector.protocol == 0 && selector.ports.is_any() {
        true => Ok(selector.addresses),
        false => Err(format!("'{text}': a gateway is an address, without protocol and ports")),
    }
}
