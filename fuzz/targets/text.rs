//! Text: assembled or refused with a message; what was assembled becomes text again, and that the same object.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use rpn_asm::{Files, IncludeError, Options, assemble, disassemble};

/// This machine's files are none of the text's business.
#[derive(Debug)]
struct NoFiles;

impl Files for NoFiles {
    fn read(&self, _: &Path, _: usize) -> Result<Vec<u8>, IncludeError> {
        Err(IncludeError::NotFound)
    }
}

fuzz_target!(|text: &str| {
    let options = Options {
        files: Box::new(NoFiles),
        ..Options::default()
    };
    let assembled = match assemble("t.rpn", text, &options) {
        Ok(assembled) => assembled,
        Err(diagnostics) => {
            assert!(!diagnostics.to_string().is_empty());
            return;
        }
    };
    let again = disassemble(&assembled.object).expect("an object of the assembler");
    let second = assemble("t.rpn", &again, &options).unwrap_or_else(|error| panic!("{again}\n{error}"));
    assert_eq!(disassemble(&second.object).expect("an object of the assembler"), again);
});
