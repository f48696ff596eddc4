//! Cuts a SQL text into its statements, as psql does: a semicolon ends one unless it stands in a string, a quoted
//! name, a comment, parentheses or the body of `BEGIN ATOMIC … END`.
//!
//! Nothing is checked here: what PostgreSQL does not understand, PostgreSQL says.

/// One statement, without its semicolon. Comments before it belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statement<'a> {
    pub text: &'a str,
    /// Where the text begins, in bytes from the beginning of the file.
    pub begin: usize,
    /// Where its first word is, likewise.
    pub start: usize,
}

impl Statement<'_> {
    /// The first words in lower case, to see what kind of statement it is.
    pub fn words(&self, count: usize) -> Vec<String> {
        let mut scanner = Scanner { text: self.text, at: 0 };
        let mut words = Vec::new();
        while words.len() < count {
            match scanner.next() {
                Some(Token::Word(word)) => words.push(word.to_ascii_lowercase()),
                Some(Token::Quoted(name)) => words.push(name.trim_matches('"').to_owned()),
                _ => break,
            }
        }
        words
    }
}

/// The statements of a text; empty ones are left out.
pub fn split(text: &str) -> Vec<Statement<'_>> {
    let mut scanner = Scanner { text, at: 0 };
    let mut statements = Vec::new();
    let (mut begin, mut first, mut depth, mut atomic) = (0, None, 0_usize, 0_usize);
    let mut before = "";
    while let Some(token) = scanner.next() {
        if matches!(token, Token::Symbol(b';')) && depth == 0 && atomic == 0 {
            let end = scanner.at - 1;
            statements.extend(first.take().map(|start| statement(text, begin, end, start)));
            begin = scanner.at;
            before = "";
            continue;
        }
        first.get_or_insert(scanner.at - token.length());
        match token {
            Token::Symbol(b'(') => depth += 1,
            Token::Symbol(b')') => depth = depth.saturating_sub(1),
            Token::Word(word) if atomic > 0 && is(word, "case") => atomic += 1,
            Token::Word(word) if atomic > 0 && is(word, "end") => atomic -= 1,
            Token::Word(word) if is(before, "begin") && is(word, "atomic") => atomic = 1,
            _ => {}
        }
        before = if let Token::Word(word) = token { word } else { "" };
    }
    statements.extend(first.map(|start| statement(text, begin, text.len(), start)));
    statements
}

fn statement(text: &str, begin: usize, end: usize, start: usize) -> Statement<'_> {
    let whole = &text[begin..end];
    Statement { text: whole.trim(), begin: begin + (whole.len() - whole.trim_start().len()), start }
}

/// The line of a place in a text, from 1.
pub fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].split(|byte| *byte == b'\n').count()
}

fn is(word: &str, keyword: &str) -> bool {
    word.eq_ignore_ascii_case(keyword)
}

