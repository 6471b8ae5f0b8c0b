//! Changes to what is configured, one at a time: validated whole, written down, kept on disk, and only then in force.
//!
//! The order is always audit, store, act: a crash in between leaves a store from which the next start makes the same
//! policy, and a disk that takes nothing refuses the change and leaves the running policy alone. A change that waits for
//! its confirmation is in the store with what was before it, so that a restart cannot make it stay.

mod confirmation;
mod difference;
mod gauges;
mod opened;
mod refusal;
mod reload;
mod running;

use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use portcullis_data_plane::guard::Rule;
use tokio::sync::Mutex;

use crate::audit::{AuditLog, Entry};
use crate::config::{Checked, Config, Refused, Secrets};
use crate::events::{EventView, Events};
use crate::store::{Effective, Entries, Pending, PolicyWord, StoreFile, Stored, effective};

pub use confirmation::Waiting;
pub use difference::Difference;
pub use gauges::Gauges;
pub use opened::Opened;
pub use refusal::{Precondition, Refusal};
pub use running::{Pulse, Running};

/// How a configuration file is read again.
pub type Load = Box<dyn Fn() -> Result<Checked, Refused> + Send + Sync>;

/// Everything that a change goes through.
pub struct Changes {
    file: StoreFile,
    load: Load,
    running: Arc<dyn Running>,
    audit: Arc<AuditLog>,
    events: Arc<Events>,
    gauges: Arc<Gauges>,
    state: Mutex<State>,
    seen: StdMutex<Seen>,
}

/// What a change starts from.
#[derive(Debug)]
struct State {
    base: Config,
    stored: Result<Stored, Unreadable>,
}

/// Why there is no store, and what stays guarded meanwhile.
#[derive(Clone, Debug)]
struct Unreadable {
    cause: String,
    remembered: Vec<Rule>,
}

/// What readers may know without waiting for a change.
#[derive(Clone, Debug, Default)]
struct Seen {
    overrides: usize,
    default_policy: Option<PolicyWord>,
    pending: Option<Waiting>,
    unreadable: Option<String>,
}

/// What readers of the events stream are told about a change.
#[derive(Clone, Debug)]
pub struct News {
    /// The kind of event.
    pub kind: &'static str,
    /// The connection, if it is about one.
    pub connection: Option<String>,
    /// What was done, in a few words.
    pub what: String,
}

/// Who asks for what.
#[derive(Clone, Debug)]
pub struct Request {
    /// As the audit log calls the caller.
    pub who: String,
    /// An address with port, or `unix`.
    pub from: String,
    /// Method and path.
    pub action: String,
    /// In a few words.
    pub detail: String,
    /// Undo it unless it is confirmed within this time.
    pub confirm_within: Option<Duration>,
}

impl Changes {
    /// From what was opened at the start, over what runs now. A change that waits goes on waiting.
    pub fn new(
        opened: Opened,
        load: Load,
        running: Arc<dyn Running>,
        audit: Arc<AuditLog>,
        events: Arc<Events>,
        gauges: Arc<Gauges>,
    ) -> Arc<Self> {
        let Opened { file, base, stored, .. } = opened;
        let changes = Arc::new(Self {
            file,
            load,
            running,
            audit,
            events,
            gauges,
            seen: StdMutex::new(Seen::of(&stored)),
            state: Mutex::new(State { base, stored }),
        });
        changes.gauges.follow(&changes.seen());
        if let Some(pending) = changes.pending_id() {
            changes.wait_for_confirmation(pending);
        }
        changes
    }

    /// Changes the entries of the store. `edit` sees the configuration that holds. It is carried through even if the
    /// caller goes away; `news` is for readers of the events stream.
    ///
    /// # Errors
    /// See [`Refusal`]; nothing was changed then.
    pub async fn change(
        self: &Arc<Self>,
        request: Request,
        news: News,
        edit: impl FnOnce(&mut Entries, &Config) -> Result<(), Refusal> + Send + 'static,
    ) -> Result<Option<Waiting>, Refusal> {
        let changes = Arc::clone(self);
        let task = tokio::spawn(async move { changes.change_now(&request, news, edit).await });
        task.await.unwrap_or_else(|error| Err(Refusal::Failed(error.to_string())))
    }

    /// The default that the API has set.
    pub fn default_policy(&self) -> Option<PolicyWord> {
        self.seen().default_policy
    }

    /// The change that waits for its confirmation.
    pub fn waiting(&self) -> Option<Waiting> {
        self.seen().pending
    }

    /// Why the store cannot be read, if it cannot.
    pub fn unreadable(&self) -> Option<String> {
        self.seen().unreadable
    }

    /// Who did what.
    pub fn audit(&self) -> Arc<AuditLog> {
        Arc::clone(&self.audit)
    }

