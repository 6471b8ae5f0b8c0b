//! Explicit congestion notification through a tunnel (RFC 6040), DSCP beside it (RFC 2983).

/// The two ECN bits of a TOS or traffic class octet.
const MASK: u8 = 0b11;
const NOT_ECT: u8 = 0b00;
const ECT_0: u8 = 0b10;
const ECT_1: u8 = 0b01;
const CE: u8 = 0b11;

/// The outer traffic class of a packet that enters the tunnel: ECN is copied (RFC 6040 section 4.1, normal
/// mode), DSCP as well (RFC 2983 section 3: the tunnel takes part in the network's service classes) unless
/// `copy_dscp` is off, in which case it is zero.
pub fn encapsulate(inner: u8, copy_dscp: bool) -> u8 {
    if copy_dscp { inner } else { inner & MASK }
}

/// The inner traffic class of a packet that leaves the tunnel; the DSCP is the inner one (RFC 2983 section 3.1).
/// `None`: congestion was marked on a packet whose transport cannot hear it, which must be dropped (RFC 6040
/// section 4.2).
pub fn decapsulate(inner: u8, outer: u8) -> Option<u8> {
    let ecn = match (inner & MASK, outer & MASK) {
        (NOT_ECT, CE) => return None,
        (NOT_ECT, _) => NOT_ECT,
        (ECT_0, ECT_1) => ECT_1,
        (ECT_0 | ECT_1, CE) => CE,
        (inner, _) => inner,
    };
    Some(inner & !MASK | ecn)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6040 section 4.2, figure 4, row by row.
    #[test]
    fn decapsulation_follows_figure_4() {
        let columns = [NOT_ECT, ECT_0, ECT_1, CE];
        let rows = [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
            (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
            (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
        ];
        for (inner, expected) in rows {
            for (outer, expected) in columns.into_iter().zip(expected) {
                assert_eq!(decapsulate(inner, outer), expected, "inner {inner:02b} outer {outer:02b}");
            }
        }
    }

    /// RFC 6040 section 4.1, figure 3, normal mode.
    #[test]
    fn encapsulation_copies_the_ecn_field() {
        for ecn in 0..4 {
            assert_eq!(encapsulate(0xb8 | ecn, true), 0xb8 | ecn);
            assert_eq!(encapsulate(0xb8 | ecn, false), ecn);
        }
    }

    /// RFC 2983 section 3.1: the outer DSCP does not reach the inner header.
    #[test]
    fn decapsulation_keeps_the_inner_dscp() {
        assert_eq!(decapsulate(0xb8 | ECT_0, 0x20 | CE), Some(0xb8 | CE));
    }
}
