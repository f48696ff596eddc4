//! From the text of a template to its parts: pieces, the tokens of an action, blocks.

use std::str::Chars;

use serde_json::{Number, Value};

use super::place::{Escape, Place};
use super::{Cause, Expression, Fault, Function, LONGEST, Node, VARIABLES};

/// What the text around the values is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Html,
    Plain,
}

/// Blocks in blocks, and parentheses in parentheses.
const DEEPEST: usize = 32;

pub fn template(text: &str, form: Form) -> Result<Vec<Node>, Fault> {
    if text.len() > LONGEST {
        return Err(Fault { line: 1, cause: Cause::TooLong });
    }
    if let Some(at) = text.find('\0') {
        return Err(Fault { line: line(text, at), cause: Cause::Nul });
    }
    let last = line(text, text.trim_end().len());
    let mut parser = Parser { pieces: pieces(text)?.into_iter(), form, place: Place::Text, depth: 0 };
    let (nodes, end) = parser.list(true)?;
    match end {
        Stop::Text if parser.place == Place::Text => Ok(nodes),
        Stop::Text => Err(Fault { line: last, cause: Cause::Unfinished }),
        Stop::Else(_, line) => Err(Fault { line, cause: Cause::NoBegin("else") }),
        Stop::End(line) => Err(Fault { line, cause: Cause::NoBegin("end") }),
    }
}

fn line(text: &str, at: usize) -> usize {
    1 + text[..at].matches('\n').count()
}

/// A part of the text, or what stands between `{{` and `}}`, with its line.
enum Piece<'a> {
    Text(&'a str),
    Action(&'a str, usize),
}

fn pieces(text: &str) -> Result<Vec<Piece<'_>>, Fault> {
    let mut all = Vec::new();
    let (mut rest, mut line, mut trim) = (text, 1, false);
    let lines = |text: &str| text.matches('\n').count();
    loop {
        let at = rest.find("{{");
        let before = &rest[..at.unwrap_or(rest.len())];
        let inside = at.map(|at| &rest[at + 2..]);
        let trims =
            inside.and_then(|inside| inside.strip_prefix('-')).filter(|rest| rest.starts_with(char::is_whitespace));
        let shown = if trim { before.trim_start() } else { before };
        let shown = if trims.is_some() { shown.trim_end() } else { shown };
        if !shown.is_empty() {
            all.push(Piece::Text(shown));
        }
        line += lines(before);
        let Some(inside) = trims.or(inside) else { return Ok(all) };
        let begun = inside.trim_start();
        let end = if begun.starts_with("/*") { comment(begun) } else { action(begun) };
        let end = end.map_err(|cause| Fault { line, cause })?;
        let (said, after) = (&begun[..end], &begun[end + 2..]);
        let kept = said.strip_suffix('-').filter(|said| said.ends_with(char::is_whitespace) || said.ends_with("*/"));
        trim = kept.is_some();
        if !begun.starts_with("/*") {
            all.push(Piece::Action(kept.unwrap_or(said), line + lines(&inside[..inside.len() - begun.len()])));
        }
        line += lines(&inside[..inside.len() - after.len()]);
        rest = after;
    }
}

/// Where the `}}` of a comment is.
fn comment(text: &str) -> Result<usize, Cause> {
    let end = text.find("*/").ok_or(Cause::NoClose)? + 2;
    let close = &text[end..];
    let after = close.trim_start();
    let after = after.strip_prefix('-').unwrap_or(after);
    if after.starts_with("}}") { Ok(text.len() - after.len()) } else { Err(Cause::NoClose) }
}

/// Likewise of another action, in whose texts it may stand too.
fn action(text: &str) -> Result<usize, Cause> {
    let mut rest = text;
    loop {
        let at = rest.find(['"', '`', '}']).ok_or(Cause::NoClose)?;
        let quote = rest.as_bytes()[at];
        rest = match quote {
            b'}' if rest[at..].starts_with("}}") => return Ok(text.len() - rest.len() + at),
            b'}' => &rest[at + 1..],
            _ => &rest[at + quoted(&rest[at..]).ok_or(Cause::NoQuote)?..],
        };
    }
}

