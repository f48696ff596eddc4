//! A place in a text, the few words that every grammar of the query string shares, and what was expected where reading stopped.
//!
//! Source: PostgREST, "URL grammar" (its `QueryParams` module). Quoted names and values are in double quotes with `\` as
//! the escape; a bare name is letters, digits, `_`, `$`, blanks and inner dashes.
//!
//! Clients see in a message what PostgREST's parser, made with Parsec, would have accepted. So failures are kept as Parsec keeps
//! them: those at the farthest place count, taking a character forgets them, a grammar that failed after taking something is not
//! tried in another way unless it was an [`Cursor::attempt`], and a label stands for all that was expected where a labelled
//! grammar began.

use std::fmt::Write;

/// The grammar does not fit here; the cursor knows why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed;

pub type Parsed<T> = Result<T, Failed>;

/// Embeds and logic trees may be nested this deep; the stack must not be the limit.
pub const MAX_DEPTH: usize = 64;

/// Where reading stopped, for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub line: usize,
    pub column: usize,
    /// What was met, and what would have been right there.
    pub details: String,
}

#[derive(Debug)]
pub struct Cursor<'a> {
    text: &'a str,
    at: usize,
    trail: Trail,
}

/// The failures at one place. It is put aside and taken up again with every alternative, so nothing of it is on the heap.
#[derive(Debug, Clone, Copy, Default)]
struct Trail {
    at: usize,
    /// The character that the first of them met; `Some(None)` for the end.
    met: Option<Option<char>>,
    /// A character that must not be here.
    refused: Option<char>,
    /// In the order of their failing: a literal text with its quotes, or a label.
    expected: [&'static str; MOST],
    count: usize,
}

/// More than any place of the grammar expects.
const MOST: usize = 16;

impl Trail {
    fn is_empty(&self) -> bool {
        self.met.is_none() && self.refused.is_none() && self.count == 0
    }

    fn clear(&mut self) {
        self.met = None;
        self.refused = None;
        self.count = 0;
    }

    /// Makes room for a failure at a place; false when a farther one counts.
    fn reach(&mut self, at: usize) -> bool {
        if self.is_empty() || at > self.at {
            self.clear();
            self.at = at;
        }
        at == self.at
    }

    fn expected(&self) -> &[&'static str] {
        &self.expected[..self.count]
    }

    fn expect(&mut self, expected: &'static str) {
        if self.count < MOST && !self.expected().contains(&expected) {
            self.expected[self.count] = expected;
            self.count += 1;
        }
    }

