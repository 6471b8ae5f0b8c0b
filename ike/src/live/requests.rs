//! Exchanges of ours: which task is next, and how its request leaves.

use core::time::Duration;

use super::dispatch::Which;
use super::{Active, LiveSa, Task};
use crate::codec::{ExchangeType, NotifyType, encode_redirect};
use crate::config::configured_name;
use crate::endpoint::core::Core;
use crate::sa::payloads::{self, Out};
use crate::sa::window::Due;
use crate::status::Reason;
use crate::time::Time;
use crate::transport::backoff::jitter;

/// A TEMPORARY_FAILURE is waited out for this long, and up to as long again (RFC 7296 section 2.25).
const COLLISION_WAIT: Duration = Duration::from_millis(500);
/// So often in a row: with waits of up to a minute, four to seven minutes. Then the two ends no longer agree on what there is.
const MOST_PUT_OFFS: u32 = 12;
/// A closing IKE SA is given up after this time without an answer to its DELETE.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

impl LiveSa {
    /// Starts the next task, if nothing is under way and nothing is waited for.
    pub(crate) fn start_next(&mut self, core: &mut Core, now: Time) {
        if self.pause_until.is_some_and(|until| until <= now) {
            self.pause_until = None;
        }
        while self.ended.is_none() && self.is_ready() {
            let Some(task) = self.next_task() else { return };
            if let Some((out, active)) = self.request_for(core, now, task) {
                self.send_request(core, now, out, active);
            }
        }
    }

    /// The task that is next: the rekey that has to precede any child, if it is due.
    fn next_task(&mut self) -> Option<Task> {
        if matches!(self.queue.front(), Some(Task::CreateChild(_))) && self.lacks_key_exchanges() {
            self.queue.retain(|task| *task != Task::RekeyIke);
            return Some(Task::RekeyIke);
        }
        self.queue.pop_front()
    }

    /// Closes the IKE SA: its DELETE goes out as soon as the exchange under way is over.
    pub(crate) fn close(&mut self, now: Time, reason: Reason) {
        if self.closing.is_some() || self.ended.is_some() {
            return;
        }
        self.closing = Some((reason, now + CLOSE_WITHIN));
        self.queue.clear();
        self.queue.push_back(Task::DeleteIke);
        self.pause_until = None;
    }

    /// A closing IKE SA is given up at that time at the latest.
    pub(crate) fn close_by(&mut self, at: Time) {
        if let Some((_, until)) = &mut self.closing {
            *until = at.min(*until);
        }
    }

    /// Sends a request on the current generation and waits for its response.
    pub(super) fn send_request(&mut self, core: &mut Core, now: Time, out: Out, active: Active) {
        self.send_request_on(core, now, Which::Current, out, active);
    }

    /// Deletes a generation that has been replaced, or was redundant from the start.
    pub(super) fn delete_generation(&mut self, core: &mut Core, now: Time, which: Which) {
        let is_free = self.generation_mut(which).is_some_and(|generation| generation.active.is_none());
        if is_free {
            self.send_request_on(core, now, which, vec![payloads::delete_ike()], Active::DeleteIke);
        }
    }

    /// A collision will pass: the task comes again a little later, each time after a longer wait. If it does not pass within
    /// minutes, the IKE SA is closed (RFC 7296 section 2.25).
    pub(super) fn try_again_later(&mut self, core: &mut Core, now: Time, task: Task) {
        if self.put_off >= MOST_PUT_OFFS {
            core.reject("out_of_sync");
            self.close(now, Reason::ProtocolError);
            return self.start_next(core, now);
        }
        let wait = COLLISION_WAIT.saturating_mul(1 << self.put_off.min(6));
        self.put_off = self.put_off.saturating_add(1);
        self.pause_until = Some(now + wait + jitter(wait, &mut core.rng));
        self.want(task);
    }

    /// Retransmissions that are due, on every generation.
    pub(super) fn retransmit(&mut self, core: &mut Core, now: Time) {
        for generation in self.previous.iter_mut().chain([&mut self.current]) {
            if let Due::Retransmit(_) = generation.channel.window.due(now)
                && let Some(outstanding) = generation.channel.window.outstanding()
            {
                core.counters.retransmissions += 1;
                core.transmit(&self.link, &outstanding.messages, None);
            }
        }
    }

    fn is_ready(&self) -> bool {
        self.current.active.is_none()
            && self.current.channel.window.next_request_id().is_some()
            && self.pause_until.is_none()
    }

    fn request_for(&mut self, core: &mut Core, now: Time, task: Task) -> Option<(Out, Active)> {
        match task {
            Task::CreateChild(name) => {
                if self.children.live(&name).is_some() {
                    return None;
                }
                let config = self.child_config(&name)?;
                if config.resource > 0
                    && (self.no_more_resources || self.children.live(configured_name(&name)).is_none())
                {
                    return None;
                }
                self.request_child(core, config, None, None)
            }
            Task::RekeyChild(id) => {
                let child = self.children.get(id).filter(|child| child.is_live())?;
                let config = self.child_config(&child.name.clone())?;
                self.request_child(core, config, Some(id), None)
            }
            Task::DeleteChild(id) => self.request_delete_child(core, now, id),
            Task::DeleteChildren(name) => {
                let live = self.children.iter().filter(|child| child.is_live() && child.name == name);
                for id in live.map(|child| child.id).collect::<Vec<_>>() {
                    self.want(Task::DeleteChild(id));
                }
                None
            }
            Task::RekeyIke => {
                if self.is_rekeying_ike() {
                    return None;
                }
                self.request_ike_rekey(core, now, None)
            }
            Task::DeleteIke => Some((vec![payloads::delete_ike()], Active::DeleteIke)),
            Task::Redirect(gateway) => {
                let data = encode_redirect(gateway, &[]);
                Some((vec![payloads::notify_with(NotifyType::REDIRECT, data)], Active::Redirect(gateway)))
            }
            Task::Liveness => Some((Out::new(), Active::Liveness)),
        }
    }

    pub(super) fn send_request_on(
        &mut self,
        core: &mut Core,
        now: Time,
        which: Which,
        out: Out,
        active: Active,
    ) {
        let exchange = match &active {
            Active::CreateChild(_) | Active::RekeyIke(_) => ExchangeType::CREATE_CHILD_SA,
            Active::FollowUp(_) => ExchangeType::IKE_FOLLOWUP_KE,
            Active::DeleteChild(_) | Active::DeleteIke | Active::Redirect(_) | Active::Liveness => {
                ExchangeType::INFORMATIONAL
            }
        };
        let most = self.fragment_bytes();
        let (transport, first_wait) = (self.link.transport(), self.config.ike.retransmit_after);
        let Some(generation) = self.generation_mut(which) else { return };
        let channel = &mut generation.channel;
        let Some(message_id) = channel.window.next_request_id() else { return self.abandon(core, active) };
        let header = channel.header(exchange, false, message_id);
        let key = generation.keys.sk_e(channel.is_initiator).clone();
        let sealed = payloads::encode(&out).and_then(|content| channel.seal(&key, &header, &content, most));
        let Some(sealed) = sealed else {
            core.reject("request_too_long");
            return self.abandon(core, active);
        };
        channel.window.sent(now, sealed.messages, transport, first_wait);
        generation.active = Some(active);
        let outstanding =
            self.generation_mut(which).and_then(|generation| generation.channel.window.outstanding());
        let messages = outstanding.map(|outstanding| outstanding.messages.clone()).unwrap_or_default();
        core.transmit(&self.link, &messages, None);
    }
}
