//! One instruction: mnemonic, selectors, operand, as the table of the machine's instructions has them.

use crate::cursor::Cursor;
use crate::diag::{Reported, Session};
use crate::expression::{Meaning, bad_token, constant};
use crate::lex::Token;
use crate::problem::{OperandProblem, ProgramProblem};
use crate::program::{Header, Instruction};
use crate::suggest::nearest;
use dprobes::rpn::op::{Op, Operand};
use std::collections::HashSet;

/// How an instruction is written, for messages and the disassembler's reader.
pub(crate) fn form(op: Op) -> String {
    let operand = match op.info().operand {
        Operand::None => return op.to_string(),
        Operand::Branch => "LABEL",
        Operand::Reg => "REGISTER",
        Operand::Local | Operand::Global => "VARIABLE",
        Operand::U8 | Operand::U16 | Operand::S16 | Operand::Word => "NUMBER",
        Operand::Map => "MAP",
        Operand::Group => "GROUP",
        Operand::Facility => "FACILITY",
    };
    let separator = if op.info().selectors.is_empty() { " " } else { ", " };
    format!("{op}{separator}{operand}")
}

/// A selector in other words.
fn alias<'w>(mnemonic: &str, word: &'w str) -> &'w str {
    match (mnemonic, word) {
        ("push", "procid") => "cpu",
        _ => word,
    }
}

/// Words that `push` takes for something else than a symbol.
pub(crate) fn push_words() -> impl Iterator<Item = &'static str> {
    let selectors = Op::with_mnemonic("push").filter_map(|op| op.info().selectors.first().copied());
    selectors.chain(["procid"])
}

pub(super) struct Reader<'a> {
    pub session: &'a mut Session,
    pub macros: &'a [String],
    pub header: &'a Header,
}

/// Mnemonic and selectors read so far, and the instructions they may become.
struct Head {
    text: String,
    selectors: usize,
    candidates: Vec<Op>,
}

impl Head {
    fn new(mnemonic: &str) -> Self {
        Self {
            text: mnemonic.to_owned(),
            selectors: 0,
            candidates: Op::with_mnemonic(mnemonic).collect(),
        }
    }

    /// Words that may come next.
    fn next_selectors(&self) -> Vec<String> {
        let mut all: Vec<String> = self
            .candidates
            .iter()
            .filter_map(|op| op.info().selectors.get(self.selectors))
            .map(|s| (*s).to_owned())
            .collect();
        let mut seen = HashSet::new();
        all.retain(|s| seen.insert(s.clone()));
        all
    }

    fn select(&mut self, word: &str) {
        let at = self.selectors;
        self.candidates.retain(|op| op.info().selectors.get(at) == Some(&word));
        self.text.push_str(if at == 0 { " " } else { ", " });
        self.text.push_str(word);
        self.selectors += 1;
    }

    /// The instruction with exactly these selectors, with an operand or without.
    fn complete(&self, operand: bool) -> Option<Op> {
        self.candidates
            .iter()
            .copied()
            .find(|op| op.info().selectors.len() == self.selectors && (op.info().operand != Operand::None) == operand)
    }

    fn forms(&self) -> Vec<String> {
        self.candidates.iter().map(|op| form(*op)).collect()
    }
}

impl Reader<'_> {
    pub fn read(&mut self, mnemonic: &Token, rest: &[Token]) -> Result<Instruction, Reported> {
        let mut cursor = Cursor::new(rest, mnemonic.span);
        let mut head = Head::new(&mnemonic.text);
        let mut comma = None;
        while let Some(word) = cursor.peek().and_then(Token::name).map(|w| alias(&mnemonic.text, w))
            && head.next_selectors().iter().any(|s| s == word)
        {
            head.select(word);
            cursor.next();
            comma = cursor.take(",");
            if comma.is_none() {
                break;
            }
        }
        let span = rest
            .last()
            .map_or(mnemonic.span, |t| self.session.map.join(mnemonic.span, t.span));
        let wants_operand = comma.is_some() || (head.selectors == 0 && !cursor.at_end());
        let op = self.choose(&head, &cursor, wants_operand)?;
        let argument = self.argument(op, &head.text, &mut cursor)?;
        if let Some(t) = cursor.peek() {
            return Err(self.unexpected(op, &head, t));
        }
        Ok(Instruction { op, argument, span })
    }

    fn choose(&mut self, head: &Head, cursor: &Cursor<'_>, wants_operand: bool) -> Result<Op, Reported> {
        if let Some(op) = head.complete(wants_operand)
            && (head.next_selectors().is_empty() || !self.selects(op, head, cursor))
        {
            return Ok(op);
        }
        if let Some(r) = cursor.peek().and_then(|t| bad_token(self.session, t)) {
            return Err(r);
        }
        let expected = head.next_selectors();
        let problem = if wants_operand && !expected.is_empty() {
            let word = cursor.peek().and_then(Token::name);
            OperandProblem::ExpectedSelector {
                after: head.text.clone(),
                near: word.and_then(|w| self.session.nearest(w, expected.iter().map(String::as_str))),
                expected,
                found: cursor.found(),
            }
        } else if wants_operand && !cursor.at_end() {
            OperandProblem::Unexpected {
                instruction: head.text.clone(),
                forms: head.forms(),
            }
        } else {
            OperandProblem::Missing {
                instruction: head.text.clone(),
                forms: head.forms(),
            }
        };
        Err(self.session.report(cursor.span(), problem))
    }

    /// Whether the next token is no operand but should select one: a name with a comma behind it, or one that nearly is a selector.
    fn selects(&mut self, op: Op, head: &Head, cursor: &Cursor<'_>) -> bool {
        let Some(name) = cursor.peek().and_then(Token::name).filter(|_| head.selectors == 0) else {
            return false;
        };
        match cursor.rest() {
            [_, comma, ..] => comma.is(","),
            // A word may be a symbol; that is another matter.
            _ => {
                let near = nearest(name, head.next_selectors().iter().map(String::as_str)).is_some();
                near && op.info().operand != Operand::Word && matches!(constant(name), Meaning::Undefined)
            }
        }
    }

    fn unexpected(&mut self, op: Op, head: &Head, t: &Token) -> Reported {
        if let Some(r) = bad_token(self.session, t) {
            return r;
        }
        if op.info().operand != Operand::None {
            let found = t.describe();
            return self.session.report(t.span, ProgramProblem::ExpectedEnd { found });
        }
        let problem = OperandProblem::Unexpected {
            instruction: head.text.clone(),
            forms: head.forms(),
        };
        self.session.report(t.span, problem)
    }
}
