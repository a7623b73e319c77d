//! Addresses for symbols.

use dprobes::rpn::object::{self, Location, Object, ObjectError, Place};
use std::convert::Infallible;
use std::fmt;

use crate::suggest::nearest_few;

/// One meaning of a symbol's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symbol {
    /// Where it is: an address in the kernel, an offset in a file for a user module.
    pub place: Place,
    /// Bytes from there to the end of the function, if known.
    pub size: Option<u64>,
}

/// Whatever knows symbols: `/proc/kallsyms`, an ELF file, a test's table.
pub trait SymbolResolver {
    /// All meanings of a name; empty if it has none.
    fn lookup(&mut self, name: &str) -> Vec<Symbol>;

    /// Calls `see` with every name there is, for suggestions.
    fn names(&mut self, see: &mut dyn FnMut(&str));
}

/// One location that could not be resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolveFailure {
    /// Index of the point in the object.
    pub point: u32,
    /// Its line in the source, or 0.
    pub line: u32,
    /// Why.
    pub error: ResolveError,
}

/// Why a location could not be resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResolveError {
    /// The bytes are no object.
    Object(ObjectError),
    /// Nobody knows the symbol.
    Unknown {
        /// The symbol.
        symbol: String,
        /// Names that are nearly the same, best first.
        near: Vec<String>,
    },
    /// The symbol has several meanings.
    Ambiguous {
        /// The symbol.
        symbol: String,
        /// All of them.
        places: Vec<Place>,
    },
    /// The location is not inside the function.
    OutsideFunction {
        /// The symbol.
        symbol: String,
        /// The distance asked for.
        addend: i64,
        /// Bytes the function has, if known.
        size: Option<u64>,
    },
    /// Source lines need debug information, which is not read.
    SourceLine {
        /// The file.
        file: String,
        /// The line.
        line: u32,
    },
}

impl ResolveError {
    /// What to do about it, one piece of advice each.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        match self {
            ResolveError::Object(_) | ResolveError::OutsideFunction { .. } => Vec::new(),
            ResolveError::Unknown { near, .. } if near.is_empty() => Vec::new(),
            ResolveError::Unknown { near, .. } => {
                vec![format!("symbols with similar names: {}", near.join(", "))]
            }
            ResolveError::Ambiguous { places, .. } => places
                .iter()
                .map(|p| match p {
                    Place::Absolute(a) => format!("it may be `address = {a:#x}`"),
                    Place::ModuleOffset(o) => format!("it may be `offset = {o:#x}`"),
                })
                .collect(),
            ResolveError::SourceLine { .. } => {
                vec!["give the location as a symbol plus an offset".into()]
            }
        }
    }
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResolveError::Object(e) => e.fmt(f),
            ResolveError::Unknown { symbol, .. } => write!(f, "symbol `{symbol}` not found"),
            ResolveError::Ambiguous { symbol, places } => {
                write!(f, "symbol `{symbol}` has {} meanings", places.len())
            }
            ResolveError::OutsideFunction {
                symbol,
                addend,
                size: Some(size),
            } => {
                let distance = Signed(*addend);
                write!(
                    f,
                    "`{symbol}{distance}` is outside the function: `{symbol}` has {size:#x} bytes"
                )
            }
            ResolveError::OutsideFunction { symbol, addend, .. } => {
                write!(f, "`{symbol}{}` is outside the function", Signed(*addend))
            }
            ResolveError::SourceLine { file, line } => {
                write!(
                    f,
                    "the location `{file}:{line}` needs debug information, which is not supported"
                )
            }
        }
    }
}

impl std::error::Error for ResolveError {}

struct Signed(i64);

impl fmt::Display for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { '-' } else { '+' };
        write!(f, "{sign}{:#x}", self.0.unsigned_abs())
    }
}

/// Replaces every symbolic location of an object by the place it stands for.
///
/// # Errors
///
/// All locations that cannot be replaced, or that the bytes are no object.
pub fn resolve(bytes: &[u8], resolver: &mut dyn SymbolResolver) -> Result<Vec<u8>, Vec<ResolveFailure>> {
    let damaged = |e| {
        vec![ResolveFailure {
            point: 0,
            line: 0,
            error: ResolveError::Object(e),
        }]
    };
    let object = Object::parse(bytes).map_err(damaged)?;
    let mut failures = Vec::new();
    let mut places = Vec::new();
    for (point, p) in (0..).zip(object.points()) {
        match find(p.location(), resolver) {
            Ok(place) => places.push(place),
            Err(error) => failures.push(ResolveFailure {
                point,
                line: p.line(),
                error,
            }),
        }
    }
    if !failures.is_empty() {
        return Err(failures);
    }
    let mut resolved = bytes.to_vec();
    let known = |point: u32, _: Location<'_>| Ok::<_, Infallible>(places[point as usize]);
    match object::resolve(&mut resolved, known) {
        Ok(()) => Ok(resolved),
        Err(object::ResolveError::Object(e)) => Err(damaged(e)),
        Err(object::ResolveError::Location { error, .. }) => match error {},
    }
}

fn find(location: Location<'_>, resolver: &mut dyn SymbolResolver) -> Result<Place, ResolveError> {
    let (name, addend) = match location {
        Location::Place(place) => return Ok(place),
        Location::Symbol { name, addend } => (name, addend),
        Location::Source { file, line } => {
            return Err(ResolveError::SourceLine {
                file: file.to_owned(),
                line,
            });
        }
    };
    let symbol = name.to_owned();
    let mut found = resolver.lookup(name);
    // One place under one name several times is no contradiction.
    let mut seen = Vec::new();
    found.retain(|s| {
        !seen.contains(&s.place) && {
            seen.push(s.place);
            true
        }
    });
    let [one] = found.as_slice() else {
        return Err(if found.is_empty() {
            let mut names = Vec::new();
            resolver.names(&mut |n| names.push(n.to_owned()));
            let near = nearest_few(name, names.iter().map(String::as_str), 3);
            ResolveError::Unknown { symbol, near }
        } else {
            let places = found.iter().map(|s| s.place).collect();
            ResolveError::Ambiguous { symbol, places }
        });
    };
    let size = one.size;
    let outside = || ResolveError::OutsideFunction {
        symbol: symbol.clone(),
        addend,
        size,
    };
    let distance = u64::try_from(addend).map_err(|_| outside())?;
    if size.is_some_and(|s| distance >= s && distance != 0) {
        return Err(outside());
    }
    let add = |base: u64| base.checked_add(distance).ok_or_else(outside);
    Ok(match one.place {
        Place::Absolute(a) => Place::Absolute(add(a)?),
        Place::ModuleOffset(o) => Place::ModuleOffset(add(o)?),
    })
}
