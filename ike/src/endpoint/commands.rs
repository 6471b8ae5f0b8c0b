//! What the operator asks for, and how it ends.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Endpoint;
use super::connection::{Goal, Pending};
use crate::action::IkeSaId;
use crate::command::{Command, CommandKind};
use crate::event::Event;
use crate::live::Task;
use crate::status::Reason;
use crate::time::Time;

impl Endpoint {
    /// Takes a command; its outcome is an [`Event::CommandDone`] with the same number.
    pub fn command(&mut self, now: Time, command: Command) {
        let Command { request, connection: name, kind } = command;
        let Some(connection) = self.connections.get_mut(&*name) else {
            return self.done(request, Err(format!("there is no connection {name:?}")));
        };
        let child = match &kind {
            CommandKind::Up { child } | CommandKind::Down { child } | CommandKind::RekeyChild { child } => {
                child.as_deref()
            }
            CommandKind::RekeyIke
            | CommandKind::SetEspPolicy { .. }
            | CommandKind::Redirect { .. }
            | CommandKind::Probe => None,
        };
        let Some(children) = connection.named(child) else {
            let child = child.unwrap_or_default();
            return self.done(request, Err(format!("connection {name:?} has no child {child:?}")));
        };
        match kind {
            CommandKind::Up { .. } => {
                if let Some(cause) = &self.core.config.guard_missing {
                    let cause = format!("connection {name:?} is refused: {cause}");
                    return self.done(request, Err(cause));
                }
                if !connection.can_initiate() && connection.live.is_empty() {
                    let cause =
                        format!("connection {name:?} has no peer address to dial: remote.address is any");
                    return self.done(request, Err(cause));
                }
                connection.wanted.extend(children.iter().cloned());
                connection.pending.push(Pending { request, goal: Goal::Up(children.clone()) });
                let is_undone =
                    |goal: &Goal| matches!(goal, Goal::ChildrenDown(down) if !down.is_disjoint(&children));
                self.finish_commands(&name, is_undone, &Err("overtaken by up".into()));
                self.bring_up(now, &name);
            }
            CommandKind::Down { child: None } => {
                connection.pending.push(Pending { request, goal: Goal::Down });
                self.take_down(now, &name, Reason::OperatorDown);
            }
            CommandKind::Down { child: Some(_) } => {
                connection.wanted.retain(|wanted| !children.contains(wanted));
                let packets = &mut self.core.packets;
                packets.retain(|(other, child), _| **other != *name || !children.contains(child));
                connection.child_trouble.retain(|child, _| !children.contains(child));
                connection.pending.push(Pending { request, goal: Goal::ChildrenDown(children.clone()) });
                self.take_children_down(now, &name, &children);
            }
            CommandKind::SetEspPolicy { on_unreachable } => {
                let result = self.set_esp_policy(now, &name, on_unreachable);
                self.done(request, result.map(|()| String::new()));
            }
            CommandKind::Redirect { to } => {
                let result = self.redirect_peers(now, &name, to);
                self.done(request, result);
            }
            CommandKind::Probe => {
                let result = self.probe(now, &name);
                self.done(request, result);
            }
            CommandKind::RekeyIke => {
                let Some(id) = self.main_sa(&name) else {
                    return self.done(request, Err(format!("connection {name:?} is not up")));
                };
                if let Some(connection) = self.connections.get_mut(&*name) {
                    connection.pending.push(Pending { request, goal: Goal::RekeyIke });
                }
                if let Some(live) = self.live.get_mut(&id) {
                    live.want(Task::RekeyIke);
                }
                self.touch(now, id);
            }
            CommandKind::RekeyChild { .. } => {
                let up = self.children_up(&name);
                let children: BTreeSet<_> = children.intersection(&up).cloned().collect();
                if children.is_empty() {
                    return self.done(request, Err(format!("connection {name:?} has no such child up")));
                }
                if let Some(connection) = self.connections.get_mut(&*name) {
                    connection.pending.push(Pending { request, goal: Goal::RekeyChildren(children.clone()) });
                }
                self.rekey_children(now, &name, &children);
            }
        }
        self.refresh(now, &name);
    }

    /// What is wanted of a connection is asked for: over the IKE SA that is there, or a new one.
    pub(super) fn bring_up(&mut self, now: Time, name: &str) {
        let newest = self.main_sa(name);
        match newest.and_then(|id| self.live.remove(&id)) {
            Some(mut live) => {
                let id = live.id;
                if live.is_open() {
                    self.want_missing(&mut live);
                }
                self.live.insert(id, live);
                self.touch(now, id);
            }
            None => {
                if let Some(connection) = self.connections.get_mut(name) {
                    connection.next_attempt = None;
                }
                self.consider(now, name);
            }
        }
    }

    /// Commands whose goal is reached are done.
    pub(super) fn settle_commands(&mut self, _now: Time, name: &str) {
        if self.connections.get(name).is_none_or(|connection| connection.pending.is_empty()) {
            return;
        }
        let up = self.children_up(name);
        let Some(connection) = self.connections.get_mut(name) else { return };
        let (no_live, no_attempt) = (connection.live.is_empty(), connection.attempt.is_none());
        let is_reached = |goal: &Goal| match goal {
            Goal::Up(children) => children.is_subset(&up),
            Goal::ChildrenDown(children) => children.is_disjoint(&up),
            Goal::Down => no_live && no_attempt,
            Goal::RekeyIke => false,
            Goal::RekeyChildren(children) => children.is_empty(),
        };
        self.finish_commands(name, is_reached, &Ok(String::new()));
    }

    /// Ends the commands that `selects` names.
    pub(super) fn finish_commands(
        &mut self,
        name: &str,
        selects: impl Fn(&Goal) -> bool,
        result: &Result<String, String>,
    ) {
        let Some(connection) = self.connections.get_mut(name) else { return };
        let done: Vec<Pending> =
            connection.pending.extract_if(.., |pending| selects(&pending.goal)).collect();
        for pending in done {
            self.done(pending.request, result.clone());
        }
    }

    fn done(&mut self, request: u64, result: Result<String, String>) {
        self.core.event(Event::CommandDone { request, result });
    }

    fn children_up(&self, name: &str) -> BTreeSet<Arc<str>> {
        let ids = self.live_sas(name);
        let open = ids.iter().filter_map(|id| self.live.get(id)).filter(|live| live.is_open());
        open.flat_map(|live| live.children.iter().filter(|child| child.is_live()).map(|c| c.name.clone()))
            .collect()
    }

    fn take_children_down(&mut self, now: Time, name: &str, children: &BTreeSet<Arc<str>>) {
        for id in self.live_sas(name) {
            if let Some(live) = self.live.get_mut(&id) {
                for child in live.with_resources(children) {
                    live.take_down(&mut self.core, &child);
                }
            }
            self.touch(now, id);
        }
    }

    fn rekey_children(&mut self, now: Time, name: &str, children: &BTreeSet<Arc<str>>) {
        for id in self.live_sas(name) {
            if let Some(live) = self.live.get_mut(&id) {
                let names = live.with_resources(children);
                let named =
                    live.children.iter().filter(|child| child.is_live() && names.contains(&child.name));
                let found: Vec<_> = named.map(|child| child.id).collect();
                for child in found {
                    live.want(Task::RekeyChild(child));
                }
            }
            self.touch(now, id);
        }
    }

    fn live_sas(&self, name: &str) -> BTreeSet<IkeSaId> {
        self.connections.get(name).map(|connection| connection.live.clone()).unwrap_or_default()
    }
}
