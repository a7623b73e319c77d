//! The lossless layer: text as lines of tokens and comments, nothing expanded, nothing dropped.

use crate::lex::{Token, TokenKind, lex};
use crate::source::SourceMap;

/// Something on a line that is not white space.
#[derive(Debug, Clone)]
pub(super) enum Piece {
    Token(Token),
    /// A comment with its delimiters.
    Comment(String),
}

impl Piece {
    pub fn text(&self) -> &str {
        match self {
            Piece::Token(t) => &t.text,
            Piece::Comment(c) => c,
        }
    }

    pub fn token(&self) -> Option<&Token> {
        match self {
            Piece::Token(t) => Some(t),
            Piece::Comment(_) => None,
        }
    }
}

/// What a line is to the formatter.
#[derive(Debug, Clone)]
pub(super) enum Content {
    Blank,
    /// A preprocessor line.
    Directive,
    /// What stays as it is.
    Verbatim,
    /// Nothing but comments.
    Comment,
    /// Statements, perhaps with a comment behind them.
    Code {
        pieces: Vec<Piece>,
        comment: Option<Comment>,
    },
}

/// The comment behind the last token of a line.
#[derive(Debug, Clone)]
pub(super) struct Comment {
    pub text: String,
    pub column: usize,
}

/// A line as the preprocessor sees it: more than one line of the file where `\` or a comment joins them.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// Without its end, and without white space before it. Lines in it have none behind them either.
    pub raw: String,
    /// Where what is on it begins, from 0.
    pub column: usize,
    pub content: Content,
}

/// Splits text into lines. Whatever text it is: the lines with their ends are the text, but for white space.
pub(super) fn split(text: &str) -> Vec<Line> {
    let file = SourceMap::default().add(String::new(), text.to_owned(), None);
    let mut splitter = Splitter {
        text,
        lines: Vec::new(),
        start: 0,
        pieces: Vec::new(),
        starts: Vec::new(),
        verbatim: false,
        open: 0,
    };
    let mut at = 0;
    for token in lex(file, text) {
        let (start, end) = (token.span.start as usize, token.span.end as usize);
        splitter.gap(at, start);
        at = end;
        match token.kind {
            TokenKind::Newline => splitter.end_line(start, end),
            TokenKind::Bad(_) if &*token.text == "/*" => {
                // The comment is not closed: all the rest is in it.
                splitter.verbatim = true;
                splitter.end_line(text.trim_end().len(), text.len());
                return splitter.lines;
            }
            kind => {
                splitter.verbatim |= matches!(kind, TokenKind::Bad(_));
                splitter.starts.push(start);
                splitter.pieces.push(Piece::Token(token));
            }
        }
    }
    splitter.gap(at, text.len());
    if splitter.start < text.len() {
        splitter.end_line(text.len(), text.len());
    }
    splitter.lines
}

struct Splitter<'a> {
    text: &'a str,
    lines: Vec<Line>,
    /// Where the line begins.
    start: usize,
    pieces: Vec<Piece>,
    /// Where each of them is in the text.
    starts: Vec<usize>,
    verbatim: bool,
    /// Parentheses that lines before have left open.
    open: usize,
}

impl Splitter<'_> {
    /// What is between two tokens: white space and comments.
    fn gap(&mut self, mut at: usize, end: usize) {
        while let Some(rest) = self.text.get(at..end).filter(|r| !r.is_empty()) {
            let length = if rest.starts_with("//") {
                rest.len()
            } else if let Some(n) = rest.strip_prefix("/*").and_then(|r| r.find("*/")) {
                n + 4
            } else {
                at += rest.chars().next().map_or(1, char::len_utf8);
                continue;
            };
            self.starts.push(at);
            self.pieces.push(Piece::Comment(trim_line(&rest[..length]).to_owned()));
            at += length;
        }
    }

    fn end_line(&mut self, end: usize, next: usize) {
        let raw = &self.text[self.start..end];
        let pieces = std::mem::take(&mut self.pieces);
        let starts = std::mem::take(&mut self.starts);
        let content = self.content(raw, pieces, &starts);
        self.lines.push(Line {
            raw: raw
                .split('\n')
                .map(trim_line)
                .collect::<Vec<_>>()
                .join("\n")
                .trim_start()
                .to_owned(),
            column: starts.first().map_or(0, |s| self.column(*s)),
            content,
        });
        self.start = next;
        self.verbatim = false;
    }

    fn content(&mut self, raw: &str, mut pieces: Vec<Piece>, starts: &[usize]) -> Content {
        let tokens = || pieces.iter().filter_map(Piece::token);
        let directive = tokens().next().is_some_and(|t| t.is("#"));
        let balanced = directive || self.balance(tokens());
        let joined = raw.contains('\n');
        if raw.trim().is_empty() {
            return Content::Blank;
        }
        if directive && !joined && matches!(pieces.first(), Some(Piece::Token(_))) {
            return Content::Directive;
        }
        if self.verbatim || joined || directive || !balanced {
            return Content::Verbatim;
        }
        let Some(last) = pieces.iter().rposition(|p| p.token().is_some()) else {
            return Content::Comment;
        };
        if pieces[0].token().is_none() {
            return Content::Verbatim;
        }
        let behind = pieces.split_off(last + 1);
        let comment = (!behind.is_empty()).then(|| Comment {
            text: behind.iter().map(Piece::text).collect::<Vec<_>>().join(" "),
            column: self.column(starts[last + 1]),
        });
        Content::Code { pieces, comment }
    }

    /// Whether parentheses are closed on the line that opens them. Otherwise arguments of a macro may go over several lines.
    fn balance<'t>(&mut self, tokens: impl Iterator<Item = &'t Token>) -> bool {
        let mut balanced = self.open == 0;
        for t in tokens {
            if t.is("(") {
                self.open += 1;
            } else if t.is(")") {
                balanced &= self.open > 0;
                self.open = self.open.saturating_sub(1);
            }
        }
        balanced && self.open == 0
    }

    /// The column of a byte, with tabs every 8 columns.
    fn column(&self, at: usize) -> usize {
        let line = self.text[..at].rfind('\n').map_or(0, |n| n + 1);
        self.text[line..at].chars().fold(0, |column, c| match c {
            '\t' => (column / 8 + 1) * 8,
            _ => column + 1,
        })
    }
}

/// A line of the file without the white space at its end, unless that would make the backslash before it join the next line.
fn trim_line(line: &str) -> &str {
    let trimmed = line.trim_end();
    if trimmed.ends_with('\\') && line.strip_suffix('\r').unwrap_or(line) != trimmed {
        return line;
    }
    trimmed
}

/// True if a macro defined here has parentheses that do not match. Then arguments may stand where there are no parentheses to see.
pub(super) fn hides_parentheses(lines: &[Line]) -> bool {
    lines.iter().any(|line| {
        let count = |c: char| line.raw.matches(c).count();
        line.raw.starts_with('#') && line.raw.contains("define") && count('(') != count(')')
    })
}
