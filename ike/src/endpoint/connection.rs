//! A configured connection: what is wanted of it, what is being tried, what it says of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::redirect::Redirected;
use super::succession::{Succession, Successor};
use crate::action::IkeSaId;
use crate::config::{ChildConfig, ConnectionConfig, RemoteAddress, StartMode};
use crate::status::{Reason, Standing, State};
use crate::time::Time;
use crate::transport::backoff::Backoff;
use crate::transport::fallback::Fallback;

/// See the module.
pub(crate) struct Connection {
    /// As configured.
    pub(crate) config: Arc<ConnectionConfig>,
    /// Its children, shared so that SAs can hold them.
    pub(crate) child_configs: Vec<Arc<ChildConfig>>,
    /// Children that are to be up, by configuration, command or traffic.
    pub(crate) wanted: BTreeSet<Arc<str>>,
    /// The set-up attempt under way.
    pub(crate) attempt: Option<IkeSaId>,
    /// When the next one is due.
    pub(crate) next_attempt: Option<Time>,
    /// Why the last one failed, or the last IKE SA went: state, reason and a sentence, until something is up again.
    pub(crate) trouble: Option<(State, Reason, String)>,
    /// Why children could not be made or rekeyed, a sentence each, until they are up or no longer wanted: others of the
    /// connection may be up meanwhile.
    pub(crate) child_trouble: BTreeMap<Arc<str>, String>,
    /// Its IKE SAs, oldest first.
    pub(crate) live: BTreeSet<IkeSaId>,
    /// Commands that wait for their outcome.
    pub(crate) pending: Vec<Pending>,
    /// What was reported last.
    pub(crate) reported: Standing,
    /// Children that were lost or could not be made are tried again then.
    pub(crate) children_at: Option<Time>,
    /// When its ESP last fell into TCP or was stopped (transport policy rule 5).
    pub(crate) last_fall: Option<Time>,
    /// Waits between attempts.
    pub(crate) backoff: Backoff,
    /// The attempt that is planned has waited for its turn already.
    pub(crate) has_turn: bool,
    /// This host has no address that leads to the peer.
    pub(crate) lacks_address: bool,
    /// Another IKE SA has to take the place of those that there are.
    pub(crate) succession: Option<Succession>,
    /// The IKE SA that takes the place of others.
    pub(crate) successor: Option<Successor>,
    /// Where its responder has sent us.
    pub(crate) redirected: Option<Redirected>,
    /// When we were sent somewhere lately.
    pub(crate) redirects: Vec<Time>,
    /// Falling back to TCP and coming back.
    pub(crate) fallback: Fallback,
    /// The IKE SA, half-open or live, that tries direct carriers while ESP is in TCP.
    pub(crate) trial: Option<IkeSaId>,
    /// When the next one is due.
    pub(crate) trial_at: Option<Time>,
    /// It has waited for its turn already.
    pub(crate) trial_has_turn: bool,
}

/// A command that waits for its outcome.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Pending {
    /// The caller's number.
    pub(crate) request: u64,
    /// What it waits for.
    pub(crate) goal: Goal,
}

/// What a command waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Goal {
    /// These children are up.
    Up(BTreeSet<Arc<str>>),
    /// These children are gone.
    ChildrenDown(BTreeSet<Arc<str>>),
    /// Every IKE SA is gone.
    Down,
    /// The IKE SA has new keys.
    RekeyIke,
    /// These children have been replaced.
    RekeyChildren(BTreeSet<Arc<str>>),
}

impl Connection {
    /// A connection that does nothing yet.
    pub(crate) fn new(config: ConnectionConfig) -> Self {
        let mut connection = Self {
            child_configs: config.children.iter().flat_map(ChildConfig::resources).map(Arc::new).collect(),
            backoff: Backoff::new(config.ike.retry_min, config.ike.retry_max),
            fallback: Fallback::default(),
            config: Arc::new(config),
            wanted: BTreeSet::new(),
            attempt: None,
            next_attempt: None,
            trouble: None,
            child_trouble: BTreeMap::new(),
            live: BTreeSet::new(),
            pending: Vec::new(),
            reported: Standing::without_esp(State::Idle, Reason::None),
            children_at: None,
            last_fall: None,
            has_turn: false,
            lacks_address: false,
            succession: None,
            successor: None,
            redirected: None,
            redirects: Vec::new(),
            trial: None,
            trial_at: None,
            trial_has_turn: false,
        };
        connection.want_configured();
        connection
    }

    /// The children of `start: always` are wanted.
    pub(crate) fn want_configured(&mut self) {
        let always = self.config.children.iter().filter(|child| child.start == StartMode::Always);
        self.wanted = always.map(|child| child.name.clone()).collect();
    }

    /// The next attempt is due then, and has to wait for its turn when the time has come.
    pub(crate) fn plan_attempt(&mut self, at: Time) {
        self.next_attempt = Some(at);
        self.has_turn = false;
    }

    /// We can initiate: the peer's address is known.
    pub(crate) fn can_initiate(&self) -> bool {
        matches!(self.config.remote_address, RemoteAddress::Ip(_))
    }

    /// Nothing is under way and something is wanted.
    pub(crate) fn should_start(&self) -> bool {
        let is_wanted = self.can_initiate() && !self.wanted.is_empty();
        is_wanted && self.attempt.is_none() && self.lacks_sa() && !self.lacks_address
    }

    /// The first of its children that is wanted.
    pub(crate) fn first_wanted(&self) -> Option<Arc<ChildConfig>> {
        self.child_configs.iter().find(|child| self.wanted.contains(&child.name)).cloned()
    }

    /// There is no IKE SA, or none that is to stay.
    pub(crate) fn lacks_sa(&self) -> bool {
        self.live.is_empty() || self.succession.is_some()
    }

    /// The peers authenticate each other again.
    pub(crate) fn is_reauthenticated(&self) -> bool {
        self.succession.is_some_and(|succession| succession.reason == Reason::Reauthentication)
    }

    /// What is wrong with some of its children, in one sentence; empty if nothing is.
    pub(crate) fn child_troubles(&self) -> String {
        let Some((child, trouble)) = self.child_trouble.first_key_value() else { return String::new() };
        match self.child_trouble.len() {
            1 => format!("child {child}: {trouble}"),
            more => format!("child {child}: {trouble} (and {} more)", more - 1),
        }
    }

    /// The children that a command names: one, or all.
    pub(crate) fn named(&self, child: Option<&str>) -> Option<BTreeSet<Arc<str>>> {
        let all = self.config.children.iter().map(|child| child.name.clone());
        match child {
            None => Some(all.collect()),
            Some(name) => {
                let one: BTreeSet<_> = all.filter(|other| **other == *name).collect();
                (!one.is_empty()).then_some(one)
            }
        }
    }
}
