//! What the data plane saw.

use super::Endpoint;
use crate::action::{ChildId, IkeSaId};
use crate::command::Fact;
use crate::crypto::Rng;
use crate::event::Event;
use crate::live::Task;
use crate::status::Reason;
use crate::time::Time;
use crate::transport::carrier::{Arrival, Carrier};
use crate::transport::probe::Reply;

impl Endpoint {
    /// Takes a fact. Facts about children that are gone are ignored.
    pub fn fact(&mut self, now: Time, fact: Fact) {
        match fact {
            Fact::Inbound { child, carrier, source, local, is_highest, is_echo } => {
                let Some(id) = self.owner_of(child) else { return };
                let Some(live) = self.live.get_mut(&id) else { return };
                live.esp_seen = Some(now);
                if !is_echo {
                    live.peer_uses(&mut self.core, now, child);
                }
                // What was under way when a pair was replaced is a word on the child all the same.
                let name = live.children.get(child).map(|child| &child.name);
                let child = name.and_then(|name| live.carrier.pair_in_use(name)).unwrap_or(child);
                let arrival = Arrival { child, carrier, source, local, is_highest, is_echo };
                live.carrier.inbound(now, arrival, &mut self.core.rng);
                live.carry_out(&mut self.core, now);
                if !is_echo && carrier.direct().is_some() {
                    self.trial_inbound(now, id);
                }
                if !is_echo {
                    self.traffic_has_moved(now, id);
                }
                self.touch(now, id);
            }
            Fact::Outbound { child } => {
                let Some(id) = self.owner_of(child) else { return };
                if let Some(live) = self.live.get_mut(&id) {
                    live.carrier.outbound(now, child, &mut self.core.rng);
                    live.carry_out(&mut self.core, now);
                }
                self.touch(now, id);
            }
            Fact::EchoReply { child, identifier, sequence, nonce, carrier, source, local: _ } => {
                self.core.counters.echo_replies[carrier] += 1;
                let Some(id) = self.owner_of(child) else { return };
                let Some(live) = self.live.get_mut(&id) else { return };
                live.esp_seen = Some(now);
                let reply = Reply { child, identifier, sequence, nonce, carrier };
                live.carrier.echo_reply(now, &reply, source, &mut self.core.rng);
                live.carry_out(&mut self.core, now);
                self.trial_answered(now, id, &reply);
                self.touch(now, id);
            }
            Fact::LocalSend { ike_sa, failure } => {
                self.of_carrier(now, ike_sa, |carrier, rng| carrier.local_send(now, failure.is_some(), rng));
            }
            Fact::PathDoubt { ike_sa } => {
                self.of_carrier(now, ike_sa, |carrier, rng| carrier.doubt(now, rng))
            }
            Fact::SoftLifetime { child } => self.child_task(now, child, Task::RekeyChild(child)),
            Fact::HardLifetime { child } => self.child_task(now, child, Task::DeleteChild(child)),
            Fact::Acquire { connection, child, packet } => {
                let Some(known) = self.connections.get_mut(&*connection) else { return };
                let Some(named) = known.named(Some(&child)) else { return };
                let about = named.iter().map(|child| ((known.config.name.clone(), child.clone()), packet));
                self.core.packets.extend(about);
                known.wanted.extend(named);
                self.bring_up(now, &connection);
            }
            Fact::InstallFailed { child, cause } => {
                let Some(id) = self.owner_of(child) else { return };
                if let Some(live) = self.live.get_mut(&id) {
                    let name = live.children.get(child).map(|child| child.name.clone());
                    if let Some(child_name) = name {
                        self.core.event(Event::ChildFailed {
                            connection: live.config.name.clone(),
                            child_name,
                            reason: Reason::LocalLimit,
                            detail: cause,
                        });
                    }
                }
                self.child_task(now, child, Task::DeleteChild(child));
            }
            Fact::LocalAddress { connection, address } => self.local_address(now, &connection, address),
            Fact::LocalChange { gone } => self.local_change(now, gone),
        }
    }

    fn of_carrier(&mut self, now: Time, ike_sa: IkeSaId, tell: impl FnOnce(&mut Carrier, &mut Rng)) {
        let Some(live) = self.live.get_mut(&ike_sa) else { return };
        tell(&mut live.carrier, &mut self.core.rng);
        live.carry_out(&mut self.core, now);
        self.touch(now, ike_sa);
    }

    fn owner_of(&self, child: ChildId) -> Option<IkeSaId> {
        self.core.children.get(&child).copied()
    }

    fn child_task(&mut self, now: Time, child: ChildId, task: Task) {
        let Some(id) = self.owner_of(child) else { return };
        if let Some(live) = self.live.get_mut(&id) {
            live.want(task);
        }
        self.touch(now, id);
    }
}
