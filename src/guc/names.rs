//! The names of the parameters.

use std::ffi::CStr;

pub(super) const REFUSED_PARAMETER: &CStr = c"pg_session_jwt.refused_parameter";
pub(super) const JWK: &CStr = c"pg_session_jwt.jwk";
pub(super) const JWT: &CStr = c"pg_session_jwt.jwt";
pub(super) const CLAIMS: &CStr = c"pg_session_jwt.claims";
pub(super) const REQUEST_CLAIMS: &CStr = c"pg_session_jwt.request_claims";
pub(super) const CLOCK_SKEW: &CStr = c"pg_session_jwt.clock_skew";
pub(super) const AUDIT_LOG: &CStr = c"pg_session_jwt.audit_log";
pub(super) const FETCH_WAIT: &CStr = c"pg_session_jwt.fetch_wait";
pub(super) const FETCH_INTERVAL: &CStr = c"pg_session_jwt.fetch_interval";
pub(super) const FETCH_STALE: &CStr = c"pg_session_jwt.fetch_stale";
pub(super) const FETCH_CA_FILE: &CStr = c"pg_session_jwt.fetch_ca_file";
pub(super) const FETCH_HOSTS: &CStr = c"pg_session_jwt.fetch_hosts";
pub(super) const SIGNATURE_MEMORY: &CStr = c"pg_session_jwt.signature_memory";
pub(super) const FLATTEN_POLICIES: &CStr = c"pg_session_jwt.flatten_policies";

/// All of them, the hidden one included.
pub(super) const ALL: [&CStr; 14] = [
    REFUSED_PARAMETER,
    JWK,
    JWT,
    CLAIMS,
    REQUEST_CLAIMS,
    CLOCK_SKEW,
    AUDIT_LOG,
    FETCH_WAIT,
    FETCH_INTERVAL,
    FETCH_STALE,
    FETCH_CA_FILE,
    FETCH_HOSTS,
    SIGNATURE_MEMORY,
    FLATTEN_POLICIES,
];
