use super::{Explanation, one_of, say};
use crate::source::Span;
use std::path::PathBuf;

/// What can be wrong with a preprocessor directive or the use of a macro.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PreprocessProblem {
    /// `#something`.
    UnknownDirective {
        /// The word.
        name: String,
        /// A directive that is nearly the same.
        near: Option<String>,
    },
    /// A directive or `defined` without the name it needs.
    ExpectedName {
        /// The directive, or `defined`.
        directive: String,
        /// What was found, in words.
        found: String,
    },
    /// A name that cannot be a macro's.
    NotMacroName {
        /// The name.
        name: String,
    },
    /// Something after the end of a directive.
    ExtraTokens {
        /// The directive.
        directive: String,
    },
    /// `#if` or `#elif` without an expression.
    ExpectedCondition {
        /// The directive.
        directive: String,
    },
    /// `#elif`, `#else` or `#endif` without its `#if`.
    WithoutIf {
        /// The directive.
        directive: String,
    },
    /// `#elif` or `#else` after `#else`.
    AfterElse {
        /// The directive.
        directive: String,
        /// The `#else`.
        other: Span,
    },
    /// `#if` without `#endif`.
    UnterminatedIf {
        /// The directive.
        directive: String,
    },
    /// A macro defined twice, differently.
    Redefined {
        /// The macro.
        name: String,
        /// Its first definition.
        first: Span,
    },
    /// A parameter list that is not one.
    ParameterList {
        /// What was found, in words.
        found: String,
    },
    /// Two parameters with one name.
    DuplicateParameter {
        /// The parameter.
        name: String,
    },
    /// `#` in a function-like macro not followed by a parameter.
    StringizeNeedsParameter,
    /// `##` at either end of a macro.
    PasteAtEnd,
    /// `##` made something that is not one token.
    InvalidPaste {
        /// What it made.
        text: String,
    },
    /// The wrong number of arguments.
    ArgumentCount {
        /// The macro.
        name: String,
        /// How many it has parameters.
        expected: usize,
        /// More are welcome.
        variadic: bool,
        /// How many were given.
        found: usize,
        /// Its definition.
        definition: Span,
    },
    /// `(` without `)`.
    UnterminatedCall {
        /// The macro.
        name: String,
    },
    /// `__VA_ARGS__` outside a variadic macro.
    StrayVaArgs,
    /// Macros inside macros inside macros.
    TooDeep,
    /// The expanded program is too long.
    TooLong {
        /// The limit in tokens.
        limit: usize,
    },
    /// `#` or `##` made a very long token.
    TokenTooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// `#include` without a file name.
    ExpectedFile {
        /// What was found, in words.
        found: String,
    },
    /// A file that no searched folder has.
    FileNotFound {
        /// The name.
        name: String,
        /// Where it was looked for.
        tried: Vec<PathBuf>,
    },
    /// A file that could not be read.
    FileUnreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        reason: String,
    },
    /// A file that is not text.
    FileNotUtf8 {
        /// The file.
        path: PathBuf,
        /// The line of the first byte that is wrong, from 1.
        line: usize,
    },
    /// A file over the limit.
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: usize,
    },
    /// Files that include each other.
    IncludeTooDeep {
        /// The limit.
        limit: usize,
    },
    /// A definition on the command line that is not `NAME` or `NAME=VALUE`.
    BadDefinition {
        /// As given.
        text: String,
    },
    /// `#line` without a number.
    ExpectedLine {
        /// What was found, in words.
        found: String,
    },
    /// `#error`.
    Error {
        /// The rest of the line.
        message: String,
    },
    /// `#warning`.
    Warning {
        /// The rest of the line.
        message: String,
    },
}

