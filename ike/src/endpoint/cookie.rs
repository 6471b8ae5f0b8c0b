//! Stateless cookies against IKE_SA_INIT from forged addresses (RFC 7296 section 2.6), and what they remember of the puzzle
//! that went with them (RFC 8019 section 7.1.1.3).

use core::time::Duration;
use std::net::IpAddr;

use rand_core::Rng as _;
use zeroize::Zeroizing;

use crate::codec::{PrfId, PuzzleDemand};
use crate::crypto::Rng;
use crate::crypto::digest::{constant_time_eq, sha256};
use crate::time::Time;

/// A secret serves this long, and one period more for verification.
const ROTATE_AFTER: Duration = Duration::from_secs(120);
/// Octets of a ticket in a cookie.
const TICKET_LEN: usize = 12;

/// Makes and verifies cookies: version of the secret | ticket | SHA-256(Ni | IPi | SPIi | ticket | secret). The port is
/// left out, so that a cookie serves over TCP too (RFC 9329 section 6.3).
pub(crate) struct CookieJar {
    secrets: [Zeroizing<[u8; 32]>; 2],
    version: u8,
    rotate_at: Time,
    serial: u32,
}

/// Whose cookie it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bearer<'a> {
    /// Ni.
    pub(crate) nonce: &'a [u8],
    /// IPi.
    pub(crate) address: IpAddr,
    /// SPIi.
    pub(crate) spi: u64,
}

/// What a cookie remembers of the demand that it went with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ticket {
    /// The puzzle, if there was one.
    pub(crate) puzzle: Option<PuzzleDemand>,
    /// Puzzles that were given in a row, this one included.
    pub(crate) round: u8,
    /// When it was made, to the second.
    pub(crate) baked: Time,
    /// Number of the cookie: no two of one secret are the same, so no solution serves twice (RFC 8019 section 10).
    pub(crate) serial: (u8, u32),
}

impl CookieJar {
    /// Fresh secrets.
    pub(crate) fn new(rng: &mut Rng, now: Time) -> Self {
        Self { secrets: [secret(rng), secret(rng)], version: 0, rotate_at: now + ROTATE_AFTER, serial: 0 }
    }

    /// A cookie for this initiator that goes with this puzzle, the `round`th in a row.
    pub(crate) fn bake(
        &mut self,
        now: Time,
        rng: &mut Rng,
        bearer: Bearer<'_>,
        puzzle: Option<PuzzleDemand>,
        round: u8,
    ) -> Vec<u8> {
        self.rotate(now, rng);
        self.serial = self.serial.wrapping_add(1);
        let ticket = Ticket { puzzle, round, baked: now, serial: (self.version, self.serial) };
        let [current, _] = &self.secrets;
        seal(self.version, &ticket.encode(), current, bearer)
    }

    /// What `cookie` remembers, if it is one of ours, of this or the last period, for this initiator.
    pub(crate) fn verify(
        &mut self,
        now: Time,
        rng: &mut Rng,
        cookie: &[u8],
        bearer: Bearer<'_>,
    ) -> Option<Ticket> {
        self.rotate(now, rng);
        let [current, last] = &self.secrets;
        let (&version, rest) = cookie.split_first()?;
        let secret = match version {
            version if version == self.version => current,
            version if version == self.version.wrapping_sub(1) => last,
            _ => return None,
        };
        let ticket: &[u8; TICKET_LEN] = rest.first_chunk()?;
        let is_ours = constant_time_eq(&seal(version, ticket, secret, bearer), cookie);
        is_ours.then(|| Ticket::decode(version, ticket))
    }

    fn rotate(&mut self, now: Time, rng: &mut Rng) {
        if now < self.rotate_at {
            return;
        }
        if now >= self.rotate_at + ROTATE_AFTER {
            // Nobody asked for a whole period: what the last secret signed is out of date as well.
            self.secrets = [secret(rng), secret(rng)];
        } else {
            self.secrets.swap(0, 1);
            let [current, _] = &mut self.secrets;
            *current = secret(rng);
        }
        self.version = self.version.wrapping_add(1);
        self.rotate_at = now + ROTATE_AFTER;
    }
}

impl Ticket {
    /// PRF (2), difficulty (1), round (1), seconds (4), serial (4); a PRF of zero is no puzzle.
    fn encode(&self) -> [u8; TICKET_LEN] {
        let mut octets = [0; TICKET_LEN];
        let puzzle = self.puzzle.unwrap_or(PuzzleDemand { prf: PrfId(0), difficulty: 0 });
        let seconds = (self.baked.as_nanos() / NANOS_PER_SECOND) as u32;
        let fields = [
            &puzzle.prf.0.to_be_bytes()[..],
            &[puzzle.difficulty, self.round],
            &seconds.to_be_bytes(),
            &self.serial.1.to_be_bytes(),
        ];
        for (to, from) in octets.iter_mut().zip(fields.into_iter().flatten()) {
            *to = *from;
        }
        octets
    }

