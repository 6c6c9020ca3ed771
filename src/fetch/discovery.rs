//! The discovery document (OpenID Connect Discovery 1.0, section 3).

use serde_json::Value;

use crate::FetchError;
use crate::error::quoted;
use crate::url::Url;

/// Where the document of `issuer`, which was found at `url`, says that the keys are.
pub(crate) fn jwks_uri(document: &[u8], url: &Url, issuer: &str) -> Result<Url, FetchError> {
    let wrong = |what: String| FetchError::failed(format!("the discovery document {url} {what}"));
    let document: Value =
        serde_json::from_slice(document).map_err(|error| wrong(format!("is not JSON: {error}")))?;
    let Value::Object(members) = document else {
        return Err(wrong("is not a JSON object".to_owned()));
    };
    let text = |name: &str| match members.get(name) {
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(_) => Err(wrong(format!("has a member {name} that is not a string"))),
        None => Err(wrong(format!("has no member {name}"))),
    };
    let claimed = text("issuer")?;
    if claimed != issuer {
        let issuer = quoted(issuer);
        return Err(wrong(format!(
            "is of the issuer {}, not {issuer}",
            quoted(claimed)
        )));
    }
    let uri = text("jwks_uri")?;
    Url::parse(uri)
        .map_err(|what| wrong(format!("names the jwks_uri {}, which {what}", quoted(uri))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_counts_only_for_its_own_issuer() {
        let issuer = "https://id.example/a";
        let at = "https://id.example/a/.well-known/openid-configuration";
        let read = |document: &str| {
            let url = Url::parse(at).unwrap();
            let found = jwks_uri(document.as_bytes(), &url, issuer);
            found.map(|url| url.text).map_err(|error| error.to_string())
        };
        let good =
            r#"{"issuer": "https://id.example/a", "jwks_uri": "https://k.example/j", "x": [1]}"#;
        assert_eq!(read(good), Ok("https://k.example/j".to_owned()));
        for (document, what) in [
            (
                "",
                "is not JSON: EOF while parsing a value at line 1 column 0",
            ),
            ("<html>", "is not JSON: expected value at line 1 column 1"),
            ("[]", "is not a JSON object"),
            ("{}", "has no member issuer"),
            (
                r#"{"issuer": 1}"#,
                "has a member issuer that is not a string",
            ),
            (
                r#"{"issuer": "https://id.example/a"}"#,
                "has no member jwks_uri",
            ),
            (
                r#"{"issuer": "https://id.example/a", "jwks_uri": null}"#,
                "has a member jwks_uri that is not a string",
            ),
            (
                r#"{"issuer": "https://id.example/a/", "jwks_uri": "https://k.example/j"}"#,
                "is of the issuer \"https://id.example/a/\", not \"https://id.example/a\"",
            ),
            (
                r#"{"issuer": "https://ID.example/a", "jwks_uri": "https://k.example/j"}"#,
                "is of the issuer \"https://ID.example/a\", not \"https://id.example/a\"",
            ),
            (
                r#"{"issuer": "https://id.example/a", "jwks_uri": "/jwks"}"#,
                "names the jwks_uri \"/jwks\", which is neither https nor http",
            ),
            (
                r#"{"issuer": "https://id.example/a", "jwks_uri": "https://a@b/\n"}"#,
                "names the jwks_uri \"https://a@b/\\n\", which contains white space, control \
                 characters or letters outside of ASCII",
            ),
        ] {
            let expected = format!("the discovery document {at} {what}");
            assert_eq!(read(document), Err(expected));
        }
        let deep = "[".repeat(100_000);
        assert!(
            read(&deep)
                .unwrap_err()
                .contains("recursion limit exceeded")
        );
        let not_utf8 = jwks_uri(b"{\"issuer\": \"\xff\"}", &Url::parse(at).unwrap(), issuer);
        assert!(not_utf8.unwrap_err().to_string().contains("is not JSON"));
    }
}
