//! A program that is to be inserted or looked at: its object, and where its parts are in the source.

use std::cell::RefCell;
use std::convert::Infallible;
use std::path::{Path, PathBuf};

use dprobes::rpn::object::layout::MAGIC;
use dprobes::rpn::object::{self, ModType, Object, ObjectError, Point, Relocation};
use dprobes::rpn::verify::{VerifyError, verify};
use rpn_asm::{Assembled, Location, Options, Span, Style};
use simulator::{LoadError, PlaceError, Simulation};

use crate::args::Source;
use crate::commands::run::RunError;
use crate::error::Error;
use crate::kallsyms::{Kallsyms, NotFound};
use crate::report::{Place, Report};
use crate::resolve::{self, Unresolved};
use crate::select::{self, Pieces, Wanted};
use crate::user::UserFile;

/// More locations than this that cannot be resolved are counted, not explained.
const MOST_EXPLAINED: usize = 20;

/// What could not be resolved, explained, and how much more.
#[derive(Default)]
struct Failures(RefCell<(Vec<Report>, usize)>);

impl Failures {
    /// Notes one, and gives what stands in the place of its address.
    fn note(&self, report: impl FnOnce() -> Report) -> u64 {
        let (reports, more) = &mut *self.0.borrow_mut();
        if reports.len() < MOST_EXPLAINED {
            reports.push(report());
        } else {
            *more += 1;
        }
        0
    }
}

/// A program whose object has been parsed and whose handlers have been verified, with the code that the module uses.
#[derive(Debug)]
pub struct Program {
    bytes: Vec<u8>,
    file: PathBuf,
    /// The text and where its parts went, when the file was text.
    source: Option<(String, Assembled)>,
    /// Which points of the file these are, if not all of them, and where their code was.
    kept: Option<(Vec<u32>, Pieces)>,
}

impl Program {
    /// Reads a file, assembles it when it is text, and verifies it. Warnings go to `warn`.
    pub fn load(source: &Source, warn: impl FnOnce(&str)) -> Result<Self, Error> {
        let bytes = read(&source.file)?;
        if bytes.starts_with(&MAGIC) {
            if !source.define.is_empty() || !source.include.is_empty() {
                return Err(Error::Preprocessed {
                    path: source.file.clone(),
                });
            }
            return Self::from_object(bytes, &source.file);
        }
        let text = String::from_utf8(bytes).map_err(|error| Error::NotText {
            path: source.file.clone(),
            at: error.utf8_error().valid_up_to(),
        })?;
        let options = Options {
            defines: source.define.clone(),
            include_paths: source.include.clone(),
            ..Options::default()
        };
        let assembled = rpn_asm::assemble(&source.file.to_string_lossy(), &text, &options).map_err(Error::Assembler)?;
        if !assembled.warnings.is_empty() {
            warn(&assembled.warnings.render(Style::Coloured));
        }
        let bytes = assembled.object.clone();
        let program = Program {
            bytes,
            file: source.file.clone(),
            source: Some((text, assembled)),
            kept: None,
        };
        program.verify()?;
        Ok(program)
    }

    /// Reads a file that must be an object.
    pub fn load_object(file: &Path) -> Result<Self, Error> {
        Self::from_object(read(file)?, file)
    }

    fn from_object(bytes: Vec<u8>, file: &Path) -> Result<Self, Error> {
        let program = Program {
            bytes,
            file: file.to_owned(),
            source: None,
            kept: None,
        };
        program.verify()?;
        Ok(program)
    }

    /// The program with only the points that are wanted.
    pub fn select(mut self, wanted: Wanted<'_>) -> Result<Self, Error> {
        if wanted.is_all() {
            return Ok(self);
        }
        let object = self.parse()?;
        let points = || (0..).zip(object.points());
        let is_wanted = |point: &Point<'_>| wanted.has(point.group(), point.type_());
        let kept: Vec<u32> = points()
            .filter_map(|(index, point)| is_wanted(&point).then_some(index))
            .collect();
        if kept.is_empty() {
            let mut there: Vec<_> = points().map(|(_, point)| (point.group(), point.type_())).collect();
            there.sort_unstable();
            there.dedup();
            let there: Vec<_> = there
                .iter()
                .map(|(group, type_)| format!("group {group}, type {type_}"))
                .collect();
            let report = Report::new("the program has no probe of the groups and types that were asked for");
            return Err(Error::Refused(Box::new(
                report.note(format!("its probes have: {}", there.join("; "))),
            )));
        }
        let (bytes, pieces) = select::points(&self.bytes, &kept).map_err(|error| Error::Object {
            path: self.file.clone(),
            error,
        })?;
        self.bytes = bytes;
        self.kept = Some((kept, pieces));
        Ok(self)
    }

