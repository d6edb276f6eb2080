//! YAML 1.2 (core schema) to a tree in which every node knows its place. A tree rather than serde's types, because serde stops at the first
//! mistake and a manifest shows all of them at once.

use super::diagnostic::{Report, Span};
use granit_parser::{Event, Parser, ScalarStyle};
use std::collections::HashMap;

/// Nodes of one file, aliases expanded: far above any manifest, far below what hurts.
const MAX_NODES: usize = 500_000;

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub span: Span,
    /// As written, as in `!missing`.
    pub tag: Option<String>,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub key: String,
    pub key_span: Span,
    pub value: Node,
}

impl Node {
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// The items of a list, or the node itself: where one or several may stand.
    pub fn one_or_more(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => std::slice::from_ref(self),
        }
    }

    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn boolean(&self) -> Option<bool> {
        match self.value {
            Value::Bool(value) => Some(value),
            _ => None,
        }
    }

    pub fn int(&self) -> Option<i64> {
        match &self.value {
            Value::Number(number) => number.as_i64(),
            _ => None,
        }
    }

    /// The place to name for something about the whole node: its first key or item instead of many lines.
    pub fn head(&self) -> Span {
        match &self.value {
            Value::Map(entries) => entries.first().map_or(self.span, |entry| entry.key_span),
            Value::List(items) => items.first().map_or(self.span, Node::head),
            _ => self.span,
        }
    }

    /// What stands here, in words for a message.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a block of keys",
        }
    }

    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Number(number) => number.clone().into(),
            Value::Text(text) => text.clone().into(),
            Value::List(items) => items.iter().map(Node::to_json).collect(),
            Value::Map(entries) => entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect(),
        }
    }
}

/// The tree of a file's only document; None after a syntax error, which is reported.
pub(crate) fn parse(report: &Report) -> Option<Node> {
    let source = report.source.clone();
    let mut builder = Builder { report, events: Parser::new_from_str(&source.text), anchors: HashMap::new(), nodes: 0, last: 0 };
    builder.document()
}

struct Builder<'a> {
    report: &'a Report,
    events: Parser<'a, granit_parser::StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    /// Where the last event ended.
    last: usize,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Option<(Event<'a>, Span)> {
        match self.events.next()? {
            Ok((event, span)) => {
                let range = span.byte_range().unwrap_or(self.last..self.last);
                self.last = range.end;
                Some((event, Span::new(range.start, range.end)))
            }
            Err(error) => {
                let at = error.marker().byte_offset().unwrap_or(self.last);
                self.report.error(Span::new(at, at), format!("this is not YAML: {}", error.info()), advice(&self.report.source.text, at));
                None
            }
        }
    }

    fn document(&mut self) -> Option<Node> {
        let mut root = None;
        while let Some((event, span)) = self.next() {
            match event {
                Event::DocumentStart(..) if root.is_some() => {
                    self.report.error(span, "a second document begins here", "a file holds one pipeline".to_owned());
                    return None;
                }
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                Event::StreamEnd => {
                    if root.is_none() {
                        self.report.error(Span::default(), "the file is empty", None);
                    }
                    return root;
                }
                event => root = Some(self.node(event, span)?),
            }
        }
        None
    }

    fn node(&mut self, event: Event<'a>, span: Span) -> Option<Node> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            self.report.error(span, format!("the file has more than {MAX_NODES} values"), None);
            return None;
        }
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let tag = tag.map(|tag| tag.original());
                let value = if style == ScalarStyle::Plain && tag.is_none() {
                    self.plain(&text, span)
                } else if tag.is_some() && span.start == span.end {
                    Value::Null
                } else {
                    Value::Text(text.into_owned())
                };
                (Node { span, tag, value }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                let mut items = Vec::new();
                let end = loop {
                    match self.next()? {
                        (Event::SequenceEnd, end) => break end,
                        (event, span) => items.push(self.node(event, span)?),
                    }
                };
                let end = items.last().map_or(end.end, |last: &Node| if end.start == end.end { last.span.end } else { end.end });
                (Node { span: Span::new(span.start, end), tag: tag.map(|tag| tag.original()), value: Value::List(items) }, anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                let mut entries: Vec<Entry> = Vec::new();
                let end = loop {
                    match self.next()? {
                        (Event::MappingEnd, end) => break end,
                        (event, span) => {
                            let entry = self.member(event, span)?;
                            if let Some(first) = entries.iter().find(|first| first.key == entry.key) {
                                let line = self.report.source.place(first.key_span.start).0;
                                self.report.error(
                                    entry.key_span,
                                    format!("the key `{}` stands here a second time", entry.key),
                                    format!("it is also in line {line}"),
                                );
                            } else {
                                entries.push(entry);
                            }
                        }
                    }
                };
                let end = entries.last().map_or(end.end, |last| if end.start == end.end { last.value.span.end } else { end.end });
                (Node { span: Span::new(span.start, end), tag: tag.map(|tag| tag.original()), value: Value::Map(entries) }, anchor)
            }
            Event::Alias(id) => {
                let Some(target) = self.anchors.get(&id) else {
                    self.report.error(span, "this alias stands inside of what it names", None);
                    return None;
                };
                let copy = Node { span, ..target.clone() };
                self.nodes += count(&copy);
                (copy, 0)
            }
            _ => {
                self.report.error(span, "a value is expected here", None);
                return None;
            }
        };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Some(node)
    }

    fn member(&mut self, event: Event<'a>, span: Span) -> Option<Entry> {
        let Event::Scalar(key, style, ..) = event else {
            self.report.error(span, "a key must be a text", None);
            return None;
        };
        if style == ScalarStyle::Plain && span.start == span.end {
            self.report.error(span, "a key is missing", None);
        }
        let (event, at) = self.next()?;
        let value = self.node(event, at)?;
        Some(Entry { key: key.into_owned(), key_span: span, value })
    }

    /// The core schema: `on`, `yes` and dates are texts.
    fn plain(&self, text: &str, span: Span) -> Value {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
            "true" | "True" | "TRUE" => return Value::Bool(true),
            "false" | "False" | "FALSE" => return Value::Bool(false),
            ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "-.inf" | "-.Inf" | "-.INF" => {
                self.report.error(span, format!("`{text}` is no number that a record can hold"), None);
                return Value::Null;
            }
            _ => {}
        }
        let based = text.strip_prefix("0o").map(|digits| (digits, 8)).or_else(|| text.strip_prefix("0x").map(|digits| (digits, 16)));
        if let Some((digits, base)) = based
            && !digits.starts_with(['+', '-'])
            && let Ok(number) = u64::from_str_radix(digits, base)
        {
            return Value::Number(number.into());
        }
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            let unsigned = text.strip_prefix('+').unwrap_or(text);
            if let Ok(number) = unsigned.parse::<i64>() {
                return Value::Number(number.into());
            }
            if let Ok(number) = unsigned.parse::<u64>() {
                return Value::Number(number.into());
            }
            self.report.error(span, format!("`{text}` does not fit into 64 bits"), "write it in quotes, as a text".to_owned());
            return Value::Null;
        }
        let starts_as_number = digits.starts_with(|c: char| c.is_ascii_digit())
            || digits.strip_prefix('.').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        if starts_as_number
            && digits.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte))
            && let Ok(number) = text.parse::<f64>()
            && let Some(number) = serde_json::Number::from_f64(number)
        {
            return Value::Number(number);
        }
        Value::Text(text.to_owned())
    }
}

