//! Pictures as they are wanted: `/render/image/…`. Made in a pool with few places, kept in memory for the next who wants the same.
//!
//! A result belongs to a version of an object and to what is wanted of it: neither ever changes, so nothing that is kept gets old.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};
use ntier_images::{Accepts, Across, Asked, Down, Gravity, Image, Limits, Resize, Transform};
use ntier_protocol::storage::condition::Verdict;
use ntier_protocol::storage::error::{Code, Error as Wire};
use ntier_security::signed_url::Scope;
use tokio::sync::{OnceCell, Semaphore};

use crate::Storage;
use crate::body::{self, Body};
use crate::download::{self, Access, set};
use crate::error::Error;
use crate::respond;
use crate::store::Object;
use crate::visitor::{Visitor, place};

/// Requests that may wait for a place, for each place there is.
const WAITING: usize = 32;
/// Bytes of results that are kept.
const KEPT: usize = 64 << 20;

/// Where pictures are made.
#[derive(Debug)]
pub struct Studio {
    places: Semaphore,
    waiting: Semaphore,
    kept: Mutex<Kept>,
}

/// Results, and those on their way.
#[derive(Debug, Default)]
struct Kept {
    results: HashMap<String, Entry>,
    bytes: usize,
    /// Counts uses.
    clock: u64,
}

#[derive(Debug, Clone)]
struct Entry {
    image: Arc<OnceCell<Picture>>,
    used: u64,
    /// 0 as long as it is not counted.
    bytes: usize,
}

#[derive(Debug, Clone)]
struct Picture {
    bytes: Bytes,
    media_type: &'static str,
}

