//! Changes that are undone unless somebody confirms them.

use std::sync::Arc;
use std::time::SystemTime;

use super::{Changes, Precondition, Refusal, Request};
use crate::store::{Pending, Stored};

/// A change that waits for its confirmation.
#[derive(Clone, PartialEq, Debug)]
pub struct Waiting {
    /// Its name.
    pub id: String,
    /// What was changed.
    pub resource: String,
    /// By whom.
    pub who: String,
    /// When it is undone.
    pub deadline: SystemTime,
}

impl Changes {
    /// Lets a change stay.
    ///
    /// # Errors
    /// If no change of this name waits, or the store cannot be written: then it will be undone.
    pub async fn confirm(self: &Arc<Self>, request: Request, id: String) -> Result<(), Refusal> {
        let mut state = self.state.lock().await;
        let stored = state.readable()?;
        if stored.pending.as_ref().is_none_or(|pending| pending.id != id) {
            return Err(Refusal::Precondition(Precondition::NotFound(format!("no change {id} waits"))));
        }
        let next = Stored { pending: None, ..stored.clone() };
        self.record(&request, "accepted")?;
        self.keep(&next).await?;
        state.stored = Ok(next);
        self.show(&state);
        self.record_outcome(&request, "done");
        self.tell("change_confirmed", None, format!("change {id} was confirmed by {}", request.who));
        Ok(())
    }

    pub(super) fn wait_for_confirmation(self: &Arc<Self>, id: String) {
        let changes = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                let remaining = {
                    let state = changes.state.lock().await;
                    let stored = state.stored.as_ref().ok();
                    match stored.and_then(|stored| stored.pending.as_ref()).filter(|p| p.id == id) {
                        Some(pending) => pending.remaining(),
                        None => return,
                    }
                };
                if remaining.is_zero() {
                    return changes.revert(&id).await;
                }
                tokio::time::sleep(remaining).await;
            }
        });
    }

    /// Undoes a change that nobody confirmed. A disk that takes nothing does not keep it in force; the store then says so
    /// still, and the next start undoes it again.
    async fn revert(&self, id: &str) {
        let mut state = self.state.lock().await;
        let Ok(stored) = &state.stored else { return };
        let Some(pending) = stored.pending.as_ref().filter(|pending| pending.id == id).cloned() else {
            return;
        };
        let request = Request {
            who: "portcullis".to_owned(),
            from: "timer".to_owned(),
            action: format!("revert of {}", pending.resource),
            detail: format!("change {id} by {} was not confirmed", pending.who),
            confirm_within: None,
        };
        let next = Stored { entries: pending.before, pending: None };
        if let Err(refusal) = self.keep(&next).await {
            tracing::error!(
                "undoing change {id}: {refusal}; it is undone in memory, and again at the next start"
            );
        }
        // What held before was valid; if it is not any more, half of it would be worse than what runs.
        let outcome = match self.resolve(&state.base, &next.entries) {
            Ok(config) => self.running.apply(config).await.map_err(|error| format!("{error:#}")),
            Err(refusal) => Err(refusal.to_string()),
        };
        let outcome = outcome.map_or_else(|cause| format!("failed: {cause}"), |()| "done".to_owned());
        tracing::warn!("change {id} ({}) was not confirmed and is undone: {outcome}", pending.resource);
        state.stored = Ok(next);
        self.show(&state);
        self.record_outcome(&request, &outcome);
        self.tell("change_reverted", None, request.detail);
    }
}

impl From<&Pending> for Waiting {
    fn from(pending: &Pending) -> Self {
        Self {
            id: pending.id.clone(),
            resource: pending.resource.clone(),
            who: pending.who.clone(),
            deadline: pending.deadline(),
        }
    }
}

/// A name that nobody guesses.
pub(super) fn new_id() -> String {
    let mut octets = [0; 8];
    // Without randomness the clock does: there is one change at a time.
    if getrandom::fill(&mut octets).is_err() {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        octets = u64::try_from(now.as_nanos()).unwrap_or_default().to_be_bytes();
    }
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}
