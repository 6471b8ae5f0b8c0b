//! What carries ESP of a new IKE SA at first, and what an echo may then prove: rows 1 to 5 and 11 to 13.

use crate::config::EspPolicy;
use crate::path::{DirectCarrier, IkeTransport};
use crate::status::Reason;

/// One row: the first that matches decides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// Its number in the policy.
    #[cfg_attr(not(test), expect(dead_code, reason = "the first carrier is decided without a word"))]
    pub(super) number: u8,
    started_on: IkeTransport,
    separate: Option<bool>,
    echo: Option<bool>,
    nat: Option<bool>,
    order: Order,
}

/// Which carriers may be used, best first.
#[derive(Clone, Copy, Debug)]
enum Order {
    /// These.
    Of(&'static [DirectCarrier]),
    /// As `esp.transports` has them.
    Configured,
}

impl Row {
    const fn new(number: u8, started_on: IkeTransport, order: Order) -> Self {
        Self { number, started_on, separate: None, echo: None, nat: None, order }
    }

    const fn separate(mut self, separate: bool) -> Self {
        self.separate = Some(separate);
        self
    }

    const fn echo(mut self, echo: bool) -> Self {
        self.echo = Some(echo);
        self
    }

    const fn nat(mut self, nat: bool) -> Self {
        self.nat = Some(nat);
        self
    }

    fn matches(&self, s: Situation) -> bool {
        self.started_on == s.started_on
            && self.separate.is_none_or(|x| x == s.separate)
            && self.echo.is_none_or(|x| x == s.echo)
            && self.nat.is_none_or(|x| x == s.nat)
    }
}

/// What is known when the IKE SA is established. The first carrier does not depend on echo; what becomes of it does.
#[derive(Clone, Copy, Debug)]
struct Situation {
    started_on: IkeTransport,
    separate: bool,
    echo: bool,
    nat: bool,
}

/// The rows, in the order in which they are tried. Rows 1 and 2 start alike: their echoes tell them apart.
pub(super) const ROWS: &[Row] = {
    use DirectCarrier::{Ip, Udp};
    use IkeTransport as On;
    const UDP_ALONE: Order = Order::Of(&[Udp]);
    &[
        Row::new(3, On::Udp, UDP_ALONE).separate(true).echo(true).nat(true),
        Row::new(1, On::Udp, Order::Of(&[Udp, Ip])).separate(true).echo(true),
        Row::new(2, On::Udp, Order::Of(&[Udp, Ip])).separate(true).echo(true),
        Row::new(4, On::Udp, UDP_ALONE).separate(true).nat(true),
        Row::new(4, On::Udp, Order::Of(&[Udp, Ip])).separate(true),
        Row::new(5, On::Udp, UDP_ALONE).nat(true),
        Row::new(5, On::Udp, Order::Of(&[Ip, Udp])),
        Row::new(12, On::Tcp, UDP_ALONE).echo(true).nat(true),
        Row::new(11, On::Tcp, Order::Configured).echo(true),
        Row::new(13, On::Tcp, UDP_ALONE).nat(true),
        Row::new(13, On::Tcp, Order::Configured),
    ]
};

/// The direct carrier that ESP leaves on first, or why there is none.
pub(crate) fn first_carrier(
    esp: &EspPolicy,
    started_on: IkeTransport,
    separate: bool,
    nat: bool,
) -> Result<DirectCarrier, Reason> {
    let situation = Situation { started_on, separate, echo: false, nat };
    let order = match ROWS.iter().find(|row| row.matches(situation)).map(|row| row.order) {
        Some(Order::Of(carriers)) => carriers,
        Some(Order::Configured) | None => &esp.transports,
    };
    order.iter().find(|carrier| esp.transports.contains(carrier)).copied().ok_or(Reason::CarrierNotAllowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first carrier is the same with and without echo: what is announced in IKE_AUTH comes too late for it.
    #[test]
    fn echo_does_not_change_the_first_carrier() {
        for started_on in [IkeTransport::Udp, IkeTransport::Tcp] {
            for nat in [true, false] {
                let order = |echo| {
                    let s = Situation { started_on, separate: true, echo, nat };
                    format!("{:?}", ROWS.iter().find(|row| row.matches(s)).map(|row| row.order))
                };
                assert_eq!(order(true), order(false), "{started_on:?}, NAT {nat}");
            }
        }
    }

    /// `esp.transports` is what we send, in order (configuration part of the policy).
    #[test]
    fn the_first_carrier_follows_start_nat_and_what_is_allowed() {
        use DirectCarrier::{Ip, Udp};
        let first = |transports: &[_], started_on, separate, nat| {
            first_carrier(
                &EspPolicy { transports: transports.to_vec(), ..EspPolicy::default() },
                started_on,
                separate,
                nat,
            )
        };
        assert_eq!(first(&[Ip, Udp], IkeTransport::Udp, true, false), Ok(Udp));
        assert_eq!(first(&[Ip], IkeTransport::Udp, true, false), Ok(Ip));
        assert_eq!(first(&[Ip, Udp], IkeTransport::Udp, false, false), Ok(Ip));
        assert_eq!(first(&[Udp], IkeTransport::Udp, false, false), Ok(Udp));
        assert_eq!(first(&[Ip, Udp], IkeTransport::Tcp, true, false), Ok(Ip));
        assert_eq!(first(&[Udp, Ip], IkeTransport::Tcp, true, false), Ok(Udp));
        for start in [IkeTransport::Udp, IkeTransport::Tcp] {
            assert_eq!(first(&[Ip, Udp], start, true, true), Ok(Udp));
            assert_eq!(first(&[Ip], start, true, true), Err(Reason::CarrierNotAllowed));
        }
    }
}
