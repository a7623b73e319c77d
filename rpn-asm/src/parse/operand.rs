//! The operand of an instruction.

use super::instruction::{Reader, push_words};
use crate::cursor::Cursor;
use crate::diag::Reported;
use crate::expression::{self, Meaning, Term, bad_token};
use crate::lex::{Token, TokenKind};
use crate::problem::{NameSpace, OperandProblem, ProgramProblem, ValueKind};
use crate::program::{Argument, Header, Spanned, Variables};
use crate::source::Span;
use crate::suggest::nearly_the_same;
use dprobes::rpn::op::{Op, Operand, Words, facility};
use dprobes::rpn::reg::Reg;
use dprobes::rpn::{exception, limits};

impl Reader<'_> {
    /// `of` is the instruction as far as it has been read.
    pub(super) fn argument(&mut self, op: Op, of: &str, cursor: &mut Cursor<'_>) -> Result<Argument, Reported> {
        Ok(match op.info().operand {
            Operand::None => Argument::None,
            Operand::U8 => Argument::Number(self.number(of, cursor, 0, u8::MAX.into())?.value),
            Operand::U16 => Argument::Number(self.number(of, cursor, 0, u16::MAX.into())?.value),
            Operand::S16 => Argument::Number(self.number(of, cursor, i16::MIN.into(), i16::MAX.into())?.value),
            Operand::Word => self.word(of, cursor)?,
            Operand::Reg => Argument::Register(self.register(op, of, cursor)?),
            Operand::Local => Argument::Local(self.variable(NameSpace::Local, of, cursor)?),
            Operand::Global => Argument::Global(self.variable(NameSpace::Global, of, cursor)?),
            Operand::Map => Argument::Map(self.map(of, cursor)?),
            Operand::Group => {
                self.present(of, ValueKind::Group, cursor)?;
                let Spanned { value, span } = self.number(of, cursor, 0, u16::MAX.into())?;
                let value = value as u16;
                Argument::Group(Spanned { value, span })
            }
            Operand::Facility => Argument::Number(self.facility(of, cursor)?.into()),
            Operand::Branch => {
                let t = self.name(of, ValueKind::Label, cursor)?;
                Argument::Label(Spanned {
                    value: t.text.to_string(),
                    span: t.span,
                })
            }
        })
    }

    /// There is an operand at all.
    fn present(&mut self, of: &str, kind: ValueKind, cursor: &Cursor<'_>) -> Result<(), Reported> {
        if !cursor.at_end() {
            return Ok(());
        }
        Err(self.expected(of, kind, cursor))
    }

    fn expected(&mut self, of: &str, kind: ValueKind, cursor: &Cursor<'_>) -> Reported {
        let problem = ProgramProblem::ExpectedValue {
            of: of.into(),
            kind,
            found: cursor.found(),
            near: None,
        };
        self.session.report(cursor.span(), problem)
    }

    /// A name that is not an expression.
    fn name<'t>(&mut self, of: &str, kind: ValueKind, cursor: &mut Cursor<'t>) -> Result<&'t Token, Reported> {
        if let Some(t) = cursor.name() {
            return Ok(t);
        }
        if let Some(r) = cursor.peek().and_then(|t| bad_token(self.session, t)) {
            return Err(r);
        }
        Err(self.expected(of, kind, cursor))
    }

    fn expression(&mut self, of: &str, symbols: bool, cursor: &mut Cursor<'_>) -> Result<Term, Reported> {
        self.present(of, ValueKind::Number, cursor)?;
        let header = self.header;
        expression::parse(cursor, self.session, self.macros, &mut |t| {
            if t.kind == TokenKind::String && symbols {
                return Meaning::Symbol;
            }
            match (other_name_space(of, &t.text, header), expression::constant(&t.text)) {
                (Some(problem), _) => Meaning::Misplaced(problem),
                (None, Meaning::Undefined) if symbols => Meaning::Symbol,
                (None, meaning) => meaning,
            }
        })
    }

    /// A word: a number, or the address of a symbol and a number.
    fn word(&mut self, of: &str, cursor: &mut Cursor<'_>) -> Result<Argument, Reported> {
        let first = cursor.peek();
        let term = self.expression(of, true, cursor)?;
        let Some((name, span)) = term.symbol else {
            return Ok(Argument::Number(term.value.bits));
        };
        if name.is_empty() {
            return Err(self
                .session
                .report(span, ProgramProblem::EmptyName { item: "symbol".into() }));
        }
        if name.len() > limits::SYMBOL_MAX as usize || name.chars().any(char::is_control) {
            let problem = ProgramProblem::UnfitName {
                item: "symbol".into(),
                limit: limits::SYMBOL_MAX,
            };
            return Err(self.session.report(span, problem));
        }
        let addend = i64::try_from(term.value.wide()).map_err(|_| {
            let problem = ProgramProblem::OutOfRange {
                of: of.into(),
                value: term.value.to_string(),
                least: i64::MIN.into(),
                most: i64::MAX.into(),
            };
            self.session.report(term.span, problem)
        })?;
        // Only a name that is all there is can be a word of the instruction.
        let alone = first.is_some_and(|t| t.span == term.span);
        self.doubt(&name, span, alone);
        Ok(Argument::Symbol {
            name: Spanned { value: name, span },
            addend,
        })
    }

    /// Warns of a symbol that is very much like a name of the program.
    fn doubt(&mut self, symbol: &str, span: Span, alone: bool) {
        if self.session.map.text(span).starts_with('"') || !self.session.compares(self.macros.len() + Reg::ALL.len()) {
            return;
        }
        let plain = self.macros.iter().map(|m| (m.as_str(), ""));
        let plain = plain.chain(exception::CODES.iter().map(|(n, _)| (*n, "")));
        let selected = push_words().map(|w| (w, ""));
        let selected = selected.chain(Reg::ALL.iter().map(|r| (r.name(), "r, ")));
        let selected = selected.chain(self.header.locals.named().map(|n| (n, "lv, ")));
        let selected = selected.chain(self.header.globals.named().map(|n| (n, "gv, ")));
        let near = plain
            .chain(selected.filter(|_| alone))
            .find(|(name, _)| nearly_the_same(symbol, name));
        // `push u64`: the width of an access, without what is accessed.
        let width = Op::with_mnemonic("push")
            .filter(|_| alone)
            .find_map(|op| match op.info().selectors {
                [of, width] if *width == symbol => Some(format!("{of}, {width}")),
                _ => None,
            });
        if let Some(near) = width.or_else(|| near.map(|(name, selector)| format!("{selector}{name}"))) {
            let problem = OperandProblem::DoubtfulSymbol {
                name: symbol.to_owned(),
                near,
            };
            self.session.report(span, problem);
        }
    }

    fn number(&mut self, of: &str, cursor: &mut Cursor<'_>, least: i128, most: i128) -> Result<Spanned<u64>, Reported> {
        let Term { value, span, .. } = self.expression(of, false, cursor)?;
        let wide = value.wide();
        if (least..=most).contains(&wide) {
            return Ok(Spanned {
                value: value.bits,
                span,
            });
        }
        let problem = ProgramProblem::OutOfRange {
            of: of.into(),
            value: wide.to_string(),
            least,
            most,
        };
        Err(self.session.report(span, problem))
    }

    fn register(&mut self, op: Op, of: &str, cursor: &mut Cursor<'_>) -> Result<Reg, Reported> {
        let t = self.name(of, ValueKind::Register, cursor)?;
        let name = t.text.to_string();
        let written = op.info().pops != Words::Fixed(0);
        let problem = match Reg::from_name(&name) {
            Some(r) if written && !r.is_writable() => OperandProblem::ReadOnlyRegister { name },
            Some(r) if op == Op::PushU && !r.is_saved() => OperandProblem::NoUserRegister { name },
            Some(r) => return Ok(r),
            None => OperandProblem::UnknownRegister {
                near: self.session.nearest(&name, Reg::ALL.iter().map(|r| r.name())),
                name,
            },
        };
        Err(self.session.report(t.span, problem))
    }

    /// The index of a variable, by its name or as a number.
    fn variable(&mut self, space: NameSpace, of: &str, cursor: &mut Cursor<'_>) -> Result<u16, Reported> {
        let (kind, variables, others, other) = match space {
            NameSpace::Global => (ValueKind::Global, &self.header.globals, &self.header.locals, "lv"),
            _ => (ValueKind::Local, &self.header.locals, &self.header.globals, "gv"),
        };
        self.present(of, kind, cursor)?;
        let count = variables.names.len();
        if let Some(t) = only_name(cursor) {
            if let Some(index) = variables.index(&t.text) {
                cursor.next();
                return Ok(index);
            }
            if variables.broken {
                cursor.next();
                return Ok(0);
            }
            if !is_exception(&t.text) {
                let name = t.text.to_string();
                let problem = OperandProblem::UnknownVariable {
                    near: self.session.nearest(&name, variables.named()),
                    none: count == 0,
                    instead: instead(of, &name, others, other),
                    space,
                    name,
                };
                return Err(self.session.report(t.span, problem));
            }
        }
        let broken = variables.broken;
        let Term { value, span, .. } = self.expression(of, false, cursor)?;
        self.index(value.wide(), count, broken).map_err(|index| {
            self.session
                .report(span, OperandProblem::VariableIndex { index, space, count })
        })
    }

    fn map(&mut self, of: &str, cursor: &mut Cursor<'_>) -> Result<u16, Reported> {
        self.present(of, ValueKind::Map, cursor)?;
        let maps = &self.header.maps;
        let (count, broken) = (maps.list.len(), maps.broken);
        if let Some(t) = only_name(cursor) {
            if let Some(index) = maps.index(&t.text) {
                cursor.next();
                return Ok(index);
            }
            if broken {
                cursor.next();
                return Ok(0);
            }
            if !is_exception(&t.text) {
                let name = t.text.to_string();
                let problem = OperandProblem::UnknownMap {
                    near: self.session.nearest(&name, maps.names()),
                    known: maps.names().map(str::to_owned).collect(),
                    name,
                };
                return Err(self.session.report(t.span, problem));
            }
        }
        let Term { value, span, .. } = self.expression(of, false, cursor)?;
        self.index(value.wide(), count, broken)
            .map_err(|index| self.session.report(span, OperandProblem::MapIndex { index, count }))
    }

    /// A number as an index of so many things.
    fn index(&self, value: i128, count: usize, broken: bool) -> Result<u16, String> {
        match u16::try_from(value) {
            Ok(index) if usize::from(index) < count => Ok(index),
            // What is wrong has been reported.
            _ if broken => Ok(0),
            _ => Err(value.to_string()),
        }
    }

    fn facility(&mut self, of: &str, cursor: &mut Cursor<'_>) -> Result<u8, Reported> {
        self.present(of, ValueKind::Facility, cursor)?;
        if let Some(t) = only_name(cursor).filter(|t| !is_exception(&t.text)) {
            if let Some((_, number)) = facility::NAMES.iter().find(|(name, _)| *name == &*t.text) {
                cursor.next();
                return Ok(*number);
            }
            let name = t.text.to_string();
            let names = facility::NAMES.iter().map(|(n, _)| *n);
            let problem = OperandProblem::UnknownFacility {
                near: self.session.nearest(&name, names),
                name,
            };
            return Err(self.session.report(t.span, problem));
        }
        let Spanned { value, span } = self.number(of, cursor, 0, u8::MAX.into())?;
        let number = value as u8;
        if facility::is_valid(number) {
            return Ok(number);
        }
        Err(self.session.report(span, OperandProblem::ReservedFacility { number }))
    }
}

