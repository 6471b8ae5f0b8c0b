//! A live IKE SA: its exchanges, its children, its timers.
//!
//! ```text
//! wishes ──> queue of tasks ──> one exchange of ours (Active) ──> response ──> actions, outcomes
//!                               one exchange of the peer      ──> response sent, actions, outcomes
//! ```
//!
//! An IKE rekey makes a new [`Generation`] of keys and Message IDs and keeps everything else; the old one lives on until
//! it is deleted. `dispatch` takes messages in, `requests` starts exchanges, one module per exchange holds both halves of
//! it, `install` turns children into actions, `timers` knows what is due.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use crate::action::{ChildId, IkeSaId};
use crate::codec::GatewayIdentity;
use crate::config::{ChildConfig, ConnectionConfig, FirstChild, configured_name};
use crate::crypto::schedule::IkeKeys;
use crate::endpoint::core::Core;
use crate::proposal::IkeProposal;
use crate::sa::channel::Channel;
use crate::sa::children::Children;
use crate::sa::negotiate::{IkeChoice, allows};
use crate::status::Reason;
use crate::time::Time;
use crate::transport::carrier::Carrier;
use crate::transport::link::Link;
use crate::transport::trial::Trial;

mod create_child;
mod dispatch;
mod followup;
mod informational;
mod install;
mod leaving;
mod rekey_ike;
mod requests;
mod timers;

pub(crate) use create_child::CreateChild;
pub(crate) use dispatch::{Source, fragment_bytes};
pub(crate) use followup::{FollowUp, PendingSeries};
pub(crate) use leaving::{auth_lifetime, leaves_by_policy};
pub(crate) use rekey_ike::{RekeyIke, ReplacedByPeer};

/// See the module.
pub(crate) struct LiveSa {
    /// Its name.
    pub(crate) id: IkeSaId,
    /// The configured connection.
    pub(crate) config: Arc<ConnectionConfig>,
    /// Its children, shared so that exchanges can hold one.
    pub(crate) child_configs: Vec<Arc<ChildConfig>>,
    /// We are the original initiator.
    pub(crate) is_initiator: bool,
    /// SEPARATE_TRANSPORTS is agreed.
    pub(crate) separate: bool,
    /// Both IKE_SA_INIT messages were authenticated by both ends.
    pub(crate) full_transcript: bool,
    /// A PPK is in the keys.
    pub(crate) has_ppk: bool,
    /// The initiator knows REDIRECT.
    pub(crate) redirect: bool,
    /// Both sides fragment.
    pub(crate) fragments: bool,
    /// What carries IKE.
    pub(crate) link: Link,
    /// How ESP travels.
    pub(crate) carrier: Box<Carrier>,
    /// The keys that new exchanges use.
    pub(crate) current: Generation,
    /// Rekeyed ones that are not deleted yet, and redundant ones of a collision.
    pub(crate) previous: Vec<Generation>,
    /// The peer has rekeyed this IKE SA while our own request to do so is under way (RFC 7296 section 2.25.2).
    pub(crate) replaced_by_peer: Option<ReplacedByPeer>,
    /// Series of key exchanges that the peer has to continue (RFC 9370 section 2.2.4).
    pub(crate) series: Vec<PendingSeries>,
    /// Pairs of Child SAs.
    pub(crate) children: Children,
    /// The peer takes no further Child SAs with the same selectors (RFC 9611).
    pub(crate) no_more_resources: bool,
    /// How often in a row the peer has put us off (RFC 7296 section 2.25, RFC 9370 section 2.2.4).
    pub(crate) put_off: u32,
    /// The peer has replaced the pair that our own exchange is to replace: that pair, and the lower nonce of the peer's
    /// exchange.
    pub(crate) rival: Option<(ChildId, Arc<[u8]>)>,
    /// Pairs that the peer has deleted and that we do not know: over UDP its DELETE can overtake its response that made
    /// them.
    pub(crate) deleted_early: Vec<u32>,
    /// What is to be done, in order.
    pub(crate) queue: VecDeque<Task>,
    /// No exchange of ours starts before then: a TEMPORARY_FAILURE is being waited out, or the peer has to confirm a rekey.
    pub(crate) pause_until: Option<Time>,
    /// When set-up began; for the decision between two SAs that both ends set up at once.
    pub(crate) began: Time,
    /// When it was authenticated.
    pub(crate) established: Time,
    /// When it has to be gone, if it is not rekeyed.
    pub(crate) expires_at: Time,
    /// When another IKE SA has to take its place, and why: the original initiator makes one, the responder closes this one.
    pub(crate) leaves: Option<(Time, Reason)>,
    /// When the peer last sent something fresh and authentic over IKE.
    pub(crate) ike_seen: Time,
    /// When authentic ESP last came.
    pub(crate) esp_seen: Option<Time>,
    /// The lower nonce of IKE_SA_INIT.
    pub(crate) lowest_nonce: Arc<[u8]>,
    /// It is being closed: why, and when it is given up.
    pub(crate) closing: Option<(Reason, Time)>,
    /// A trial of direct carriers, and whose: it carries no traffic (rule 8).
    pub(crate) trial: Option<TrialSa>,
    /// It is over; the endpoint takes it out.
    pub(crate) ended: Option<Reason>,
    /// What the endpoint has to know about, in order.
    pub(crate) outcomes: Vec<Outcome>,
}

