//! Templates of e-mails: as much of Go's html/template as such mails use. They are parsed once, at start; what is not known is a fault with
//! its line. To write a mail never fails: what is not there is empty, and what would be too much is not written at all.
//!
//! Each value is escaped as its place in the HTML asks for it. Source: Go, `text/template` and `html/template`.

mod parse;
mod place;
mod plain;

use std::borrow::Cow;

use serde_json::Value;

use place::Escape;
pub use plain::plain;

/// A text with places for values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Text(String),
    Value(Expression, Escape),
    /// Conditions with what is said under them, then what is said otherwise.
    If(Vec<(Expression, Vec<Node>)>, Vec<Node>),
    With(Expression, Vec<Node>, Vec<Node>),
    Range(Expression, Vec<Node>, Vec<Node>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expression {
    Literal(Value),
    /// Fields of what the dot stands for.
    Dot(Vec<String>),
    /// Likewise of everything (`$`).
    Root(Vec<String>),
    Call(Function, Vec<Expression>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    And,
    Or,
    Not,
    Eq,
    Ne,
    Index,
}

/// What a template may ask for. Source: GoTrue, `internal/mailer/templatemailer`.
pub const VARIABLES: [&str; 14] = [
    "ConfirmationURL",
    "Data",
    "Email",
    "FactorType",
    "NewEmail",
    "OldEmail",
    "OldPhone",
    "Phone",
    "Provider",
    "RedirectTo",
    "SendingTo",
    "SiteURL",
    "Token",
    "TokenHash",
];

/// Bytes of a template, and of what is made of it.
const LONGEST: usize = 512 << 10;
const LONGEST_OUTPUT: usize = 1 << 20;
/// Values, conditions and turns of a mail: the lists are a user's, and so is the patience.
const STEPS: usize = 10_000;

/// What is wrong with a template, and in which of its lines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct Fault {
    pub line: usize,
    pub cause: Cause,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    #[error("a template has {LONGEST} bytes at most")]
    TooLong,
    #[error("there is a NUL character in it")]
    Nul,
    #[error("{{{{ has no }}}}")]
    NoClose,
    #[error("a text in quotation marks has no end")]
    NoQuote,
    #[error("{0} is no text in quotation marks that is known here")]
    Quoted(String),
    #[error("a ( has no )")]
    NoParenthesis,
    #[error("{{{{ {0} }}}} has no {{{{ end }}}}")]
    NoEnd(&'static str),
    #[error("{{{{ {0} }}}} stands where nothing has begun")]
    NoBegin(&'static str),
    #[error("blocks are nested too deeply")]
    TooDeep,
    #[error("there is nothing between {{{{ and }}}}")]
    Empty,
    #[error("{0} cannot stand here")]
    Unexpected(String),
    #[error("{0} is not known; if, else, with, range, end, and, or, not, eq, ne and index are")]
    Word(String),
    #[error("there is no variable .{0}; there are .{variables}", variables = VARIABLES.join(", ."))]
    Variable(String),
    #[error("{0} has another number of arguments")]
    Arguments(String),
    #[error("a value can stand in a text or in an attribute, not in the name of a tag or of an attribute")]
    InTag,
    #[error("a value of an attribute needs quotation marks around it")]
    NoQuotationMarks,
    #[error("a value cannot stand in a script")]
    InScript,
    #[error("the branches of {{{{ {0} }}}} end in different places of the HTML: one of them in a tag or an attribute")]
    Branches(&'static str),
    #[error("it ends in the middle of a tag, a comment or a style")]
    Unfinished,
}

impl Template {
    /// HTML, in which values are escaped.
    pub fn html(text: &str) -> Result<Self, Fault> {
        Ok(Self { nodes: parse::template(text, parse::Form::Html)? })
    }

    /// A text without a form, in which values stand as they are.
    pub fn plain(text: &str) -> Result<Self, Fault> {
        Ok(Self { nodes: parse::template(text, parse::Form::Plain)? })
    }

    /// `None` where it would be too much.
    pub fn write(&self, values: &Value) -> Option<String> {
        let mut writing = Writing { root: values, text: String::new(), steps: 0 };
        writing.nodes(&self.nodes, values)?;
        Some(writing.text)
    }
}

struct Writing<'a> {
    root: &'a Value,
    text: String,
    steps: usize,
}

impl Writing<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Option<()> {
        nodes.iter().try_for_each(|node| self.node(node, dot))
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Option<()> {
        let root = self.root;
        match node {
            Node::Text(text) => self.push(text)?,
            Node::Value(expression, escape) => {
                self.step()?;
                let value = value(expression, dot, root);
                self.push(&escape.apply(&shown(&value)))?;
            }
            Node::If(branches, otherwise) => {
                for (condition, nodes) in branches {
                    self.step()?;
                    if is_true(&value(condition, dot, root)) {
                        return self.nodes(nodes, dot);
                    }
                }
                self.nodes(otherwise, dot)?;
            }
            Node::With(expression, nodes, otherwise) => {
                self.step()?;
                let value = value(expression, dot, root);
                if is_true(&value) { self.nodes(nodes, &value)? } else { self.nodes(otherwise, dot)? }
            }
            Node::Range(expression, nodes, otherwise) => {
                self.step()?;
                let value = value(expression, dot, root);
                let items: Vec<&Value> = match &*value {
                    Value::Array(items) => items.iter().collect(),
                    Value::Object(fields) => fields.values().collect(),
                    _ => Vec::new(),
                };
                if items.is_empty() {
                    self.nodes(otherwise, dot)?;
                }
                for item in items {
                    self.step()?;
                    self.nodes(nodes, item)?;
                }
            }
        }
        Some(())
    }

    fn push(&mut self, text: &str) -> Option<()> {
        self.text.push_str(text);
        (self.text.len() <= LONGEST_OUTPUT).then_some(())
    }

    fn step(&mut self) -> Option<()> {
        self.steps += 1;
        (self.steps <= STEPS).then_some(())
    }
}

fn value<'a>(expression: &'a Expression, dot: &'a Value, root: &'a Value) -> Cow<'a, Value> {
    let truth = |is_so: bool| Cow::Owned(Value::Bool(is_so));
    match expression {
        Expression::Literal(value) => Cow::Borrowed(value),
        Expression::Dot(path) => Cow::Borrowed(field(dot, path)),
        Expression::Root(path) => Cow::Borrowed(field(root, path)),
        Expression::Call(function, arguments) => {
            let mut all = arguments.iter().map(|argument| value(argument, dot, root));
            let first = all.next().unwrap_or(Cow::Borrowed(&Value::Null));
            match function {
                // The first that decides, else the last.
                Function::And => all.fold(first, |found, next| if is_true(&found) { next } else { found }),
                Function::Or => all.fold(first, |found, next| if is_true(&found) { found } else { next }),
                Function::Not => truth(!is_true(&first)),
                Function::Eq => truth(all.any(|other| is_same(&first, &other))),
                Function::Ne => truth(!all.any(|other| is_same(&first, &other))),
                Function::Index => all.fold(first, |inside, key| Cow::Borrowed(item(inside, &key))),
            }
        }
    }
}

/// What is not borrowed is true or false, and has nothing inside.
fn item<'a>(inside: Cow<'a, Value>, key: &Value) -> &'a Value {
    let found = match (inside, key) {
        (Cow::Borrowed(Value::Object(fields)), Value::String(name)) => fields.get(name),
        (Cow::Borrowed(Value::Array(items)), Value::Number(at)) => {
            at.as_u64().and_then(|at| items.get(usize::try_from(at).ok()?))
        }
        _ => None,
    };
    found.unwrap_or(&Value::Null)
}

