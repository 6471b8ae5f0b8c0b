//! The policy store, the API and its readers.

use super::page::Page;
use crate::api::{DENIALS, STATUS_CLASSES};
use crate::snapshot::Snapshot;

/// Adds them.
pub(super) fn add(page: &mut Page, snapshot: &Snapshot) {
    let control = &snapshot.control;
    page.gauge("policy_store_ok", "0 when the policy store cannot be read: every connection is fail-closed")
        .only(control.store_ok);
    page.gauge("policy_overrides", "ESP policies that the API has changed").only(control.overrides);
    page.gauge("policy_change_pending", "1 while a change waits for its confirmation")
        .only(control.change_pending);
    let requests = page.counter("api_requests", "Answers of the API, by class of status code");
    for (class, count) in STATUS_CLASSES.iter().zip(control.api.requests) {
        requests.sample([("status", (*class).into())], count);
    }
    let denied = page.counter("api_denied", "Callers that the API turned away");
    for (reason, count) in DENIALS.iter().zip(control.api.denied) {
        denied.sample([("reason", (*reason).into())], count);
    }
    page.gauge("api_event_readers", "Readers of the events stream").only(control.event_readers);
    page.counter("api_event_readers_cut_off", "Readers of the events stream that were too slow")
        .only(control.event_readers_cut_off);
}
