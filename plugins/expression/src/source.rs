//! The text of an expression: parsing, and where each part of it stands.
//!
//! CEL has no `$`: `$key` is parsed as `_key`, and told from a field `_key` by the byte that stands in the text.

use cel::common::ast::{EntryExpr, Expr, IdedExpr, SourceInfo};
use cel::parser::Parser;

/// Longer texts would need more stack to parse than a plugin has.
const LONGEST: usize = 16 << 10;

pub struct Source {
    text: String,
    info: SourceInfo,
}

/// A part of an expression, in bytes.
pub type Span = (usize, usize);

impl Source {
    /// Err: where, and what is wrong.
    pub fn parse(text: &str) -> Result<(Self, IdedExpr), Vec<(Span, String)>> {
        if text.len() > LONGEST {
            return Err(vec![((0, text.len()), format!("the expression is longer than {LONGEST} bytes"))]);
        }
        if text.trim().is_empty() {
            return Err(vec![((0, text.len()), "the expression is empty".to_owned())]);
        }
        match Parser::new().enable_ident_escape_syntax(true).parse_with_source_info(&without_dollars(text)) {
            Ok((expression, info)) => Ok((Self { text: text.to_owned(), info }, expression)),
            // What the parser says after its first mistake follows from that one.
            Err(errors) => {
                let first = errors.errors.first().map(|error| (position(text, error.pos), readable(&error.msg)));
                Err(vec![first.unwrap_or_else(|| ((0, text.len()), readable("")))])
            }
        }
    }

    pub fn text(&self, span: Span) -> &str {
        self.text.get(span.0..span.1).unwrap_or_default()
    }

    /// The token that stands for a node: an operator, a name, a literal.
    pub fn token(&self, id: u64) -> Option<Span> {
        let (start, stop) = self.info.offset_for(id)?;
        let (start, end) = (start as usize, stop as usize + 1);
        self.text.get(start..end).map(|_| (start, end))
    }

    /// Whether the name at this node begins with `$`.
    pub fn is_pseudo(&self, id: u64) -> bool {
        self.token(id).is_some_and(|(start, _)| self.text.as_bytes().get(start) == Some(&b'$'))
    }

    /// From the first to the last token of an expression.
    pub fn span(&self, expression: &IdedExpr) -> Span {
        let mut span = (usize::MAX, 0);
        self.widen(expression, &mut span);
        if span.0 >= span.1 { (0, self.text.len()) } else { self.balanced(span) }
    }

    /// With the parentheses that close or open those within: `(a) + (b` is `(a) + (b)`.
    fn balanced(&self, (mut start, mut end): Span) -> Span {
        let (mut opened, mut closing) = (0, 0);
        let mut quote = None;
        let mut chars = self.text((start, end)).chars();
        while let Some(c) = chars.next() {
            match (quote, c) {
                (Some(_), '\\') => drop(chars.next()),
                (Some(mark), c) if c == mark => quote = None,
                (None, '"' | '\'') => quote = Some(c),
                (None, '(') => opened += 1,
                (None, ')') if opened > 0 => opened -= 1,
                (None, ')') => closing += 1,
                _ => {}
            }
        }
        for _ in 0..opened {
            let rest = self.text.get(end..).unwrap_or_default();
            if rest.trim_start().starts_with(')') {
                end += rest.len() - rest.trim_start().len() + 1;
            }
        }
        for _ in 0..closing {
            let before = self.text.get(..start).unwrap_or_default().trim_end();
            if before.ends_with('(') {
                start = before.len() - 1;
            }
        }
        (start, end)
    }

    fn widen(&self, expression: &IdedExpr, span: &mut Span) {
        if let Some((start, end)) = self.token(expression.id) {
            let (start, end) = match (&expression.expr, self.text((start, end))) {
                // The token of a call is its parenthesis.
                (_, "(") => (self.name_before(start), self.closed(start)),
                (Expr::List(_) | Expr::Map(_), _) | (_, "[") => (start, self.closed(start)),
                (Expr::Select(_), _) => (start, self.name_after(end)),
                _ => (start, end),
            };
            *span = (span.0.min(start), span.1.max(end));
        }
        match &expression.expr {
            Expr::Call(call) => {
                call.target.iter().for_each(|target| self.widen(target, span));
                call.args.iter().for_each(|argument| self.widen(argument, span));
            }
            Expr::Select(select) => self.widen(&select.operand, span),
            Expr::List(list) => list.elements.iter().for_each(|element| self.widen(element, span)),
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.widen(&entry.key, span);
                        self.widen(&entry.value, span);
                    }
                }
            }
            Expr::Comprehension(comprehension) => {
                self.widen(&comprehension.iter_range, span);
                self.widen(&comprehension.loop_step, span);
            }
            Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) | Expr::Struct(_) => {}
        }
    }

    /// The start of the name before a parenthesis.
    fn name_before(&self, parenthesis: usize) -> usize {
        let name = self.text.get(..parenthesis).unwrap_or_default().trim_end();
        name.trim_end_matches(|c: char| c.is_ascii_alphanumeric() || c == '_').len()
    }

    /// Behind the bracket that closes the one at `open`, or behind that one if it is not found.
    fn closed(&self, open: usize) -> usize {
        let mut depth = 0;
        let mut quote = None;
        let mut chars = self.text.get(open..).unwrap_or_default().char_indices();
        while let Some((at, c)) = chars.next() {
            match (quote, c) {
                (Some(_), '\\') => drop(chars.next()),
                (Some(mark), c) if c == mark => quote = None,
                (Some(_), _) => {}
                (None, '"' | '\'') => quote = Some(c),
                (None, '(' | '[' | '{') => depth += 1,
                (None, ')' | ']' | '}') => {
                    depth -= 1;
                    if depth == 0 {
                        return open + at + 1;
                    }
                }
                _ => {}
            }
        }
        open + 1
    }

    /// The end of the name that follows a dot.
    fn name_after(&self, dot: usize) -> usize {
        let rest = self.text.get(dot..).unwrap_or_default();
        let blank = rest.len() - rest.trim_start().len();
        let name = rest.trim_start();
        let length = match name.strip_prefix('`') {
            Some(quoted) => quoted.find('`').map_or(name.len(), |end| end + 2),
            None => name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len()),
        };
        dot + blank + length
    }
}

