//! HMAC and AEAD by `ring`.

super::super::symmetric::symmetric_by!(ring);