/// Whose trial an IKE SA is.
#[derive(Debug)]
pub(crate) enum TrialSa {
    /// Ours, and how far it is.
    Ours(Box<Trial>),
    /// The peer's: traffic stays on the other IKE SA until data or a dummy comes on this one.
    Peers,
    /// No trial: the peer's, to take the place of another. The same, until that time at the latest.
    Successor(Time),
}

/// One set of IKE keys with its Message IDs.
pub(crate) struct Generation {
    /// SPIs, window, fragments.
    pub(crate) channel: Channel,
    /// SK_d, SK_ei, SK_er.
    pub(crate) keys: IkeKeys,
    /// Algorithms.
    pub(crate) choice: IkeChoice,
    /// Our exchange that waits for its response.
    pub(crate) active: Option<Active>,
    /// When the keys were made.
    pub(crate) made: Time,
    /// When it is rekeyed; for a previous one, when we delete it because the peer has not.
    pub(crate) renew_at: Time,
    /// The peer has deleted it; it only repeats that answer.
    pub(crate) is_deleted: bool,
    /// The peer has shown that it has these keys. Until then the generation before is the one to reach it by.
    pub(crate) is_confirmed: bool,
}

/// Something that needs an exchange of ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Task {
    /// CREATE_CHILD_SA for a configured child.
    CreateChild(Arc<str>),
    /// CREATE_CHILD_SA with REKEY_SA.
    RekeyChild(ChildId),
    /// INFORMATIONAL with DELETE of a pair.
    DeleteChild(ChildId),
    /// The same for every pair that a configured child has by then.
    DeleteChildren(Arc<str>),
    /// CREATE_CHILD_SA for the IKE SA itself.
    RekeyIke,
    /// INFORMATIONAL with DELETE of the IKE SA.
    DeleteIke,
    /// INFORMATIONAL with REDIRECT.
    Redirect(IpAddr),
    /// Empty INFORMATIONAL.
    Liveness,
}

/// An exchange of ours that waits for its response.
pub(crate) enum Active {
    /// CREATE_CHILD_SA for a new or rekeyed pair.
    CreateChild(Box<CreateChild>),
    /// CREATE_CHILD_SA for the IKE SA.
    RekeyIke(Box<RekeyIke>),
    /// IKE_FOLLOWUP_KE.
    FollowUp(Box<FollowUp>),
    /// DELETE of a pair.
    DeleteChild(ChildId),
    /// DELETE of this generation.
    DeleteIke,
    /// REDIRECT.
    Redirect(IpAddr),
    /// Empty INFORMATIONAL.
    Liveness,
}

/// What the endpoint has to know about an exchange.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// A pair is in use; `rekeyed` if it replaces another.
    ChildUp {
        /// Name of the configured child.
        name: Arc<str>,
        /// It replaces another.
        rekeyed: bool,
    },
    /// A pair could not be made.
    ChildFailed {
        /// Name of the configured child.
        name: Arc<str>,
        /// Bounded cause.
        reason: Reason,
        /// One sentence.
        detail: String,
    },
    /// A pair is gone and nothing replaces it.
    ChildLost {
        /// Name of the configured child.
        name: Arc<str>,
    },
    /// An ESP echo came back: what set-up has led to carries ESP.
    EspAnswers,
    /// ESP has fallen into TCP in place, or was stopped (transport policy rule 5: once per hold time).
    EspFell,
    /// No carrier that is allowed passes ESP, which has stopped: rows 16 to 18. Once in the life of an IKE SA.
    EspUnreachable {
        /// The first verification after a start on TCP (row 16), else mid-life or after a start on UDP (row 17).
        first_verification: bool,
    },
    /// Another IKE SA has to take the place of this one.
    Leaves(Reason),
    /// The peer sends us to another gateway.
    Redirected(GatewayIdentity),
    /// The IKE SA has new keys.
    IkeRekeyed,
    /// The IKE SA could not get new keys.
    IkeRekeyFailed {
        /// One sentence.
        detail: String,
    },
}