/// `$` as `_` where a name can begin: outside of texts and comments. Byte for byte, so that places stay.
fn without_dollars(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let mut quote: Option<(char, bool, bool)> = None;
    let mut before = ' ';
    while let Some(c) = chars.next() {
        match quote {
            Some((mark, triple, raw)) => {
                out.push(c);
                if c == '\\' && !raw {
                    out.extend(chars.next());
                } else if c == mark {
                    let mut ahead = chars.clone();
                    if !triple {
                        quote = None;
                    } else if ahead.next() == Some(mark) && ahead.next() == Some(mark) {
                        out.extend(chars.next());
                        out.extend(chars.next());
                        quote = None;
                    }
                }
            }
            None => match c {
                '"' | '\'' => {
                    let mut ahead = chars.clone();
                    let triple = ahead.next() == Some(c) && ahead.next() == Some(c);
                    out.push(c);
                    if triple {
                        out.extend(chars.next());
                        out.extend(chars.next());
                    }
                    quote = Some((c, triple, matches!(before, 'r' | 'R')));
                }
                '/' if chars.peek() == Some(&'/') => {
                    out.push(c);
                    while let Some(c) = chars.next_if(|c| *c != '\n') {
                        out.push(c);
                    }
                }
                '$' if !before.is_alphanumeric() && before != '_' && before != '.' => out.push('_'),
                _ => out.push(c),
            },
        }
        before = c;
    }
    out
}

/// The parser names a line and a column, both from 1.
fn position(text: &str, (line, column): (isize, isize)) -> Span {
    let (Ok(line), Ok(column)) = (usize::try_from(line), usize::try_from(column)) else { return (0, text.len()) };
    if line == 0 {
        return (0, text.len());
    }
    let before: usize = text.split_inclusive('\n').take(line - 1).map(str::len).sum();
    let rest = text.get(before..).unwrap_or_default();
    match rest.char_indices().nth(column.saturating_sub(1)) {
        Some((at, c)) => (before + at, before + at + c.len_utf8()),
        None => (text.len(), text.len()),
    }
}

/// The parser's message without what only its authors understand.
fn readable(message: &str) -> String {
    let message = message.strip_prefix("Syntax error: ").unwrap_or(message);
    if message == "UNKNOWN" || message.is_empty() {
        return "the expression cannot be parsed: it is not complete, or nested too deeply".to_owned();
    }
    match message.find(" expecting {") {
        Some(at) => message[..at].to_owned(),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_in_texts_stay() {
        for (text, without) in [
            ("$key == '$key'", "_key == '$key'"),
            (r#""a\"$key" + $key"#, r#""a\"$key" + _key"#),
            ("'''it's $a''' + $key", "'''it's $a''' + _key"),
            (r#"r"\" + $key"#, r#"r"\" + _key"#),
            ("a // $key\n+ $key", "a // $key\n+ _key"),
            ("a.$key", "a.$key"),
        ] {
            assert_eq!(without_dollars(text), without);
        }
    }

    #[test]
    fn spans_are_bytes() {
        for (text, part) in [
            ("'äöü' == a.b . c", "'äöü' == a.b . c"),
            ("  a.`x y`  ", "a.`x y`"),
            (" size(a.b) ", "size(a.b)"),
            (" a.f( ')' )", "a.f( ')' )"),
            ("🎉 ? 1 : 2", ""),
            ("['a', b] ", "['a', b]"),
            ("a[ 'b' ] ", "a[ 'b' ]"),
            ("-a", "-a"),
            ("(a + b) * ( c - 'x)' ) ", "(a + b) * ( c - 'x)' )"),
            ("((a))", "a"),
        ] {
            if let Ok((source, expression)) = Source::parse(text) {
                assert_eq!(source.text(source.span(&expression)), part, "{text}");
            }
        }
    }

    #[test]
    fn mistakes_are_found_where_they_are() {
        for (text, at) in [("a ==", 4), ("'ä' == )", 8), ("a\n == ]", 6), ("has(a)", 4)] {
            let mistakes = Source::parse(text).err().unwrap();
            assert_eq!(mistakes[0].0.0, at, "{text}: {mistakes:?}");
        }
    }
}
