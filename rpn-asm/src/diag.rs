//! Problems with their places, and how they are shown.

use crate::problem::{Problem, Severity};
use crate::source::{Location, SourceMap, Span};
use crate::suggest::nearest;
use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Patch, Renderer, Snippet};
use std::fmt;

/// More errors than this are counted, not shown: they rarely help.
const MOST_SHOWN: usize = 50;

/// With this many an end is made of collecting them.
const MOST_COLLECTED: usize = 1000;

/// With this many comparisons an end is made of looking for names that are nearly another.
const MOST_COMPARED: usize = 1_000_000;

/// A message of more characters than this is cut: some quote the text they are about.
const LONGEST_TITLE: usize = 300;

/// A change to a line of more bytes than this is told, not shown.
const LONGEST_PATCHED: usize = 200;

/// More macros inside each other than this are counted, but for the outermost: that one is in the author's own line.
const MOST_EXPANSIONS: usize = 4;

/// One problem and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong.
    pub problem: Problem,
    /// Where; `None` if it is about the program as a whole.
    pub span: Option<Span>,
}

impl Diagnostic {
    /// Whether it prevents an object.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.problem.severity()
    }

    /// The problem in one line, without the place.
    #[must_use]
    pub fn message(&self) -> String {
        self.problem.explain().title
    }
}

/// The problems of one run, in the order of the text, with the sources they point into.
#[derive(Debug, Clone, Default)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
    map: SourceMap,
}

/// How to show them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Style {
    /// Text alone.
    #[default]
    Plain,
    /// With the terminal's colours.
    Coloured,
}

impl Diagnostics {
    pub(crate) fn new(map: SourceMap, list: Vec<Diagnostic>) -> Self {
        Self { list, map }
    }

    /// Every problem.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// True if nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The sources the spans point into.
    #[must_use]
    pub fn sources(&self) -> &SourceMap {
        &self.map
    }

    /// Where a problem is. For text that comes out of a macro that is the place in the macro's definition.
    #[must_use]
    pub fn location(&self, d: &Diagnostic) -> Option<Location> {
        d.span.map(|s| self.map.location(s))
    }

    /// All problems as text for people: message, place, the line, the marks, notes and suggestions; and how many there were.
    #[must_use]
    pub fn render(&self, style: Style) -> String {
        let renderer = match style {
            Style::Plain => Renderer::plain(),
            Style::Coloured => Renderer::styled(),
        }
        .decor_style(DecorStyle::Ascii);
        let mut out = String::new();
        for d in self.list.iter().take(MOST_SHOWN) {
            out.push_str(&self.render_one(d, &renderer));
            out.push_str("\n\n");
        }
        let count = |s| self.list.iter().filter(|d| d.severity() == s).count();
        let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
        let hidden = self.list.len().saturating_sub(MOST_SHOWN);
        if hidden > 0 {
            out.push_str(&format!("... and {hidden} more\n\n"));
        }
        let plural = |n: usize, what| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let mut counts = Vec::new();
        if errors > 0 {
            counts.push(plural(errors, "error"));
        }
        if warnings > 0 {
            counts.push(plural(warnings, "warning"));
        }
        if !counts.is_empty() {
            out.push_str(&counts.join(", "));
            out.push('\n');
        }
        out
    }

    fn render_one(&self, d: &Diagnostic, renderer: &Renderer) -> String {
        let mut text = d.problem.explain();
        if let Some((cut, _)) = text.title.char_indices().nth(LONGEST_TITLE) {
            text.title.truncate(cut);
            text.title.push_str("...");
        }
        let level = match d.severity() {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(text.title.as_str());
        let mut main = match d.span {
            Some(span) => {
                let here: Vec<_> = text
                    .related
                    .iter()
                    .filter(|(s, _)| s.file == span.file && self.near(*s, span))
                    .collect();
                title.element(self.snippet(span, &text.label, &here))
            }
            // Nothing to put the label under.
            None if !text.label.is_empty() => title.element(Level::NOTE.message(text.label.as_str())),
            None => Group::with_title(title),
        };
        for note in &text.notes {
            main = main.element(Level::NOTE.message(note.as_str()));
        }
        for help in &text.helps {
            main = main.element(Level::HELP.message(help.as_str()));
        }
        let mut groups = vec![main];
        for (s, label) in &text.related {
            if d.span.is_none_or(|span| s.file != span.file || !self.near(*s, span)) {
                groups.push(self.elsewhere(*s, label));
            }
        }
        if let Some(span) = d.span {
            self.trace(span, &mut groups);
            if let Some((why, with)) = &text.fix {
                groups.push(self.patch(span, why, with));
            }
        }
        renderer.render(&groups)
    }

    /// A related place that is close enough to be shown in the same excerpt.
    fn near(&self, a: Span, b: Span) -> bool {
        let line = |s: Span| self.map.line(s.file, s.start);
        a.file == b.file && line(a).abs_diff(line(b)) <= 20 && !(a.start < b.end && b.start < a.end)
    }

    fn snippet<'a>(
        &'a self,
        span: Span,
        label: &'a str,
        related: &[&'a (Span, String)],
    ) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
        let file = self.map.file(span.file);
        let first = related.iter().map(|(s, _)| s.start).chain([span.start]).min();
        let last = related.iter().map(|(s, _)| s.end).chain([span.end]).max();
        let lines = self
            .map
            .lines(span.file, first.unwrap_or(span.start), last.unwrap_or(span.end));
        let within = |s: Span| {
            let start = (s.start as usize).clamp(lines.start, lines.end) - lines.start;
            let end = (s.end as usize).clamp(lines.start, lines.end) - lines.start;
            start..end.max(start)
        };
        let mut primary = AnnotationKind::Primary.span(within(span));
        if !label.is_empty() {
            primary = primary.label(label);
        }
        let mut snippet = Snippet::source(&file.text[lines.clone()])
            .path(file.name.as_str())
            .line_start(self.map.line(span.file, lines.start as u32) as usize)
            .annotation(primary);
        for (s, label) in related {
            snippet = snippet.annotation(AnnotationKind::Context.span(within(*s)).label(label.as_str()));
        }
        snippet
    }

