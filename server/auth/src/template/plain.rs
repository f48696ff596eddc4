//! The plain text of an HTML mail: without tags, links with their address behind them.

/// What stands between two words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Gap {
    #[default]
    None,
    Blank,
    Line,
    Paragraph,
}

#[derive(Debug, Default)]
struct Plain {
    text: String,
    gap: Gap,
    /// The addresses of the links that are open, and where their text begins.
    links: Vec<(String, usize)>,
}

/// HTML as text.
pub fn plain(html: &str) -> String {
    let mut plain = Plain::default();
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        plain.words(&rest[..at]);
        rest = &rest[at..];
        let Some((tag, after)) = tag(rest) else {
            // No tag.
            plain.words("<");
            rest = &rest[1..];
            continue;
        };
        rest = if tag.is_empty() { after } else { plain.tag(tag, after) };
    }
    plain.words(rest);
    plain.text
}

/// What stands between `<` and `>`, empty for comments and declarations, and what comes behind it.
fn tag(text: &str) -> Option<(&str, &str)> {
    if let Some(comment) = text.strip_prefix("<!--") {
        return Some(("", comment.split_once("-->").map_or("", |(_, after)| after)));
    }
    if text.starts_with("<!") || text.starts_with("<?") {
        return Some(("", text.split_once('>').map_or("", |(_, after)| after)));
    }
    let inside = &text[1..];
    if !inside.starts_with(|character: char| character.is_ascii_alphabetic() || character == '/') {
        return None;
    }
    let mut quote = None;
    let end = inside.bytes().position(|byte| match (quote, byte) {
        (None, b'>') => true,
        (None, b'"' | b'\'') => {
            quote = Some(byte);
            false
        }
        (Some(open), byte) if open == byte => {
            quote = None;
            false
        }
        _ => false,
    });
    Some(end.map_or((inside, ""), |end| (&inside[..end], &inside[end + 1..])))
}

impl Plain {
    fn words(&mut self, html: &str) {
        let decoded = if html.contains('&') { entities(html) } else { html.to_owned() };
        for character in decoded.chars() {
            if character.is_whitespace() {
                self.gap = self.gap.max(Gap::Blank);
            } else {
                self.character(character);
            }
        }
    }

    fn character(&mut self, character: char) {
        if !self.text.is_empty() {
            self.text.push_str(match self.gap {
                Gap::None => "",
                Gap::Blank => " ",
                Gap::Line => "\n",
                Gap::Paragraph => "\n\n",
            });
        }
        self.gap = Gap::None;
        self.text.push(character);
    }

    /// Gives what comes behind the tag, or behind its content where that is not shown.
    fn tag<'a>(&mut self, tag: &str, after: &'a str) -> &'a str {
        let (is_end, tag) = tag.strip_prefix('/').map_or((false, tag), |tag| (true, tag));
        let end = tag.find(|character: char| !character.is_ascii_alphanumeric()).unwrap_or(tag.len());
        let (name, rest) = (tag[..end].to_ascii_lowercase(), &tag[end..]);
        match name.as_str() {
            "style" | "script" | "title" if !is_end => return behind(after, &name),
            "a" if is_end => self.end_link(),
            "a" => self.links.push((attribute(rest, "href"), self.text.len())),
            "img" => self.words(&attribute(rest, "alt").replace('&', "&amp;")),
            "br" => self.gap = if self.gap >= Gap::Line { Gap::Paragraph } else { Gap::Line },
            "li" if !is_end => {
                self.gap = self.gap.max(Gap::Line);
                self.character('-');
                self.gap = Gap::Blank;
            }
            "div" | "tr" | "li" | "section" | "article" | "header" | "footer" | "center" | "dt" | "dd" | "form" => {
                self.gap = self.gap.max(Gap::Line);
            }
            "p" | "h1" | "h2" | "h3" | "h4" | "h5" | "h6" | "ul" | "ol" | "dl" | "table" | "blockquote" | "pre"
            | "hr" => {
                self.gap = Gap::Paragraph;
            }
            "td" | "th" => self.gap = self.gap.max(Gap::Blank),
            _ => {}
        }
        after
    }

    fn end_link(&mut self) {
        let Some((address, start)) = self.links.pop() else { return };
        let shown = self.text[start..].trim();
        let says_it = shown == address || address.strip_prefix("mailto:").is_some_and(|mailbox| mailbox == shown);
        if address.is_empty() || address.starts_with('#') || says_it {
            return;
        }
        if shown.is_empty() {
            address.chars().for_each(|character| self.character(character));
        } else {
            self.text.push_str(&format!(" ({address})"));
        }
    }
}

