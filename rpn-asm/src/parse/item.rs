//! The items of header and probes: `name = value`.

use super::watch::WATCH_KINDS;
use super::{DEFAULT_ITEMS, HEADER_ITEMS, PROBE_ITEMS, Parser};
use crate::cursor::Cursor;
use crate::diag::Reported;
use crate::expression::{self, Meaning, Term, bad_token};
use crate::lex::{Token, TokenKind, string_value};
use crate::problem::{ProgramProblem, ValueKind};
use crate::program::{Attributes, Place, Probe, Spanned, Variables};
use dprobes::rpn::object::{ModType, Watch, WatchKind};
use dprobes::rpn::{exception, limits};

type Parsed<T> = Result<T, Reported>;

/// The value of `item` being read.
struct Value<'c, 't, 'p, 'a> {
    item: &'c str,
    cursor: &'c mut Cursor<'t>,
    parser: &'p mut Parser<'a>,
}

impl Parser<'_> {
    /// One item; `rest` is what stands after the `=`.
    pub(super) fn item(&mut self, name: &Token, rest: &[Token]) -> Parsed<()> {
        let item = name.text.to_string();
        let in_header = HEADER_ITEMS.contains(&&*item);
        let in_probe = PROBE_ITEMS.contains(&&*item);
        if !in_header && !in_probe {
            let near = self.session.nearest(&item, HEADER_ITEMS.into_iter().chain(PROBE_ITEMS));
            if let Some(meant) = &near {
                // Then it is not missing too.
                self.given.entry(meant.clone()).or_insert(name.span);
            }
            let problem = ProgramProblem::UnknownItem { name: item, near };
            return Err(self.session.report(name.span, problem));
        }
        let begins = item == "offset" || item == "address";
        match self.probes.last() {
            None if in_probe && !begins && !DEFAULT_ITEMS.contains(&&*item) => {
                let problem = ProgramProblem::ProbeItemInHeader { item };
                return Err(self.session.report(name.span, problem));
            }
            Some(_) if in_header => {
                let probe = self.probes[0].span;
                let problem = ProgramProblem::HeaderItemInProbe { item, probe };
                return Err(self.session.report(name.span, problem));
            }
            Some(p) if !begins && !p.code.is_empty() => {
                let probe = p.span;
                let problem = ProgramProblem::ItemAfterCode { item, probe };
                return Err(self.session.report(name.span, problem));
            }
            Some(p) if begins && p.code.is_empty() && p.labels.is_empty() && self.given.len() == 1 => {
                let first = p.span;
                return Err(self.session.report(name.span, ProgramProblem::TwoLocations { first }));
            }
            _ => {}
        }
        if begins {
            self.begin_probe(name);
        }
        if let Some(first) = self.given.get(&item) {
            let first = *first;
            let problem = ProgramProblem::DuplicateItem { item, first };
            return Err(self.session.report(name.span, problem));
        }
        self.given.insert(item.clone(), name.span);
        let mut cursor = Cursor::new(rest, name.span);
        let mut value = Value {
            item: &item,
            cursor: &mut cursor,
            parser: self,
        };
        if value.parser.probes.is_empty() {
            value.header()?;
        } else {
            value.probe()?;
        }
        match cursor.peek() {
            None => Ok(()),
            Some(t) => Err(bad_token(self.session, t).unwrap_or_else(|| {
                let found = t.describe();
                self.session.report(t.span, ProgramProblem::ExpectedEnd { found })
            })),
        }
    }

    fn begin_probe(&mut self, name: &Token) {
        if self.probes.is_empty() {
            self.end_header(Some(name.span));
        } else {
            let missing = (!self.given.contains_key("minor")).then(|| "minor".to_owned());
            self.end_probe(missing.into_iter().collect());
        }
        self.probes.push(Probe {
            span: name.span,
            place: None,
            returns: false,
            display: None,
            watch: None,
            opcode: Vec::new(),
            minor: None,
            pass_count: 0,
            max_hits: 0,
            attributes: self.header.defaults.clone(),
            heap: None,
            code: Vec::new(),
            labels: Vec::new(),
            damaged: false,
        });
    }
}

impl Parser<'_> {
    /// The object holds only strings that can be printed.
    pub(super) fn fit(&mut self, of: &str, s: Spanned<String>, limit: u32) -> Parsed<String> {
        let item = of.to_owned();
        let problem = if s.value.is_empty() {
            ProgramProblem::EmptyName { item }
        } else if s.value.len() > limit as usize || s.value.chars().any(char::is_control) {
            ProgramProblem::UnfitName { item, limit }
        } else {
            return Ok(s.value);
        };
        Err(self.session.report(s.span, problem))
    }
}

