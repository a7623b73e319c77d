//! The statements of a line and their columns.

use super::lines::{Content, Line, Piece};
use super::spacing::join;
use super::{CODE, HEADER_WIDTH, PROBE_WIDTH};
use crate::lex::{Token, TokenKind, lex};
use crate::source::SourceMap;
use dprobes::rpn::op::Op;

/// A statement, laid out but for its columns.
#[derive(Debug)]
pub(super) struct Statement {
    /// With their colons.
    labels: Vec<String>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Nothing,
    /// `key = value`, also `map NAME = value`.
    Item {
        key: String,
        value: String,
    },
    Instruction {
        mnemonic: String,
        operands: String,
    },
    /// Something a macro makes a statement of, probably.
    Other(String),
}

impl Statement {
    fn read(mut pieces: &[Piece], keep: bool) -> Self {
        let mut labels = Vec::new();
        while let [Piece::Token(name), Piece::Token(colon), rest @ ..] = pieces
            && name.kind == TokenKind::Identifier
            && colon.is(":")
        {
            labels.push(format!("{}:", name.text));
            pieces = rest;
        }
        let kind = match pieces {
            [] => Kind::Nothing,
            [Piece::Token(key), Piece::Token(equals), value @ ..] if is_name(key) && equals.is("=") => Kind::Item {
                key: key.text.to_string(),
                value: join(None, value, keep),
            },
            [Piece::Token(map), Piece::Token(name), Piece::Token(equals), value @ ..]
                if map.name() == Some("map") && is_name(name) && equals.is("=") =>
            {
                Kind::Item {
                    key: format!("map {}", name.text),
                    value: join(None, value, keep),
                }
            }
            // With a parenthesis behind it it may be a macro.
            [Piece::Token(name), operands @ ..]
                if name.name().is_some_and(|n| Op::with_mnemonic(n).next().is_some())
                    && !operands
                        .first()
                        .and_then(Piece::token)
                        .is_some_and(|t| t.is("(") && !t.space) =>
            {
                Kind::Instruction {
                    mnemonic: name.text.to_string(),
                    operands: join(Some(name), operands, keep),
                }
            }
            other => Kind::Other(join(None, other, true)),
        };
        Self { labels, kind }
    }

    fn is_code(&self) -> bool {
        !self.labels.is_empty() || matches!(self.kind, Kind::Instruction { .. })
    }

    fn begins_probe(&self) -> bool {
        matches!(&self.kind, Kind::Item { key, .. } if key == "offset" || key == "address")
    }

    /// The statement as one of several on a line.
    fn plain(&self) -> String {
        let mut words = self.labels.clone();
        match &self.kind {
            Kind::Nothing => {}
            Kind::Item { key, value } => words.push(format!("{key} = {value}").trim_end().into()),
            Kind::Instruction { mnemonic, operands } => words.push(format!("{mnemonic} {operands}").trim_end().into()),
            Kind::Other(text) => words.push(text.clone()),
        }
        words.join(" ")
    }
}

fn is_name(t: &Token) -> bool {
    t.kind == TokenKind::Identifier
}

/// All statements of a line.
#[derive(Debug)]
pub(super) struct Statements(Vec<Statement>);

impl Statements {
    /// `None` for a line that has none, or whose layout is not ours.
    pub fn read(line: &Line, keep: bool) -> Option<Self> {
        let Content::Code { pieces, .. } = &line.content else {
            return None;
        };
        let mut all = Vec::new();
        let mut rest = &pieces[..];
        let mut depth = 0usize;
        for (at, piece) in pieces.iter().enumerate() {
            let begin = pieces.len() - rest.len();
            match piece.token() {
                Some(t) if t.is("(") => depth += 1,
                Some(t) if t.is(")") => depth = depth.saturating_sub(1),
                // Inside parentheses it is in the argument of a macro.
                Some(t) if t.is(";") && depth == 0 => {
                    all.push(Statement::read(&pieces[begin..at], keep));
                    rest = &pieces[at + 1..];
                }
                _ => {}
            }
        }
        all.push(Statement::read(rest, keep));
        Some(Self(all))
    }