impl PreprocessProblem {
    pub(crate) fn not_utf8(path: PathBuf, error: &std::string::FromUtf8Error) -> Self {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|b| **b == b'\n').count() + 1;
        Self::FileNotUtf8 { path, line }
    }

    pub(super) fn explain(&self) -> Explanation {
        use PreprocessProblem::*;
        match self {
            UnknownDirective { name, near } => {
                let known = crate::preprocess::DIRECTIVES.map(|d| format!("#{d}"));
                say(format!("unknown directive `#{name}`"), "not a directive")
                    .note(format!("directives are {}", one_of(&known)))
                    .near("a directive", near.as_deref())
            }
            ExpectedName { directive, found } => say(
                format!("expected a name after `{directive}`, found {found}"),
                "expected the name of a macro",
            ),
            NotMacroName { name } => say(
                format!("`{name}` cannot be the name of a macro"),
                "expected letters, digits and `_`, not `defined`",
            ),
            ExtraTokens { directive } => say(
                format!("unexpected text after `#{directive}`"),
                "expected the end of the line",
            ),
            ExpectedCondition { directive } => say(
                format!("`#{directive}` has no condition"),
                "expected a constant expression",
            ),
            WithoutIf { directive } => say(
                format!("`#{directive}` without `#if`"),
                "no `#if`, `#ifdef` or `#ifndef` is open in this file",
            ),
            AfterElse { directive, other } => {
                say(format!("`#{directive}` after `#else`"), "expected `#endif`").see(*other, "`#else` is here")
            }
            UnterminatedIf { directive } => say(
                format!("`#{directive}` is not closed"),
                "no `#endif` follows in this file",
            ),
            Redefined { name, first } => say(
                format!("macro `{name}` is defined twice, with different values"),
                "defined again",
            )
            .see(*first, "first defined here")
            .help(format!(
                "put `#undef {name}` before the second, or `#ifndef {name}` round the first to make it a default"
            )),
            ParameterList { found } => say(
                format!("expected a parameter, `,` or `)`, found {found}"),
                "in the parameters of a macro",
            )
            .help("for a macro without parameters put a space before the `(`"),
            DuplicateParameter { name } => say(format!("two parameters have the name `{name}`"), "used already"),
            StringizeNeedsParameter => say(
                "`#` must be followed by a parameter of the macro",
                "no parameter follows",
            ),
            PasteAtEnd => say("`##` at the end of a macro", "needs a token on both sides"),
            InvalidPaste { text } => say(
                format!("`##` gives `{}`, which is not one token", text.escape_debug()),
                "pasted here",
            ),
            ArgumentCount {
                name,
                expected,
                variadic,
                found,
                definition,
            } => {
                let least = if *variadic { "at least " } else { "" };
                let s = if *expected == 1 { "" } else { "s" };
                say(
                    format!("macro `{name}` takes {least}{expected} argument{s}, found {found}"),
                    format!("expected {least}{expected} argument{s}"),
                )
                .see(*definition, "defined here")
            }
            UnterminatedCall { name } => say(format!("arguments of macro `{name}` are not closed"), "no `)` follows"),
            StrayVaArgs => say(
                "`__VA_ARGS__` outside a macro with `...`",
                "this macro has no variable arguments",
            ),
            TooDeep => say("macros are nested too deeply", "more than 200 levels"),
            TooLong { limit } => say(format!("macros expand to more than {limit} tokens"), "reached here"),
            TokenTooLong { limit } => say(
                format!("`#` or `##` makes a token of more than {limit} bytes"),
                "made here",
            ),
            ExpectedFile { found } => say(
                format!("expected a file name, found {found}"),
                "expected \"FILE\" or <FILE>",
            ),
            FileNotFound { name, tried } => {
                let mut x = say(format!("file `{}` not found", name.escape_debug()), "included here");
                for path in tried {
                    x = x.note(format!("looked for {}", path.display()));
                }
                x.help("name the folder it is in with -I")
            }
            FileUnreadable { path, reason } => {
                say(format!("cannot read {}: {reason}", path.display()), "included here")
            }
            FileNotUtf8 { path, line } => say(format!("{} is not UTF-8 text", path.display()), "included here")
                .note(format!("the first wrong byte is in line {line}")),
            FileTooLarge { path, limit } => say(
                format!("{} is larger than {limit} bytes", path.display()),
                "included here",
            ),
            IncludeTooDeep { limit } => say(
                format!("files include each other more than {limit} levels deep"),
                "reached here",
            )
            .help("a file that includes itself needs an `#ifndef` round its text"),
            BadDefinition { text } => say(
                format!("`-D {}` is not a definition", text.escape_debug()),
                "expected NAME or NAME=VALUE",
            ),
            ExpectedLine { found } => say(
                format!("expected a line number, found {found}"),
                "expected a number, and perhaps a file name in quotes",
            ),
            Error { message } => say(format!("#error: {message}"), ""),
            Warning { message } => say(format!("#warning: {message}"), ""),
        }
    }
}
