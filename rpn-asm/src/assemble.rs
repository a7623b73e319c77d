//! Text to object.

use crate::diag::{Diagnostics, Session};
use crate::encode::{Encoded, encode};
use crate::parse::{parse, push_words};
use crate::preprocess::{Files, IncludeError, Preprocessor, SystemFiles};
use crate::problem::{NameSpace, PreprocessProblem, ProgramProblem};
use crate::program::{Argument, Header, Probe, Spanned};
use crate::source::{SourceMap, Span};
use crate::suggest::nearest;
use dprobes::rpn::exception;
use dprobes::rpn::object::Object;
use dprobes::rpn::verify::verify;
use std::path::{Path, PathBuf};

/// Bytes of a program file: as for all that a program includes.
const FILE_LIMIT: usize = 16 << 20;

/// How to assemble.
#[derive(Debug)]
pub struct Options {
    /// Definitions as of `-D`: `NAME` or `NAME=VALUE`.
    pub defines: Vec<String>,
    /// Folders that `#include` looks in, as of `-I`, in this order.
    pub include_paths: Vec<PathBuf>,
    /// Where the files come from.
    pub files: Box<dyn Files>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            defines: Vec::new(),
            include_paths: Vec::new(),
            files: Box::new(SystemFiles),
        }
    }
}

/// An object, and where each of its parts was written.
#[derive(Debug, Clone)]
pub struct Assembled {
    /// The object. Its symbols are not resolved.
    pub object: Vec<u8>,
    /// What is allowed and yet probably a mistake.
    pub warnings: Diagnostics,
    code: Vec<(u32, Span)>,
    points: Vec<Span>,
    /// What a symbol may have been meant to be.
    names: Vec<String>,
}

impl Assembled {
    /// The sources the spans point into.
    #[must_use]
    pub fn sources(&self) -> &SourceMap {
        self.warnings.sources()
    }

    /// Where the instruction at this offset of the code was written.
    #[must_use]
    pub fn code_span(&self, offset: u32) -> Option<Span> {
        let after = self.code.partition_point(|(o, _)| *o <= offset);
        Some(self.code.get(after.checked_sub(1)?)?.1)
    }

    /// Where the probepoint with this index was written.
    #[must_use]
    pub fn point_span(&self, index: u32) -> Option<Span> {
        self.points.get(index as usize).copied()
    }

    /// The macro, variable or other name of the program that a symbol was perhaps meant to be, when there is no such symbol.
    #[must_use]
    pub fn similar_name(&self, symbol: &str) -> Option<String> {
        nearest(symbol, self.names.iter().map(String::as_str))
    }

    /// Has the engine's own verifier check the object, as the kernel will before it takes it.
    ///
    /// # Errors
    ///
    /// The first reason why the program is not safe to run.
    pub fn verify(&self) -> Result<(), Diagnostics> {
        let object = Object::parse(&self.object).map_err(|e| self.refuse(None, ProgramProblem::Object(e)))?;
        verify(&object)
            .map(drop)
            .map_err(|e| self.refuse(self.code_span(e.offset), ProgramProblem::Unsafe(e.fault)))
    }

    fn refuse(&self, span: Option<Span>, problem: ProgramProblem) -> Diagnostics {
        let mut session = Session {
            map: self.sources().clone(),
            ..Session::default()
        };
        session.report(span, problem);
        session.finish()
    }
}

/// Assembles a program. `name` is its file's name: it is shown in messages, and `#include` looks beside it.
///
/// # Errors
///
/// Everything that is wrong with it, in the order of the text.
pub fn assemble(name: &str, text: &str, options: &Options) -> Result<Assembled, Diagnostics> {
    let mut session = Session::default();
    let (encoded, names) = run(name, text, options, &mut session);
    let diagnostics = session.finish();
    match encoded {
        Some(e) => Ok(Assembled {
            object: e.object,
            warnings: diagnostics,
            code: e.code,
            points: e.points,
            names,
        }),
        None => Err(diagnostics),
    }
}

/// Assembles the program in a file.
///
/// # Errors
///
/// Everything that is wrong with it, or why it could not be read.
pub fn assemble_file(path: &Path, options: &Options) -> Result<Assembled, Diagnostics> {
    let problem = match options.files.read(path, FILE_LIMIT) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => return assemble(&path.to_string_lossy(), &text, options),
            Err(e) => PreprocessProblem::not_utf8(path.into(), &e),
        },
        Err(IncludeError::TooLarge) => PreprocessProblem::FileTooLarge {
            path: path.into(),
            limit: FILE_LIMIT,
        },
        Err(e) => PreprocessProblem::FileUnreadable {
            path: path.into(),
            reason: e.to_string(),
        },
    };
    let mut session = Session::default();
    session.report(None, problem);
    Err(session.finish())
}

fn run(name: &str, text: &str, options: &Options, session: &mut Session) -> (Option<Encoded>, Vec<String>) {
    let file = session.map.add(name.to_owned(), text.to_owned(), None);
    let mut preprocessor = Preprocessor::new(session, options.files.as_ref(), &options.include_paths);
    for definition in &options.defines {
        preprocessor.define(definition);
    }
    let (tokens, macros) = preprocessor.run(file);
    let (header, probes) = parse(&tokens, &macros, session);
    let encoded = encode(&header, &probes, file, session);
    if !session.has_errors() {
        unused_names(&header, &probes, session);
    }
    let variables = [&header.locals, &header.globals];
    let mut names = macros;
    names.extend(variables.into_iter().flat_map(|v| v.named()).map(str::to_owned));
    names.extend(header.maps.names().map(str::to_owned));
    names.extend(push_words().map(str::to_owned));
    names.extend(exception::CODES.iter().map(|(name, _)| (*name).to_owned()));
    (encoded.ok(), names)
}

fn unused_names(header: &Header, probes: &[Probe], session: &mut Session) {
    let code = || probes.iter().flat_map(|p| &p.code);
    let maps = header.maps.list.iter().map(|m| &m.name);
    let spaces: [(NameSpace, Vec<&Spanned<String>>); 3] = [
        (NameSpace::Local, header.locals.names.iter().collect()),
        (NameSpace::Global, header.globals.names.iter().collect()),
        (NameSpace::Map, maps.collect()),
    ];
    for (is, names) in spaces {
        // An index from the stack can be any of them.
        let computed = is.selector().is_some_and(|selector| {
            code().any(|i| matches!(i.argument, Argument::None) && i.op.info().selectors.contains(&selector))
        });
        if computed {
            continue;
        }
        let mut used = vec![false; names.len()];
        for i in code() {
            match (is, &i.argument) {
                (NameSpace::Local, Argument::Local(n))
                | (NameSpace::Global, Argument::Global(n))
                | (NameSpace::Map, Argument::Map(n)) => used[usize::from(*n)] = true,
                _ => {}
            }
        }
        // Those that were declared by their number have no name, or one of digits.
        let named = |n: &str| n.contains(|c: char| !c.is_ascii_digit());
        for (name, _) in names.iter().zip(used).filter(|(n, used)| !used && named(&n.value)) {
            let name = (*name).clone();
            let problem = ProgramProblem::UnusedName { name: name.value, is };
            session.report(name.span, problem);
        }
    }
}
