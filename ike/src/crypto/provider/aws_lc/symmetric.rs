//! HMAC, digests and AEAD by `aws-lc-rs`.

super::super::symmetric::symmetric_by!(aws_lc_rs);
