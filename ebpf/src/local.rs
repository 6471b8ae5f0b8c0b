//! Our addresses.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap};
use portcullis_common::ip::Address;
use portcullis_common::maps::MAX_LOCAL_ADDRESSES;
use portcullis_common::near::NearAddresses;
use portcullis_common::wan::LocalAddresses;

/// The first few of each family.
#[map]
static LOCAL_NEAR: Array<NearAddresses> = Array::with_max_entries(1, 0);
#[map]
static LOCAL_IPV4: HashMap<[u8; 4], u8> = HashMap::with_max_entries(MAX_LOCAL_ADDRESSES, 0);
#[map]
static LOCAL_IPV6: HashMap<[u8; 16], u8> = HashMap::with_max_entries(MAX_LOCAL_ADDRESSES, 0);

/// The addresses that user space listed.
pub struct Listed;

impl LocalAddresses for Listed {
    #[inline(always)]
    fn contains(&self, address: &Address) -> bool {
        // SAFETY: the array is never freed while the program runs. User space writes it as a whole; an address that stays
        // keeps its place and its words, and a word is written at once.
        let near = LOCAL_NEAR.get_ptr(0).and_then(|near| unsafe { (*near).find(address) });
        near.unwrap_or_else(|| match address {
            Address::V4(a) => LOCAL_IPV4.get_ptr(a).is_some(),
            Address::V6(a) => LOCAL_IPV6.get_ptr(a).is_some(),
        })
    }
}