    /// Has it a watchpoint?
    pub fn must_watch(&self) -> Result<(), Error> {
        if self.parse()?.points().any(|point| point.watch().is_some()) {
            return Ok(());
        }
        let report = Report::new("the program has no watchpoint, which `--process` is about");
        Err(Error::Refused(Box::new(
            report.help("`push pid` tells the handler of any probe which process it is"),
        )))
    }

    /// The program, accepting whatever instructions are at its points.
    pub fn with_any_opcode(mut self) -> Result<Self, Error> {
        select::any_opcode(&mut self.bytes).map_err(|error| Error::Object {
            path: self.file.clone(),
            error,
        })?;
        Ok(self)
    }

    /// The addresses of the points of an object that was [resolved](Self::resolve); `None` for offsets in a module.
    pub fn addresses(&self, resolved: &[u8]) -> Result<Vec<Option<u64>>, Error> {
        let object = Object::parse(resolved).map_err(|error| Error::Object {
            path: self.file.clone(),
            error,
        })?;
        Ok(object
            .points()
            .map(|point| match point.location() {
                // 0 is where a module is that is not loaded.
                object::Location::Place(object::Place::Absolute(address)) => {
                    Some(address).filter(|address| *address != 0)
                }
                _ => None,
            })
            .collect())
    }

