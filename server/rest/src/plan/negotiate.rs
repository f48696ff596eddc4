//! Which of the acceptable media types is answered, and what makes it.

use ntier_backing::database::catalog::Name;
use ntier_protocol::rest::request::{Action, MediaType, Return};

use super::{Context, Media, Render};
use crate::error::Error;
use crate::media::essence;

/// The first acceptable media type that can be made. `plain` says that the rows are whole rows of the
/// target, which is what the database's own renderers take.
pub(super) fn media(context: &Context<'_>, target: &Name, plain: bool, head: bool) -> Result<Media, Error> {
    let accept = &context.request.accept;
    let found = accept.iter().find_map(|wanted| pick(context, target, plain, wanted));
    let mut media = found.ok_or_else(|| Error::NotAcceptable(accept.iter().map(essence).collect()))?;
    let is_mutation = matches!(
        context.request.action,
        Action::Insert { .. } | Action::SingleUpsert { .. } | Action::Update { .. } | Action::Delete { .. }
    );
    let represented = context.request.preferences.representation == Some(Return::Representation);
    if head || (is_mutation && !represented) {
        media.render = Render::Nothing;
    }
    Ok(media)
}

fn pick(context: &Context<'_>, target: &Name, plain: bool, wanted: &MediaType) -> Option<Media> {
    match wanted {
        MediaType::Object { nulls_stripped } => {
            Some(Media { render: Render::Object { nulls_stripped: *nulls_stripped }, media_type: wanted.clone() })
        }
        MediaType::Array { nulls_stripped: true } => {
            Some(Media { render: Render::Array { nulls_stripped: true }, media_type: wanted.clone() })
        }
        MediaType::Plan { of, .. } => {
            let planned = context.settings.plan.then(|| pick(context, target, plain, of))??;
            Some(Media { media_type: wanted.clone(), ..planned })
        }
        _ => custom(context, target, plain, wanted).or_else(|| built_in(wanted)),
    }
}

/// A renderer of the database: for this target if its rows are whole, or for any rows.
fn custom(context: &Context<'_>, target: &Name, plain: bool, wanted: &MediaType) -> Option<Media> {
    let handlers = &context.catalog.media_handlers;
    if handlers.is_empty() {
        return None;
    }
    let label = match wanted {
        MediaType::Array { .. } => "application/json".to_owned(),
        other => essence(other),
    };
    let find = |row_type: Option<&Name>, label: &str| {
        let handler = handlers.get(&(row_type.cloned(), label.to_owned()))?;
        let function = handler.function.clone();
        let render = Render::Custom { function, row_type: row_type.cloned(), is_binary: handler.is_binary };
        Some(Media { render, media_type: crate::media::parse(&handler.media_type) })
    };
    let own = || find(Some(target), "*/*").or_else(|| find(Some(target), &label));
    plain.then(own).flatten().or_else(|| find(None, &label))
}

fn built_in(wanted: &MediaType) -> Option<Media> {
    let (render, media_type) = match wanted {
        MediaType::Any | MediaType::Json | MediaType::Array { .. } => {
            (Render::Array { nulls_stripped: false }, MediaType::Json)
        }
        MediaType::Csv => (Render::Csv, MediaType::Csv),
        MediaType::GeoJson => (Render::GeoJson, MediaType::GeoJson),
        _ => return None,
    };
    Some(Media { render, media_type })
}
