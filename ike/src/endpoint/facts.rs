//! What the data plane saw.

use super::Endpoint;
use crate::action::{ChildId, IkeSaId};
use crate::command::Fact;
use crate::event::Event;
use crate::live::Task;
use crate::status::Reason;
use crate::time::Time;
use crate::transport::carrier::Arrival;

impl Endpoint {
    /// Takes a fact. Facts about children that are gone are ignored.
    pub fn fact(&mut self, now: Time, fact: Fact) {
        match fact {
            Fact::Inbound { child, carrier, source, local, is_highest, is_echo } => {
                let Some(id) = self.owner_of(child) else { return };
                let Some(live) = self.live.get_mut(&id) else { return };
                live.esp_seen = Some(now);
                live.peer_uses(&mut self.core, now, child);
                if let Some(carrier) = carrier.direct() {
                    let arrival = Arrival { carrier, source, local, is_highest, is_echo };
                    let effects = live.carrier.inbound(now, arrival);
                    live.carry_out(&mut self.core, effects);
                }
                self.touch(now, id);
            }
            Fact::Outbound { child } => {
                let Some(id) = self.owner_of(child) else { return };
                if let Some(live) = self.live.get_mut(&id) {
                    live.carrier.outbound(now);
                }
                self.touch(now, id);
            }
            // ESP echo is not announced yet, so there is nothing to verify and no reply to expect.
            Fact::EchoReply { .. } | Fact::LocalSend { .. } | Fact::PathDoubt { .. } => {}
            Fact::SoftLifetime { child } => self.child_task(now, child, Task::RekeyChild(child)),
            Fact::HardLifetime { child } => self.child_task(now, child, Task::DeleteChild(child)),
            Fact::Acquire { connection, child } => {
                let Some(known) = self.connections.get_mut(&*connection) else { return };
                let Some(named) = known.named(Some(&child)) else { return };
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
            Fact::LocalChange => {
                let names: Vec<_> = self.connections.keys().cloned().collect();
                for name in names {
                    if let Some(connection) = self.connections.get_mut(&name)
                        && connection.next_attempt.is_some()
                    {
                        connection.next_attempt = Some(now);
                    }
                    self.refresh(now, &name);
                }
                let ids: Vec<_> = self.live.keys().copied().collect();
                for id in ids {
                    if let Some(live) = self.live.get_mut(&id) {
                        live.redial_now(now);
                    }
                    self.touch(now, id);
                }
            }
        }
    }

    fn owner_of(&self, child: ChildId) -> Option<IkeSaId> {
        self.live.values().find(|live| live.children.get(child).is_some()).map(|live| live.id)
    }

    fn child_task(&mut self, now: Time, child: ChildId, task: Task) {
        let Some(id) = self.owner_of(child) else { return };
        if let Some(live) = self.live.get_mut(&id) {
            live.want(task);
        }
        self.touch(now, id);
    }
}