impl Value<'_, '_, '_, '_> {
    fn header(&mut self) -> Parsed<()> {
        match self.item {
            "name" => self.parser.header.name = Some(self.name(limits::NAME_MAX)?),
            "modtype" => self.parser.header.modtype = Some(self.modtype()?),
            "major" => {
                let span = self.cursor.span();
                let t = self.term(false)?;
                if t.value.is_zero() {
                    return Err(self.parser.session.report(span, ProgramProblem::ReservedMajor));
                }
                self.parser.header.major = Some(self.in_range(&t, 1, u16::MAX.into())? as u16);
            }
            "id" => self.parser.header.id = self.number(0, u32::MAX.into())? as u32,
            "logmax" => self.parser.header.logmax = Some(self.number(0, limits::LOG_MAX.into())? as u16),
            "ex_logmax" => self.parser.header.ex_logmax = Some(self.number(0, limits::EX_LOG_MAX.into())? as u16),
            "jmpmax" => self.parser.header.jmpmax = Some(self.number(0, limits::JMP_MAX.into())? as u16),
            "heapmax" => self.parser.header.heapmax = self.number(0, limits::HEAP_MAX.into())? as u16,
            "autostacktrace" => self.parser.header.auto_stack_trace = self.yes_no()?,
            "vars" => {
                self.parser.header.locals.broken = true;
                self.parser.header.locals = self.locals()?;
            }
            "globals" => {
                self.parser.header.globals.broken = true;
                self.parser.header.globals = self.globals()?;
            }
            _ => {
                let mut defaults = self.parser.header.defaults.clone();
                self.attribute(&mut defaults)?;
                self.parser.header.defaults = defaults;
            }
        }
        Ok(())
    }

    fn probe(&mut self) -> Parsed<()> {
        let Some(last) = self.parser.probes.len().checked_sub(1) else {
            return Ok(());
        };
        match self.item {
            "offset" => {
                let (place, returns) = match self.return_of()? {
                    Some(place) => (place, true),
                    None => (self.offset()?, false),
                };
                self.parser.probes[last].place = Some(place);
                self.parser.probes[last].returns = returns;
            }
            "address" => {
                let (place, returns) = match self.return_of()? {
                    Some(place) => (place, true),
                    None => (self.address()?, false),
                };
                self.parser.probes[last].place = Some(place);
                self.parser.probes[last].returns = returns;
            }
            "watch" => self.parser.probes[last].watch = Some(self.watch()?),
            "opcode" => self.parser.probes[last].opcode = self.opcode()?,
            "minor" => self.parser.probes[last].minor = Some(self.number(0, u16::MAX.into())? as u16),
            "pass_count" => self.parser.probes[last].pass_count = self.number(0, u64::MAX)?,
            "max_hits" => self.parser.probes[last].max_hits = self.number(0, u64::MAX)?,
            "heap" => self.parser.probes[last].heap = Some(self.heap()?),
            "display" => self.parser.probes[last].display = Some(self.name(limits::SYMBOL_MAX)?),
            _ => {
                let mut attributes = self.parser.probes[last].attributes.clone();
                self.attribute(&mut attributes)?;
                self.parser.probes[last].attributes = attributes;
            }
        }
        Ok(())
    }

    fn attribute(&mut self, a: &mut Attributes) -> Parsed<()> {
        match self.item {
            "group" => a.group = self.number(0, u16::MAX.into())? as u16,
            "type" => a.kind = self.number(0, u16::MAX.into())? as u16,
            "ex_mask" => {
                let span = self.cursor.span();
                a.ex_mask = self.number(0, u16::MAX.into())? as u16;
                let stray = a.ex_mask & !exception::MASK_BITS;
                if stray != 0 {
                    let problem = ProgramProblem::UnknownException { bits: stray };
                    return Err(self.parser.session.report(span, problem));
                }
            }
            "suspended" => a.suspended = self.yes_no()?,
            _ => a.log_on_fault = self.yes_no()?,
        }
        Ok(())
    }

    fn expected<T>(&mut self, kind: ValueKind, near: Option<String>) -> Parsed<T> {
        let session = &mut self.parser.session;
        if let Some(r) = self.cursor.peek().and_then(|t| bad_token(session, t)) {
            return Err(r);
        }
        let problem = ProgramProblem::ExpectedValue {
            of: self.item.into(),
            kind,
            found: self.cursor.found(),
            near,
        };
        Err(session.report(self.cursor.span(), problem))
    }

    /// One of some words.
    fn word<T: Copy>(&mut self, kind: ValueKind, words: &[(&str, T)]) -> Parsed<T> {
        let name = self.cursor.peek().and_then(Token::name);
        if let Some((_, v)) = words.iter().find(|(w, _)| Some(*w) == name) {
            self.cursor.next();
            return Ok(*v);
        }
        let near = name.and_then(|n| self.parser.session.nearest(n, words.iter().map(|(w, _)| *w)));
        self.expected(kind, near)
    }