    fn merge(&mut self, later: Self) {
        if later.is_empty() || !self.reach(later.at) {
            return;
        }
        self.met = self.met.or(later.met);
        self.refused = self.refused.or(later.refused);
        later.expected().iter().for_each(|expected| self.expect(expected));
    }
}

impl<'a> Cursor<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0, trail: Trail::default() }
    }

    pub fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take(&mut self, bytes: usize) {
        if bytes > 0 {
            self.at += bytes;
            self.trail.clear();
        }
    }

    /// Fails here, where something else was expected; an empty text expects nothing in particular.
    pub fn fail<T>(&mut self, expected: &'static str) -> Parsed<T> {
        let met = self.peek();
        self.fail_at(self.at, met, expected)
    }

    fn fail_at<T>(&mut self, at: usize, met: Option<char>, expected: &'static str) -> Parsed<T> {
        if self.trail.reach(at) {
            self.trail.met.get_or_insert(met);
            if !expected.is_empty() {
                self.trail.expect(expected);
            }
        }
        Err(Failed)
    }

    /// Takes one character that fits.
    pub fn satisfy(&mut self, fits: impl Fn(char) -> bool, expected: &'static str) -> Parsed<char> {
        match self.peek() {
            Some(character) if fits(character) => {
                self.take(character.len_utf8());
                Ok(character)
            }
            _ => self.fail(expected),
        }
    }

    /// Takes the text between the quotes of `quoted`, which is how a message names it. A part of it that is here counts as taken.
    pub fn literal(&mut self, quoted: &'static str) -> Parsed<()> {
        let word = &quoted[1..quoted.len() - 1];
        let rest = self.rest();
        if rest.starts_with(word) {
            self.take(word.len());
            return Ok(());
        }
        let same = rest.bytes().zip(word.bytes()).take_while(|(here, wanted)| here == wanted).count();
        let at = self.at;
        let met = rest[same..].chars().next();
        // Where it failed is where the word began.
        self.at += same;
        self.fail_at(at, met, quoted)
    }

    /// Likewise, all or nothing.
    pub fn word(&mut self, quoted: &'static str) -> Parsed<()> {
        self.attempt(|cursor| cursor.literal(quoted))
    }

    /// Looks for a literal without taking it.
    pub fn sees(&mut self, quoted: &'static str) -> Parsed<()> {
        let word = &quoted[1..quoted.len() - 1];
        if self.rest().starts_with(word) { Ok(()) } else { self.word(quoted) }
    }

    /// Takes all characters that fit, perhaps none.
    pub fn many(&mut self, fits: impl Fn(char) -> bool, expected: &[&'static str]) -> &'a str {
        let rest = self.rest();
        let length = rest.find(|character| !fits(character)).unwrap_or(rest.len());
        self.take(length);
        let _: Parsed<()> = self.fail("");
        if self.trail.at == self.at {
            for expected in expected {
                self.trail.expect(expected);
            }
        }
        &rest[..length]
    }

    /// Likewise, at least one.
    fn many1(&mut self, fits: impl Fn(char) -> bool, expected: &[&'static str]) -> Parsed<&'a str> {
        let taken = self.many(fits, expected);
        if taken.is_empty() { Err(Failed) } else { Ok(taken) }
    }

    /// The end of the text.
    pub fn end(&mut self) -> Parsed<()> {
        match self.peek() {
            None => Ok(()),
            Some(character) => {
                if self.trail.reach(self.at) {
                    self.trail.refused.get_or_insert(character);
                    self.trail.expect("end of input");
                }
                Err(Failed)
            }
        }
    }

    /// Fails when the next character fits, which must not be here.
    pub fn not(&mut self, fits: impl Fn(char) -> bool) -> Parsed<()> {
        match self.peek() {
            Some(character) if fits(character) => {
                if self.trail.reach(self.at + character.len_utf8()) {
                    self.trail.refused.get_or_insert(character);
                }
                Err(Failed)
            }
            _ => Ok(()),
        }
    }

    pub fn blanks(&mut self) {
        self.many(|character| matches!(character, ' ' | '\t'), &[]);
    }

    /// A grammar with blanks around it.
    pub fn spaced<T>(&mut self, grammar: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        self.blanks();
        let value = grammar(self)?;
        self.blanks();
        Ok(value)
    }

    /// Tries a grammar; on failure the place is as before.
    pub fn attempt<T>(&mut self, grammar: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        let before = self.at;
        // What another alternative met farther on is not forgotten by taking something here in vain.
        let farther = (self.trail.at > before).then(|| std::mem::take(&mut self.trail));
        let parsed = grammar(self);
        if parsed.is_err() {
            self.at = before;
        }
        if let Some(mut farther) = farther.filter(|_| self.at == before) {
            farther.merge(self.trail);
            self.trail = farther;
        }
        parsed
    }

    /// What the grammar finds, or nothing if it fails without taking anything.
    pub fn optional<T>(&mut self, grammar: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<Option<T>> {
        let before = self.at;
        match grammar(self) {
            Ok(value) => Ok(Some(value)),
            Err(Failed) if self.at == before => Ok(None),
            Err(Failed) => Err(Failed),
        }
    }

    /// One after another, with separators between them.
    pub fn separated<T>(
        &mut self,
        mut grammar: impl FnMut(&mut Self) -> Parsed<T>,
        mut separator: impl FnMut(&mut Self) -> Parsed<()>,
    ) -> Parsed<Vec<T>> {
        let mut items = vec![grammar(self)?];
        while self.optional(&mut separator)?.is_some() {
            items.push(grammar(self)?);
        }
        Ok(items)
    }

    /// A grammar that a message calls by this name.
    pub fn labelled<T>(&mut self, label: &'static str, grammar: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        let start = self.at;
        let before = std::mem::take(&mut self.trail);
        let parsed = grammar(self);
        if self.at == start {
            let mut inner = std::mem::replace(&mut self.trail, before);
            if !inner.is_empty() {
                inner.count = 0;
                inner.expect(label);
            }
            self.trail.merge(inner);
        }
        parsed
    }

    /// `"quoted \" value"`.
    pub fn quoted(&mut self) -> Parsed<String> {
        const QUOTE: &str = r#""\"""#;
        let is_quote = |character| character == '"';
        self.satisfy(is_quote, QUOTE)?;
        let mut value = String::new();
        loop {
            value.push_str(self.many(|character| !matches!(character, '"' | '\\'), &[]));
            if self.optional(|cursor| cursor.satisfy(|character| character == '\\', r#""\\""#))?.is_none() {
                break;
            }
            value.push(self.satisfy(|_| true, "")?);
        }
        self.satisfy(is_quote, QUOTE)?;
        Ok(value)
    }

    /// A column, relation or alias name.
    pub fn name(&mut self) -> Parsed<String> {
        const LABEL: &str = "field name (* or [a..z0..9_$])";
        match self.peek() {
            Some('"') => self.quoted(),
            Some(character) if is_identifier(character) => self.dashed(is_identifier, IDENTIFIER),
            _ => self.fail(LABEL),
        }
    }

    /// A key in a JSON path.
    pub fn json_key(&mut self) -> Parsed<String> {
        const LABEL: &str = "any non reserved character different from: .,>()";
        match self.peek() {
            Some('"') => self.quoted(),
            Some(character) if is_key(character) => self.dashed(is_key, &[]),
            _ => self.fail(LABEL),
        }
    }

    /// Words with dashes between them; a dash before `>` is an arrow's.
    fn dashed(&mut self, fits: fn(char) -> bool, expected: &[&'static str]) -> Parsed<String> {
        let mut name = String::new();
        loop {
            name.push_str(self.many1(fits, expected)?.trim());
            let dash = self.optional(|cursor| {
                cursor.attempt(|cursor| {
                    cursor.literal("\"-\"")?;
                    cursor.not(|character| character == '>')
                })
            })?;
            if dash.is_none() {
                return Ok(name);
            }
            name.push('-');
        }
    }

    /// An identifier without dashes: a cast, a text search configuration.
    pub fn identifier(&mut self) -> Parsed<String> {
        Ok(self.many1(is_identifier, IDENTIFIER)?.trim().to_owned())
    }

    pub fn digits(&mut self) -> Parsed<&'a str> {
        self.many1(|character| character.is_ascii_digit(), &["digit"])
    }

    /// Why the grammar failed, as Parsec says it.
    pub fn fault(&self) -> Fault {
        let Trail { at, met, refused, .. } = &self.trail;
        let (mut line, mut column) = (1, 1);
        for character in self.text[..*at].chars() {
            match character {
                '\n' => (line, column) = (line + 1, 1),
                '\t' => column += 8 - (column - 1) % 8,
                _ => column += 1,
            }
        }
        let mut details = match (refused, met) {
            (Some(character), _) => format!("unexpected {}", shown(*character, '\'')),
            (None, Some(Some(character))) => format!("unexpected {}", shown(*character, '"')),
            (None, Some(None)) => "unexpected end of input".to_owned(),
            (None, None) => "unknown parse error".to_owned(),
        };
        if let Some((last, others)) = self.trail.expected().split_last() {
            let others = others.join(", ");
            let or = if others.is_empty() { "" } else { " or " };
            details.push_str(&format!(" expecting {others}{or}{last}"));
        }
        Fault { line, column, details }
    }
}

const IDENTIFIER: &[&str] = &["letter", "digit"];

fn is_identifier(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | ' ' | '$')
}

fn is_key(character: char) -> bool {
    !"(-:.,>)".contains(character)
}

/// A character as Haskell shows it.
fn shown(character: char, quote: char) -> String {
    let mut text = String::from(quote);
    match character {
        '\\' => text.push_str("\\\\"),
        '\n' => text.push_str("\\n"),
        '\t' => text.push_str("\\t"),
        '\r' => text.push_str("\\r"),
        c if c == quote => text.extend(['\\', c]),
        c if c.is_ascii_graphic() || c == ' ' => text.push(c),
        // Writing to a string cannot fail.
        c => _ = write!(text, "\\{}", u32::from(c)),
    }
    text.push(quote);
    text
}
