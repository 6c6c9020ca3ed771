//! Tests that run inside a backend.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    #[pg_test]
    fn without_anything_configured_there_is_no_identity() {
        let source: Option<String> = Spi::get_one("SELECT source FROM auth.status()").unwrap();
        assert_eq!(source.as_deref(), Some("none"));
        let id: Option<String> = Spi::get_one("SELECT auth.user_id()").unwrap();
        assert_eq!(id, None);
    }
}
