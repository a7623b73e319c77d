//! One instruction: mnemonic, selectors, operand, as the table of the machine's instructions has them.

use crate::cursor::Cursor;
use crate::diag::{Reported, Session};
use crate::expression::{self, Meaning, bad_token};
use crate::lex::{Token, TokenKind};
use crate::problem::{ProgramProblem, ValueKind};
use crate::program::{Argument, Header, Instruction, Spanned};
use crate::value::Value;
use dprobes::rpn::exception;
use dprobes::rpn::op::{Op, Operand, Words};
use dprobes::rpn::reg::Reg;

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
        all.dedup();
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
        while let Some(word) = cursor.peek().and_then(Token::name)
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
        let argument = self.argument(op, &head, &mut cursor)?;
        if let Some(t) = cursor.peek() {
            return Err(self.unexpected(op, &head, t));
        }
        Ok(Instruction { op, argument, span })
    }

    fn choose(&mut self, head: &Head, cursor: &Cursor<'_>, wants_operand: bool) -> Result<Op, Reported> {
        if let Some(op) = head.complete(wants_operand) {
            return Ok(op);
        }
        if let Some(r) = cursor.peek().and_then(|t| bad_token(self.session, t)) {
            return Err(r);
        }
        let expected = head.next_selectors();
        let problem = if wants_operand && !expected.is_empty() {
            let word = cursor.peek().and_then(Token::name);
            ProgramProblem::ExpectedSelector {
                after: head.text.clone(),
                near: word.and_then(|w| self.session.nearest(w, expected.iter().map(String::as_str))),
                expected,
                found: cursor.found(),
            }
        } else if wants_operand && !cursor.at_end() {
            ProgramProblem::UnexpectedOperand {
                instruction: head.text.clone(),
                forms: head.forms(),
            }
        } else {
            ProgramProblem::MissingOperand {
                instruction: head.text.clone(),
                forms: head.forms(),
            }
        };
        Err(self.session.report(cursor.span(), problem))
    }

    fn unexpected(&mut self, op: Op, head: &Head, t: &Token) -> Reported {
        if let Some(r) = bad_token(self.session, t) {
            return r;
        }
        let problem = if op.info().operand == Operand::None {
            ProgramProblem::UnexpectedOperand {
                instruction: head.text.clone(),
                forms: head.forms(),
            }
        } else {
            ProgramProblem::ExpectedEnd { found: t.describe() }
        };
        self.session.report(t.span, problem)
    }

    fn argument(&mut self, op: Op, head: &Head, cursor: &mut Cursor<'_>) -> Result<Argument, Reported> {
        let of = head.text.as_str();
        Ok(match op.info().operand {
            Operand::None => Argument::None,
            Operand::U8 => Argument::Number(self.number(of, cursor, u8::MAX.into())?),
            Operand::U16 | Operand::Group | Operand::Map => {
                Argument::Number(self.number(of, cursor, u16::MAX.into())?)
            }
            Operand::Facility => Argument::Number(self.number(of, cursor, u8::MAX.into())?),
            Operand::S16 => Argument::Number(self.word(of, cursor)?.bits),
            Operand::Global => Argument::Number(self.number(of, cursor, u16::MAX.into())?),
            Operand::Word => Argument::Number(self.word(of, cursor)?.bits),
            Operand::Reg => Argument::Register(self.register(op, of, cursor)?),
            Operand::Local => Argument::Local(self.local(of, cursor)?),
            Operand::Branch => {
                let t = self.name(of, ValueKind::Label, cursor)?;
                Argument::Label(Spanned {
                    value: t.text.to_string(),
                    span: t.span,
                })
            }
        })
    }

    /// A name that is not an expression.
    fn name<'t>(&mut self, of: &str, kind: ValueKind, cursor: &mut Cursor<'t>) -> Result<&'t Token, Reported> {
        if let Some(t) = cursor.name() {
            return Ok(t);
        }
        if let Some(r) = cursor.peek().and_then(|t| bad_token(self.session, t)) {
            return Err(r);
        }
        let problem = ProgramProblem::ExpectedValue {
            of: of.into(),
            kind,
            found: cursor.found(),
            near: None,
        };
        Err(self.session.report(cursor.span(), problem))
    }

    fn word(&mut self, of: &str, cursor: &mut Cursor<'_>) -> Result<Value, Reported> {
        if cursor.at_end() {
            let problem = ProgramProblem::ExpectedValue {
                of: of.into(),
                kind: ValueKind::Number,
                found: cursor.found(),
                near: None,
            };
            return Err(self.session.report(cursor.span(), problem));
        }
        let header = self.header;
        let term = expression::parse(cursor, self.session, self.macros, &mut |t| match other_name_space(
            of, &t.text, header,
        ) {
            Some(problem) => Meaning::Misplaced(problem),
            None => expression::constant(&t.text),
        })?;
        Ok(term.value)
    }

    fn number(&mut self, of: &str, cursor: &mut Cursor<'_>, most: i128) -> Result<u64, Reported> {
        let start = cursor.rest();
        let value = self.word(of, cursor)?;
        let wide = value.wide();
        if (0..=most).contains(&wide) {
            return Ok(value.bits);
        }
        let read = &start[..start.len() - cursor.rest().len()];
        let span = match (read.first(), read.last()) {
            (Some(a), Some(b)) => self.session.map.join(a.span, b.span),
            _ => cursor.span(),
        };
        let problem = ProgramProblem::OutOfRange {
            of: of.into(),
            value: wide.to_string(),
            least: 0,
            most,
        };
        Err(self.session.report(span, problem))
    }

    fn register(&mut self, op: Op, of: &str, cursor: &mut Cursor<'_>) -> Result<Reg, Reported> {
        let t = self.name(of, ValueKind::Register, cursor)?;
        let name = t.text.to_string();
        let problem = match Reg::from_name(&name) {
            Some(r) if op.info().pops == Words::Fixed(0) || r.is_writable() => return Ok(r),
            Some(_) => ProgramProblem::ReadOnlyRegister { name },
            None => ProgramProblem::UnknownRegister {
                near: self.session.nearest(&name, Reg::ALL.iter().map(|r| r.name())),
                name,
            },
        };
        Err(self.session.report(t.span, problem))
    }

    fn local(&mut self, of: &str, cursor: &mut Cursor<'_>) -> Result<u16, Reported> {
        let locals = &self.header.locals;
        let count = locals.names.len();
        if let Some(t) = cursor
            .peek()
            .filter(|t| t.kind == TokenKind::Identifier && cursor.rest().len() == 1)
        {
            if let Some(i) = locals.index(&t.text) {
                cursor.next();
                return Ok(i);
            }
            if locals.broken {
                cursor.next();
                return Ok(0);
            }
            if !exception::CODES.iter().any(|(n, _)| *n == &*t.text) {
                let problem = ProgramProblem::UnknownVariable {
                    name: t.text.to_string(),
                    near: self.session.nearest(&t.text, locals.named()),
                    none: count == 0,
                };
                return Err(self.session.report(t.span, problem));
            }
        }
        let start = cursor.span();
        let value = self.word(of, cursor)?.wide();
        match u16::try_from(value) {
            Ok(i) if usize::from(i) < count => Ok(i),
            _ if locals.broken => Ok(0),
            _ => {
                let index = value.to_string();
                let problem = ProgramProblem::VariableIndex { index, count };
                Err(self.session.report(start, problem))
            }
        }
    }
}

/// What a name is, if it has no place in an expression but would in another instruction of this mnemonic.
fn other_name_space(of: &str, name: &str, header: &Header) -> Option<ProgramProblem> {
    let (is, selector) = if Reg::from_name(name).is_some() {
        ("register", "r")
    } else if header.locals.index(name).is_some() {
        ("local variable", "lv")
    } else {
        return None;
    };
    let exists = Op::find(of, &[selector], true).is_some();
    Some(ProgramProblem::WrongNameSpace {
        name: name.to_owned(),
        is,
        instead: exists.then(|| format!("{of} {selector}, {name}")),
    })
}
