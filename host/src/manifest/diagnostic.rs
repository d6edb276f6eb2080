//! Mistakes and warnings with their places, for people and for scripts.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

impl Span {
    pub fn new(start: usize, end: usize) -> Self {
        Self { start, end: end.max(start) }
    }
}

/// A file that diagnostics point into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    pub path: PathBuf,
    pub text: String,
}

impl Source {
    /// Line and column of a byte, both from 1; columns count characters.
    pub fn place(&self, at: usize) -> (usize, usize) {
        let mut at = at.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        let before = self.text.get(..at).unwrap_or_default();
        let line = before.rfind('\n').map_or(0, |end| end + 1);
        (before.matches('\n').count() + 1, before.get(line..).unwrap_or_default().chars().count() + 1)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Error,
    Warning,
}

impl Severity {
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One mistake or warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    pub source: Arc<Source>,
    pub span: Span,
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
}

impl Diagnostic {
    /// From 1.
    pub fn line(&self) -> usize {
        self.source.place(self.span.start).0
    }

    /// In characters, from 1.
    pub fn column(&self) -> usize {
        self.source.place(self.span.start).1
    }

    pub fn to_json(&self) -> serde_json::Value {
        let (line, column) = self.source.place(self.span.start);
        let (end_line, end_column) = self.source.place(self.span.end);
        serde_json::json!({
            "severity": self.severity.name(),
            "file": self.source.path.display().to_string(),
            "line": line,
            "column": column,
            "end_line": end_line,
            "end_column": end_column,
            "message": self.message,
            "help": self.help,
        })
    }

    /// `file:line:column: error: message`, and the help below.
    pub fn to_plain(&self) -> String {
        let (line, column) = self.source.place(self.span.start);
        let mut text = format!("{}:{line}:{column}: {}: {}\n", self.source.path.display(), self.severity.name(), self.message);
        for line in self.help.iter().flat_map(|help| help.lines()) {
            let _ = writeln!(text, "  help: {line}");
        }
        text
    }

    /// With the lines of the file and colours, for a terminal.
    pub fn to_fancy(&self) -> String {
        // A label over many lines hides what it shows: it ends with its first line.
        let first_line = self.source.text.get(self.span.start..self.span.end).and_then(|text| text.lines().next()).map_or(0, str::len);
        let report = Fancy {
            diagnostic: self,
            code: miette::NamedSource::new(self.source.path.display().to_string(), self.source.text.clone()),
            label: miette::LabeledSpan::new_with_span(None, (self.span.start, first_line)),
        };
        let mut text = String::new();
        match miette::GraphicalReportHandler::new().with_width(120).render_report(&mut text, &report) {
            Ok(()) => text,
            Err(_) => self.to_plain(),
        }
    }
}

struct Fancy<'a> {
    diagnostic: &'a Diagnostic,
    code: miette::NamedSource<String>,
    label: miette::LabeledSpan,
}

impl std::fmt::Debug for Fancy<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.diagnostic.fmt(f)
    }
}

impl std::fmt::Display for Fancy<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.diagnostic.message)
    }
}

impl std::error::Error for Fancy<'_> {}

impl miette::Diagnostic for Fancy<'_> {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.diagnostic.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'b>(&'b self) -> Option<Box<dyn std::fmt::Display + 'b>> {
        self.diagnostic.help.as_ref().map(|help| Box::new(help) as Box<dyn std::fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        Some(&self.code)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = miette::LabeledSpan> + '_>> {
        Some(Box::new(std::iter::once(self.label.clone())))
    }
}

/// Everything that was found in a manifest, in the order of the file. As an error: there is a mistake among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    pub fn errors(&self) -> usize {
        self.0.iter().filter(|one| one.severity == Severity::Error).count()
    }

    pub fn warnings(&self) -> usize {
        self.0.len() - self.errors()
    }

    pub fn to_json(&self) -> serde_json::Value {
        self.0.iter().map(Diagnostic::to_json).collect()
    }

    /// `fancy`: for a terminal, with colours and the lines of the file.
    pub fn render(&self, fancy: bool) -> String {
        self.0.iter().map(|one| if fancy { one.to_fancy() } else { one.to_plain() }).collect()
    }

    /// As in "2 mistakes, 1 warning".
    pub fn summary(&self) -> String {
        let many = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
        match (self.errors(), self.warnings()) {
            (errors, 0) => many(errors, "mistake"),
            (0, warnings) => many(warnings, "warning"),
            (errors, warnings) => format!("{}, {}", many(errors, "mistake"), many(warnings, "warning")),
        }
    }
}

impl std::fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.render(false).trim_end())
    }
}

impl std::error::Error for Diagnostics {}

/// Collects what is found while a file is read, so that one mistake does not hide the next.
#[derive(Debug)]
pub(crate) struct Report {
    pub source: Arc<Source>,
    found: RefCell<Vec<Diagnostic>>,
}

impl Report {
    pub fn new(source: Arc<Source>) -> Self {
        Self { source, found: RefCell::default() }
    }

    pub fn error(&self, span: Span, message: impl Into<String>, help: impl Into<Option<String>>) {
        self.add(Severity::Error, span, message.into(), help.into());
    }

    pub fn warn(&self, span: Span, message: impl Into<String>, help: impl Into<Option<String>>) {
        self.add(Severity::Warning, span, message.into(), help.into());
    }

    fn add(&self, severity: Severity, span: Span, message: String, help: Option<String>) {
        let one = Diagnostic { severity, source: self.source.clone(), span, message, help };
        let mut found = self.found.borrow_mut();
        if !found.contains(&one) {
            found.push(one);
        }
    }

    /// Takes over what was found in another file.
    pub fn absorb(&self, other: Report) {
        self.found.borrow_mut().extend(other.found.into_inner());
    }

    pub fn has_errors(&self) -> bool {
        self.found.borrow().iter().any(|one| one.severity == Severity::Error)
    }

    pub fn finish(self) -> Diagnostics {
        let mut found = self.found.into_inner();
        found.sort_by_key(|one| (one.source != self.source, one.span.start));
        Diagnostics(found)
    }
}

/// The candidate that somebody most probably meant.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| {
            let distance = strsim::damerau_levenshtein(&word.to_lowercase(), &candidate.to_lowercase());
            (distance, candidate)
        })
        .filter(|(distance, candidate)| {
            (*distance <= limit && *distance < candidate.chars().count())
                || (word.len() > 2 && candidate.len() > 2 && (candidate.starts_with(word) || word.starts_with(candidate)))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// A proposal for a word that is not one of those known: the nearest, else all of them.
pub(crate) fn propose<'a>(word: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> Option<String> {
    if let Some(near) = nearest(word, known.clone()) {
        return Some(format!("did you mean `{near}`?"));
    }
    let all: Vec<String> = known.into_iter().map(|one| format!("`{one}`")).collect();
    match all.len() {
        0 => None,
        1..=12 => Some(format!("known here: {}", all.join(", "))),
        _ => None,
    }
}
