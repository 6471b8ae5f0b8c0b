use proptest::prelude::*;

use super::*;
use crate::guard::model::{ALLOW_PRIORITY, Direction, RULE_PRIORITY};
use crate::guard::range::{AddressRange, PortRange};

#[test]
fn what_is_wanted_and_there_is_left_alone() {
    let held = BTreeMap::from([(selector(1), block(0)), (selector(2), allow())]);
    assert_eq!(changes(&held, &held), []);
}

#[test]
fn blocks_are_added_before_anything_is_removed_and_removed_last() {
    let installed = BTreeMap::from([(selector(1), block(0)), (selector(2), allow())]);
    let desired = BTreeMap::from([(selector(3), block(0)), (selector(4), allow())]);
    assert_eq!(
        changes(&installed, &desired),
        [
            Change::Put(selector(3), block(0)),
            Change::Remove(selector(2), allow()),
            Change::Put(selector(4), allow()),
            Change::Remove(selector(1), block(0)),
        ]
    );
}

proptest! {
    /// Overlapping policies stand for one packet here: each subset of them may match it. Whatever the packet's
    /// subset is, no step between two states that block it lets it through.
    #[test]
    fn no_step_lets_through_what_is_blocked_before_and_after(
        before in prop::collection::btree_map(0..6u8, (any::<bool>(), 0..4u32), 0..6),
        after in prop::collection::btree_map(0..6u8, (any::<bool>(), 0..4u32), 0..6),
        matching: u8,
    ) {
        let policies = |m: &BTreeMap<u8, (bool, u32)>| -> BTreeMap<_, _> {
            m.iter().map(|(&n, &(is_allow, rank))| {
                let action = if is_allow { Action::Allow } else { Action::Block };
                // Ranks of allows and blocks differ, as those of bypass and protect rules do.
                let priority = RULE_PRIORITY + 2 * rank + u32::from(is_allow);
                (selector(n), PolicyValue { priority, action })
            }).collect()
        };
        let (mut state, desired) = (policies(&before), policies(&after));
        let blocked = |state: &BTreeMap<PolicySelector, PolicyValue>| {
            let of_packet = (0..6).filter(|n| matching & (1 << n) != 0).filter_map(|n| state.get(&selector(n)));
            of_packet.min_by_key(|v| v.priority).is_some_and(|v| v.action == Action::Block)
        };
        let stays_blocked = blocked(&state) && blocked(&desired);
        for change in changes(&state, &desired) {
            match change {
                Change::Put(s, v) => state.insert(s, v),
                Change::Remove(s, _) => state.remove(&s),
            };
            prop_assert!(!stays_blocked || blocked(&state), "open after {change:?}");
        }
        prop_assert_eq!(state, desired);
    }
}

fn selector(number: u8) -> PolicySelector {
    let prefix = AddressRange::prefix([10, number, 0, 0].into(), 16).prefixes()[0];
    let any = PortRange::ANY.masks()[0];
    PolicySelector {
        direction: Direction::Out,
        source: prefix,
        destination: prefix,
        protocol: None,
        source_ports: any,
        destination_ports: any,
        interface: None,
    }
}

fn block(rule: u32) -> PolicyValue {
    PolicyValue { priority: RULE_PRIORITY + rule, action: Action::Block }
}

fn allow() -> PolicyValue {
    PolicyValue { priority: ALLOW_PRIORITY, action: Action::Allow }
}
