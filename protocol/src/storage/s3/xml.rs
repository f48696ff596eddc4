//! Writing XML: elements and text, nothing else.

use std::fmt::Display;

use crate::storage::xml::escape;

const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

/// A document that is being written.
#[derive(Debug)]
pub(super) struct Document {
    text: String,
    open: Vec<&'static str>,
}

impl Document {
    pub(super) fn new(root: &'static str) -> Self {
        Self { text: format!("{DECLARATION}<{root} xmlns=\"{NAMESPACE}\">"), open: vec![root] }
    }

    /// Without a namespace, as errors are: botocore takes one with it for something else.
    pub(super) fn bare(root: &'static str) -> Self {
        Self { text: format!("{DECLARATION}<{root}>"), open: vec![root] }
    }

    pub(super) fn open(&mut self, name: &'static str) {
        self.text.push_str(&format!("<{name}>"));
        self.open.push(name);
    }

    /// Closes what was opened last.
    pub(super) fn close(&mut self) {
        if let Some(name) = self.open.pop() {
            self.text.push_str(&format!("</{name}>"));
        }
    }

    pub(super) fn text(&mut self, name: &'static str, value: &str) {
        self.open(name);
        self.characters(value);
        self.close();
    }

    /// Text of the element that is open.
    pub(super) fn characters(&mut self, value: &str) {
        escape(value, &mut self.text);
    }

    /// For what has no characters that mean something: numbers, truth values.
    pub(super) fn value(&mut self, name: &'static str, value: impl Display) {
        self.text.push_str(&format!("<{name}>{value}</{name}>"));
    }

    pub(super) fn optional(&mut self, name: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    pub(super) fn finish(mut self) -> String {
        while !self.open.is_empty() {
            self.close();
        }
        self.text
    }
}