    fn yes_no(&mut self) -> Parsed<bool> {
        self.word(ValueKind::YesNo, &[("yes", true), ("no", false)])
    }

    fn modtype(&mut self) -> Parsed<ModType> {
        let words = [
            ("kernel", ModType::Kernel),
            ("kmod", ModType::Kmod),
            ("user", ModType::User),
        ];
        self.word(ValueKind::ModType, &words)
    }

    fn string(&mut self) -> Parsed<Spanned<String>> {
        let Some(t) = self.cursor.peek().filter(|t| t.kind == TokenKind::String) else {
            let near = self.cursor.peek().and_then(Token::name).map(|n| format!("\"{n}\""));
            return self.expected(ValueKind::String, near);
        };
        self.cursor.next();
        let value = string_value(&t.text).map_err(|p| self.parser.session.report(t.span, p))?;
        Ok(Spanned { value, span: t.span })
    }

    fn name(&mut self, limit: u32) -> Parsed<String> {
        let s = self.string()?;
        self.parser.fit(self.item, s, limit)
    }

    /// An expression; a name without a value is a symbol if `symbols`.
    fn term(&mut self, symbols: bool) -> Parsed<Term> {
        if self.cursor.at_end() {
            return self.expected(ValueKind::Number, None);
        }
        let macros = self.parser.macros;
        expression::parse(self.cursor, self.parser.session, macros, &mut |t| {
            if symbols {
                Meaning::Symbol
            } else {
                expression::constant(&t.text)
            }
        })
    }

    fn number(&mut self, least: u64, most: u64) -> Parsed<u64> {
        let t = self.term(false)?;
        self.in_range(&t, least.into(), most.into()).map(|v| v as u64)
    }

    fn in_range(&mut self, t: &Term, least: i128, most: i128) -> Parsed<i128> {
        let v = t.value.wide();
        if (least..=most).contains(&v) {
            return Ok(v);
        }
        let problem = ProgramProblem::OutOfRange {
            of: self.item.into(),
            value: v.to_string(),
            least,
            most,
        };
        Err(self.parser.session.report(t.span, problem))
    }

    /// What is watched for, and how many bytes; an instruction has no length.
    fn watch(&mut self) -> Parsed<Spanned<Watch>> {
        let span = self.cursor.span();
        let kind = self.word(ValueKind::WatchKind, &WATCH_KINDS)?;
        let len_span = self.cursor.span();
        let len = match kind {
            WatchKind::Execute if self.cursor.at_end() => 1,
            _ => self.number(0, u64::MAX)?,
        };
        let value = self.parser.watch_of(kind, len, len_span)?;
        Ok(Spanned { value, span })
    }

    fn opcode(&mut self) -> Parsed<Vec<u8>> {
        let start = self.cursor.span();
        let mut bytes = vec![self.number(0, 255)? as u8];
        while self.cursor.take(",").is_some() {
            bytes.push(self.number(0, 255)? as u8);
        }
        if bytes.len() > limits::OPCODE_MAX {
            let found = bytes.len();
            let problem = ProgramProblem::OpcodeLength { found };
            return Err(self.parser.session.report(start, problem));
        }
        Ok(bytes)
    }

    fn heap(&mut self) -> Parsed<u16> {
        let t = self.term(false)?;
        let value = self.in_range(&t, 0, limits::HEAP_MAX.into())? as u16;
        let limit = self.parser.header.heapmax;
        if value <= limit {
            return Ok(value);
        }
        let problem = ProgramProblem::HeapBeyondMax { value, limit };
        Err(self.parser.session.report(t.span, problem))
    }

    /// Local variables: names, `_` for one without, or how many there are.
    fn locals(&mut self) -> Parsed<Variables> {
        let limit = limits::LOCALS_MAX;
        let names = match self.count(limit)? {
            Some(Spanned { value, span }) => {
                let unnamed = Spanned {
                    value: String::new(),
                    span,
                };
                vec![unnamed; value]
            }
            None => self.names(limit, false)?,
        };
        Ok(Variables { names, broken: false })
    }

    /// Global variables: names, or how many there are, which have numbers as names.
    fn globals(&mut self) -> Parsed<Variables> {
        let limit = limits::GLOBALS_MAX;
        let names = match self.count(limit)? {
            Some(Spanned { value, span }) => (0..value)
                .map(|n| Spanned {
                    value: n.to_string(),
                    span,
                })
                .collect(),
            None => self.names(limit, true)?,
        };
        Ok(Variables { names, broken: false })
    }

