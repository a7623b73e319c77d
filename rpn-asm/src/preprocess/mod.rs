//! The preprocessor: C's directives and macros, built in, with spans that survive them.

mod condition;
mod definition;
mod include;
mod macros;
#[cfg(test)]
mod tests;

pub use include::{Files, IncludeError, SystemFiles};

use crate::cursor::Cursor;
use crate::diag::Session;
use crate::expression::bad_token;
use crate::lex::{self, Token, TokenKind};
use crate::problem::PreprocessProblem;
use crate::source::{FileId, Span};
use crate::value::Value;
use condition::Conditions;
use macros::Macros;
use std::path::PathBuf;

/// What may follow a `#`.
pub(crate) const DIRECTIVES: [&str; 12] = [
    "define", "undef", "include", "if", "ifdef", "ifndef", "elif", "else", "endif", "error", "warning", "line",
];

/// Files may include each other this deep.
const INCLUDE_DEPTH: usize = 64;

/// All of a program's files together. Spans count bytes in 32 bits; a program near this limit is a mistake.
const TEXT_LIMIT: usize = 16 << 20;

/// Reads a program and everything it includes, and expands its macros. What comes out has no directives; lines still end in
/// [`TokenKind::Newline`].
pub(crate) struct Preprocessor<'a> {
    session: &'a mut Session,
    files: &'a dyn Files,
    include_paths: &'a [PathBuf],
    macros: Macros,
    out: Vec<Token>,
    /// Lines not expanded yet: the arguments of a macro may go over several.
    pending: Vec<Token>,
    depth: usize,
    text_read: usize,
}

impl<'a> Preprocessor<'a> {
    pub fn new(session: &'a mut Session, files: &'a dyn Files, include_paths: &'a [PathBuf]) -> Self {
        Self {
            session,
            files,
            include_paths,
            macros: Macros::default(),
            out: Vec::new(),
            pending: Vec::new(),
            depth: 0,
            text_read: 0,
        }
    }

    /// A definition from the command line: `NAME`, which is 1 then, or `NAME=VALUE`.
    pub fn define(&mut self, text: &str) {
        let (name, value) = text.split_once('=').unwrap_or((text, "1"));
        let head = lex::is_name(name.split('(').next().unwrap_or(""));
        if !head || value.contains('\n') || name.contains(['\n', ' ', '\t']) {
            let problem = PreprocessProblem::BadDefinition { text: text.into() };
            self.session.report(None, problem);
            return;
        }
        let line = format!("#define {name} {value}");
        let file = self.session.map.add("<command line>".into(), line.clone(), None);
        self.file(file, &line);
    }

    /// The program itself.
    pub fn run(mut self, file: FileId) -> (Vec<Token>, Vec<String>) {
        let text = self.session.map.file(file).text.clone();
        self.text_read = text.len();
        if text.len() > TEXT_LIMIT {
            let problem = PreprocessProblem::FileTooLarge {
                path: PathBuf::from(&self.session.map.file(file).name),
                limit: TEXT_LIMIT,
            };
            self.session.report(None, problem);
        } else {
            self.file(file, &text);
        }
        let names = self.macros.names().map(str::to_owned).collect();
        (self.out, names)
    }

    fn file(&mut self, file: FileId, text: &str) {
        let tokens = lex::lex(file, text);
        let mut conditions = Conditions::default();
        for line in tokens.split_inclusive(|t| t.kind == TokenKind::Newline) {
            match line.first() {
                Some(hash) if hash.is("#") => self.directive(line, &mut conditions),
                _ if conditions.live() => self.pending.extend_from_slice(line),
                // An open comment swallows the rest of the file: worth an error even in text that is skipped.
                _ => line
                    .iter()
                    .filter(|t| &*t.text == "/*")
                    .for_each(|t| _ = bad_token(self.session, t)),
            }
        }
        self.flush();
        conditions.finish(self.session);
    }

    /// Expands the lines read so far.
    fn flush(&mut self) {
        let lines = std::mem::take(&mut self.pending);
        let expanded = self.macros.expand(lines, self.session);
        self.out.extend(expanded);
    }