#[derive(Debug, Clone, Copy)]
enum Token<'a> {
    Word(&'a str),
    /// A name in double quotes.
    Quoted(&'a str),
    /// A string or a dollar-quoted text, of this length.
    Text(usize),
    Symbol(u8),
}

impl Token<'_> {
    fn length(self) -> usize {
        match self {
            Self::Word(text) | Self::Quoted(text) => text.len(),
            Self::Text(length) => length,
            Self::Symbol(_) => 1,
        }
    }
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    /// The next token after spaces and comments.
    fn next(&mut self) -> Option<Token<'a>> {
        self.skip();
        let start = self.at;
        let byte = self.byte(0)?;
        let escapes = matches!(byte, b'e' | b'E') && self.byte(1) == Some(b'\'');
        match byte {
            _ if escapes => {
                self.at += 1;
                self.quoted(b'\'', true);
            }
            b'\'' => self.quoted(b'\'', false),
            b'"' => {
                self.quoted(b'"', false);
                return Some(Token::Quoted(&self.text[start..self.at]));
            }
            b'$' => {
                if let Some(tag) = self.dollar_tag() {
                    self.dollar_quoted(tag);
                } else {
                    self.at += 1;
                    return Some(Token::Symbol(byte));
                }
            }
            _ if is_word(byte) => {
                while self.byte(0).is_some_and(|byte| is_word(byte) || byte == b'$') {
                    self.at += 1;
                }
                return Some(Token::Word(&self.text[start..self.at]));
            }
            _ => {
                self.at += 1;
                return Some(Token::Symbol(byte));
            }
        }
        Some(Token::Text(self.at - start))
    }

    fn byte(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + ahead).copied()
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip(&mut self) {
        loop {
            match (self.byte(0), self.byte(1)) {
                (Some(byte), _) if byte.is_ascii_whitespace() || byte == 0x0b => self.at += 1,
                (Some(b'-'), Some(b'-')) => self.at += self.rest().find('\n').unwrap_or(self.rest().len()),
                (Some(b'/'), Some(b'*')) => self.block_comment(),
                _ => return,
            }
        }
    }

    /// PostgreSQL's block comments nest.
    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        loop {
            match (self.byte(0), self.byte(1)) {
                (Some(b'/'), Some(b'*')) => {
                    depth += 1;
                    self.at += 2;
                }
                (Some(b'*'), Some(b'/')) => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return;
                    }
                }
                (Some(_), _) => self.at += 1,
                (None, _) => return,
            }
        }
    }

    /// To behind the closing quote; a doubled quote is part of the text.
    fn quoted(&mut self, quote: u8, escapes: bool) {
        self.at += 1;
        while let Some(byte) = self.byte(0) {
            self.at += 1;
            if escapes && byte == b'\\' {
                self.at += usize::from(self.byte(0).is_some());
            } else if byte == quote {
                if self.byte(0) != Some(quote) {
                    return;
                }
                self.at += 1;
            }
        }
    }

    /// `$$` or `$tag$`; a tag does not begin with a digit, so `$1` is a parameter.
    fn dollar_tag(&self) -> Option<&'a str> {
        let rest = self.rest();
        let length = rest[1..].bytes().position(|byte| !is_word(byte))?;
        let tag = &rest[..length + 2];
        (tag.ends_with('$') && !tag.as_bytes()[1].is_ascii_digit()).then_some(tag)
    }

    fn dollar_quoted(&mut self, tag: &str) {
        self.at += tag.len();
        self.at += self.rest().find(tag).map_or(self.rest().len(), |end| end + tag.len());
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let found: Vec<&str> = split(text).iter().map(|statement| statement.text).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn a_semicolon_ends_a_statement() {
        check("", &[]);
        check(" ;; ; -- nothing\n", &[]);
        check("select 1; select 2", &["select 1", "select 2"]);
        check("select 1;\n-- about two\nselect 2;", &["select 1", "-- about two\nselect 2"]);
    }

    #[test]
    fn not_inside_text() {
        for whole in [
            "select 'a;b'",
            "select 'it''s; so'",
            r"select E'a\';b'",
            r"select 'C:\'",
            "select \"a;\"\"b;\"",
            "select $$a;b$$",
            "select $a$ $$;$$ ; $a$",
            "select $ü$;$ü$",
            "select 1 /* a; /* b; */ c; */ + 1",
            "select 1 -- a;\n + 1",
            "create rule r as on insert to t do also (select 1; select 2)",
            "create function f(int) returns int begin atomic select case when $1 > 0 then 1 else 2 end; select 2; end",
            "create function f() returns int language sql BEGIN\n  ATOMIC\n select 1; END",
        ] {
            check(&format!("{whole}; select 2"), &[whole, "select 2"]);
        }
    }

    #[test]
    fn what_only_looks_like_text_is_none() {
        check("select $1; select a$b$c; select 2", &["select $1", "select a$b$c", "select 2"]);
        check("select 1 as e; select 'x'", &["select 1 as e", "select 'x'"]);
        check("select atomic; begin; end; select 2", &["select atomic", "begin", "end", "select 2"]);
    }

    #[test]
    fn what_has_no_end_goes_to_the_end() {
        check("select 'a; b", &["select 'a; b"]);
        check("select $x$; b", &["select $x$; b"]);
        check("select 1; /* ;", &["select 1"]);
    }

    #[test]
    fn the_first_word_has_a_line() {
        let text = "\n-- one\nselect 1;\n\n/* two */ select 2;";
        let lines: Vec<usize> = split(text).iter().map(|statement| line_of(text, statement.start)).collect();
        assert_eq!(lines, [3, 5]);
    }

    #[test]
    fn the_first_words_say_the_kind() {
        let statement = split("-- x\nCreate EXTENSION if not exists \"pg_net\" with schema x")[0];
        assert_eq!(statement.words(6), ["create", "extension", "if", "not", "exists", "pg_net"]);
        assert_eq!(split("BEGIN")[0].words(2), ["begin"]);
    }

    #[test]
    fn whatever_a_file_holds_is_split_into_its_parts() {
        const PIECES: &[&str] = &[
            "select 1",
            ";",
            "'",
            "''",
            "\"",
            "$$",
            "$a$",
            "--",
            "\n",
            "/*",
            "*/",
            "begin atomic",
            "end",
            "create function f()",
            "E'\\'",
            "é",
            "$1",
            " ",
            "case",
            "(",
            ")",
        ];
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut next = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % below as u64).unwrap()
        };
        for _ in 0..50_000 {
            let text: String = (0..next(14)).map(|_| PIECES[next(PIECES.len())]).collect();
            let mut after = 0;
            for statement in split(&text) {
                assert!(!statement.text.is_empty() && statement.begin >= after, "{text:?}");
                assert!(text[statement.begin..].starts_with(statement.text), "{text:?}");
                after = statement.begin + statement.text.len();
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

        /// Statements are pieces of the text, in order, and nothing but semicolons, comments and blanks is between them.
        #[test]
        fn nothing_is_lost_between_statements(
            pieces in prop::collection::vec(prop::sample::select(vec![
                ";", "'", "\"", "$$", "$a$", "--", "\n", "/*", "*/", "(", ")", "begin", "atomic", "end", "case", "e'", "\\", " ", "select", "ä", "1",
            ]), 0..30),
        ) {
            let text = pieces.concat();
            let mut end = 0;
            for statement in split(&text) {
                prop_assert!(statement.begin >= end && statement.start >= statement.begin, "{text:?} {statement:?}");
                prop_assert_eq!(&text[statement.begin..statement.begin + statement.text.len()], statement.text);
                end = statement.begin + statement.text.len();
                let _ = statement.words(3);
            }
        }
    }
}
