//! HMAC, digests and AEAD by `ring`.

super::super::symmetric::symmetric_by!(ring);