    /// How many variables there are, if that is what is said of them.
    fn count(&mut self, limit: u16) -> Parsed<Option<Spanned<usize>>> {
        let kinds = [TokenKind::Number, TokenKind::Character, TokenKind::Punctuation];
        if self.cursor.peek().is_none_or(|t| !kinds.contains(&t.kind)) {
            return Ok(None);
        }
        let t = self.term(false)?;
        let found = t.value.wide();
        if !(0..=i128::from(limit)).contains(&found) {
            let problem = ProgramProblem::TooManyVariables { found, limit };
            return Err(self.parser.session.report(t.span, problem));
        }
        Ok(Some(Spanned {
            value: found as usize,
            span: t.span,
        }))
    }

    /// Names separated by commas. Those that are shared with other programs must be names, and may be any.
    fn names(&mut self, limit: u16, shared: bool) -> Parsed<Vec<Spanned<String>>> {
        let mut names: Vec<Spanned<String>> = Vec::new();
        let start = self.cursor.span();
        loop {
            let name = match self.cursor.peek() {
                Some(t) if t.kind == TokenKind::Identifier => {
                    self.cursor.next();
                    let value = if &*t.text == "_" {
                        String::new()
                    } else {
                        t.text.to_string()
                    };
                    Spanned { value, span: t.span }
                }
                Some(t) if t.kind == TokenKind::String && shared => self.string()?,
                _ => return self.expected(ValueKind::Variables, None),
            };
            if shared && name.value.is_empty() {
                return Err(self.parser.session.report(name.span, ProgramProblem::UnnamedGlobal));
            }
            // With too many there is an error anyhow.
            let few = &names[..names.len().min(limit.into())];
            if let Some(old) = few.iter().find(|n| !name.value.is_empty() && n.value == name.value) {
                let problem = ProgramProblem::DuplicateVariable {
                    name: name.value,
                    first: old.span,
                };
                return Err(self.parser.session.report(name.span, problem));
            }
            if !name.value.is_empty() {
                self.parser.fit(self.item, name.clone(), limits::VARIABLE_NAME_MAX)?;
            }
            names.push(name);
            if self.cursor.take(",").is_none() {
                break;
            }
        }
        if names.len() > limit.into() {
            let found = names.len() as i128;
            let problem = ProgramProblem::TooManyVariables { found, limit };
            return Err(self.parser.session.report(start, problem));
        }
        Ok(names)
    }

    /// `return(FUNCTION)`, if that is what stands here.
    fn return_of(&mut self) -> Parsed<Option<Place>> {
        let is = |index: usize, text: &str| self.cursor.rest().get(index).is_some_and(|token| &*token.text == text);
        if !(is(0, "return") && is(1, "(")) {
            return Ok(None);
        }
        self.cursor.next();
        self.cursor.next();
        let is_address = self.item == "address";
        let t = self.term(true)?;
        let place = match t.symbol.clone() {
            Some((symbol, span)) if is_address => {
                let problem = ProgramProblem::SymbolicAddress { symbol };
                return Err(self.parser.session.report(span, problem));
            }
            None if is_address => Place::Absolute(self.in_range(&t, 0, u64::MAX.into())? as u64),
            Some((symbol, span)) => {
                let symbol = Spanned { value: symbol, span };
                let symbol = self.parser.fit(self.item, symbol, limits::SYMBOL_MAX)?;
                // A call begins with the first instruction.
                self.in_range(&t, 0, 0)?;
                Place::Symbol(symbol, 0)
            }
            None => Place::Offset(self.in_range(&t, 0, u64::MAX.into())? as u64),
        };
        if self.cursor.take(")").is_none() {
            return self.expected(ValueKind::ReturnEnd, None);
        }
        Ok(Some(place))
    }

    fn offset(&mut self) -> Parsed<Place> {
        let t = self.term(true)?;
        let Some((symbol, span)) = t.symbol.clone() else {
            return Ok(Place::Offset(self.in_range(&t, 0, u64::MAX.into())? as u64));
        };
        let symbol = self
            .parser
            .fit(self.item, Spanned { value: symbol, span }, limits::SYMBOL_MAX)?;
        if self.cursor.take(":").is_some() {
            if self.cursor.at_end() {
                return self.expected(ValueKind::Line, None);
            }
            let line = self.number(1, u32::MAX.into())?;
            return Ok(Place::Line(symbol, line as u32));
        }
        let addend = self.in_range(&t, i64::MIN.into(), i64::MAX.into())?;
        Ok(Place::Symbol(symbol, addend as i64))
    }

    fn address(&mut self) -> Parsed<Place> {
        let t = self.term(true)?;
        if let Some((symbol, span)) = t.symbol {
            let problem = ProgramProblem::SymbolicAddress { symbol };
            return Err(self.parser.session.report(span, problem));
        }
        Ok(Place::Absolute(self.in_range(&t, 0, u64::MAX.into())? as u64))
    }
}
