//! How kernel objects that no process owns say whose they are.

/// The letter P and 24 bits of a hash of the instance's name (FNV-1a).
pub fn tag(instance: &str) -> u32 {
    let hash = instance.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    u32::from_be_bytes([b'P', 0, 0, 0]) | ((hash ^ hash >> 24) & 0x00ff_ffff)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn instances_have_tags_of_their_own_that_start_with_p() {
        let tags: BTreeSet<_> = (0..1000).map(|i| tag(&format!("gateway-{i}"))).collect();
        assert_eq!(tags.len(), 1000);
        assert!(tags.iter().all(|t| t >> 24 == u32::from(b'P')));
    }
}