/// Behind the end of an element.
fn behind<'a>(text: &'a str, name: &str) -> &'a str {
    let is_end = |at: &usize| {
        text.as_bytes().get(at + 2..at + 2 + name.len()).is_some_and(|end| end.eq_ignore_ascii_case(name.as_bytes()))
    };
    let end = text.match_indices("</").map(|(at, _)| at).find(is_end);
    end.map_or("", |at| &text[at..])
}

/// The value of an attribute, without blanks around it; empty where there is none.
fn attribute(tag: &str, wanted: &str) -> String {
    let mut rest = tag;
    loop {
        rest = rest.trim_start_matches(|character: char| character.is_whitespace() || character == '/');
        if rest.is_empty() {
            return String::new();
        }
        let end = rest.find(|character: char| character.is_whitespace() || character == '=').unwrap_or(rest.len());
        let name = &rest[..end];
        rest = rest[end..].trim_start();
        let mut value = "";
        if let Some(said) = rest.strip_prefix('=') {
            let said = said.trim_start();
            (value, rest) = match said.chars().next() {
                Some(quote @ ('"' | '\'')) => said[1..].split_once(quote).unwrap_or((&said[1..], "")),
                _ => said.split_at(said.find(char::is_whitespace).unwrap_or(said.len())),
            };
        }
        if name.eq_ignore_ascii_case(wanted) {
            return entities(value).trim().to_owned();
        }
    }
}

/// Characters that HTML writes in another way.
fn entities(html: &str) -> String {
    let mut out = String::with_capacity(html.len());
    let mut rest = html;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let end = rest.bytes().take(10).position(|byte| byte == b';');
        match end.and_then(|end| entity(&rest[..end]).map(|found| (end, found))) {
            Some((end, found)) => {
                out.push_str(&found);
                rest = &rest[end + 1..];
            }
            None => out.push('&'),
        }
    }
    out.push_str(rest);
    out
}

fn entity(name: &str) -> Option<String> {
    if let Some(number) = name.strip_prefix('#') {
        let number = match number.strip_prefix(['x', 'X']) {
            Some(digits) => u32::from_str_radix(digits, 16),
            None => number.parse(),
        };
        let found = number.ok().and_then(char::from_u32)?;
        return Some(if found.is_control() { " ".to_owned() } else { found.to_string() });
    }
    let found = match name {
        "amp" => "&",
        "lt" => "<",
        "gt" => ">",
        "quot" => "\"",
        "apos" => "'",
        "nbsp" | "ensp" | "emsp" | "thinsp" => " ",
        "zwnj" | "zwj" | "shy" => "",
        "copy" => "©",
        "reg" => "®",
        "trade" => "™",
        "euro" => "€",
        "hellip" => "…",
        "mdash" => "—",
        "ndash" => "–",
        "middot" => "·",
        "bull" => "•",
        "laquo" => "«",
        "raquo" => "»",
        "lsquo" => "‘",
        "rsquo" => "’",
        "ldquo" => "“",
        "rdquo" => "”",
        _ => return None,
    };
    Some(found.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_go_and_links_stay() {
        for (html, expected) in [
            ("", ""),
            ("<h2>Hello</h2>\n\n<p>a\n b</p><p>c</p>", "Hello\n\na b\n\nc"),
            ("<a href=\"https://x/?a=1&amp;b=2\">Confirm</a>.", "Confirm (https://x/?a=1&b=2)."),
            ("<a class=b href='https://x'>https://x</a>", "https://x"),
            ("<a href='mailto:a@b.c'>a@b.c</a> <a href=\"#top\">up</a>", "a@b.c up"),
            (
                "<p><a href=\"https://x\"><img src=\"y\" alt=\"Log in\"></a> <a href=\"https://z\"></a>",
                "Log in (https://x) https://z",
            ),
            ("a<br>b<br><br>c<br/>d", "a\nb\n\nc\nd"),
            ("<ul><li>a</li><li>b</li></ul>c", "- a\n- b\n\nc"),
            ("<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>", "a b\nc"),
            ("<head><title>T</title><style>p > a { b }</style></head><body>x<!-- y --><![endif]-->z</body>", "xz"),
            ("<!--[if mso]><p>m</p><![endif]--><!--[if !mso]><!--><p>n</p><!--<![endif]-->", "n"),
            ("1 &lt; 2 &amp;&amp; &#39;x&#x27; &nbsp; &euro; &unknown; & &;", "1 < 2 && 'x' € &unknown; & &;"),
            ("a < b <", "a < b <"),
            ("x <p title=\"a > b\">y", "x\n\ny"),
            ("<a href=\"x\">never closed", "never closed"),
            ("<style>never closed", ""),
            ("<p", ""),
        ] {
            assert_eq!(plain(html), expected, "{html}");
        }
    }
}
