//! Finding and reading the files of `#include`.

use crate::cursor::Cursor;
use crate::diag::Session;
use crate::expression::bad_token;
use crate::lex::{TokenKind, string_value};
use crate::problem::PreprocessProblem;
use crate::source::Span;
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Why a file could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IncludeError {
    /// There is none of this name; the next folder may have it.
    NotFound,
    /// There is one, but reading it failed; the operating system's reason.
    Unreadable(String),
    /// It has more bytes than asked for.
    TooLarge,
}

impl fmt::Display for IncludeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IncludeError::NotFound => f.write_str("no such file"),
            IncludeError::Unreadable(reason) => f.write_str(reason),
            IncludeError::TooLarge => f.write_str("too large"),
        }
    }
}

impl std::error::Error for IncludeError {}

/// Where the files of `#include` come from: a folder tree, or something that looks like one.
pub trait Files: fmt::Debug {
    /// The bytes of a file.
    ///
    /// # Errors
    ///
    /// [`IncludeError::TooLarge`] if there are more than `limit`.
    fn read(&self, path: &Path, limit: usize) -> Result<Vec<u8>, IncludeError>;
}

/// The machine's own files. Only regular ones: reading a device or a pipe could last for ever.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemFiles;

impl Files for SystemFiles {
    fn read(&self, path: &Path, limit: usize) -> Result<Vec<u8>, IncludeError> {
        let io = |e: std::io::Error| match e.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => IncludeError::NotFound,
            _ => IncludeError::Unreadable(e.to_string()),
        };
        // Looked at before it is opened: opening a pipe waits for its writer.
        if !std::fs::metadata(path).map_err(io)?.is_file() {
            return Err(IncludeError::Unreadable("not a regular file".into()));
        }
        let mut bytes = Vec::new();
        File::open(path)
            .map_err(io)?
            .take(limit as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(io)?;
        if bytes.len() > limit {
            return Err(IncludeError::TooLarge);
        }
        Ok(bytes)
    }
}

/// What an `#include` asks for.
pub(super) struct Request {
    name: String,
    /// `<name>`: not looked for beside the including file.
    system: bool,
    pub span: Span,
}

impl Request {
    pub fn parse(cursor: &mut Cursor<'_>, session: &mut Session) -> Option<Self> {
        let span = cursor.span();
        if let Some(t) = cursor.peek() {
            if bad_token(session, t).is_some() {
                return None;
            }
            if t.kind == TokenKind::String {
                cursor.next();
                let name = string_value(&t.text).map_err(|p| session.report(span, p)).ok()?;
                return Some(Self {
                    name,
                    system: false,
                    span,
                });
            }
        }
        if let Some(open) = cursor.take("<") {
            // Between the brackets every character counts, so take the text and not the tokens.
            while let Some(t) = cursor.next() {
                if t.is(">") {
                    let all = session.map.join(open.span, t.span);
                    let text = session.map.text(all);
                    let name = text.trim_start_matches('<').trim_end_matches('>').to_owned();
                    return Some(Self {
                        name,
                        system: true,
                        span: all,
                    });
                }
            }
        }
        let problem = PreprocessProblem::ExpectedFile { found: cursor.found() };
        session.report(cursor.span(), problem);
        None
    }

    /// Finds and reads the file: beside `from` unless it was in angle brackets, then in each of `paths`.
    pub fn read(
        &self,
        files: &dyn Files,
        from: &str,
        paths: &[PathBuf],
        limit: usize,
    ) -> Result<(PathBuf, String), PreprocessProblem> {
        let beside = Path::new(from).parent().unwrap_or(Path::new(""));
        let folders = (!self.system)
            .then_some(beside)
            .into_iter()
            .chain(paths.iter().map(PathBuf::as_path));
        let mut tried = Vec::new();
        for folder in folders {
            let path = folder.join(&self.name);
            match files.read(&path, limit) {
                Ok(bytes) => return Self::text(path, bytes),
                Err(IncludeError::NotFound) => tried.push(path),
                Err(IncludeError::TooLarge) => {
                    return Err(PreprocessProblem::FileTooLarge { path, limit });
                }
                Err(IncludeError::Unreadable(reason)) => {
                    return Err(PreprocessProblem::FileUnreadable { path, reason });
                }
            }
            if Path::new(&self.name).is_absolute() {
                break;
            }
        }
        Err(PreprocessProblem::FileNotFound {
            name: self.name.clone(),
            tried,
        })
    }

    fn text(path: PathBuf, bytes: Vec<u8>) -> Result<(PathBuf, String), PreprocessProblem> {
        match String::from_utf8(bytes) {
            Ok(text) => Ok((path, text)),
            Err(e) => Err(PreprocessProblem::not_utf8(path, &e)),
        }
    }
}