/// The length of a text with its quotation marks.
fn quoted(text: &str) -> Option<usize> {
    let quote = text.as_bytes().first()?;
    let mut escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let is_end = byte == *quote && !escaped;
        escaped = *quote == b'"' && byte == b'\\' && !escaped;
        is_end
    })?;
    Some(end + 2).filter(|end| *quote == b'`' || !text[..*end].contains('\n'))
}

#[derive(Debug, Clone, PartialEq)]
enum Token<'a> {
    Word(&'a str),
    /// The dot, or `$`, and fields.
    Path(bool, Vec<String>),
    Literal(Value),
    Open,
    Close,
}

fn tokens(text: &str) -> Result<Vec<Token<'_>>, Cause> {
    let is_name = |character: char| character.is_alphanumeric() || character == '_';
    let name = |text: &str| text.find(|character| !is_name(character)).unwrap_or(text.len());
    let mut all = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '"' | '`' => {
                let length = quoted(rest).ok_or(Cause::NoQuote)?;
                (Token::Literal(Value::String(unquoted(&rest[..length])?)), length)
            }
            '.' | '$' => {
                let mut fields = Vec::new();
                let mut at = usize::from(first == '$');
                while rest[at..].starts_with('.') {
                    let length = name(&rest[at + 1..]);
                    at += 1 + length;
                    if length == 0 {
                        break;
                    }
                    fields.push(rest[at - length..at].to_owned());
                }
                (Token::Path(first == '$', fields), at)
            }
            '-' | '0'..='9' => {
                let length = 1 + rest[1..].find(|c: char| !is_name(c) && c != '.').unwrap_or(rest.len() - 1);
                let number: Option<Number> = serde_json::from_str(&rest[..length]).ok();
                let number = number.ok_or_else(|| Cause::Unexpected(rest[..length].to_owned()))?;
                (Token::Literal(Value::Number(number)), length)
            }
            character if is_name(character) => {
                let length = name(rest);
                (Token::Word(&rest[..length]), length)
            }
            other => return Err(Cause::Unexpected(other.to_string())),
        };
        all.push(token);
        rest = rest[length..].trim_start();
    }
    Ok(all)
}

/// Source: Go's language specification, "String literals".
fn unquoted(text: &str) -> Result<String, Cause> {
    let inner = &text[1..text.len() - 1];
    if text.starts_with('`') {
        return Ok(inner.to_owned());
    }
    let wrong = || Cause::Quoted(text.to_owned());
    let digits = |characters: &mut Chars<'_>, count: usize| {
        let digits: String = characters.by_ref().take(count).collect();
        let number = u32::from_str_radix(&digits, 16).ok().filter(|number| digits.len() == count && *number != 0);
        number.and_then(char::from_u32)
    };
    let mut out = String::new();
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        let character = match character {
            '\\' => match characters.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('r') => '\r',
                Some(same @ ('"' | '\\')) => same,
                Some('x') => digits(&mut characters, 2).filter(char::is_ascii).ok_or_else(wrong)?,
                Some('u') => digits(&mut characters, 4).ok_or_else(wrong)?,
                Some('U') => digits(&mut characters, 8).ok_or_else(wrong)?,
                _ => return Err(wrong()),
            },
            other => other,
        };
        out.push(character);
    }
    Ok(out)
}

/// What a list of parts ends with.
enum Stop<'a> {
    Text,
    /// What follows `else` in the same action.
    Else(Vec<Token<'a>>, usize),
    End(usize),
}

struct Parser<'a> {
    pieces: std::vec::IntoIter<Piece<'a>>,
    form: Form,
    place: Place,
    depth: usize,
}

/// The tokens of an expression, and whether the dot in it is everything.
struct Said<'t, 'a> {
    tokens: &'t [Token<'a>],
    is_root: bool,
}

