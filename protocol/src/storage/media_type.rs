//! What a bucket takes, and how a file is given out so that it harms nobody.

/// Whether a bucket that allows these types takes this one; an empty list allows all. Source: storage-api, `validateMimeType`.
pub fn is_allowed(media_type: &str, allowed: &[String]) -> bool {
    let essence = essence(media_type);
    let Some((kind, subtype)) = essence.split_once('/') else { return allowed.is_empty() };
    allowed.is_empty()
        || allowed.iter().any(|allowed| match self::essence(allowed).split_once('/') {
            Some((allowed_kind, "*")) => allowed_kind.eq_ignore_ascii_case(kind) || allowed_kind == "*",
            Some((allowed_kind, allowed_subtype)) => {
                allowed_kind.eq_ignore_ascii_case(kind) && allowed_subtype.eq_ignore_ascii_case(subtype)
            }
            None => allowed.trim() == "*",
        })
}

/// Whether a bucket may have this among its types: a type, a kind with a star, or a star.
pub fn is_pattern(text: &str) -> bool {
    let essence = essence(text);
    let word = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.' | '_'))
    };
    text.len() <= 1000
        && (essence == "*"
            || essence.split_once('/').is_some_and(|(kind, subtype)| word(kind) && (subtype == "*" || word(subtype))))
}

/// Without its parameters.
pub fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

/// Whether a browser might run something in a document of this type, or guess at it (checklist F3).
pub fn is_active(media_type: &str) -> bool {
    let essence = essence(media_type).to_ascii_lowercase();
    let is_inert = matches!(
        essence.split_once('/'),
        Some(("image" | "audio" | "video" | "font", subtype)) if !subtype.contains("xml") && !subtype.contains("svg")
    );
    !is_inert
        && !matches!(
            essence.as_str(),
            "text/plain"
                | "text/csv"
                | "application/json"
                | "application/pdf"
                | "application/zip"
                | "application/octet-stream"
        )
}

/// What a file is, by the ending of its name.
pub fn of_name(name: &str) -> &'static str {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending).to_ascii_lowercase();
    match ending.as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json; charset=utf-8",
        "webmanifest" => "application/manifest+json; charset=utf-8",
        "xml" => "application/xml; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "ico" => "image/x-icon",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        "mp3" => "audio/mpeg",
        "pdf" => "application/pdf",
        "wasm" => "application/wasm",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "txt" | "md" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_takes_what_it_allows() {
        for (media_type, allowed, expected) in [
            ("image/png", &[][..], true),
            ("image/png", &["image/png"], true),
            ("image/PNG", &["image/*"], true),
            ("text/plain;charset=UTF-8", &["text/plain"], true),
            ("text/plain", &["text/plain; charset=utf-8"], true),
            ("image/jpeg", &["image/png", "text/*"], false),
            ("nonsense", &["image/png"], false),
            ("nonsense", &[], true),
            ("a/b", &["*/*"], true),
        ] {
            let allowed: Vec<String> = allowed.iter().map(|text| (*text).to_owned()).collect();
            assert_eq!(is_allowed(media_type, &allowed), expected, "{media_type} {allowed:?}");
        }
    }

    #[test]
    fn patterns_are_types_or_stars() {
        for (text, expected) in [
            ("image/png", true),
            ("image/*", true),
            ("*", true),
            ("text/plain; charset=utf-8", true),
            ("image", false),
            ("a/b/c", false),
            ("", false),
        ] {
            assert_eq!(is_pattern(text), expected, "{text}");
        }
    }

    #[test]
    fn security_f3_what_may_run_is_known() {
        for (media_type, expected) in [
            ("text/html", true),
            ("TEXT/HTML; charset=utf-8", true),
            ("image/svg+xml", true),
            ("application/xhtml+xml", true),
            ("text/xml", true),
            ("text/javascript", true),
            ("multipart/x-mixed-replace", true),
            ("", true),
            ("image/png", false),
            ("text/plain; charset=utf-8", false),
            ("application/pdf", false),
            ("video/mp4", false),
        ] {
            assert_eq!(is_active(media_type), expected, "{media_type}");
        }
    }
}
