//! The catalog in force, exchanged as a whole when the schema changes.

use std::sync::{Arc, PoisonError, RwLock};

use ntier_backing::database;
use ntier_backing::database::catalog::{self, Catalog};

use crate::Rest;
use crate::error::Error;
use crate::settings::Settings;

/// What requests are planned with. A request keeps the one it began with.
#[derive(Debug, Clone)]
pub struct Current {
    pub catalog: Catalog,
    pub settings: Settings,
}

/// Where the current one is kept. Empty until it was read for the first time.
#[derive(Debug, Default)]
pub struct CurrentHandle {
    current: RwLock<Option<Arc<Current>>>,
    /// Only one reads the catalog at a time; the others wait for what it finds.
    reading: tokio::sync::Mutex<()>,
}

impl CurrentHandle {
    pub fn get(&self) -> Option<Arc<Current>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set(&self, current: Current) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(current));
    }
}

/// The current one, read now if it never was.
pub(crate) async fn get(rest: &Rest) -> Result<Arc<Current>, Error> {
    if let Some(current) = rest.current.get() {
        return Ok(current);
    }
    let reading = rest.current.reading.lock().await;
    if let Some(current) = rest.current.get() {
        return Ok(current);
    }
    let read = read(rest).await;
    drop(reading);
    match read {
        Ok(()) => rest.current.get().ok_or(Error::CatalogUnknown),
        // What PostgreSQL says of our own question is not for the caller.
        Err(catalog::Error::Database(database::Error::Refused(_)) | catalog::Error::Answer(_)) => {
            Err(Error::CatalogUnknown)
        }
        Err(catalog::Error::Database(error)) => Err(Error::Database(error)),
    }
}

/// Reads settings and catalog again. If that fails, what was known before stays in force.
pub async fn reload(rest: &Rest) -> Result<(), catalog::Error> {
    let _reading = rest.current.reading.lock().await;
    read(rest).await
}

async fn read(rest: &Rest) -> Result<(), catalog::Error> {
    let said = catalog::configuration(&rest.database, rest.settings.authenticator.as_deref(), None).await?;
    load(rest, rest.settings.clone().with_database(&said)).await
}

/// Puts other settings in force, with the catalog they ask for.
pub async fn install(rest: &Rest, settings: Settings) -> Result<(), catalog::Error> {
    let _reading = rest.current.reading.lock().await;
    load(rest, settings).await
}

async fn load(rest: &Rest, settings: Settings) -> Result<(), catalog::Error> {
    let exposure = catalog::Exposure {
        schemas: &settings.schemas,
        extra_search_path: &settings.extra_search_path,
        authenticator: settings.authenticator.as_deref(),
        hoisted: &settings.hoisted,
    };
    let catalog = catalog::load(&rest.database, exposure).await?;
    rest.current.set(Current { catalog, settings });
    Ok(())
}