    async fn change_now(
        self: &Arc<Self>,
        request: &Request,
        news: News,
        edit: impl FnOnce(&mut Entries, &Config) -> Result<(), Refusal>,
    ) -> Result<Option<Waiting>, Refusal> {
        let mut state = self.state.lock().await;
        let before = state.readable()?.clone();
        if let Some(pending) = &before.pending {
            return Err(Refusal::Pending(pending.into()));
        }
        let mut entries = before.entries.clone();
        edit(&mut entries, &self.running.config())?;
        let config = self.resolve(&state.base, &entries)?;
        let pending = request.confirm_within.map(|within| {
            let id = confirmation::new_id();
            Pending::new(id, request.action.clone(), request.who.clone(), within, before.entries.clone())
        });
        let next = Stored { entries, pending };
        self.record(request, "accepted")?;
        if let Err(refusal) = self.keep(&next).await {
            // The name may point to the new content already; it is not in force, so it must not come back either.
            let _ = self.keep(&before).await;
            self.record_outcome(request, &format!("refused: {refusal}"));
            return Err(refusal);
        }
        if let Err(error) = self.running.apply(config).await {
            let cause = format!("{error:#}");
            if let Err(refusal) = self.keep(&before).await {
                tracing::error!("the policy store holds a change that is not in force: {refusal}");
            }
            self.record_outcome(request, &format!("failed: {cause}"));
            return Err(Refusal::Failed(cause));
        }
        let waiting = next.pending.as_ref().map(Waiting::from);
        self.tell(news.kind, news.connection, format!("{} by {}", news.what, request.who));
        state.stored = Ok(next);
        self.show(&state);
        self.record_outcome(request, "done");
        if let Some(waiting) = &waiting {
            self.wait_for_confirmation(waiting.id.clone());
        }
        Ok(waiting)
    }

    /// The configuration that entries lead to, or what is wrong with it.
    fn resolve(&self, base: &Config, entries: &Entries) -> Result<Config, Refusal> {
        let stored = Stored { entries: entries.clone(), pending: None };
        let Effective { config, errors, contradictions } =
            effective(base, Ok(&stored), &Secrets::of_this_process());
        let problems: Vec<_> = errors.into_iter().chain(contradictions).collect();
        if problems.is_empty() { Ok(config) } else { Err(Refusal::Invalid(problems)) }
    }

    async fn keep(&self, stored: &Stored) -> Result<(), Refusal> {
        let (file, stored) = (self.file.clone(), stored.clone());
        let path = file.path().display().to_string();
        let written = tokio::task::spawn_blocking(move || file.write(&stored)).await;
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Refusal::Storage(format!("{path}: {error}"))),
            Err(error) => Err(Refusal::Storage(error.to_string())),
        }
    }

    /// Writes down that somebody is about to change something.
    ///
    /// # Errors
    /// If it cannot be written: then it must not be done.
    pub fn record(&self, request: &Request, result: &str) -> Result<(), Refusal> {
        self.audit.record(&request.entry(result)).map_err(|error| {
            Refusal::Storage(format!("the audit log {}: {error}", self.audit.path().display()))
        })
    }

    /// Writes down what came of it.
    pub fn record_outcome(&self, request: &Request, result: &str) {
        if let Err(refusal) = self.record(request, result) {
            tracing::error!("{refusal}");
        }
    }

    /// An event for readers of the stream.
    fn tell(&self, kind: &'static str, connection: Option<String>, detail: String) {
        self.events.publish(&EventView::changed(kind, connection, detail));
    }

    fn show(&self, state: &State) {
        let seen = Seen::of(&state.stored);
        self.gauges.follow(&seen);
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }

    fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn pending_id(&self) -> Option<String> {
        self.seen().pending.map(|waiting| waiting.id)
    }
}

impl State {
    fn readable(&self) -> Result<&Stored, Refusal> {
        self.stored.as_ref().map_err(|unreadable| Refusal::StoreUnreadable(unreadable.cause.clone()))
    }
}

impl Seen {
    fn of(stored: &Result<Stored, Unreadable>) -> Self {
        match stored {
            Ok(stored) => Self {
                overrides: stored.entries.policies.len(),
                default_policy: stored.entries.default_policy,
                pending: stored.pending.as_ref().map(Waiting::from),
                unreadable: None,
            },
            Err(unreadable) => Self { unreadable: Some(unreadable.cause.clone()), ..Self::default() },
        }
    }
}

impl Request {
    fn entry<'a>(&'a self, result: &'a str) -> Entry<'a> {
        let Self { who, from, action, detail, .. } = self;
        Entry { who, from, action, detail, result, suppressed: 0 }
    }
}
