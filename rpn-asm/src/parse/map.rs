//! The declaration of a map: `map NAME = KIND, OPTION = NUMBER, ...`.

use super::Parser;
use crate::cursor::Cursor;
use crate::diag::Reported;
use crate::expression;
use crate::lex::{Token, TokenKind, string_value};
use crate::problem::{MapProblem, ProgramProblem, ValueKind};
use crate::program::{Map, Spanned};
use dprobes::rpn::limits;
use dprobes::rpn::object::{self, MapKind};

/// What a map can keep, as it is written.
pub(crate) const MAP_KINDS: [&str; 7] = ["count", "sum", "min", "max", "avg", "log2", "linear"];

/// What every map can be told, and what only a linear histogram must be told.
pub(crate) const MAP_OPTIONS: [&str; 5] = ["keys", "entries", "min", "max", "step"];
const LINEAR_OPTIONS: [&str; 3] = ["min", "max", "step"];

type Parsed<T> = Result<T, Reported>;

/// A number given for an option.
type Given = Option<Spanned<i128>>;

#[derive(Default)]
struct Options {
    given: [Given; MAP_OPTIONS.len()],
}

impl Options {
    fn get(&self, name: &str) -> Option<&Spanned<i128>> {
        let at = MAP_OPTIONS.iter().position(|o| *o == name)?;
        self.given[at].as_ref()
    }
}

