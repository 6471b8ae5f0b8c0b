//! A trial IKE SA as its initiator runs it: has a direct carrier come back? (rule 8, row 21)
//!
//! ```text
//! Preparing ── children are there ──> Echoing ── 5 answers on one carrier ──> Moved ── inbound on it ──> over: returned
//!     └────────────── 10 s ──────────────┴──────────────── 10 s ───────────────┘
//!                                        over: failed
//! ```

use core::time::Duration;

use super::probe::{Reply, Run};
use crate::action::EchoRequest;
use crate::crypto::Rng;
use crate::path::DirectCarrier;
use crate::time::Time;

/// Each stage is over in this time.
const WITHIN: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub(crate) struct Trial {
    stage: Stage,
    /// The carriers that may be moved to, best first.
    carriers: Vec<DirectCarrier>,
}

#[derive(Debug)]
enum Stage {
    Preparing { until: Time },
    Echoing { run: Run },
    Moved { until: Time },
}

/// What is due.
#[derive(Debug)]
pub(crate) enum Due {
    /// These requests leave; none, if it is too early.
    Echo(Vec<EchoRequest>),
    /// Outbound traffic moves to this carrier.
    Move(DirectCarrier),
    /// It has failed.
    Failed,
}

impl Trial {
    /// A trial whose IKE SA has just been authenticated.
    pub(crate) fn new(now: Time, carriers: Vec<DirectCarrier>) -> Self {
        Self { stage: Stage::Preparing { until: now + WITHIN }, carriers }
    }

    /// Children are still waited for.
    pub(crate) fn is_preparing(&self) -> bool {
        matches!(self.stage, Stage::Preparing { .. })
    }

    /// Its children are there: echoes leave by this run.
    pub(crate) fn ask(&mut self, run: Run) {
        self.stage = Stage::Echoing { run };
    }

    /// When [`Trial::due`] has to be called. `rtt` is how long an answer may take.
    pub(crate) fn next_timeout(&self, rtt: Duration) -> Time {
        match &self.stage {
            Stage::Preparing { until } | Stage::Moved { until } => *until,
            Stage::Echoing { run } => run.next_timeout(rtt),
        }
    }

    /// A reply came; it counts if it answers a request of this trial.
    pub(crate) fn answered(&mut self, now: Time, reply: &Reply) {
        if let Stage::Echoing { run } = &mut self.stage {
            run.answered(now, reply);
        }
    }

    /// What is due: the best carrier that was answered often enough is moved to, once the better ones had their time.
    pub(crate) fn due(&mut self, now: Time, rtt: Duration, rng: &mut Rng) -> Due {
        match &mut self.stage {
            Stage::Preparing { until } | Stage::Moved { until } if *until <= now => Due::Failed,
            Stage::Preparing { .. } | Stage::Moved { .. } => Due::Echo(Vec::new()),
            Stage::Echoing { run } => {
                let echoes = run.due(now, rng);
                let is_over = run.is_over(now, rtt) || now >= run.began() + WITHIN;
                let answered = self.carriers.iter().copied().find(|c| run.is_complete((*c).into()));
                match answered {
                    Some(carrier) if is_over || self.carriers.first() == Some(&carrier) => {
                        self.stage = Stage::Moved { until: now + WITHIN };
                        Due::Move(carrier)
                    }
                    None if is_over => Due::Failed,
                    _ => Due::Echo(echoes),
                }
            }
        }
    }

    /// Outbound traffic is on the trial, and inbound traffic is waited for.
    pub(crate) fn has_moved(&self) -> bool {
        matches!(self.stage, Stage::Moved { .. })
    }
}
