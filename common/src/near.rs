//! The first few of our addresses, side by side: most gateways have no more, and comparing them is several times cheaper than
//! a look into a hash.

use crate::ip::Address;

/// IPv4 addresses in a list.
pub const NEAR_IPV4: usize = 8;
/// IPv6 addresses in a list.
pub const NEAR_IPV6: usize = 4;

/// A list of addresses of ours, as the XDP programs read it. Nothing that is all zero is an address.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(C)]
pub struct NearAddresses {
    v6: [[u64; 2]; NEAR_IPV6],
    v4: [u32; NEAR_IPV4],
    /// There are others in the hash.
    more_v4: u32,
    more_v6: u32,
}

impl NearAddresses {
    /// The list after our addresses became `addresses`. What stays keeps its place, so that whoever reads the list while it
    /// is written finds it.
    pub fn updated(&self, addresses: impl Iterator<Item = Address> + Clone) -> Self {
        let v4 = addresses.clone().filter_map(|address| match address {
            Address::V4(octets) => Some(u32::from_ne_bytes(octets)),
            Address::V6(_) => None,
        });
        let v6 = addresses.filter_map(|address| match address {
            Address::V4(_) => None,
            Address::V6(octets) => Some(halves(&octets)),
        });
        let ((v4, more_v4), (v6, more_v6)) = (placed(self.v4, v4), placed(self.v6, v6));
        Self { v6, v4, more_v4, more_v6 }
    }

    /// Whether the address is ours; `None` if that stands in the hash.
    #[inline(always)]
    pub fn find(&self, address: &Address) -> Option<bool> {
        let (is_here, more) = match address {
            Address::V4(octets) => {
                let wanted = u32::from_ne_bytes(*octets);
                (wanted != 0 && self.v4.contains(&wanted), self.more_v4)
            }
            Address::V6(octets) => {
                let wanted = halves(octets);
                (wanted != [0; 2] && self.v6.contains(&wanted), self.more_v6)
            }
        };
        if !is_here && more != 0 { None } else { Some(is_here) }
    }
}

#[inline(always)]
fn halves(octets: &[u8; 16]) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *octets;
    [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p])]
}

/// As many addresses as there are places, those that were there where they were; 1 if some have none.
fn placed<T: Copy + PartialEq + Default, const N: usize>(
    mut places: [T; N],
    addresses: impl Iterator<Item = T> + Clone,
) -> ([T; N], u32) {
    for place in &mut places {
        if !addresses.clone().any(|address| address == *place) {
            *place = T::default();
        }
    }
    let mut more = 0;
    for address in addresses.filter(|address| *address != T::default()) {
        if places.contains(&address) {
            continue;
        }
        match places.iter_mut().find(|place| **place == T::default()) {
            Some(place) => *place = address,
            None => more = 1,
        }
    }
    (places, more)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(last: u8) -> Address {
        Address::V4([192, 0, 2, last])
    }

    fn v6(last: u8) -> Address {
        let mut octets = [0; 16];
        (octets[0], octets[15]) = (0xfd, last);
        Address::V6(octets)
    }

    #[test]
    fn few_addresses_need_no_hash() {
        let list = NearAddresses::default().updated([v4(1), v6(1), v4(2)].into_iter());
        for ours in [v4(1), v4(2), v6(1)] {
            assert_eq!(list.find(&ours), Some(true), "{ours:?}");
        }
        for other in [v4(3), v6(2), Address::V4([0; 4]), Address::V6([0; 16])] {
            assert_eq!(list.find(&other), Some(false), "{other:?}");
        }
    }

    #[test]
    fn what_has_no_place_stands_in_the_hash() {
        let list = NearAddresses::default().updated((1..=9).map(v4).chain([v6(1)]));
        assert_eq!((1..=8).map(|last| list.find(&v4(last))).collect::<Vec<_>>(), [Some(true); 8]);
        assert_eq!((list.find(&v4(9)), list.find(&v4(200))), (None, None));
        assert_eq!((list.find(&v6(1)), list.find(&v6(2))), (Some(true), Some(false)), "families apart");
        let list = list.updated((2..=9).map(v4));
        assert_eq!((list.find(&v4(9)), list.find(&v4(1))), (Some(true), Some(false)));
    }

    /// Who reads while the list is written sees what stays, whichever words he gets.
    #[test]
    fn what_stays_keeps_its_place() {
        let before = NearAddresses::default().updated([v4(1), v4(2), v4(3)].into_iter());
        let after = before.updated([v4(3), v4(4), v4(2)].into_iter());
        assert_eq!((before.v4[1], before.v4[2]), (after.v4[1], after.v4[2]));
        assert_eq!(after.find(&v4(4)), Some(true));
    }

    /// The map has this size; a program of another version would not load with it.
    #[test]
    fn the_layout_is_fixed() {
        assert_eq!((size_of::<NearAddresses>(), align_of::<NearAddresses>()), (104, 8));
    }
}
