//! Chains as peers send them, good and bad, against configured authorities (RFC 5280, RFC 4945).

mod authority;
mod chains;
mod hostile;
mod revocation;
mod subjects;
