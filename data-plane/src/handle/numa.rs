//! Whose memory packets lie in: that of the NUMA nodes that the cards are at.

use std::fs;
use std::path::Path;

use crate::xsk::MAX_SLOTS;

/// The nodes that packet memory is taken from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Nodes {
    /// By slot; at least one. `None`: the kernel's choice.
    slots: Vec<Option<u32>>,
    /// The slot of each interface.
    interfaces: Vec<usize>,
}

impl Nodes {
    /// Of interfaces with these names, as the kernel says where they are.
    pub(super) fn of<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let has_several = node_count(Path::new("/sys/devices/system/node")) > 1;
        let nodes = names.map(|name| node_of(Path::new("/sys/class/net"), name).filter(|_| has_several));
        Self::choose(&nodes.collect::<Vec<_>>())
    }

    /// A slot for each node, in the order of the interfaces. An interface at no node, such as a virtual one, goes with the first:
    /// what is as near to all is best where most of the rest is.
    fn choose(nodes: &[Option<u32>]) -> Self {
        let mut slots: Vec<Option<u32>> = Vec::new();
        for node in nodes.iter().flatten() {
            if !slots.contains(&Some(*node)) && slots.len() < MAX_SLOTS {
                slots.push(Some(*node));
            }
        }
        let slot =
            |node: &Option<u32>| slots.iter().position(|slot| slot == node && node.is_some()).unwrap_or(0);
        let interfaces = nodes.iter().map(slot).collect();
        if slots.is_empty() {
            slots.push(None);
        }
        Self { slots, interfaces }
    }

    /// By slot.
    pub(super) fn slots(&self) -> &[Option<u32>] {
        &self.slots
    }

    /// The slot of an interface, by its place in the configuration.
    pub(super) fn slot(&self, interface: usize) -> usize {
        self.interfaces.get(interface).copied().unwrap_or(0)
    }
}

/// NUMA node of the device under an interface; `None` for virtual ones, and where the firmware does not tell (-1).
fn node_of(class: &Path, interface: &str) -> Option<u32> {
    fs::read_to_string(class.join(interface).join("device/numa_node")).ok()?.trim().parse().ok()
}

fn node_count(nodes: &Path) -> usize {
    let is_node = |name: &str| name.strip_prefix("node").is_some_and(|n| n.parse::<u32>().is_ok());
    let entries = fs::read_dir(nodes).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_str().is_some_and(is_node)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_with_a_card_has_a_slot() {
        let nodes = Nodes::choose(&[Some(1), Some(0), Some(1), None]);
        assert_eq!(nodes.slots(), [Some(1), Some(0)]);
        assert_eq!((0..4).map(|n| nodes.slot(n)).collect::<Vec<_>>(), [0, 1, 0, 0]);
    }

    #[test]
    fn without_nodes_the_kernel_chooses() {
        for none in [&[][..], &[None, None]] {
            let nodes = Nodes::choose(none);
            assert_eq!((nodes.slots(), nodes.slot(0), nodes.slot(7)), (&[None][..], 0, 0));
        }
    }

    #[test]
    fn more_nodes_than_slots_share_the_first() {
        let all: Vec<_> = (0..MAX_SLOTS as u32 + 2).map(Some).collect();
        let nodes = Nodes::choose(&all);
        assert_eq!(
            (nodes.slots().len(), nodes.slot(MAX_SLOTS - 1), nodes.slot(MAX_SLOTS)),
            (MAX_SLOTS, MAX_SLOTS - 1, 0)
        );
    }

    #[test]
    fn the_kernel_says_where_a_card_is() {
        let class = tempfile::tempdir().unwrap();
        for (name, node) in [("eth0", "1\n"), ("eth1", "-1\n"), ("eth2", "")] {
            let device = class.path().join(name).join("device");
            fs::create_dir_all(&device).unwrap();
            fs::write(device.join("numa_node"), node).unwrap();
        }
        let nodes = ["eth0", "eth1", "eth2", "veth0"].map(|name| node_of(class.path(), name));
        assert_eq!(nodes, [Some(1), None, None, None]);
        for name in ["node0", "node1", "possible", "nodeX"] {
            fs::create_dir(class.path().join(name)).unwrap();
        }
        assert_eq!((node_count(class.path()), node_count(&class.path().join("none"))), (2, 0));
    }
}
