//! Support tools dump every BPF map: a key that is in use must not be found in any of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use portcullis_vm_tests::{BpfMap, Pair, PairOptions};

use crate::{artefacts, wait_answered};

#[test]
fn no_key_in_use_is_in_any_bpf_map() {
    let mut pair = Pair::new(PairOptions::USUAL, &artefacts()).unwrap();
    let log = pair.lab.instance.directory().join("keys");
    fs::create_dir(&log).unwrap();
    pair.b.start().unwrap();
    pair.a.start_with(&["--keylog", log.to_str().unwrap()]).unwrap();
    let (connection, _) = pair.wait_up(crate::SOON).unwrap();
    wait_answered(&pair.lab);

    let keys = keys_in(&log);
    assert!(keys.len() >= 4, "SK_ei, SK_er and a key for either direction: {}", keys.len());
    let maps = BpfMap::of_process(pair.a.process().unwrap().id()).unwrap();
    assert!(!maps.is_empty(), "the daemon keeps its tables in BPF maps");
    let dumps: Vec<_> = maps.iter().map(|map| (map, map.all_octets().unwrap())).collect();

    let inbound = u32::from_str_radix(&connection.ike_sas[0].children[0].spi_in, 16).unwrap();
    assert!(
        dumps.iter().any(|(_, dump)| contains(dump, &inbound.to_ne_bytes()) || contains(dump, &inbound.to_be_bytes())),
        "the search finds what is there: the inbound SPI"
    );
    for key in keys {
        for (map, dump) in &dumps {
            // Half of a key is a secret too.
            for part in [&key[..], &key[..16], &key[key.len() - 16..]] {
                assert!(!contains(dump, part), "{map:?} holds a key in use");
            }
        }
    }
}

/// Every hexadecimal string of at least 16 octets in the files of a key log that Wireshark takes for a key.
fn keys_in(directory: &Path) -> BTreeSet<Vec<u8>> {
    let mut keys = BTreeSet::new();
    for generation in fs::read_dir(directory).unwrap().flatten() {
        for file in ["esp_sa", "ikev2_decryption_table"] {
            let text = fs::read_to_string(generation.path().join(file)).unwrap();
            keys.extend(text.lines().flat_map(|line| line.split(',')).filter_map(key));
        }
    }
    keys
}

fn key(field: &str) -> Option<Vec<u8>> {
    let field = field.trim_matches('"');
    let digits = field.strip_prefix("0x").unwrap_or(field);
    let is_key =
        digits.len() >= 32 && digits.len().is_multiple_of(2) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    is_key.then(|| {
        (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
    })
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
