//! `#if` and its relatives.

use super::macros::Macros;
use crate::cursor::Cursor;
use crate::diag::{Reported, Session};
use crate::expression::{self, Meaning};
use crate::lex::{Token, TokenKind};
use crate::problem::PreprocessProblem;
use crate::source::Span;
use crate::value::Value;

/// The conditionals that are open in one file.
#[derive(Default)]
pub(super) struct Conditions {
    open: Vec<Condition>,
}

struct Condition {
    directive: String,
    at: Span,
    /// The text round the whole conditional counts.
    outer: bool,
    /// One of its parts has been chosen.
    taken: bool,
    /// This part counts.
    live: bool,
    other: Option<Span>,
}

impl Conditions {
    /// True if the text here counts.
    pub fn live(&self) -> bool {
        self.open.last().is_none_or(|c| c.live)
    }

    /// True if the directive was one of these.
    pub fn directive(
        &mut self,
        at: Span,
        word: &str,
        cursor: &mut Cursor<'_>,
        macros: &mut Macros,
        session: &mut Session,
    ) -> bool {
        match word {
            "if" | "ifdef" | "ifndef" => {
                let outer = self.live();
                // A condition that is wrong hides its text: one error instead of many.
                let live = outer
                    && match word {
                        "if" => evaluate(word, cursor, macros, session).unwrap_or(false),
                        _ => defined(word, cursor, macros, session).is_ok_and(|known| known == (word == "ifdef")),
                    };
                self.open.push(Condition {
                    directive: word.into(),
                    at,
                    outer,
                    taken: live,
                    live,
                    other: None,
                });
            }
            "elif" | "else" | "endif" => {
                let Some(c) = self.open.last_mut() else {
                    let directive = word.into();
                    session.report(at, PreprocessProblem::WithoutIf { directive });
                    return true;
                };
                if let Some(other) = c.other
                    && word != "endif"
                {
                    let directive = word.into();
                    session.report(at, PreprocessProblem::AfterElse { directive, other });
                    c.live = false;
                    return true;
                }
                if word == "elif" {
                    let choose = c.outer && !c.taken;
                    c.live = choose && evaluate(word, cursor, macros, session).unwrap_or(false);
                    c.taken |= c.live;
                    return true;
                }
                if !cursor.at_end() && c.outer {
                    let directive = word.into();
                    session.report(cursor.span(), PreprocessProblem::ExtraTokens { directive });
                }
                if word == "else" {
                    c.live = c.outer && !c.taken;
                    c.taken = true;
                    c.other = Some(at);
                } else {
                    self.open.pop();
                }
            }
            _ => return false,
        }
        true
    }

    /// The end of the file.
    pub fn finish(self, session: &mut Session) {
        for c in self.open {
            let directive = c.directive;
            session.report(c.at, PreprocessProblem::UnterminatedIf { directive });
        }
    }
}

fn defined(word: &str, cursor: &mut Cursor<'_>, macros: &Macros, session: &mut Session) -> Result<bool, Reported> {
    let Some(name) = cursor.name() else {
        return Err(expected_name(&format!("#{word}"), cursor, session));
    };
    if !cursor.at_end() {
        let directive = word.into();
        session.report(cursor.span(), PreprocessProblem::ExtraTokens { directive });
    }
    Ok(macros.is_defined(&name.text))
}

fn expected_name(directive: &str, cursor: &Cursor<'_>, session: &mut Session) -> Reported {
    let problem = PreprocessProblem::ExpectedName {
        directive: directive.into(),
        found: cursor.found(),
    };
    session.report(cursor.span(), problem)
}

fn evaluate(word: &str, cursor: &mut Cursor<'_>, macros: &mut Macros, session: &mut Session) -> Result<bool, Reported> {
    if cursor.at_end() {
        let directive = word.into();
        return Err(session.report(cursor.span(), PreprocessProblem::ExpectedCondition { directive }));
    }
    let end = cursor.span();
    let tokens = replace_defined(cursor, macros, session)?;
    let tokens = macros.expand(tokens, session);
    let term = expression::parse_all(&mut Cursor::new(&tokens, end), session, &mut |_| {
        // As in C: a name that is no macro is zero.
        Meaning::Value(Value::signed(0))
    })?;
    Ok(!term.value.is_zero())
}

/// Replaces `defined NAME` and `defined(NAME)` by 1 or 0, before macros are expanded.
fn replace_defined(cursor: &mut Cursor<'_>, macros: &Macros, session: &mut Session) -> Result<Vec<Token>, Reported> {
    let mut out = Vec::new();
    while let Some(token) = cursor.next() {
        if token.name() != Some("defined") {
            out.push(token.clone());
            continue;
        }
        let parenthesis = cursor.take("(");
        let Some(name) = cursor.name() else {
            return Err(expected_name("defined", cursor, session));
        };
        let mut last = name;
        if let Some(open) = parenthesis {
            last = match cursor.take(")") {
                Some(close) => close,
                None => {
                    let problem = crate::problem::ExpressionProblem::ExpectedCloser {
                        closer: ")",
                        found: cursor.found(),
                        opener: open.span,
                    };
                    return Err(session.report(cursor.span(), problem));
                }
            };
        }
        out.push(Token {
            kind: TokenKind::Number,
            text: if macros.is_defined(&name.text) { "1" } else { "0" }.into(),
            span: session.map.join(token.span, last.span),
            ..token.clone()
        });
    }
    Ok(out)
}