/// The name that is next, if it cannot be the beginning of an expression.
fn only_name<'t>(cursor: &Cursor<'t>) -> Option<&'t Token> {
    cursor
        .peek()
        .filter(|t| t.kind == TokenKind::Identifier && cursor.rest().get(1).is_none_or(|next| next.is(",")))
}

fn is_exception(name: &str) -> bool {
    exception::CODES.iter().any(|(n, _)| *n == name)
}

/// The instruction with the other kind of variable, if it has a variable of this name.
fn instead(of: &str, name: &str, others: &Variables, selector: &str) -> Option<String> {
    others.index(name)?;
    let mnemonic = of.split(' ').next()?;
    Op::find(mnemonic, &[selector], true).map(|op| format!("{op}, {name}"))
}

/// What a name is, if it has no place in an expression but would in another instruction of this mnemonic.
fn other_name_space(of: &str, name: &str, header: &Header) -> Option<OperandProblem> {
    let is = if Reg::from_name(name).is_some() {
        NameSpace::Register
    } else if header.locals.index(name).is_some() {
        NameSpace::Local
    } else if header.globals.index(name).is_some() {
        NameSpace::Global
    } else if header.maps.index(name).is_some() {
        NameSpace::Map
    } else {
        return None;
    };
    let form = is
        .selector()
        .and_then(|selector| Op::find(of, &[selector], true))
        .map(|op| format!("{op}, {name}"));
    Some(OperandProblem::NotANumber {
        name: name.to_owned(),
        is,
        instead: form,
    })
}