    /// The object, parsed.
    pub fn parse(&self) -> Result<Object<'_>, Error> {
        self.object().map_err(|error| Error::Object {
            path: self.file.clone(),
            error,
        })
    }

    /// The object, in which places may be symbols.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn object(&self) -> Result<Object<'_>, ObjectError> {
        Object::parse(&self.bytes)
    }

    fn verify(&self) -> Result<(), Error> {
        match verify(&self.parse()?) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.refuse(&error)),
        }
    }

    /// The program, ready to be hit on a machine that is made up, where `symbol` knows what is where.
    pub fn simulation(&self, symbol: impl Fn(&str) -> Option<u64>) -> Result<Simulation, Error> {
        let object = |error| Error::Object {
            path: self.file.clone(),
            error,
        };
        let mut bytes = self.bytes.clone();
        simulator::place(&mut bytes, symbol).map_err(|error| match error {
            PlaceError::Object(error) => object(error),
            PlaceError::Symbol { name, offset } => Error::Run(RunError::NoSymbol {
                name,
                place: self.place_of_code(offset),
            }),
        })?;
        Simulation::load(&bytes).map_err(|error| match error {
            LoadError::Object(error) => object(error),
            LoadError::Verify(error) => self.refuse(&error),
            LoadError::Map(name) => Error::Run(RunError::NoMap { name }),
        })
    }

    fn refuse(&self, error: &VerifyError) -> Error {
        let report = Report::new(error.fault.to_string()).at(self.place_of_code(error.offset));
        Error::Verify(Box::new(report))
    }

    /// The text of an instruction, by its offset in the code; `None` if there is only an object, or a macro wrote it.
    pub fn text_of_code(&self, offset: u32) -> Option<String> {
        let (_, assembled) = self.source.as_ref()?;
        let span = assembled.code_span(self.code_in_file(offset)?)?;
        let sources = assembled.sources();
        (sources.use_site(span) == span).then(|| sources.text(span).to_owned())
    }

    /// Module and major code.
    pub fn identity(&self) -> (String, u16) {
        self.object().map_or_else(
            |_| (String::new(), 0),
            |object| (object.name().to_owned(), object.major()),
        )
    }

    /// The path of the file that it is for, if it is for one.
    pub fn user_file(&self) -> Option<String> {
        let object = self.object().ok()?;
        (object.modtype() == object::ModType::User).then(|| object.name().to_owned())
    }

    /// Which point of the file a point is.
    fn in_file(&self, index: u32) -> Option<u32> {
        match &self.kept {
            None => Some(index),
            Some((kept, _)) => kept.get(index as usize).copied(),
        }
    }

    /// Where a byte of the code is in that of the file.
    fn code_in_file(&self, offset: u32) -> Option<u32> {
        match &self.kept {
            None => Some(offset),
            Some((_, pieces)) => pieces.original(offset),
        }
    }

    /// The place of a point's definition.
    pub fn place_of_point(&self, index: u32) -> Option<Place> {
        let object = self.object().ok()?;
        let point = object.point(index)?;
        let label = format!("probe {}.{}", object.major(), point.minor());
        let span = self
            .source
            .as_ref()
            .and_then(|(_, assembled)| assembled.point_span(self.in_file(index)?));
        self.place(span, point.line(), label)
    }

    /// The place of an instruction of the program, by its offset in the code.
    pub fn place_of_code(&self, offset: u32) -> Option<Place> {
        let span = self
            .source
            .as_ref()
            .and_then(|(_, assembled)| assembled.code_span(self.code_in_file(offset)?));
        self.place(span, self.object().ok()?.line_at(offset).unwrap_or(0), String::new())
    }

    /// The place of a span of the text, or, when there is only an object, of the line that it remembers.
    fn place(&self, span: Option<Span>, line: u32, label: String) -> Option<Place> {
        if let (Some((text, assembled)), Some(span)) = (&self.source, span) {
            let sources = assembled.sources();
            let span = sources.use_site(span);
            let Location { file, line, column } = sources.location(span);
            // Of included files only the line is known here.
            let text = text
                .lines()
                .nth(line.checked_sub(1)? as usize)
                .filter(|_| file == self.file.to_string_lossy())
                .map(|text| (text.to_owned(), range(text, column, sources.text(span).len())));
            return Some(Place {
                file,
                line,
                text,
                label,
            });
        }
        let object = self.object().ok()?;
        let file = if object.source().is_empty() {
            self.file.display().to_string()
        } else {
            object.source().to_owned()
        };
        (line != 0).then_some(Place {
            file,
            line,
            text: None,
            label,
        })
    }

    /// What a point is called: the location as it is written, or else the probe's number.
    pub fn name_of_point(&self, index: u32) -> String {
        let Ok(object) = self.object() else {
            return String::new();
        };
        match object.point(index) {
            Some(point) if !point.display().is_empty() => point.display().to_owned(),
            Some(point) => format!("probe {}.{}", object.major(), point.minor()),
            None => String::new(),
        }
    }

    /// The object as it is to be inserted: with addresses in place of symbols, unless it follows its module: then the engine finds them, each time
    /// that the module is loaded. Or what is wrong with each of them, as far as that is known.
    pub fn insertable(&self, symbols: &Kallsyms) -> Result<Vec<u8>, Error> {
        let object = self.parse()?;
        if object.modtype() == ModType::Kmod && object.name().contains('-') {
            return Err(Error::Refused(Box::new(hyphens(object.name()))));
        }
        let resolved = self.resolve(symbols)?;
        Ok(if object.follows_module() {
            self.bytes.clone()
        } else {
            resolved
        })
    }

    /// The object with addresses in place of symbols; or what is wrong with each of them. Those of a module that is not loaded stay 0 if the
    /// program follows it.
    pub fn resolve(&self, symbols: &Kallsyms) -> Result<Vec<u8>, Error> {
        let object = self.parse()?;
        let waits = |error: &Unresolved<'_>| object.follows_module() && error.is_module_not_loaded();
        let mut bytes = self.bytes.clone();
        let failures = Failures::default();
        let done = object::resolve(
            &mut bytes,
            |index, location| {
                let point = object.point(index);
                let found = resolve::address(&object, location, point.and_then(|point| point.watch()), symbols);
                let address = found.unwrap_or_else(|error| {
                    if waits(&error) {
                        return 0;
                    }
                    failures.note(|| error.explain(symbols).at(self.place_of_point(index)))
                });
                Ok::<_, Infallible>(object::Place::Absolute(address))
            },
            |word| {
                Ok(resolve::value(&object, &word, symbols).unwrap_or_else(|error| {
                    if waits(&error) {
                        return 0;
                    }
                    failures.note(|| self.explain_symbol(&error, &word, symbols))
                }))
            },
        );
        self.resolved(bytes, done, failures)
    }

    /// The object with offsets in its file in place of symbols; or what is wrong with each of them. Every place is in code.
    pub fn resolve_in(&self, file: &UserFile) -> Result<Vec<u8>, Error> {
        let object = self.parse()?;
        let mut bytes = self.bytes.clone();
        let failures = Failures::default();
        let offset = |index: u32, location: object::Location<'_>| {
            let returns = object.point(index).is_some_and(|point| point.returns());
            file.offset(location, returns)
                .unwrap_or_else(|error| failures.note(|| file.explain(&error).at(self.place_of_point(index))))
        };
        let done = object::resolve(
            &mut bytes,
            |index, location| Ok::<_, Infallible>(object::Place::ModuleOffset(offset(index, location))),
            |word| {
                Ok(file.value(&word).unwrap_or_else(|error| {
                    // The word is the operand of a one-byte `push`.
                    failures.note(|| {
                        file.explain(&error)
                            .at(self.place_of_code(word.offset.saturating_sub(1)))
                    })
                }))
            },
        );
        // Those that are offsets already.
        for (index, point) in (0..).zip(object.points()) {
            if let location @ object::Location::Place(object::Place::ModuleOffset(_)) = point.location() {
                offset(index, location);
            }
        }
        self.resolved(bytes, done, failures)
    }

    /// A copy of the object in which everything has been resolved, or what could not be.
    fn resolved(
        &self,
        bytes: Vec<u8>,
        done: Result<(), object::ResolveError<Infallible>>,
        failures: Failures,
    ) -> Result<Vec<u8>, Error> {
        let (reports, more) = failures.0.into_inner();
        match done {
            Ok(()) if reports.is_empty() => Ok(bytes),
            Ok(()) => Err(Error::Symbols { reports, more }),
            Err(object::ResolveError::Object(error)) => Err(Error::Object {
                path: self.file.clone(),
                error,
            }),
            Err(object::ResolveError::Location { error, .. } | object::ResolveError::Symbol { error, .. }) => {
                match error {}
            }
        }
    }

    /// Why a symbol in the code has no address. It may not have been meant to be a symbol.
    fn explain_symbol(&self, error: &Unresolved<'_>, word: &Relocation<'_>, symbols: &Kallsyms) -> Report {
        // The word is the operand of a one-byte `push`.
        let report = error
            .explain(symbols)
            .at(self.place_of_code(word.offset.saturating_sub(1)));
        let (
            Unresolved::Symbol {
                error: NotFound::Unknown,
                ..
            },
            Some((_, assembled)),
        ) = (error, &self.source)
        else {
            return report;
        };
        let name = word.symbol;
        let report = match assembled.similar_name(name) {
            Some(near) => report.help(format!(
                "if it is not meant to be a symbol: the program knows a similar name, {near}"
            )),
            None => report,
        };
        report.help(format!(
            "if {name} is meant to be a constant: `#define {name} VALUE`, or `-D {name}=VALUE` on the command line"
        ))
    }

    /// Does any of its points, or its code, need a symbol?
    pub fn needs_symbols(&self) -> bool {
        self.object().is_ok_and(|object| {
            let place = |point: Point<'_>| matches!(point.location(), object::Location::Place(_));
            !object.points().all(place) || object.relocations().next().is_some()
        })
    }
}

