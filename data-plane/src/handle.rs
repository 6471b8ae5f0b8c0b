//! The data plane as the control plane sees it.