impl Parser<'_> {
    /// The whole statement; `rest` is what stands behind `map`.
    pub(super) fn map(&mut self, item: &Token, rest: &[Token]) -> Parsed<()> {
        if let Some(first) = self.probes.first() {
            let problem = ProgramProblem::HeaderItemInProbe {
                item: "map".into(),
                probe: first.span,
            };
            return Err(self.session.report(item.span, problem));
        }
        // Until it has proved to be right.
        let was_broken = std::mem::replace(&mut self.header.maps.broken, true);
        let map = self.map_declaration(item, rest)?;
        let span = map.name.span;
        if self.header.maps.list.len() >= limits::MAPS_MAX.into() {
            return Err(self.session.report(span, MapProblem::TooMany));
        }
        self.header.maps.list.push(map);
        let bytes: u64 = self.header.maps.list.iter().map(Map::bytes).sum();
        if bytes > limits::MAP_BYTES_MAX {
            return Err(self.session.report(span, MapProblem::TooLarge { bytes }));
        }
        self.header.maps.broken = was_broken;
        Ok(())
    }

    fn map_declaration(&mut self, item: &Token, rest: &[Token]) -> Parsed<Map> {
        let mut cursor = Cursor::new(rest, item.span);
        let name = self.map_name(&mut cursor)?;
        if cursor.take("=").is_none() {
            let problem = ProgramProblem::ExpectedEquals {
                item: format!("map {}", name.value),
                found: cursor.found(),
            };
            return Err(self.complain(&cursor, problem));
        }
        let kind = self.map_kind(&name.value, &mut cursor)?;
        let mut options = Options::default();
        while cursor.take(",").is_some() {
            self.map_option(&kind, &mut options, &mut cursor)?;
        }
        if !cursor.at_end() {
            let found = cursor.found();
            return Err(self.complain(&cursor, MapProblem::ExpectedComma { found }));
        }
        self.map_from(name, &kind, &options)
    }

    /// Reports what is wrong with the next token, or that it is none.
    fn complain(&mut self, cursor: &Cursor<'_>, problem: impl Into<crate::problem::Problem>) -> Reported {
        match cursor.peek().and_then(|t| expression::bad_token(self.session, t)) {
            Some(reported) => reported,
            None => self.session.report(cursor.span(), problem),
        }
    }

    fn map_name(&mut self, cursor: &mut Cursor<'_>) -> Parsed<Spanned<String>> {
        let name = match cursor.peek() {
            Some(t) if t.kind == TokenKind::Identifier => t.text.to_string(),
            Some(t) if t.kind == TokenKind::String => {
                string_value(&t.text).map_err(|p| self.session.report(t.span, p))?
            }
            _ => {
                let problem = ProgramProblem::ExpectedValue {
                    of: "map".into(),
                    kind: ValueKind::MapName,
                    found: cursor.found(),
                    near: None,
                };
                return Err(self.complain(cursor, problem));
            }
        };
        let span = cursor.span();
        cursor.next();
        let name = self.fit("map", Spanned { value: name, span }, limits::VARIABLE_NAME_MAX)?;
        if let Some(old) = self.header.maps.list.iter().find(|m| m.name.value == name) {
            let first = old.name.span;
            return Err(self.session.report(span, MapProblem::Duplicate { name, first }));
        }
        Ok(Spanned { value: name, span })
    }

    fn map_kind(&mut self, map: &str, cursor: &mut Cursor<'_>) -> Parsed<String> {
        let word = cursor.peek().and_then(Token::name);
        if let Some(kind) = word.filter(|w| MAP_KINDS.contains(w)) {
            cursor.next();
            return Ok(kind.to_owned());
        }
        let problem = ProgramProblem::ExpectedValue {
            of: format!("map {map}"),
            kind: ValueKind::MapKind,
            found: cursor.found(),
            near: word.and_then(|w| self.session.nearest(w, MAP_KINDS)),
        };
        Err(self.complain(cursor, problem))
    }

    fn map_option(&mut self, kind: &str, options: &mut Options, cursor: &mut Cursor<'_>) -> Parsed<()> {
        let linear = kind == "linear";
        let known: Vec<&str> = MAP_OPTIONS
            .into_iter()
            .filter(|o| linear || !LINEAR_OPTIONS.contains(o))
            .collect();
        let word = cursor.peek().and_then(Token::name);
        let Some(at) = word.and_then(|w| MAP_OPTIONS.iter().position(|o| *o == w)) else {
            let problem = MapProblem::ExpectedOption {
                found: cursor.found(),
                near: word.and_then(|w| self.session.nearest(w, known.iter().copied())),
                known: known.into_iter().map(str::to_owned).collect(),
            };
            return Err(self.complain(cursor, problem));
        };
        let option = MAP_OPTIONS[at];
        let span = cursor.span();
        if !known.contains(&option) {
            let problem = MapProblem::OnlyLinear {
                option,
                kind: kind.to_owned(),
            };
            return Err(self.session.report(span, problem));
        }
        if let Some(first) = &options.given[at] {
            let problem = ProgramProblem::DuplicateItem {
                item: option.into(),
                first: first.span,
            };
            return Err(self.session.report(span, problem));
        }
        cursor.next();
        if cursor.take("=").is_none() {
            let problem = ProgramProblem::ExpectedEquals {
                item: option.into(),
                found: cursor.found(),
            };
            return Err(self.complain(cursor, problem));
        }
        let of = option.to_owned();
        if cursor.at_end() {
            let problem = ProgramProblem::ExpectedValue {
                of,
                kind: ValueKind::Number,
                found: cursor.found(),
                near: None,
            };
            return Err(self.complain(cursor, problem));
        }
        let macros = self.macros;
        let term = expression::parse(cursor, self.session, macros, &mut |t| expression::constant(&t.text))?;
        let value = term.value.wide();
        let (least, most): (i128, i128) = match option {
            "keys" => (0, limits::MAP_KEYS_MAX.into()),
            "entries" => (1, limits::MAP_ENTRIES_MAX.into()),
            "step" => (1, u64::MAX.into()),
            _ => (i64::MIN.into(), i64::MAX.into()),
        };
        if !(least..=most).contains(&value) {
            let problem = ProgramProblem::OutOfRange {
                of,
                value: value.to_string(),
                least,
                most,
            };
            return Err(self.session.report(term.span, problem));
        }
        options.given[at] = Some(Spanned { value, span });
        Ok(())
    }

    fn map_from(&mut self, name: Spanned<String>, kind: &str, options: &Options) -> Parsed<Map> {
        let number = |option| options.get(option).map(|v| v.value);
        let kind = match kind {
            "count" => MapKind::Count,
            "sum" => MapKind::Sum,
            "min" => MapKind::Min,
            "max" => MapKind::Max,
            "avg" => MapKind::Avg,
            "log2" => MapKind::Log2,
            _ => self.linear(&name, options)?,
        };
        // All are in the range of their type.
        let keys = number("keys").map_or(0, |n| n as u8);
        let usual = if keys == 0 { 1 } else { limits::MAP_ENTRIES };
        Ok(Map {
            name,
            kind,
            keys,
            entries: number("entries").map_or(usual, |n| n as u32),
        })
    }

    fn linear(&mut self, name: &Spanned<String>, options: &Options) -> Parsed<MapKind> {
        let [min, max, step] = LINEAR_OPTIONS.map(|option| options.get(option));
        let (Some(min), Some(max), Some(step)) = (min, max, step) else {
            let missing = LINEAR_OPTIONS.iter().filter(|o| options.get(o).is_none());
            let problem = MapProblem::Missing {
                name: name.value.clone(),
                options: missing.map(|o| (*o).to_owned()).collect(),
            };
            return Err(self.session.report(name.span, problem));
        };
        let range = max.value - min.value;
        let problem = if range <= 0 {
            (
                max.span,
                MapProblem::Range {
                    min: min.value,
                    max: max.value,
                },
            )
        } else if range % step.value != 0 {
            (
                step.span,
                MapProblem::Step {
                    range,
                    step: step.value,
                },
            )
        } else if range / step.value > limits::MAP_BUCKETS_MAX.into() {
            let buckets = range / step.value;
            (step.span, MapProblem::Buckets { buckets, range })
        } else {
            return Ok(MapKind::Linear {
                min: min.value as i64,
                max: max.value as i64,
                step: step.value as u64,
            });
        };
        Err(self.session.report(problem.0, problem.1))
    }
}

impl Map {
    fn bytes(&self) -> u64 {
        object::Map {
            name: "",
            kind: self.kind,
            keys: self.keys,
            entries: self.entries,
        }
        .bytes()
    }
}