impl<'a> Parser<'a> {
    fn list(&mut self, is_root: bool) -> Result<(Vec<Node>, Stop<'a>), Fault> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            match piece {
                Piece::Text(text) => {
                    if self.form == Form::Html {
                        self.place = std::mem::replace(&mut self.place, Place::Text).after(text);
                    }
                    nodes.push(Node::Text(text.to_owned()));
                }
                Piece::Action(text, line) => {
                    let fault = |cause| Fault { line, cause };
                    let all = tokens(text).map_err(fault)?;
                    let node = match all.split_first() {
                        None => return Err(fault(Cause::Empty)),
                        Some((Token::Word("end"), rest)) => {
                            nothing(rest).map_err(fault)?;
                            return Ok((nodes, Stop::End(line)));
                        }
                        Some((Token::Word("else"), rest)) => return Ok((nodes, Stop::Else(rest.to_vec(), line))),
                        Some((Token::Word("if"), rest)) => self.choice(rest.to_vec(), is_root, line)?,
                        Some((Token::Word("with"), rest)) => {
                            let value = expression(rest, is_root).map_err(fault)?;
                            let (nodes, otherwise) = self.block("with", false, is_root, line)?;
                            Node::With(value, nodes, otherwise)
                        }
                        Some((Token::Word("range"), rest)) => {
                            let list = expression(rest, is_root).map_err(fault)?;
                            self.place.repeat();
                            let (nodes, otherwise) = self.block("range", false, is_root, line)?;
                            Node::Range(list, nodes, otherwise)
                        }
                        Some(_) => {
                            let value = expression(&all, is_root).map_err(fault)?;
                            let escape = if self.form == Form::Plain { Ok(Escape::None) } else { self.place.escape() };
                            let escape = escape.map_err(fault)?;
                            self.place.value();
                            Node::Value(value, escape)
                        }
                    };
                    nodes.push(node);
                }
            }
        }
        Ok((nodes, Stop::Text))
    }

    /// The parts of a block and those behind its `else`.
    fn block(
        &mut self,
        name: &'static str,
        is_root: bool,
        is_root_outside: bool,
        line: usize,
    ) -> Result<(Vec<Node>, Vec<Node>), Fault> {
        let before = self.place.clone();
        let (nodes, end) = self.inner(is_root, line)?;
        let after = std::mem::replace(&mut self.place, before);
        let otherwise = match end {
            Stop::Text => return Err(Fault { line, cause: Cause::NoEnd(name) }),
            Stop::End(_) => Vec::new(),
            Stop::Else(tokens, at) => {
                nothing(&tokens).map_err(|cause| Fault { line: at, cause })?;
                self.last(name, is_root_outside, line)?
            }
        };
        self.join(after, name, line)?;
        Ok((nodes, otherwise))
    }

    fn choice(&mut self, tokens: Vec<Token<'a>>, is_root: bool, line: usize) -> Result<Node, Fault> {
        let before = self.place.clone();
        let (mut tokens, mut at) = (tokens, line);
        let (mut branches, mut places, mut otherwise) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let condition = expression(&tokens, is_root).map_err(|cause| Fault { line: at, cause })?;
            let (nodes, end) = self.inner(is_root, line)?;
            branches.push((condition, nodes));
            places.push(std::mem::replace(&mut self.place, before.clone()));
            match end {
                Stop::Text => return Err(Fault { line, cause: Cause::NoEnd("if") }),
                Stop::End(_) => break,
                Stop::Else(next, line_of_else) => match next.split_first() {
                    None => {
                        otherwise = self.last("if", is_root, line)?;
                        break;
                    }
                    Some((Token::Word("if"), rest)) => (tokens, at) = (rest.to_vec(), line_of_else),
                    Some((other, _)) => {
                        let cause = Cause::Unexpected(other.to_string());
                        return Err(Fault { line: line_of_else, cause });
                    }
                },
            }
        }
        for place in places {
            self.join(place, "if", line)?;
        }
        Ok(Node::If(branches, otherwise))
    }

    /// What is behind an `else` alone.
    fn last(&mut self, name: &'static str, is_root: bool, line: usize) -> Result<Vec<Node>, Fault> {
        let (nodes, end) = self.inner(is_root, line)?;
        match end {
            Stop::End(_) => Ok(nodes),
            Stop::Else(_, line) => Err(Fault { line, cause: Cause::NoBegin("else") }),
            Stop::Text => Err(Fault { line, cause: Cause::NoEnd(name) }),
        }
    }

    fn inner(&mut self, is_root: bool, line: usize) -> Result<(Vec<Node>, Stop<'a>), Fault> {
        if self.depth == DEEPEST {
            return Err(Fault { line, cause: Cause::TooDeep });
        }
        self.depth += 1;
        let inner = self.list(is_root)?;
        self.depth -= 1;
        Ok(inner)
    }

    fn join(&mut self, other: Place, name: &'static str, line: usize) -> Result<(), Fault> {
        let place = std::mem::replace(&mut self.place, Place::Text);
        self.place = place.join(other).ok_or(Fault { line, cause: Cause::Branches(name) })?;
        Ok(())
    }
}

