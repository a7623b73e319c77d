//! Programs for user space: the file that they are for, and places in it.

pub mod debug;
pub mod elf;
mod explain;
pub mod identity;
pub mod lines;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use dprobes::rpn::object::{Location, Place, Relocation};

use self::elf::{Elf, NotFound, NotProgram};
use self::lines::NoLine;
use crate::error::Error;
use crate::report::Report;

/// The file that a program is for, open, and what is in it.
#[derive(Debug)]
pub struct UserFile {
    pub file: File,
    path: PathBuf,
    elf: Elf,
}

/// Why a location is no place in the file.
#[derive(Debug)]
pub enum Unresolved<'a> {
    /// The symbol has no address.
    Symbol { name: &'a str, error: NotFound },
    /// The distance leads out of the function.
    Outside { name: &'a str, addend: i64, size: u64 },
    /// The line has none.
    Line { file: &'a str, line: u32, error: NoLine },
    /// There is no code.
    NotCode { what: &'static str, value: u64 },
    /// Inside an instruction, which begins here.
    NotBoundary { address: u64, start: u64 },
    /// A return is asked for where no call begins.
    NotCalled { address: u64 },
    /// The address of a symbol is another one in every process.
    Moves { name: &'a str },
}

impl UserFile {
    /// Opens the file with this path.
    ///
    /// # Errors
    /// It cannot be read, or is nothing that processes run.
    pub fn open(name: &str) -> Result<Self, Error> {
        let path = Path::new(name);
        let user = |error| Error::Refused(Box::new(explain::not_a_program(path, &error)));
        if !path.is_absolute() {
            return Err(Error::Refused(Box::new(explain::relative(name))));
        }
        let read = |error| Error::Read {
            path: path.to_owned(),
            error,
        };
        let mut file = File::open(path).map_err(read)?;
        if !file.metadata().map_err(read)?.is_file() {
            return Err(user(NotProgram::Format("it is not a regular file".to_owned())));
        }
        let mut data = Vec::new();
        file.read_to_end(&mut data).map_err(read)?;
        let elf = Elf::parse(data, path, &[PathBuf::from(debug::ROOT)]).map_err(user)?;
        Ok(UserFile {
            file,
            path: path.to_owned(),
            elf,
        })
    }

    /// The offset in the file of a location, which is a function if its returns are asked for.
    ///
    /// # Errors
    /// Why it has none.
    pub fn offset<'a>(&self, location: Location<'a>, returns: bool) -> Result<u64, Unresolved<'a>> {
        let address = match location {
            Location::Symbol { name, addend } => self.symbol(name, addend)?,
            Location::Source { file, line } => {
                lines::find(&self.elf, file, line).map_err(|error| Unresolved::Line { file, line, error })?
            }
            Location::Place(Place::Absolute(address)) => address,
            Location::Place(Place::ModuleOffset(offset)) => self.elf.address_of(offset).ok_or(Unresolved::NotCode {
                what: "offset",
                value: offset,
            })?,
        };
        let offset = self.elf.offset_of(address).ok_or(Unresolved::NotCode {
            what: "address",
            value: address,
        })?;
        if returns && !self.elf.is_called(address) {
            return Err(Unresolved::NotCalled { address });
        }
        match self.elf.instruction_at(address) {
            Some(start) if start != address => Err(Unresolved::NotBoundary { address, start }),
            _ => Ok(offset),
        }
    }

    fn symbol<'a>(&self, name: &'a str, addend: i64) -> Result<u64, Unresolved<'a>> {
        let symbol = self
            .elf
            .find(name, false)
            .map_err(|error| Unresolved::Symbol { name, error })?;
        let inside = |distance: &u64| symbol.size == 0 || *distance < symbol.size;
        let distance = u64::try_from(addend).ok().filter(inside);
        distance
            .and_then(|distance| symbol.address.checked_add(distance))
            .ok_or(Unresolved::Outside {
                name,
                addend,
                size: symbol.size,
            })
    }

    /// The address of a symbol in an expression, if it is the same in every process.
    ///
    /// # Errors
    /// Why it has none.
    pub fn value<'a>(&self, word: &Relocation<'a>) -> Result<u64, Unresolved<'a>> {
        let name = word.symbol;
        let symbol = self
            .elf
            .find(name, true)
            .map_err(|error| Unresolved::Symbol { name, error })?;
        if self.elf.fixed {
            Ok(symbol.address)
        } else {
            Err(Unresolved::Moves { name })
        }
    }

    /// What is wrong and what to do, without the place in the program.
    pub fn explain(&self, error: &Unresolved<'_>) -> Report {
        explain::unresolved(error, &self.path, &self.elf)
    }
}
