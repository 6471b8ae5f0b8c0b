//! Stateless cookies against IKE_SA_INIT from forged addresses (RFC 7296 section 2.6).

use core::time::Duration;
use std::net::IpAddr;

use rand_core::Rng as _;
use zeroize::Zeroizing;

use crate::crypto::Rng;
use crate::crypto::digest::{constant_time_eq, sha256};
use crate::time::Time;

/// A secret serves this long, and one period more for verification.
const ROTATE_AFTER: Duration = Duration::from_secs(120);

/// Makes and verifies cookies: version of the secret | SHA-256(Ni | IPi | SPIi | secret). The port is left out, so that a
/// cookie serves over TCP too.
pub(crate) struct CookieJar {
    secrets: [Zeroizing<[u8; 32]>; 2],
    version: u8,
    rotate_at: Time,
}

impl CookieJar {
    /// Fresh secrets.
    pub(crate) fn new(rng: &mut Rng, now: Time) -> Self {
        Self { secrets: [secret(rng), secret(rng)], version: 0, rotate_at: now + ROTATE_AFTER }
    }

    /// The cookie for this initiator.
    pub(crate) fn bake(
        &mut self,
        now: Time,
        rng: &mut Rng,
        nonce: &[u8],
        address: IpAddr,
        spi: u64,
    ) -> Vec<u8> {
        self.rotate(now, rng);
        let [current, _] = &self.secrets;
        digest(self.version, current, nonce, address, spi)
    }

    /// True if `cookie` is one of ours, of this or the last period, for this initiator.
    pub(crate) fn verify(
        &mut self,
        now: Time,
        rng: &mut Rng,
        cookie: &[u8],
        nonce: &[u8],
        address: IpAddr,
        spi: u64,
    ) -> bool {
        self.rotate(now, rng);
        let [current, last] = &self.secrets;
        let secret = match cookie.first() {
            Some(&version) if version == self.version => current,
            Some(&version) if version == self.version.wrapping_sub(1) => last,
            _ => return false,
        };
        let version = cookie.first().copied().unwrap_or_default();
        constant_time_eq(&digest(version, secret, nonce, address, spi), cookie)
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

fn secret(rng: &mut Rng) -> Zeroizing<[u8; 32]> {
    let mut secret = Zeroizing::new([0; 32]);
    rng.fill_bytes(&mut *secret);
    secret
}

fn digest(version: u8, secret: &[u8; 32], nonce: &[u8], address: IpAddr, spi: u64) -> Vec<u8> {
    let address = match address {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let mut cookie = vec![version];
    cookie.extend_from_slice(&sha256(&[nonce, &address, &spi.to_be_bytes(), secret]));
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
        let cookie = jar.bake(Time::ZERO, &mut rng, b"nonce", ADDRESS, 7);
        assert!(cookie.len() <= 64, "RFC 7296 section 2.6: 1 to 64 octets");
        let mut good = |at: u64, nonce: &[u8], address, spi| {
            jar.verify(Time::ZERO + Duration::from_secs(at), &mut rng, &cookie, nonce, address, spi)
        };
        assert!(good(0, b"nonce", ADDRESS, 7));
        assert!(!good(0, b"other", ADDRESS, 7));
        assert!(!good(0, b"nonce", "192.0.2.9".parse().unwrap(), 7));
        assert!(!good(0, b"nonce", ADDRESS, 8));
        assert!(good(121, b"nonce", ADDRESS, 7));
        assert!(!good(241, b"nonce", ADDRESS, 7));
    }

    #[test]
    fn a_cookie_from_before_a_long_silence_is_stale() {
        let mut rng = Rng::from_seed([3; 32]);
        let mut jar = CookieJar::new(&mut rng, Time::ZERO);
        let cookie = jar.bake(Time::ZERO, &mut rng, b"nonce", ADDRESS, 7);
        let later = Time::ZERO + Duration::from_secs(1000);
        assert!(!jar.verify(later, &mut rng, &cookie, b"nonce", ADDRESS, 7));
        assert!(!jar.verify(later, &mut rng, &[], b"nonce", ADDRESS, 7));
    }

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
}
