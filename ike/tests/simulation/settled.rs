//! What has to hold when nothing happens any more: both ends agree, and nothing is left behind.

use std::time::Duration;

use portcullis_ike::endpoint::Held;

use crate::world::World;

impl World {
    /// Both ends have exactly one IKE SA with the named number of children, and every pair is whole: what one sends on, the
    /// other has installed, with the same key and mirrored selectors.
    pub fn assert_settled(&self, children: usize) {
        self.try_settled(children).unwrap_or_else(|why| {
            for (n, node) in self.nodes.iter().enumerate() {
                node.events.iter().for_each(|(at, event)| eprintln!("{n} {at:?} {event:?}"));
            }
            panic!("{why}")
        });
    }

    pub fn try_settled(&self, children: usize) -> Result<(), String> {
        for (n, node) in self.nodes.iter().enumerate() {
            let status = self.status(n);
            if status.ike_sas.len() != 1 {
                return Err(format!("node {n} has {} IKE SAs: {:?}", status.ike_sas.len(), status));
            }
            let sa = &status.ike_sas[0];
            if sa.children.len() != children || node.in_use.len() != children {
                return Err(format!("node {n}: {} in use, {:?}", node.in_use.len(), sa.children));
            }
            let peer = &self.nodes[1 - n];
            for child in node.in_use.values() {
                let ours = &node.outbound[child].sa;
                let Some(theirs) = peer.inbound.get(&ours.spi) else {
                    return Err(format!("node {n} sends on {:x}, which the peer does not have", ours.spi));
                };
                let theirs = &theirs.sa.common;
                if theirs.key != ours.common.key
                    || theirs.cipher != ours.common.cipher
                    || theirs.esn != ours.common.esn
                    || theirs.local_ts != ours.common.remote_ts
                    || theirs.remote_ts != ours.common.local_ts
                {
                    return Err(format!("node {n}: the two ends of {:x} differ", ours.spi));
                }
            }
        }
        if self.status(0).ike_sas[0].spis != self.status(1).ike_sas[0].spis {
            return Err("the two ends name different IKE SAs".into());
        }
        if !self.ledger.is_shared(self.status(0).ike_sas[0].spis) {
            return Err("one end has keys of the IKE SA that the other does not have".into());
        }
        Ok(())
    }

    /// Stops everything and checks that nothing is left behind.
    pub fn shut_down_and_check(&mut self) {
        self.traffic = None;
        let now = self.now;
        for node in &mut self.nodes {
            node.endpoint.shutdown(now);
        }
        self.run_for(Duration::from_secs(400));
        for node in &self.nodes {
            assert!(node.endpoint.is_drained());
            assert_eq!(node.endpoint.held(), Held::default(), "state is left");
            node.assert_empty();
        }
    }
}