    fn decode(version: u8, octets: &[u8; TICKET_LEN]) -> Self {
        let [p0, p1, difficulty, round, t0, t1, t2, t3, s0, s1, s2, s3] = *octets;
        let prf = PrfId(u16::from_be_bytes([p0, p1]));
        let seconds = u64::from(u32::from_be_bytes([t0, t1, t2, t3]));
        Self {
            puzzle: (prf.0 != 0).then_some(PuzzleDemand { prf, difficulty }),
            round,
            baked: Time::from_nanos(seconds * NANOS_PER_SECOND),
            serial: (version, u32::from_be_bytes([s0, s1, s2, s3])),
        }
    }
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;

fn secret(rng: &mut Rng) -> Zeroizing<[u8; 32]> {
    let mut secret = Zeroizing::new([0; 32]);
    rng.fill_bytes(&mut *secret);
    secret
}

fn seal(version: u8, ticket: &[u8; TICKET_LEN], secret: &[u8; 32], bearer: Bearer<'_>) -> Vec<u8> {
    let address = match bearer.address {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let mut cookie = vec![version];
    cookie.extend_from_slice(ticket);
    cookie.extend_from_slice(&sha256(&[bearer.nonce, &address, &bearer.spi.to_be_bytes(), ticket, secret]));
    cookie
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::SeedableRng;

    #[test]
    fn a_cookie_is_good_for_its_initiator_alone_and_for_two_periods_at_most() {
        let mut rng = Rng::from_seed([3; 32]);
        let mut jar = CookieJar::new(&mut rng, Time::ZERO);
        let cookie = jar.bake(Time::ZERO, &mut rng, BEARER, None, 0);
        assert!(cookie.len() <= 64, "RFC 7296 section 2.6: 1 to 64 octets");
        let mut good = |at: u64, bearer| {
            jar.verify(Time::ZERO + Duration::from_secs(at), &mut rng, &cookie, bearer).is_some()
        };
        assert!(good(0, BEARER));
        assert!(!good(0, Bearer { nonce: b"other", ..BEARER }));
        assert!(!good(0, Bearer { address: IpAddr::from([192, 0, 2, 9]), ..BEARER }));
        assert!(!good(0, Bearer { spi: 8, ..BEARER }));
        assert!(good(121, BEARER));
        assert!(!good(241, BEARER));
    }

    #[test]
    fn a_cookie_from_before_a_long_silence_is_stale() {
        let mut rng = Rng::from_seed([3; 32]);
        let mut jar = CookieJar::new(&mut rng, Time::ZERO);
        let cookie = jar.bake(Time::ZERO, &mut rng, BEARER, None, 0);
        let later = Time::ZERO + Duration::from_secs(1000);
        assert_eq!(jar.verify(later, &mut rng, &cookie, BEARER), None);
        assert_eq!(jar.verify(later, &mut rng, &[], BEARER), None);
    }

    /// RFC 8019 section 7.1.1.3: difficulty, number of puzzles and time are learnt from the cookie, "the Responder MUST make it
    /// integrity protected"; section 10: no two cookies are the same.
    #[test]
    fn a_cookie_remembers_its_puzzle_and_nobody_can_change_what() {
        let mut rng = Rng::from_seed([3; 32]);
        let mut jar = CookieJar::new(&mut rng, Time::ZERO);
        let now = Time::ZERO + Duration::from_secs(77);
        let demand = PuzzleDemand { prf: PrfId::HMAC_SHA2_384, difficulty: 18 };
        let cookie = jar.bake(now, &mut rng, BEARER, Some(demand), 2);
        assert_ne!(cookie, jar.bake(now, &mut rng, BEARER, Some(demand), 2));
        let ticket = jar.verify(now, &mut rng, &cookie, BEARER).unwrap();
        assert_eq!(ticket, Ticket { puzzle: Some(demand), round: 2, baked: now, serial: (0, 1) });
        for octet in 0..cookie.len() {
            let mut changed = cookie.clone();
            changed[octet] ^= 1;
            assert_eq!(jar.verify(now, &mut rng, &changed, BEARER), None, "octet {octet}");
        }
    }

    const BEARER: Bearer<'static> =
        Bearer { nonce: b"nonce", address: IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), spi: 7 };
}
