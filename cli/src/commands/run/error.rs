//! What can be wrong with a made-up machine.

use dprobes::rpn::reg::Reg;
use simulator::MapError;

use crate::report::{Place, Report};

/// Why a program cannot run on the machine that was described.
#[derive(Debug)]
pub enum RunError {
    /// The program has no probe with this minor code.
    NoProbe {
        /// The minor code.
        minor: u16,
        /// Those that there are.
        known: Vec<u16>,
    },
    /// The program has no probe at all.
    NoProbes,
    /// The program has no such variable.
    NoVariable {
        /// What was named.
        name: String,
        /// Those that there are, as far as they have names.
        known: Vec<String>,
    },
    /// The address of a symbol is pushed, and was not given.
    NoSymbol {
        /// The symbol.
        name: String,
        /// The instruction.
        place: Option<Place>,
    },
    /// There is no memory for a map.
    NoMap {
        /// Its name.
        name: String,
    },
    /// Not a register that user mode has.
    NotUser {
        /// The register.
        reg: Reg,
    },
    /// A number is too large for what it is for.
    Range {
        /// What it is for.
        what: &'static str,
        /// The number.
        value: u64,
    },
    /// Memory cannot be where it should be.
    Memory(MapError),
}

impl RunError {
    /// The message.
    pub fn report(&self) -> Report {
        match self {
            Self::NoProbe { minor, known } => {
                let known: Vec<String> = known.iter().map(u16::to_string).collect();
                Report::new(format!("the program has no probe with minor code {minor}"))
                    .note(format!("its probes are {}", known.join(", ")))
            }
            Self::NoProbes => Report::new("the program has no probe that could be hit"),
            Self::NoVariable { name, known } if known.is_empty() => {
                Report::new(format!("the program has no variable {name}, nor any other"))
            }
            Self::NoVariable { name, known } => Report::new(format!("the program has no variable {name}"))
                .note(format!("its variables are {}", known.join(", "))),
            Self::NoSymbol { name, place } => Report::new(format!("the address of {name} is not known here"))
                .at(place.clone())
                .help(format!("make one up: --symbol {name}=0xffffffff82000000")),
            Self::NoMap { name } => Report::new(format!("there is no memory for the map {name}")),
            Self::NotUser { reg } => Report::new(format!("user mode has no register {reg} that a program could see"))
                .note("it has the general registers, rip, rsp, rflags, cs and ss"),
            Self::Range { what, value } => Report::new(format!("{what} cannot be {value:#x}")),
            Self::Memory(error) => Report::new(error.to_string()),
        }
    }
}