fn nothing(tokens: &[Token<'_>]) -> Result<(), Cause> {
    tokens.first().map_or(Ok(()), |token| Err(Cause::Unexpected(token.to_string())))
}

fn expression(tokens: &[Token<'_>], is_root: bool) -> Result<Expression, Cause> {
    let mut said = Said { tokens, is_root };
    let found = said.pipeline(0)?;
    nothing(said.tokens)?;
    Ok(found)
}

impl Said<'_, '_> {
    /// A value, or a function with its arguments.
    fn pipeline(&mut self, depth: usize) -> Result<Expression, Cause> {
        if depth == DEEPEST {
            return Err(Cause::TooDeep);
        }
        let function = match self.tokens.first() {
            Some(Token::Word(word)) => function(word).map(|function| (*word, function)),
            Some(_) => None,
            None => return Err(Cause::Empty),
        };
        let Some((name, function)) = function else { return self.term(depth) };
        self.tokens = &self.tokens[1..];
        let mut arguments = Vec::new();
        while !matches!(self.tokens.first(), None | Some(Token::Close)) {
            arguments.push(self.term(depth)?);
        }
        let fits = match function {
            Function::Not => arguments.len() == 1,
            Function::Ne => arguments.len() == 2,
            Function::Eq => arguments.len() >= 2,
            Function::And | Function::Or | Function::Index => !arguments.is_empty(),
        };
        if fits { Ok(Expression::Call(function, arguments)) } else { Err(Cause::Arguments(name.to_owned())) }
    }

    fn term(&mut self, depth: usize) -> Result<Expression, Cause> {
        let Some((first, rest)) = self.tokens.split_first() else { return Err(Cause::Empty) };
        self.tokens = rest;
        match first {
            Token::Literal(value) => Ok(Expression::Literal(value.clone())),
            Token::Path(from_root, fields) => {
                let is_variable = |name: &String| VARIABLES.contains(&name.as_str());
                match fields.first() {
                    Some(name) if (*from_root || self.is_root) && !is_variable(name) => {
                        Err(Cause::Variable(name.clone()))
                    }
                    _ if *from_root => Ok(Expression::Root(fields.clone())),
                    _ => Ok(Expression::Dot(fields.clone())),
                }
            }
            Token::Word("true") => Ok(Expression::Literal(Value::Bool(true))),
            Token::Word("false") => Ok(Expression::Literal(Value::Bool(false))),
            Token::Word("nil") => Ok(Expression::Literal(Value::Null)),
            Token::Word(word) if function(word).is_some() => Err(Cause::Unexpected((*word).to_owned())),
            Token::Word(word) => Err(Cause::Word((*word).to_owned())),
            Token::Close => Err(Cause::Unexpected(")".to_owned())),
            Token::Open => {
                let inner = self.pipeline(depth + 1)?;
                match self.tokens.split_first() {
                    Some((Token::Close, rest)) => {
                        self.tokens = rest;
                        Ok(inner)
                    }
                    Some((other, _)) => Err(Cause::Unexpected(other.to_string())),
                    None => Err(Cause::NoParenthesis),
                }
            }
        }
    }
}

fn function(word: &str) -> Option<Function> {
    Some(match word {
        "and" => Function::And,
        "or" => Function::Or,
        "not" => Function::Not,
        "eq" => Function::Eq,
        "ne" => Function::Ne,
        "index" => Function::Index,
        _ => return None,
    })
}

impl std::fmt::Display for Token<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Word(word) => out.write_str(word),
            Self::Path(from_root, fields) => {
                let start = if *from_root { "$" } else { "" };
                let dot = if *from_root && fields.is_empty() { "" } else { "." };
                write!(out, "{start}{dot}{}", fields.join("."))
            }
            Self::Literal(value) => write!(out, "{value}"),
            Self::Open => out.write_str("("),
            Self::Close => out.write_str(")"),
        }
    }
}
