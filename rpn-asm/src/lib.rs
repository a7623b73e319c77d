//! The assembler of DProbes: probe programs as text to the object form the engine takes, and back.
//!
//! [`assemble`] turns text into an object, or into [`Diagnostics`] that show every mistake with its line. Symbols stay symbols:
//! [`resolve`](dprobes::rpn::object::resolve) puts addresses in their place, with whatever knows them. [`disassemble`] gives text that assembles to the same
//! object again. The language is described in `docs/language.md`.
//!
//! ```
//! let text = r#"
//! name = "kernel"
//! modtype = kernel
//! major = 1
//! vars = opens
//!
//! offset = do_sys_openat2
//! minor = 1
//!         inc lv, opens
//!         exit
//! "#;
//! let assembled = rpn_asm::assemble("count.rpn", text, &rpn_asm::Options::default())?;
//! let object = dprobes::rpn::object::Object::parse(&assembled.object).unwrap();
//! assert_eq!(object.major(), 1);
//! # Ok::<(), rpn_asm::Diagnostics>(())
//! ```
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod assemble;
mod cursor;
mod diag;
mod disassemble;
mod encode;
mod expression;
mod format;
mod lex;
mod parse;
mod preprocess;
pub mod problem;
mod program;
mod source;
mod suggest;
mod value;

pub use assemble::{Assembled, Options, assemble, assemble_file};
pub use diag::{Diagnostic, Diagnostics, Style};
pub use disassemble::{DisassembleError, disassemble};
pub use format::format;
pub use preprocess::{Files, IncludeError, SystemFiles};
pub use source::{ExpansionId, FileId, Location, SourceMap, Span};
