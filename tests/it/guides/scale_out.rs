//! docs/guides/scale-out.md. Citus is not to be had here: what is said about it, `src/tests.rs` and `replica.rs` test in
//! part.

use super::Guide;

#[test]
fn what_needs_no_other_server_runs() {
    let guide = Guide::of("scale-out", "wal_level = logical");
    guide.play(|_, _| {});
    let mut admin = guide.connect("postgres");
    assert_eq!(
        admin.rows("SELECT pubname FROM pg_publication"),
        ["providers"]
    );
}