    fn directive(&mut self, line: &[Token], conditions: &mut Conditions) {
        let body = match line.split_last() {
            Some((last, body)) if last.kind == TokenKind::Newline => &body[1..],
            _ => &line[1..],
        };
        let Some((word, rest)) = body.split_first() else {
            return; // A lone `#` is allowed.
        };
        let hash = self.session.map.join(line[0].span, word.span);
        let mut cursor = Cursor::new(rest, word.span);
        if conditions.directive(hash, &word.text, &mut cursor, &mut self.macros, self.session) || !conditions.live() {
            return;
        }
        self.flush();
        match &*word.text {
            "define" => self.macros.define(&mut cursor, self.session),
            "undef" => self.macros.undefine(&mut cursor, self.session),
            "include" => self.include(hash, rest, word.span),
            "line" => self.line(line, rest, word.span),
            "error" | "warning" => {
                let message = self.text_of(rest);
                self.session.report(
                    hash,
                    if &*word.text == "error" {
                        PreprocessProblem::Error { message }
                    } else {
                        PreprocessProblem::Warning { message }
                    },
                );
            }
            name => {
                if bad_token(self.session, word).is_none() {
                    let problem = PreprocessProblem::UnknownDirective {
                        name: name.into(),
                        near: self.session.nearest(name, DIRECTIVES),
                    };
                    self.session.report(word.span, problem);
                }
            }
        }
    }

    /// The text from the first to the last of these tokens, as it stands in the file.
    fn text_of(&self, tokens: &[Token]) -> String {
        match (tokens.first(), tokens.last()) {
            (Some(a), Some(b)) => {
                let span = self.session.map.join(a.span, b.span);
                self.session.map.text(span).to_owned()
            }
            _ => String::new(),
        }
    }

    /// `#line NUMBER "FILE"`: what the next line is called in the object. Zero: it has no source line.
    fn line(&mut self, line: &[Token], rest: &[Token], word: Span) {
        let tokens = self.macros.expand(rest.to_vec(), self.session);
        let mut cursor = Cursor::new(&tokens, word);
        let number = cursor
            .peek()
            .filter(|t| t.kind == TokenKind::Number)
            .and_then(|t| Value::parse(&t.text).ok())
            .and_then(|v| u32::try_from(v.bits).ok());
        let Some(number) = number else {
            let problem = PreprocessProblem::ExpectedLine { found: cursor.found() };
            self.session.report(cursor.span(), problem);
            return;
        };
        cursor.next();
        let mut name = None;
        if let Some(t) = cursor.peek().filter(|t| t.kind == TokenKind::String) {
            cursor.next();
            match lex::string_value(&t.text) {
                Ok(s) => name = Some(s),
                Err(problem) => _ = self.session.report(t.span, problem),
            }
        }
        if !cursor.at_end() {
            let directive = "line".into();
            self.session
                .report(cursor.span(), PreprocessProblem::ExtraTokens { directive });
        }
        if let Some(end) = line.last() {
            self.session.map.set_line(end.span.after(), number, name);
        }
    }

    fn include(&mut self, directive: Span, rest: &[Token], word: Span) {
        let expanded;
        let mut tokens = rest;
        if rest.first().is_some_and(|t| t.kind == TokenKind::Identifier) {
            expanded = self.macros.expand(rest.to_vec(), self.session);
            tokens = &expanded;
        }
        let mut cursor = Cursor::new(tokens, word);
        let Some(request) = include::Request::parse(&mut cursor, self.session) else {
            return;
        };
        if !cursor.at_end() {
            let problem = PreprocessProblem::ExtraTokens {
                directive: "include".into(),
            };
            self.session.report(cursor.span(), problem);
        }
        if self.depth >= INCLUDE_DEPTH {
            let problem = PreprocessProblem::IncludeTooDeep { limit: INCLUDE_DEPTH };
            self.session.report(request.span, problem);
            return;
        }
        let from = self.session.map.file(directive.file).name.clone();
        let limit = TEXT_LIMIT - self.text_read;
        match request.read(self.files, &from, self.include_paths, limit) {
            Err(problem) => _ = self.session.report(request.span, problem),
            Ok((path, text)) => {
                self.text_read += text.len();
                let name = path.to_string_lossy().into_owned();
                let file = self.session.map.add(name, text.clone(), Some(request.span));
                self.depth += 1;
                self.file(file, &text);
                self.depth -= 1;
            }
        }
    }
}
