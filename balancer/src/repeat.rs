//! Which requests may be sent again when it is not known what became of them.

use http::{HeaderMap, Method};

/// Where a node heeds an `Idempotency-Key` (docs/reference/beyond-postgrest.md).
const KEYS_ARE_HEEDED: &str = "/rest/v1/";

/// Whether a second time has the same effect as once (RFC 9110, 9.2.2), or the backend sees to it that it has.
pub fn is_repeatable(method: &Method, path: &str, headers: &HeaderMap) -> bool {
    let is_idempotent =
        matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE | Method::TRACE);
    is_idempotent
        || (matches!(*method, Method::POST | Method::PATCH)
            && path.starts_with(KEYS_ARE_HEEDED)
            && headers.contains_key("idempotency-key"))
}

/// Whether an answer that refuses may be asked for elsewhere: nothing was done, and whoever asks wants to know only.
pub fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_the_same_effect_twice_goes_again() {
        for (method, path, key, expected) in [
            (Method::GET, "/rest/v1/films", false, true),
            (Method::DELETE, "/rest/v1/films", false, true),
            (Method::PUT, "/rest/v1/films", false, true),
            (Method::POST, "/rest/v1/films", false, false),
            (Method::POST, "/rest/v1/films", true, true),
            (Method::PATCH, "/rest/v1/films", true, true),
            // Nobody there looks at the key.
            (Method::POST, "/auth/v1/signup", true, false),
            (Method::POST, "/storage/v1/object/b/k", true, false),
            (Method::from_bytes(b"MOVE").unwrap(), "/storage/v1/dav/b/k", false, false),
            (Method::PATCH, "/rest/v1/films", false, false),
        ] {
            let mut headers = HeaderMap::new();
            if key {
                headers.insert("idempotency-key", "8e03978e".parse().unwrap());
            }
            assert_eq!(is_repeatable(&method, path, &headers), expected, "{method} {path} {key}");
        }
    }
}
