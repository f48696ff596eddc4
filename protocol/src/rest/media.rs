//! `Accept` and `Content-Type`: RFC 9110 weights, and PostgREST's own `application/vnd.pgrst.*` types.

use super::request::{MediaType, PlanOption};

/// The types of an `Accept` header, the most wanted first; equally wanted ones as they were written.
pub fn accept(header: &str) -> Vec<MediaType> {
    let mut weighted: Vec<(u32, MediaType)> = split(header, ',')
        .into_iter()
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| (weight(part), media_type(part)))
        .collect();
    weighted.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    if weighted.is_empty() { vec![MediaType::Any] } else { weighted.into_iter().map(|(_, one)| one).collect() }
}

/// `q=0.5` in thousandths; 1000 when absent.
fn weight(part: &str) -> u32 {
    let quality =
        parameters(part).into_iter().find(|(key, _)| key == "q").and_then(|(_, value)| value.parse::<f32>().ok());
    quality.map_or(1000, |quality| {
        let thousandths = (quality.clamp(0.0, 1.0) * 1000.0).round();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=1000 above")]
        let thousandths = thousandths as u32;
        thousandths
    })
}

/// One media type with its parameters.
pub fn media_type(text: &str) -> MediaType {
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let parameters = parameters(text);
    let parameter = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let nulls_stripped = parameter("nulls") == Some("stripped");
    match essence.as_str() {
        "*/*" | "" => MediaType::Any,
        "application/json" => MediaType::Json,
        "application/vnd.pgrst.array" | "application/vnd.pgrst.array+json" => MediaType::Array { nulls_stripped },
        "application/vnd.pgrst.object" | "application/vnd.pgrst.object+json" => MediaType::Object { nulls_stripped },
        "text/csv" => MediaType::Csv,
        "application/geo+json" => MediaType::GeoJson,
        "application/openapi+json" => MediaType::OpenApi,
        "text/plain" => MediaType::Text,
        "text/xml" => MediaType::Xml,
        "application/octet-stream" => MediaType::OctetStream,
        "application/x-www-form-urlencoded" => MediaType::UrlEncoded,
        "application/vnd.pgrst.plan" | "application/vnd.pgrst.plan+text" | "application/vnd.pgrst.plan+json" => {
            let of = Box::new(parameter("for").map_or(MediaType::Json, media_type));
            let options = parameter("options").map(plan_options).unwrap_or_default();
            MediaType::Plan { json: essence.ends_with("+json"), of, options }
        }
        _ => MediaType::Other(essence),
    }
}

fn plan_options(text: &str) -> Vec<PlanOption> {
    let known = [
        ("analyze", PlanOption::Analyze),
        ("verbose", PlanOption::Verbose),
        ("settings", PlanOption::Settings),
        ("buffers", PlanOption::Buffers),
        ("wal", PlanOption::Wal),
    ];
    let asked: Vec<&str> = text.split('|').collect();
    known.into_iter().filter(|(name, _)| asked.contains(name)).map(|(_, option)| option).collect()
}

fn parameters(text: &str) -> Vec<(String, String)> {
    split(text, ';')
        .into_iter()
        .skip(1)
        .filter_map(|parameter| {
            let (key, value) = parameter.split_once('=')?;
            Some((key.trim().to_ascii_lowercase(), value.trim().trim_matches('"').to_owned()))
        })
        .collect()
}

/// Splits outside double quotes.
fn split(text: &str, at: char) -> Vec<&str> {
    let mut quoted = false;
    text.split(|character| {
        if character == '"' {
            quoted = !quoted;
        }
        character == at && !quoted
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_wanted_comes_first() {
        assert_eq!(
            accept("text/csv;q=0.5, application/json, */*;q=0.1"),
            [MediaType::Json, MediaType::Csv, MediaType::Any]
        );
        assert_eq!(accept(""), [MediaType::Any]);
    }

    #[test]
    fn our_own_types_have_parameters() {
        assert_eq!(
            media_type("application/vnd.pgrst.object+json;nulls=stripped"),
            MediaType::Object { nulls_stripped: true }
        );
        assert_eq!(
            media_type("application/vnd.pgrst.plan+json; for=\"text/csv\"; options=verbose|analyze"),
            MediaType::Plan {
                json: true,
                of: Box::new(MediaType::Csv),
                options: vec![PlanOption::Analyze, PlanOption::Verbose]
            }
        );
        assert_eq!(media_type("Application/Unknown; x=1"), MediaType::Other("application/unknown".into()));
    }
}
