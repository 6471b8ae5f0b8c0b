//! Reading the configuration file again.

use super::{Changes, Difference, Refusal, Request, State, opened};
use crate::config::{Checked, Config, Problem, Secrets};
use crate::store::{Effective, effective};

/// What a reload did, or would do.
#[derive(Debug)]
pub struct Reloaded {
    /// What changes.
    pub difference: Difference,
    /// What the author of the file should know.
    pub warnings: Vec<Problem>,
}

impl Changes {
    /// Takes the file as it is now, or tells what that would change. A store that could not be read is tried again.
    ///
    /// # Errors
    /// See [`Refusal`]; nothing was changed then.
    pub async fn reload(&self, request: &Request, is_dry_run: bool) -> Result<Reloaded, Refusal> {
        let mut state = self.state.lock().await;
        if let Ok(stored) = &state.stored
            && let Some(pending) = &stored.pending
            && !is_dry_run
        {
            return Err(Refusal::Pending(pending.into()));
        }
        let Checked { config: base, warnings } = (self.load)().map_err(Refusal::File)?;
        let stored = match &state.stored {
            Ok(stored) => Ok(stored.clone()),
            Err(_) => self.file.read().map_err(|error| opened::unreadable(&self.file, &base, &error)),
        };
        let next = State { base, stored };
        let config = next.resolve()?;
        let running = self.running.config();
        let mut difference = Difference::between(&running, &config);
        difference.needs_restart = self.running.needs_restart(&config).map(str::to_owned);
        if is_dry_run {
            return Ok(Reloaded { difference, warnings });
        }
        if let Some(section) = &difference.needs_restart {
            return Err(Refusal::Failed(format!(
                "{section} cannot change while the daemon runs: restart it. Nothing was changed"
            )));
        }
        self.record(request, "accepted")?;
        if let Err(error) = self.running.apply(config).await {
            let cause = format!("{error:#}");
            self.record_outcome(request, &format!("failed: {cause}"));
            return Err(Refusal::Failed(cause));
        }
        *state = next;
        self.show(&state);
        self.record_outcome(request, "done");
        self.tell("reloaded", None, format!("the configuration file was read again for {}", request.who));
        Ok(Reloaded { difference, warnings })
    }
}

impl State {
    fn resolve(&self) -> Result<Config, Refusal> {
        let stored = self.stored.as_ref().map_err(|unreadable| unreadable.remembered.as_slice());
        let Effective { config, errors, contradictions } =
            effective(&self.base, stored, &Secrets::of_this_process());
        let problems: Vec<_> = errors.into_iter().chain(contradictions).collect();
        if problems.is_empty() { Ok(config) } else { Err(Refusal::Invalid(problems)) }
    }
}