fn field<'a>(value: &'a Value, path: &[String]) -> &'a Value {
    path.iter().fold(value, |value, name| value.get(name).unwrap_or(&Value::Null))
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(is_so) => *is_so,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// Lists and objects are the same as nothing.
fn is_same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64() == right.as_f64(),
        (Value::Array(_) | Value::Object(_), _) => false,
        _ => left == right,
    }
}

fn shown(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Null => Cow::Borrowed(""),
        Value::String(text) => Cow::Borrowed(text),
        other => Cow::Owned(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn values() -> Value {
        json!({
            "ConfirmationURL": "https://x.example/auth/v1/verify?token=t&type=signup&redirect_to=https%3A%2F%2Fy.example",
            "Email": "a+b@example.com", "SiteURL": "https://y.example", "RedirectTo": "https://y.example/a?b=c&d=e",
            "Token": "123456", "TokenHash": "pkce_h",
            "Data": {
                "name": "<b>\"Ada\" & 'co'</b>", "plan": "pro", "age": 36, "old": true, "none": null, "list": ["a", "<i>"],
                "a": { "b": { "c": "deep" } }, "my-key": "k", "js": "JavaScript:alert(1)", "tabbed": "java\tscript:x",
                "app": "myapp://open", "path": "a b/ä?x", "colour": "#fff", "evil": "red;}</style><script>",
            },
        })
    }

    fn html(text: &str) -> String {
        Template::html(text).unwrap_or_else(|fault| panic!("{text}: {fault}")).write(&values()).unwrap()
    }

    #[test]
    fn values_and_blocks() {
        for (text, expected) in [
            ("no value", "no value"),
            ("{{ .Token }}{{.Token}}", "123456123456"),
            ("a {{- /* said */ -}} b", "ab"),
            ("a  {{- .Token -}}\n b", "a123456b"),
            ("{{ .Data.a.b.c }}|{{ .Data.no.such }}|{{ .Data.none }}|{{ .NewEmail }}", "deep|||"),
            ("{{ .Data.age }} {{ .Data.old }} {{ .Data.list }}", "36 true [&quot;a&quot;,&quot;&lt;i&gt;&quot;]"),
            ("{{ if .Data.plan }}A{{ else }}B{{ end }}", "A"),
            ("{{ if .Data.no }}A{{ else }}B{{ end }}", "B"),
            ("{{ if .Data.no }}A{{ end }}", ""),
            ("{{ if eq .Data.plan \"free\" }}F{{ else if eq .Data.plan \"pro\" }}P{{ else }}?{{ end }}", "P"),
            ("{{ if eq .Data.plan `free` `pro` }}A{{ end }}{{ if ne .Data.plan \"pro\" }}B{{ end }}", "A"),
            ("{{ if and .Data.old (not .Data.no) (eq .Data.age 36) }}A{{ end }}", "A"),
            (
                "{{ or .Data.no .Data.plan \"x\" }} {{ and .Data.no .Data.plan }} {{ or .Data.no \"friend\" }}",
                "pro  friend",
            ),
            ("{{ with .Data.a }}{{ .b.c }} {{ $.Token }}{{ end }}", "deep 123456"),
            ("{{ with .Data.no }}A{{ else }}{{ .Token }}{{ end }}", "123456"),
            ("{{ range .Data.list }}<li>{{ . }}</li>{{ end }}", "<li>a</li><li>&lt;i&gt;</li>"),
            ("{{ range .Data.no }}A{{ else }}none{{ end }}", "none"),
            ("{{ index .Data \"my-key\" }} {{ index .Data.list 1 }} {{ index .Data.list 7 }}", "k &lt;i&gt; "),
            ("{{ \"a\\\"\\u00e4\" }}", "a&quot;ä"),
            ("{{\n  if\n  .Token\n}}x{{ end }}", "x"),
            ("}} { {", "}} { {"),
        ] {
            assert_eq!(html(text), expected, "{text}");
        }
    }

    #[test]
    fn values_are_escaped_as_their_place_asks() {
        let name = "&lt;b&gt;&quot;Ada&quot; &amp; &#39;co&#39;&lt;/b&gt;";
        for (text, expected) in [
            ("<p>{{ .Data.name }}</p>", format!("<p>{name}</p>")),
            ("<p title='{{ .Data.name }}' {{ if .Token }}hidden{{ end }}>", format!("<p title='{name}' hidden>")),
            ("<!-- {{ .Data.name }} -->", format!("<!-- {name} -->")),
            ("a < b {{ .Token }}", "a < b 123456".to_owned()),
            (
                "<a class=\"x\" href=\"{{ .ConfirmationURL }}\">",
                "<a class=\"x\" href=\"https://x.example/auth/v1/verify?token=t&amp;type=signup&amp;redirect_to=https%3A%2F%2Fy.example\">"
                    .to_owned(),
            ),
            (
                "<a href=\"{{ .SiteURL }}/confirm?hash={{ .TokenHash }}&next={{ .RedirectTo }}&e={{ .Email }}\">",
                "<a href=\"https://y.example/confirm?hash=pkce_h&next=https%3A%2F%2Fy.example%2Fa%3Fb%3Dc%26d%3De&e=a%2Bb%40example.com\">"
                    .to_owned(),
            ),
            ("<a href='{{ .SiteURL }}/{{ .Data.path }}'>", "<a href='https://y.example/a%20b/%C3%A4?x'>".to_owned()),
            ("<a href=\"{{ .Data.js }}\">", "<a href=\"#\">".to_owned()),
            ("<a HREF = \"{{ .Data.tabbed }}\">", "<a HREF = \"#\">".to_owned()),
            ("<a href=\"{{ .Data.app }}\">", "<a href=\"myapp://open\">".to_owned()),
            ("<a href=\"{{ .Data.plan }}{{ .Data.app }}\">", "<a href=\"pro#\">".to_owned()),
            ("<a href=\"{{ if .Data.no }}https:{{ end }}{{ .Data.js }}\">", "<a href=\"#\">".to_owned()),
            ("<a href=\"{{ range .Data.list }}{{ . }}{{ end }}\">", "<a href=\"a%3Ci%3E\">".to_owned()),
            ("<a href=\"mailto:{{ .Email }}\">", "<a href=\"mailto:a+b@example.com\">".to_owned()),
            ("<p style=\"color: {{ .Data.colour }}\">", "<p style=\"color: #fff\">".to_owned()),
            ("<style>a { color: {{ .Data.evil }} }</style>{{ .Data.plan }}", "<style>a { color:  }</style>pro".to_owned()),
            (
                "<!--[if mso]><a href=\"{{ .Data.js }}\"><![endif]--><!--[if !mso]><!--><b>{{ .Token }}</b><!--<![endif]-->",
                "<!--[if mso]><a href=\"#\"><![endif]--><!--[if !mso]><!--><b>123456</b><!--<![endif]-->".to_owned(),
            ),
            ("<!DOCTYPE html><script>if (a < b) {}</script>{{ .Token }}", "<!DOCTYPE html><script>if (a < b) {}</script>123456".to_owned()),
        ] {
            assert_eq!(html(text), expected, "{text}");
        }
        let subject = Template::plain("For {{ .Data.name }} <{{ .Email }}").unwrap().write(&values()).unwrap();
        assert_eq!(subject, "For <b>\"Ada\" & 'co'</b> <a+b@example.com");
    }

    #[test]
    fn what_is_not_known_is_told_with_its_line() {
        for (text, line, told) in [
            ("a\n{{ .Token", 2, "{{ has no }}"),
            ("a\n\n{{ if .Token }}\nb", 3, "{{ if }} has no {{ end }}"),
            ("{{ if .Token }}\n{{ else }}\n{{ else }}{{ end }}", 3, "{{ else }} stands where nothing has begun"),
            ("\n{{ end }}", 2, "{{ end }} stands where nothing has begun"),
            ("{{ }}", 1, "there is nothing between {{ and }}"),
            ("\n{{ .ConfirmationUrl }}", 2, "there is no variable .ConfirmationUrl; there are .ConfirmationURL, "),
            ("{{ with .Data }}{{ $.Name }}{{ end }}", 1, "there is no variable .Name"),
            ("{{ printf \"%s\" .Token }}", 1, "printf is not known"),
            ("{{ template \"x\" }}", 1, "template is not known"),
            ("{{ .Token | html }}", 1, "| cannot stand here"),
            ("{{ $x := .Token }}", 1, ": cannot stand here"),
            ("{{ .Data.a-b }}", 1, "-b cannot stand here"),
            ("{{ .Token .Email }}", 1, ".Email cannot stand here"),
            ("{{ if }}a{{ end }}", 1, "there is nothing between"),
            ("{{ if eq .Token }}a{{ end }}", 1, "eq has another number"),
            ("{{ not .Token .Email }}", 1, "not has another number"),
            ("{{ (eq .Token \"a\" }}", 1, "a ( has no )"),
            ("{{ \"a }}", 1, "a text in quotation marks has no end"),
            ("{{ \"\\q\" }}", 1, "is no text in quotation marks"),
            ("{{ \"\\u0000\" }}", 1, "is no text in quotation marks"),
            ("a\0", 1, "NUL"),
            ("<{{ .Token }}>", 1, "a value can stand in a text"),
            ("\n<p {{ .Token }}>", 2, "a value can stand in a text"),
            ("<a href={{ .ConfirmationURL }}>", 1, "needs quotation marks"),
            ("<a href=x{{ .Token }}>", 1, "needs quotation marks"),
            ("<a onclick=\"{{ .Token }}\">", 1, "in a script"),
            ("<script>\n{{ .Token }}</script>", 2, "in a script"),
            ("{{ if .Token }}<p title=\"{{ else }}<p>{{ end }}", 1, "the branches of {{ if }}"),
            ("<p {{ range .Data.list }}>{{ end }}", 1, "the branches of {{ range }}"),
            ("<p>\n<a href=\"x", 2, "it ends in the middle"),
        ] {
            let fault = Template::html(text).expect_err(text);
            assert!(fault.to_string().contains(told), "{text}: {fault}");
            assert_eq!(fault.line, line, "{text}: {fault}");
        }
        let deep = "{{ if .Token }}".repeat(100) + &"{{ end }}".repeat(100);
        assert_eq!(Template::html(&deep).unwrap_err().cause, Cause::TooDeep);
        let deep = format!("{{{{ {}.Token{} }}}}", "(".repeat(100_000), ")".repeat(100_000));
        assert_eq!(Template::html(&deep).unwrap_err().cause, Cause::TooDeep);
        assert_eq!(Template::html(&"a".repeat(LONGEST + 1)).unwrap_err().cause, Cause::TooLong);
    }

    #[test]
    fn what_would_be_too_much_is_not_written() {
        let long = json!({ "Data": { "list": vec!["x".repeat(1000); 2000], "many": vec![1; 200] } });
        for text in [
            "{{ range .Data.list }}{{ . }}{{ end }}",
            "{{ range .Data.many }}{{ range $.Data.many }}{{ end }}{{ end }}",
        ] {
            assert_eq!(Template::html(text).unwrap().write(&long), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_template_or_a_fault(text in "\\PC*") {
            drop(Template::html(&text).map(|template| template.write(&values())));
        }

        #[test]
        fn so_is_any_row_of_its_parts(parts in prop::collection::vec(prop::sample::select(PARTS), 0..24)) {
            let text = parts.concat();
            for template in [Template::html(&text), Template::plain(&text)].into_iter().flatten() {
                let written = template.write(&values()).unwrap_or_default();
                drop(plain(&written));
            }
        }

        /// Whatever a user is called: the HTML has the same tags.
        #[test]
        fn no_value_becomes_a_tag(name in "\\PC*") {
            let text = "<p title=\"{{ .Data.name }}\">{{ .Data.name }}<a href=\"{{ .Data.name }}\"></a></p>";
            let values = json!({ "Data": { "name": name } });
            let written = Template::html(text).unwrap().write(&values).unwrap();
            for (sign, count) in [('<', 4), ('>', 4), ('"', 4)] {
                prop_assert_eq!(written.matches(sign).count(), count);
            }
        }
    }

    const PARTS: &[&str] = &[
        "{{",
        "}}",
        "{{-",
        "-}}",
        " ",
        "\n",
        "if",
        "else",
        "end",
        "with",
        "range",
        ".",
        ".Data",
        ".Data.list",
        "$",
        "$.Token",
        "eq",
        "and",
        "not",
        "index",
        "\"",
        "`",
        "\\",
        "(",
        ")",
        "|",
        "0",
        "-1",
        "/*",
        "*/",
        "<",
        ">",
        "<a href=\"",
        "\">",
        "</a>",
        "<!--",
        "-->",
        "<style>",
        "</style>",
        "'",
        "=",
        "ä",
        "{{ .Token }}",
        "{{ if .Data }}",
        "{{ else }}",
        "{{ end }}",
        "{{ range .Data.list }}",
        "&amp;",
        "&#x",
        "&",
        "<br>",
        "<!",
        "<?",
        "</",
        "<script>",
        "/",
        "?",
        "#",
    ];
}
