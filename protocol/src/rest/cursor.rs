//! A place in a text, and the few words that every grammar of the query string shares.
//!
//! Source: PostgREST, "URL grammar" (its `QueryParams` module). Quoted names and values are in double quotes with `\` as
//! the escape; a bare name is letters, digits, `_`, `$`, blanks and inner dashes.

/// Where reading stopped, and what would have been right there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Byte offset.
    pub at: usize,
    pub expecting: &'static str,
}

pub type Parsed<T> = Result<T, Fault>;

/// Embeds and logic trees may be nested this deep; the stack must not be the limit.
pub const MAX_DEPTH: usize = 64;

#[derive(Debug, Clone, Copy)]
pub struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub fn is_end(&self) -> bool {
        self.at == self.text.len()
    }

    pub fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub fn fault<T>(&self, expecting: &'static str) -> Parsed<T> {
        Err(Fault { at: self.at, expecting })
    }

    /// Takes the word if it is next.
    pub fn eat(&mut self, word: &str) -> bool {
        let next = self.rest().starts_with(word);
        if next {
            self.at += word.len();
        }
        next
    }

    pub fn expect(&mut self, word: &str, expecting: &'static str) -> Parsed<()> {
        if self.eat(word) { Ok(()) } else { self.fault(expecting) }
    }

    pub fn end(&self, expecting: &'static str) -> Parsed<()> {
        if self.is_end() { Ok(()) } else { self.fault(expecting) }
    }

    pub fn blanks(&mut self) {
        self.take_while(|character| matches!(character, ' ' | '\t'));
    }

    pub fn take_while(&mut self, mut wanted: impl FnMut(char) -> bool) -> &'a str {
        let rest = self.rest();
        let length = rest.find(|character| !wanted(character)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    /// Tries a grammar; on failure the place is as before.
    pub fn attempt<T>(&mut self, grammar: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        let before = *self;
        let parsed = grammar(self);
        if parsed.is_err() {
            *self = before;
        }
        parsed
    }

    /// `"quoted \" value"`.
    pub fn quoted(&mut self) -> Parsed<String> {
        self.expect("\"", "\"")?;
        let mut value = String::new();
        let mut characters = self.rest().char_indices();
        while let Some((offset, character)) = characters.next() {
            match character {
                '"' => {
                    self.at += offset + 1;
                    return Ok(value);
                }
                '\\' => match characters.next() {
                    Some((_, escaped)) => value.push(escaped),
                    None => break,
                },
                other => value.push(other),
            }
        }
        self.at = self.text.len();
        self.fault("\"")
    }

    /// A column, relation or alias name.
    pub fn name(&mut self) -> Parsed<String> {
        const EXPECTING: &str = "field name (* or [a..z0..9_$])";
        if self.peek() == Some('"') {
            return self.quoted();
        }
        self.dashed(is_identifier, EXPECTING)
    }

    /// A key in a JSON path.
    pub fn json_key(&mut self) -> Parsed<String> {
        const EXPECTING: &str = "any non reserved character different from: .,>()";
        if self.peek() == Some('"') {
            return self.quoted();
        }
        self.dashed(|character| !"(-:.,>)".contains(character), EXPECTING)
    }

    /// Words with dashes between them; a dash before `>` is an arrow's.
    fn dashed(&mut self, wanted: impl Fn(char) -> bool, expecting: &'static str) -> Parsed<String> {
        let mut name = String::new();
        loop {
            let word = self.take_while(&wanted);
            if word.is_empty() {
                return self.fault(expecting);
            }
            name.push_str(word.trim());
            if self.rest().starts_with("->") || !self.eat("-") {
                return Ok(name);
            }
            name.push('-');
        }
    }

    /// An identifier without dashes: a cast, a text search configuration.
    pub fn identifier(&mut self) -> Parsed<String> {
        let word = self.take_while(is_identifier);
        if word.is_empty() { self.fault("letter, digit or \"_\"") } else { Ok(word.trim().to_owned()) }
    }
}

fn is_identifier(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | ' ' | '$')
}