fn count(node: &Node) -> usize {
    1 + node.items().iter().map(count).sum::<usize>() + node.entries().iter().map(|entry| count(&entry.value)).sum::<usize>()
}

/// What commonly stands behind a syntax error at a place.
fn advice(text: &str, at: usize) -> Option<String> {
    let line = text.get(..at).map_or("", |before| before.rsplit('\n').next().unwrap_or_default());
    let whole = text.get(at - line.len()..).and_then(|rest| rest.lines().next()).unwrap_or_default();
    if whole.chars().take_while(|c| c.is_whitespace()).any(|c| c == '\t') {
        return Some("YAML is indented with spaces, not tabs".to_owned());
    }
    if whole.contains(": {") || whole.contains(": [") {
        return Some(
            "check that every bracket is closed, and that texts with `:`, `{`, `[`, `#`, `!` or quotes stand in quotes".to_owned(),
        );
    }
    Some("texts with `: `, ` #`, or a leading `*`, `&`, `!`, `{`, `[`, `%`, `@` stand in quotes".to_owned())
}

/// The byte of the file at which byte `offset` of a text's content was written. Follows the scalar's source: quotes, escapes, folded lines,
/// indentation of blocks.
pub(crate) fn place_in_text(file: &str, node: &Node, offset: usize) -> usize {
    let (Some(source), Some(text)) = (file.get(node.span.start..node.span.end), node.text()) else {
        return node.span.start;
    };
    let quote = source.chars().next().filter(|first| matches!(first, '"' | '\'') && source.len() > 1 && source.ends_with(*first));
    let mut rest = source.char_indices().peekable();
    if quote.is_some() {
        rest.next();
    }
    for (at, wanted) in text.char_indices() {
        if wanted.is_whitespace() {
            // One space or line break of the content is any stretch of white space in the source (or an escape, below).
            if let Some((place, found)) = rest.peek().copied()
                && found.is_whitespace()
            {
                if at >= offset {
                    return node.span.start + place;
                }
                if found == wanted {
                    rest.next();
                } else {
                    while rest.next_if(|(_, c)| c.is_whitespace()).is_some() {}
                }
                continue;
            }
        } else {
            while rest.next_if(|(_, c)| c.is_whitespace()).is_some() {}
        }
        let Some((place, found)) = rest.peek().copied() else { break };
        if at >= offset {
            return node.span.start + place;
        }
        rest.next();
        match (quote, found) {
            (Some('\''), '\'') => {
                rest.next();
            }
            (Some('"'), '\\') => {
                let digits = match rest.next() {
                    Some((_, 'x')) => 2,
                    Some((_, 'u')) => 4,
                    Some((_, 'U')) => 8,
                    _ => 0,
                };
                rest.by_ref().take(digits).for_each(drop);
            }
            _ => {}
        }
    }
    let end = node.span.end - quote.map_or(0, char::len_utf8);
    end.max(node.span.start)
}
