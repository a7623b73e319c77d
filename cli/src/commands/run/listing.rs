//! Instructions as text, by their offset in the code of a program.

use crate::program::Program;

/// The text of an object: `disassemble` gives text that assembles to the same object, so the assembler knows which of its lines is at
/// which offset.
pub struct Listing {
    assembled: Option<rpn_asm::Assembled>,
}

impl Listing {
    /// The listing of a program.
    pub fn new(program: &Program) -> Self {
        let text = rpn_asm::disassemble(program.bytes()).ok();
        let assembled = text.and_then(|text| rpn_asm::assemble("", &text, &rpn_asm::Options::default()).ok());
        Self { assembled }
    }

    /// The instruction at an offset, with single blanks.
    pub fn compact(&self, program: &Program, offset: u32) -> String {
        let text = self.instruction(program, offset);
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// The instruction at an offset, its operands in a column: as it was written, if it was not a macro that wrote it; otherwise disassembled.
    pub fn instruction(&self, program: &Program, offset: u32) -> String {
        let disassembled = || {
            let assembled = self.assembled.as_ref()?;
            Some(assembled.sources().text(assembled.code_span(offset)?).to_owned())
        };
        let text = program.text_of_code(offset).or_else(disassembled).unwrap_or_default();
        // One blank wherever there are several, but for the column of the operands.
        let mut words = text.split_whitespace();
        let mnemonic = words.next().unwrap_or_default();
        let operands: Vec<_> = words.collect();
        format!("{mnemonic:7} {}", operands.join(" ")).trim_end().to_owned()
    }
}
