//! What a responder makes of the traffic selectors it is offered (RFC 7296 section 2.9).

use super::limits::MAX_TRAFFIC_SELECTORS;
use super::traffic_selector::TrafficSelector;

/// Narrows an offer to what our policy allows: everything that both select, so that the initiator's first choice is
/// in it whenever the policy accepts it. Empty means TS_UNACCEPTABLE. Selectors that another one contains are left
/// out, and of more than [`MAX_TRAFFIC_SELECTORS`] the first are taken, which is a subset again.
pub fn narrow(offered: &[TrafficSelector], policy: &[TrafficSelector]) -> Vec<TrafficSelector> {
    let mut narrowed: Vec<TrafficSelector> = Vec::new();
    for common in offered.iter().flat_map(|o| policy.iter().filter_map(|p| o.intersect(p))) {
        if narrowed.iter().any(|selector| selector.contains(&common)) {
            continue;
        }
        narrowed.retain(|selector| !common.contains(selector));
        if narrowed.len() < MAX_TRAFFIC_SELECTORS {
            narrowed.push(common);
        }
    }
    narrowed
}

/// Each of `inner` lies within one of `outer`. An initiator checks with it that an answer is a subset of its offer,
/// and both sides that a rekey is not narrower than what it replaces (RFC 7296 section 2.9.2).
pub fn covers(outer: &[TrafficSelector], inner: &[TrafficSelector]) -> bool {
    inner.iter().all(|selector| outer.iter().any(|candidate| candidate.contains(selector)))
}