/// No module has such a name.
fn hyphens(module: &str) -> Report {
    Report::new(format!("a kernel module cannot be called {module}")).help(format!(
        "the kernel writes _ where the name of the file has -: `name = \"{}\"`",
        module.replace('-', "_")
    ))
}

/// The bytes of a line from a column, counted in characters from 1, on; as many as there are.
fn range(line: &str, column: u32, length: usize) -> std::ops::Range<usize> {
    let start = line
        .char_indices()
        .nth(column.saturating_sub(1) as usize)
        .map_or(line.len(), |(start, _)| start);
    start..line.len().min(start + length)
}

/// What the point is on, in words: as written, or else its address.
pub fn location_of(point: &Point<'_>) -> String {
    if !point.display().is_empty() {
        return point.display().to_owned();
    }
    match point.location() {
        object::Location::Place(object::Place::Absolute(address)) => format!("address {address:#x}"),
        object::Location::Place(object::Place::ModuleOffset(offset)) => format!("offset {offset:#x}"),
        object::Location::Symbol { name, addend: 0 } => name.to_owned(),
        object::Location::Symbol { name, addend } if addend < 0 => format!("{name}-{:#x}", addend.unsigned_abs()),
        object::Location::Symbol { name, addend } => format!("{name}+{addend:#x}"),
        object::Location::Source { file, line } => format!("\"{file}\":{line}"),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| Error::Read {
        path: path.to_owned(),
        error,
    })
}