impl LiveSa {
    /// The configured child with this name.
    pub(crate) fn child_config(&self, name: &str) -> Option<Arc<ChildConfig>> {
        self.child_configs.iter().find(|child| *child.name == *name).cloned()
    }

    /// These children, and those for further resources of each, as far as the peer takes them.
    pub(crate) fn with_resources(&self, children: &BTreeSet<Arc<str>>) -> BTreeSet<Arc<str>> {
        let further =
            self.child_configs.iter().filter(|config| config.resource > 0 && !self.no_more_resources);
        let named = further.filter(|config| children.contains(configured_name(&config.name)));
        children.iter().cloned().chain(named.map(|config| config.name.clone())).collect()
    }

    /// Queues a task unless it is queued or under way already.
    pub(crate) fn want(&mut self, task: Task) {
        if self.closing.is_some() || self.queue.contains(&task) || self.is_under_way(&task) {
            return;
        }
        match task {
            // What a rekey leaves behind goes before anything new begins.
            Task::DeleteChild(_) | Task::DeleteChildren(_) => self.queue.push_front(task),
            _ => self.queue.push_back(task),
        }
    }

    /// A child is wanted after all: a DELETE of it that waits for its turn is forgotten. One of a pair that is redundant or
    /// over is not.
    pub(crate) fn keep(&mut self, name: &str) {
        self.queue.retain(|task| !matches!(task, Task::DeleteChildren(other) if **other == *name));
    }

    /// A child is not wanted any more: its pairs go, also the one that an exchange under way is about to make.
    pub(crate) fn take_down(&mut self, core: &mut Core, name: &Arc<str>) {
        self.queue.retain(|task| *task != Task::CreateChild(name.clone()));
        self.drop_series_of(core, name);
        self.want(Task::DeleteChildren(name.clone()));
    }

    /// Our SPIs: those by which messages of this IKE SA are found.
    pub(crate) fn our_spis(&self) -> Vec<u64> {
        let replacing = self.replaced_by_peer.iter().filter_map(ReplacedByPeer::generation);
        let generations = self.previous.iter().chain([&self.current]).chain(replacing);
        generations.map(|generation| generation.channel.our_spi()).collect()
    }

    /// The IKE proposals that a rekey offers.
    pub(crate) fn proposals(&self) -> &[IkeProposal] {
        &self.config.ike.proposals
    }

    /// The additional key exchanges that the policy puts behind authentication have not taken place: no Child SA before.
    pub(crate) fn lacks_key_exchanges(&self) -> bool {
        self.config.ike.first_child == FirstChild::AfterRekey
            && !self.proposals().iter().any(|ours| allows(ours, &self.current.choice))
    }

    /// It can take part in exchanges.
    pub(crate) fn is_open(&self) -> bool {
        self.ended.is_none() && self.closing.is_none()
    }

    fn is_under_way(&self, task: &Task) -> bool {
        match (&self.current.active, task) {
            (Some(Active::CreateChild(active)), Task::CreateChild(name)) => {
                active.replaces().is_none() && active.name() == name
            }
            (Some(Active::CreateChild(active)), Task::RekeyChild(id)) => active.replaces() == Some(*id),
            (Some(Active::DeleteChild(active)), Task::DeleteChild(id)) => active == id,
            (Some(Active::RekeyIke(_)), Task::RekeyIke) | (Some(Active::Liveness), Task::Liveness) => true,
            (Some(Active::FollowUp(active)), Task::RekeyIke) => active.is_for_ike(),
            (Some(Active::FollowUp(active)), Task::RekeyChild(id)) => active.replaces() == Some(*id),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sa::children::Child;

    /// There is one for each peer, and a goal for all that a peer costs (docs/performance.md).
    #[test]
    fn what_every_peer_costs_stays_small() {
        assert!(size_of::<LiveSa>() <= 1408, "{}", size_of::<LiveSa>());
        assert!(size_of::<Child>() <= 192, "{}", size_of::<Child>());
    }
}