impl Studio {
    /// With so many places: pictures that are made at the same time.
    pub fn new(places: usize) -> Self {
        let places = places.max(1);
        Self {
            places: Semaphore::new(places),
            waiting: Semaphore::new(places * WAITING),
            kept: Mutex::new(Kept::default()),
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// The place of a result, which may be empty yet.
    fn place(&mut self, key: &str) -> Arc<OnceCell<Picture>> {
        self.clock += 1;
        let clock = self.clock;
        let entry = self.results.entry(key.to_owned()).or_insert_with(|| Entry {
            image: Arc::default(),
            used: clock,
            bytes: 0,
        });
        entry.used = clock;
        entry.image.clone()
    }

    /// A result has come: it is counted once, and the longest unused make room for it.
    fn settle(&mut self, key: &str, bytes: usize) {
        let Some(entry) = self.results.get_mut(key).filter(|entry| entry.bytes == 0) else { return };
        entry.bytes = bytes;
        self.bytes += bytes;
        while self.bytes > KEPT {
            let settled = self.results.iter().filter(|(_, entry)| entry.bytes > 0);
            let Some(oldest) = settled.min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone()) else { return };
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, key: &str) {
        self.bytes -= self.results.remove(key).map_or(0, |entry| entry.bytes);
    }
}

impl Storage {
    /// `/render/image/…`; `rest` is what follows.
    pub(crate) async fn route_render(&self, visitor: &Visitor, rest: &[&str]) -> Result<Response<Body>, Error> {
        if !self.settings.images {
            return Err(Wire::new(Code::FeatureNotEnabled, "The feature image transformation is not enabled").into());
        }
        let key = &visitor.path[4.min(visitor.path.len())..];
        match (&visitor.method, rest) {
            (&Method::GET | &Method::HEAD, ["public", bucket, _, ..]) => {
                self.render(visitor, Access::Public, bucket, key).await
            }
            (&Method::GET | &Method::HEAD, ["authenticated", bucket, _, ..]) => {
                self.render(visitor, Access::Caller, bucket, key).await
            }
            (&Method::GET | &Method::HEAD, ["sign", bucket, _, ..]) => self.render_signed(visitor, bucket, key).await,
            _ => Ok(respond::not_found()),
        }
    }

    async fn render(
        &self,
        visitor: &Visitor,
        access: Access,
        bucket: &str,
        key: &[String],
    ) -> Result<Response<Body>, Error> {
        let (bucket, key) = place(bucket, key)?;
        let wanted = Wanted::of(|name| visitor.parameter(name).map(str::to_owned))?;
        let object = self.find(visitor, access, &bucket, &key, "storage.render.image_authenticated").await?;
        self.give_picture(visitor, &object, wanted, None).await
    }

    /// What the URL's token says is made, whatever else the URL says.
    async fn render_signed(&self, visitor: &Visitor, bucket: &str, key: &[String]) -> Result<Response<Body>, Error> {
        let (bucket, key) = place(bucket, key)?;
        let grant = self.check_signature(visitor, &bucket, &key, Scope::Download)?;
        let said = grant.transformations.unwrap_or_default();
        let wanted = Wanted::of(|name| {
            let pairs = said.split(',').filter_map(|pair| pair.split_once(':'));
            pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
        })?;
        let object = self.find_any(&bucket, &key).await?.ok_or_else(Wire::no_such_key)?;
        let expires =
            SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(u64::try_from(grant.exp).unwrap_or_default());
        self.give_picture(visitor, &object, wanted, Some(expires)).await
    }

    async fn give_picture(
        &self,
        visitor: &Visitor,
        object: &Object,
        mut wanted: Wanted,
        expires: Option<SystemTime>,
    ) -> Result<Response<Body>, Error> {
        let accepts = Accepts::parse(visitor.header(&header::ACCEPT).unwrap_or_default());
        wanted.transform.accepts = Accepts { avif: accepts.avif && self.settings.avif, ..accepts };
        let key = format!("{} {:?}", object.version, wanted.transform);
        let mut metadata = object.metadata.clone();
        metadata.etag = format!("\"{}\"", ntier_security::one_time::sha256_hex(&key).get(..32).unwrap_or_default());
        let mut response = respond::status(StatusCode::OK);
        if visitor.conditions().decide(&metadata.etag, metadata.modified.unwrap_or(SystemTime::UNIX_EPOCH))
            == Verdict::NotModified
        {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            download::describe(response.headers_mut(), &metadata);
            return Ok(response);
        }
        let picture = self.picture(&key, object, wanted.transform).await?;
        picture.media_type.clone_into(&mut metadata.media_type);
        let headers = response.headers_mut();
        download::describe(headers, &metadata);
        download::guard(headers, &metadata.media_type);
        headers.remove(header::ACCEPT_RANGES);
        headers.append(header::VARY, HeaderValue::from_static("Accept"));
        set(headers, HeaderName::from_static("x-transformations"), &wanted.words);
        headers.insert(header::CONTENT_LENGTH, picture.bytes.len().into());
        if let Some(expires) = expires {
            set(headers, header::EXPIRES, &httpdate::fmt_http_date(expires));
            headers.remove(header::CACHE_CONTROL);
        }
        if let Some(name) = visitor.parameter("download") {
            set(headers, header::CONTENT_DISPOSITION, &download::attachment(name));
        }
        if visitor.method != Method::HEAD {
            *response.body_mut() = body::full(picture.bytes);
        }
        Ok(response)
    }

    /// The picture, made once however many want it.
    async fn picture(&self, key: &str, object: &Object, transform: Transform) -> Result<Picture, Error> {
        let entry = self.studio.kept().place(key);
        if let Some(picture) = entry.get() {
            return Ok(picture.clone());
        }
        let made = entry.get_or_try_init(|| self.make(object, transform)).await.cloned();
        let mut kept = self.studio.kept();
        match &made {
            Ok(picture) => kept.settle(key, picture.bytes.len()),
            Err(_) => kept.forget(key),
        }
        made
    }

    async fn make(&self, object: &Object, transform: Transform) -> Result<Picture, Error> {
        let busy = || Wire::new(Code::SlowDown, "Too many pictures are being made");
        let _waiting = self.studio.waiting.try_acquire().map_err(|_| busy())?;
        let _place = self.studio.places.acquire().await.map_err(|_| busy())?;
        let limits = Limits::default();
        let size = object.metadata.size_bytes;
        if size > limits.input_bytes {
            return Err(refused("The source image file is too large to process"));
        }
        let mut stream = body::stream(&self.blobs, download::segments(object, 0..size)?).await?;
        let mut bytes = BytesMut::with_capacity(usize::try_from(size).unwrap_or_default());
        while let Some(piece) = body::next(&mut stream).await? {
            bytes.extend_from_slice(&piece);
        }
        let made = tokio::task::spawn_blocking(move || ntier_images::transform(&bytes, &transform, &limits)).await;
        match made {
            Ok(Ok(Image { bytes, media_type, .. })) => Ok(Picture { bytes: bytes.into(), media_type }),
            Ok(Err(ntier_images::Error::Encode(_))) | Err(_) => {
                Err(Wire::new(Code::InternalError, "The image could not be made").into())
            }
            Ok(Err(cause)) => Err(refused(&cause.to_string())),
        }
    }
}

fn refused(message: &str) -> Error {
    Wire::new(Code::InvalidRequest, format!("The source image is invalid or unsupported for rendering: {message}"))
        .into()
}

/// What is wanted, and the words for it.
struct Wanted {
    transform: Transform,
    words: String,
}

impl Wanted {
    /// Source: storage-api, `http/schemas/transformations.ts`.
    fn of(said: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let wrong = |name: &str, what: &str| -> Error {
            Wire::new(Code::InvalidRequest, format!("querystring/{name} must be {what}")).into()
        };
        let said = |name: &str| said(name).filter(|value| !value.is_empty());
        let pixels = |name: &str| match said(name) {
            None => Ok(None),
            Some(text) => text.parse::<u32>().map(Some).map_err(|_| wrong(name, "integer")),
        };
        let (width, height) = (pixels("width")?, pixels("height")?);
        let resize = match said("resize").as_deref() {
            None | Some("cover") => Resize::Cover,
            Some("contain") => Resize::Contain,
            Some("fill") => Resize::Fill,
            Some(_) => return Err(wrong("resize", "equal to one of the allowed values")),
        };
        let quality = match said("quality") {
            None => None,
            Some(text) => {
                let quality = text.parse::<u8>().ok().filter(|quality| (20..=100).contains(quality));
                Some(quality.ok_or_else(|| wrong("quality", "from 20 to 100"))?)
            }
        };
        let format = match said("format").as_deref() {
            None => Asked::Best,
            Some("origin") => Asked::Origin,
            Some(name) => asked(name).ok_or_else(|| wrong("format", "equal to one of the allowed values"))?,
        };
        let number = |name: &str| match said(name) {
            None => Ok(None),
            Some(text) => text
                .parse::<f64>()
                .ok()
                .filter(|number| number.is_finite())
                .map(Some)
                .ok_or_else(|| wrong(name, "number")),
        };
        let (x, y) = (number("x_offset")?, number("y_offset")?);
        let name = said("gravity");
        let gravity =
            gravity(name.as_deref(), x, y).ok_or_else(|| wrong("gravity", "equal to one of the allowed values"))?;
        let mut words = String::new();
        for (name, pixels) in [("height", height), ("width", width)] {
            if let Some(pixels) = pixels {
                let _ = write!(words, "{name}:{pixels},");
            }
        }
        if width.is_some() || height.is_some() {
            let kind = match resize {
                Resize::Cover => "fill",
                Resize::Contain => "fit",
                Resize::Fill => "force",
            };
            let _ = write!(words, "resizing_type:{kind},");
        }
        if let Some(quality) = quality {
            let _ = write!(words, "quality:{quality},");
        }
        let words = words.trim_end_matches(',').to_owned();
        let transform = Transform { width, height, resize, gravity, quality, format, accepts: Accepts::default() };
        Ok(Self { transform, words })
    }
}

fn asked(name: &str) -> Option<Asked> {
    match name {
        "webp" => Some(Asked::Webp),
        "avif" => Some(Asked::Avif),
        _ => None,
    }
}

/// `None` for a word that is not known, or a point outside.
fn gravity(name: Option<&str>, x: Option<f64>, y: Option<f64>) -> Option<Gravity> {
    let towards =
        |across, down| Some(Gravity::Towards { across, down, x: x.unwrap_or_default(), y: y.unwrap_or_default() });
    match name {
        // What is worth seeing is not looked for: it is taken to be in the middle.
        None | Some("sm") => Some(Gravity::default()),
        Some("ce") => towards(Across::Middle, Down::Middle),
        Some("no") => towards(Across::Middle, Down::Top),
        Some("so") => towards(Across::Middle, Down::Bottom),
        Some("ea") => towards(Across::Right, Down::Middle),
        Some("we") => towards(Across::Left, Down::Middle),
        Some("noea") => towards(Across::Right, Down::Top),
        Some("nowe") => towards(Across::Left, Down::Top),
        Some("soea") => towards(Across::Right, Down::Bottom),
        Some("sowe") => towards(Across::Left, Down::Bottom),
        Some("fp") => {
            let within = |at: Option<f64>| at.filter(|at| (0.0..=1.0).contains(at));
            Some(Gravity::Focus { x: within(x)?, y: within(y)? })
        }
        Some(_) => None,
    }
}
