//! How the command tells that something went wrong: what, where, and what to do.

use std::borrow::Cow;
use std::ops::Range;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

/// The line of a program that a message is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file as the user named it.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The text of that line, when it is at hand, and the bytes of it that are meant.
    pub text: Option<(String, Range<usize>)>,
    /// What to say under it.
    pub label: String,
}

/// A message for people.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// What was wrong, in one sentence without a full stop.
    pub message: String,
    /// Where.
    pub place: Option<Place>,
    /// Facts that help to understand it.
    pub notes: Vec<String>,
    /// What to do.
    pub help: Vec<String>,
}

impl Report {
    /// Only a message.
    pub fn new(message: impl Into<String>) -> Self {
        Report {
            message: message.into(),
            ..Report::default()
        }
    }

    /// With a fact.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// With advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// With a place, unless it is unknown.
    #[must_use]
    pub fn at(mut self, place: Option<Place>) -> Self {
        self.place = place;
        self
    }

    /// As the terminal shows it, with colours; a stream that is no terminal strips them.
    ///
    /// Names and text in it come from files and from the kernel: control characters become harmless here.
    #[must_use]
    pub fn render(&self) -> String {
        let mut group: Group<'_> = Group::with_title(Level::ERROR.primary_title(clean(&self.message)));
        if let Some(place) = &self.place {
            group = match &place.text {
                Some((text, range)) => {
                    let mark = AnnotationKind::Primary.span(range.clone()).label(clean(&place.label));
                    let line = place.line as usize;
                    group.element(
                        Snippet::source(text)
                            .line_start(line)
                            .path(clean(&place.file))
                            .annotation(mark),
                    )
                }
                None => group.element(Origin::path(clean(&place.file)).line(place.line as usize)),
            };
        }
        for note in &self.notes {
            group = group.element(Level::NOTE.message(clean(note)));
        }
        for help in &self.help {
            group = group.element(Level::HELP.message(clean(help)));
        }
        Renderer::styled().decor_style(DecorStyle::Ascii).render(&[group])
    }
}

/// The text without anything a terminal could take for a command.
fn clean(text: &str) -> Cow<'_, str> {
    if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        Cow::Owned(
            text.chars()
                .map(|c| {
                    if c.is_control() && c != '\n' && c != '\t' {
                        '\u{fffd}'
                    } else {
                        c
                    }
                })
                .collect(),
        )
    } else {
        Cow::Borrowed(text)
    }
}
