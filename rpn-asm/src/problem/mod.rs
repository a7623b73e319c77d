//! Everything that can be wrong with a probe program, as facts, and what to tell its author.
//!
//! One enum per stage of the assembler; each knows its own sentences. [`Diagnostic`](crate::Diagnostic) adds the place.

mod expression;
mod lexical;
mod map;
mod operand;
mod preprocess;
mod program;
mod watch;

pub use expression::ExpressionProblem;
pub use lexical::LexicalProblem;
pub use map::MapProblem;
pub use operand::{NameSpace, OperandProblem};
pub use preprocess::PreprocessProblem;
pub use program::{ProgramProblem, ValueKind};
pub use watch::WatchProblem;

use crate::source::Span;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The program is assembled all the same.
    Warning,
    /// There is no object.
    Error,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// With the characters.
    Lexical(LexicalProblem),
    /// With a preprocessor directive or the use of a macro.
    Preprocess(PreprocessProblem),
    /// With a constant expression.
    Expression(ExpressionProblem),
    /// With the operands of an instruction.
    Operand(OperandProblem),
    /// With the declaration of a map.
    Map(MapProblem),
    /// In a watchpoint.
    Watch(WatchProblem),
    /// With the program itself.
    Program(ProgramProblem),
}

impl Problem {
    /// Whether it prevents an object.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self {
            Problem::Preprocess(PreprocessProblem::Warning { .. })
            | Problem::Operand(OperandProblem::DoubtfulSymbol { .. })
            | Problem::Program(ProgramProblem::UnusedLabel { .. } | ProgramProblem::UnusedName { .. }) => {
                Severity::Warning
            }
            _ => Severity::Error,
        }
    }

    pub(crate) fn explain(&self) -> Explanation {
        match self {
            Problem::Lexical(p) => p.explain(),
            Problem::Preprocess(p) => p.explain(),
            Problem::Expression(p) => p.explain(),
            Problem::Operand(p) => p.explain(),
            Problem::Map(p) => p.explain(),
            Problem::Watch(p) => p.explain(),
            Problem::Program(p) => p.explain(),
        }
    }
}

macro_rules! from {
    ($($variant:ident($inner:ident)),*) => {$(
        impl From<$inner> for Problem {
            fn from(p: $inner) -> Self {
                Problem::$variant(p)
            }
        }
    )*};
}
from!(
    Lexical(LexicalProblem),
    Preprocess(PreprocessProblem),
    Expression(ExpressionProblem),
    Operand(OperandProblem),
    Map(MapProblem),
    Watch(WatchProblem),
    Program(ProgramProblem)
);

/// The sentences for one problem.
#[derive(Debug, Clone, Default)]
pub(crate) struct Explanation {
    pub title: String,
    /// Under the marked text.
    pub label: String,
    /// Other places that matter.
    pub related: Vec<(Span, String)>,
    pub notes: Vec<String>,
    pub helps: Vec<String>,
    /// Replace the marked text: why, and with what.
    pub fix: Option<(String, String)>,
}

/// Begins an explanation.
fn say(title: impl Into<String>, label: impl Into<String>) -> Explanation {
    Explanation {
        title: title.into(),
        label: label.into(),
        ..Explanation::default()
    }
}

impl Explanation {
    pub fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(text.into());
        self
    }

    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.helps.push(text.into());
        self
    }

    pub fn see(mut self, span: Span, text: impl Into<String>) -> Self {
        self.related.push((span, text.into()));
        self
    }

    /// Offers a near miss as a replacement of the marked text.
    pub fn near(mut self, what: &str, suggestion: Option<&str>) -> Self {
        if let Some(s) = suggestion {
            self.fix = Some((format!("{what} with a similar name exists"), s.to_owned()));
        }
        self
    }
}

/// `a`, `b` or `c`
pub(crate) fn one_of<S: AsRef<str>>(names: &[S]) -> String {
    join(names, "or")
}

/// `a`, `b` and `c`
pub(crate) fn all_of<S: AsRef<str>>(names: &[S]) -> String {
    join(names, "and")
}

fn join<S: AsRef<str>>(names: &[S], last: &str) -> String {
    let quoted: Vec<_> = names.iter().map(|n| format!("`{}`", n.as_ref())).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((only, [])) => only.clone(),
        Some((end, rest)) => format!("{} {last} {end}", rest.join(", ")),
    }
}
