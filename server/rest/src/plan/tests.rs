//! Plans and statements as tables: a request on a small catalog, and what becomes of it.