    fn elsewhere<'a>(&'a self, span: Span, label: &'a str) -> Group<'a> {
        Level::NOTE.secondary_title(label).element(self.snippet(span, "", &[]))
    }

    /// Through which macros and files the text came here.
    fn trace<'a>(&'a self, span: Span, groups: &mut Vec<Group<'a>>) {
        let mut at = span;
        let mut through = Vec::new();
        while let Some(e) = self.map.expansion(at.expansion) {
            through.push(e);
            at = e.call;
        }
        let last = through.len().saturating_sub(1);
        for (i, e) in through.iter().enumerate() {
            if i < MOST_EXPANSIONS || i == last || last == MOST_EXPANSIONS + 1 {
                groups.push(
                    Level::NOTE
                        .secondary_title(format!("in expansion of macro `{}`", e.name))
                        .element(self.snippet(e.call, "", &[])),
                );
            } else if i == MOST_EXPANSIONS {
                let more = format!("in {} more expansions", last - i);
                groups.push(Group::with_title(Level::NOTE.secondary_title(more)));
            }
        }
        if let Some(from) = self.map.file(at.file).included_at {
            groups.push(self.elsewhere(from, "included here"));
        }
    }

    fn patch<'a>(&'a self, span: Span, why: &'a str, with: &'a str) -> Group<'a> {
        let file = self.map.file(span.file);
        let lines = self.map.lines(span.file, span.start, span.end);
        if lines.len() > LONGEST_PATCHED {
            return Group::with_title(Level::HELP.secondary_title(format!("{why}: `{with}`")));
        }
        let range = span.start as usize - lines.start..span.end as usize - lines.start;
        Level::HELP.secondary_title(why).element(
            Snippet::source(&file.text[lines.clone()])
                .path(file.name.as_str())
                .line_start(self.map.line(span.file, span.start) as usize)
                .patch(Patch::new(range, with)),
        )
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Style::Plain))
    }
}

impl std::error::Error for Diagnostics {}

/// What a run collects: the sources and what was wrong with them.
#[derive(Debug, Default)]
pub(crate) struct Session {
    pub map: SourceMap,
    pub list: Vec<Diagnostic>,
    /// Names that have been compared in search of doubtful ones.
    pub compared: usize,
}

/// A problem has been reported; nothing more is to be said about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reported;

impl Session {
    pub fn report(&mut self, span: impl Into<Option<Span>>, problem: impl Into<Problem>) -> Reported {
        let d = Diagnostic {
            problem: problem.into(),
            span: span.into(),
        };
        if self.list.len() < MOST_COLLECTED && !self.list.contains(&d) {
            self.list.push(d);
        }
        Reported
    }

    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|d| d.severity() == Severity::Error)
    }

    /// Whether the next problem will be shown, so that it is worth while to look for what was meant.
    pub fn suggests(&self) -> bool {
        self.list.len() < MOST_SHOWN
    }

    /// The candidate that `name` was probably meant to be, for a problem that will be shown.
    pub fn nearest<'a>(&self, name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
        self.suggests().then(|| nearest(name, candidates))?
    }

    /// Whether so many more names may be compared, in a program where nothing is known to be wrong.
    pub fn compares(&mut self, names: usize) -> bool {
        self.compared = self.compared.saturating_add(names);
        self.compared <= MOST_COMPARED
    }

    /// In the order of the program's text; what is about no place in particular comes last.
    pub fn finish(mut self) -> Diagnostics {
        let map = &self.map;
        self.list.sort_by_key(|d| match d.span {
            None => (1, Vec::new()),
            Some(span) => (0, map.path(span)),
        });
        Diagnostics::new(self.map, self.list)
    }
}
