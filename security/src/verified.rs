//! Callers by their token, remembered until the token expires: verifying a signature costs more than answering a request.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::UnixTime;
use crate::caller::Caller;

/// A bounded memory of verified tokens, so that nobody fills the real one with tokens.
#[derive(Default)]
pub struct Memory {
    capacity: usize,
    known: RwLock<HashMap<String, Arc<Known>>>,
}

struct Known {
    caller: Caller,
    expires: Option<UnixTime>,
}

impl Memory {
    /// `capacity` 0 remembers nothing.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, known: RwLock::default() }
    }

    pub fn get(&self, token: &str, now: UnixTime) -> Option<Caller> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).get(token).cloned()?;
        known.expires.is_none_or(|expires| now <= expires).then(|| known.caller.clone())
    }

    pub fn remember(&self, token: &str, caller: Caller, expires: Option<UnixTime>, now: UnixTime) {
        if self.capacity == 0 {
            return;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= self.capacity {
            known.retain(|_, known| known.expires.is_none_or(|expires| now <= expires));
        }
        if known.len() >= self.capacity {
            known.clear();
        }
        known.insert(token.to_owned(), Arc::new(Known { caller, expires }));
    }
}