    /// A label or an instruction begins the line, so that it is indented.
    pub fn is_code(&self) -> bool {
        self.0.first().is_some_and(Statement::is_code)
    }

    /// The line without its comment.
    fn text(&self, column: usize, width: Width) -> String {
        match self.0.as_slice() {
            [only] => only_statement(only, column, width),
            all => {
                let indented = all.first().is_some_and(|s| match s.kind {
                    Kind::Item { .. } => false,
                    Kind::Other(_) | Kind::Nothing => column > 0,
                    Kind::Instruction { .. } => true,
                });
                let labelled = all.first().is_some_and(|s| !s.labels.is_empty());
                let mut out = String::new();
                for (n, s) in all.iter().enumerate() {
                    let text = s.plain();
                    if n > 0 {
                        out.push(';');
                    }
                    if n > 0 && !text.is_empty() {
                        out.push(' ');
                    }
                    out.push_str(&text);
                }
                if indented && !labelled {
                    out.insert_str(0, &" ".repeat(CODE));
                }
                out
            }
        }
    }
}

fn only_statement(s: &Statement, column: usize, width: Width) -> String {
    let labels = s.labels.join(" ");
    let indented = |text: &str| {
        if labels.len() < CODE {
            format!("{labels:CODE$}{text}")
        } else {
            format!("{labels} {text}")
        }
    };
    let text = match &s.kind {
        Kind::Nothing => labels,
        Kind::Item { key, value } => {
            let key = format!("{key:0$}", if key.contains(' ') { width.maps } else { width.items });
            let before = if labels.is_empty() { labels } else { labels + " " };
            format!("{before}{key} = {value}")
        }
        Kind::Instruction { mnemonic, operands } => indented(&format!("{mnemonic:7} {operands}")),
        Kind::Other(text) if labels.is_empty() && column == 0 => text.clone(),
        Kind::Other(text) => indented(text),
    };
    text.trim_end().to_owned()
}

/// Room for the names of items.
#[derive(Debug, Clone, Copy, Default)]
struct Width {
    items: usize,
    maps: usize,
}

/// Lays out the lines of a program, all but their comments. `None` for a line whose layout is not ours.
pub(super) fn lay_out(lines: &[Line], statements: &[Option<Statements>]) -> Vec<Option<String>> {
    let mut widths = vec![Width {
        items: HEADER_WIDTH,
        maps: 0,
    }];
    // The header is section 0, the probes are the others.
    let mut sections = Vec::new();
    for all in statements {
        let all = all.as_ref().map_or(&[][..], |s| &s.0);
        if all.iter().any(Statement::begins_probe) {
            widths.push(Width {
                items: PROBE_WIDTH,
                maps: 0,
            });
        }
        let section = widths.len() - 1;
        if let (
            [
                Statement {
                    kind: Kind::Item { key, .. },
                    ..
                },
            ],
            Some(width),
        ) = (all, widths.last_mut())
        {
            let widest = if key.contains(' ') {
                &mut width.maps
            } else {
                &mut width.items
            };
            *widest = key.chars().count().max(*widest);
        }
        sections.push(section);
    }
    lines
        .iter()
        .zip(statements)
        .zip(sections)
        .map(|((line, all), section)| {
            let text = all.as_ref()?.text(line.column, widths[section]);
            same_tokens(line, &text).then_some(text)
        })
        .collect()
}

/// Whether the text has the tokens of the line: no two have grown together, none has come apart.
fn same_tokens(line: &Line, text: &str) -> bool {
    let Content::Code { pieces, .. } = &line.content else {
        return false;
    };
    let file = SourceMap::default().add(String::new(), text.to_owned(), None);
    let again = lex(file, text);
    let again = again.iter().filter(|t| t.kind != TokenKind::Newline);
    let tokens = pieces.iter().filter_map(Piece::token);
    tokens.map(|t| (t.kind, &t.text)).eq(again.map(|t| (t.kind, &t.text)))
}
