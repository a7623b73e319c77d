//! Constant expressions: C's operators and precedence on 64-bit integers, and at most one symbol plus a constant.

use crate::cursor::Cursor;
use crate::diag::{Reported, Session};
use crate::lex::{Token, TokenKind, character_value, string_value};
use crate::problem::{ExpressionProblem, OperandProblem};
use crate::source::Span;
use crate::value::Value;
use dprobes::rpn::exception;

/// Nested parentheses, prefix operators and conditionals.
const DEEPEST: u32 = 100;

/// What an identifier in an expression stands for.
pub(crate) enum Meaning {
    /// A number.
    Value(Value),
    /// Something whose address is found out later.
    Symbol,
    /// Something that has no place here.
    Misplaced(OperandProblem),
    /// Nothing.
    Undefined,
}

/// What a name stands for in expressions that know no symbols: the exceptions are constants.
pub(crate) fn constant(name: &str) -> Meaning {
    match exception::CODES.iter().find(|(n, _)| *n == name) {
        Some((_, code)) => Meaning::Value(Value::signed((*code).into())),
        None => Meaning::Undefined,
    }
}

/// The value of an expression: `symbol + value`.
#[derive(Debug, Clone)]
pub(crate) struct Term {
    pub symbol: Option<(String, Span)>,
    pub value: Value,
    /// The whole expression.
    pub span: Span,
}

/// Reads an expression as far as it goes. `macros` are names to suggest in place of one that means nothing.
pub(crate) fn parse(
    cursor: &mut Cursor<'_>,
    session: &mut Session,
    macros: &[String],
    meaning: &mut dyn FnMut(&Token) -> Meaning,
) -> Result<Term, Reported> {
    Parser {
        session,
        macros,
        meaning,
    }
    .conditional(cursor, true, 0)
}

/// Reads an expression that is all there is.
pub(crate) fn parse_all(
    cursor: &mut Cursor<'_>,
    session: &mut Session,
    meaning: &mut dyn FnMut(&Token) -> Meaning,
) -> Result<Term, Reported> {
    let term = parse(cursor, session, &[], meaning)?;
    match cursor.peek() {
        None => Ok(term),
        Some(t) => Err(bad_token(session, t)
            .unwrap_or_else(|| session.report(t.span, ExpressionProblem::ExpectedOperator { found: t.describe() }))),
    }
}

/// Reports a token that is not one.
pub(crate) fn bad_token(session: &mut Session, token: &Token) -> Option<Reported> {
    match token.kind {
        TokenKind::Bad(problem) => Some(session.report(token.span, problem)),
        TokenKind::Reported => Some(Reported),
        _ => None,
    }
}

/// Higher binds tighter, as in C.
fn precedence(operator: &Token) -> Option<u32> {
    if operator.kind != TokenKind::Punctuation {
        return None;
    }
    Some(match &*operator.text {
        "||" => 1,
        "&&" => 2,
        "|" => 3,
        "^" => 4,
        "&" => 5,
        "==" | "!=" => 6,
        "<" | "<=" | ">" | ">=" => 7,
        "<<" | ">>" => 8,
        "+" | "-" => 9,
        "*" | "/" | "%" => 10,
        _ => return None,
    })
}

struct Parser<'a> {
    session: &'a mut Session,
    macros: &'a [String],
    meaning: &'a mut dyn FnMut(&Token) -> Meaning,
}

/// `live` is false in a part that C does not evaluate: the side of `&&`, `||` and `?:` that is not taken.
impl Parser<'_> {
    fn conditional(&mut self, c: &mut Cursor<'_>, live: bool, depth: u32) -> Result<Term, Reported> {
        let condition = self.binary(c, 1, live, depth)?;
        let Some(question) = c.take("?") else {
            return Ok(condition);
        };
        self.constant(&condition, "?")?;
        let chosen = !condition.value.is_zero();
        let yes = self.deeper(c, live && chosen, depth)?;
        if c.take(":").is_none() {
            return Err(self.unclosed(c, ":", question.span));
        }
        let no = self.deeper(c, live && !chosen, depth)?;
        let unsigned = yes.value.unsigned || no.value.unsigned;
        let span = self.session.map.join(condition.span, no.span);
        let mut result = if chosen { yes } else { no };
        result.value.unsigned = unsigned;
        result.span = span;
        Ok(result)
    }

    fn deeper(&mut self, c: &mut Cursor<'_>, live: bool, depth: u32) -> Result<Term, Reported> {
        if depth >= DEEPEST {
            return Err(self.session.report(c.span(), ExpressionProblem::TooDeep));
        }
        self.conditional(c, live, depth + 1)
    }

    fn binary(&mut self, c: &mut Cursor<'_>, least: u32, live: bool, depth: u32) -> Result<Term, Reported> {
        let mut left = self.unary(c, live, depth)?;
        while let Some(operator) = c.peek() {
            let Some(level) = precedence(operator).filter(|p| *p >= least) else {
                break;
            };
            c.next();
            let right_live = match &*operator.text {
                "&&" => live && !left.value.is_zero(),
                "||" => live && left.value.is_zero(),
                _ => live,
            };
            let right = self.binary(c, level + 1, right_live, depth)?;
            left = self.apply(operator, left, right, live)?;
        }
        Ok(left)
    }

    fn apply(&mut self, operator: &Token, a: Term, b: Term, live: bool) -> Result<Term, Reported> {
        let span = self.session.map.join(a.span, b.span);
        let text = &*operator.text;
        let symbol = match (a.symbol, b.symbol, text) {
            (None, None, _) => None,
            (Some((first, _)), Some((second, at)), "+" | "-") => {
                return Err(self.session.report(at, ExpressionProblem::TwoSymbols { first, second }));
            }
            (Some(s), None, "+" | "-") | (None, Some(s), "+") => Some(s),
            (Some(s), _, _) | (None, Some(s), _) => return Err(self.no_symbol(text, s)),
        };
        let value = match text {
            "&&" => Value::signed((!a.value.is_zero() && !b.value.is_zero()).into()),
            "||" => Value::signed((!a.value.is_zero() || !b.value.is_zero()).into()),
            _ => match Value::binary(text, a.value, b.value) {
                Ok(v) => v,
                Err(problem) if live => return Err(self.session.report(b.span, problem)),
                // Not evaluated, but its type still counts.
                Err(_) => Value {
                    bits: 0,
                    unsigned: a.value.unsigned || (b.value.unsigned && text != "<<" && text != ">>"),
                },
            },
        };
        Ok(Term { symbol, value, span })
    }

    fn unary(&mut self, c: &mut Cursor<'_>, live: bool, depth: u32) -> Result<Term, Reported> {
        let is_prefix = |t: &&Token| ["-", "+", "!", "~"].iter().any(|o| t.is(o));
        let Some(operator) = c.peek().filter(is_prefix) else {
            return self.primary(c, live, depth);
        };
        if depth >= DEEPEST {
            return Err(self.session.report(operator.span, ExpressionProblem::TooDeep));
        }
        c.next();
        let mut t = self.unary(c, live, depth + 1)?;
        let text = &*operator.text;
        if text != "+" {
            self.constant(&t, text)?;
        }
        t.span = self.session.map.join(operator.span, t.span);
        t.value = match text {
            "-" => t.value.negate(),
            "!" => t.value.not(),
            "~" => t.value.complement(),
            _ => t.value,
        };
        Ok(t)
    }

    fn primary(&mut self, c: &mut Cursor<'_>, live: bool, depth: u32) -> Result<Term, Reported> {
        let Some(token) = c.peek() else {
            return Err(self.no_operand(c));
        };
        if let Some(reported) = bad_token(self.session, token) {
            return Err(reported);
        }
        let mut symbol = None;
        let value = match token.kind {
            TokenKind::Number => Value::parse(&token.text).map_err(|p| self.session.report(token.span, p))?,
            TokenKind::Character => character_value(&token.text)
                // C's `char` is signed on x86.
                .map(|b| Value::signed((b as i8).into()))
                .map_err(|p| self.session.report(token.span, p))?,
            TokenKind::Identifier => match (self.meaning)(token) {
                Meaning::Value(v) => v,
                Meaning::Symbol => {
                    symbol = Some((token.text.to_string(), token.span));
                    Value::signed(0)
                }
                Meaning::Misplaced(problem) => return Err(self.session.report(token.span, problem)),
                Meaning::Undefined => return Err(self.undefined(token)),
            },
            TokenKind::String if matches!((self.meaning)(token), Meaning::Symbol) => {
                let name = string_value(&token.text).map_err(|p| self.session.report(token.span, p))?;
                symbol = Some((name, token.span));
                Value::signed(0)
            }
            TokenKind::Punctuation if token.is("(") => {
                c.next();
                let mut inner = self.deeper(c, live, depth)?;
                let Some(close) = c.take(")") else {
                    return Err(self.unclosed(c, ")", token.span));
                };
                inner.span = self.session.map.join(token.span, close.span);
                return Ok(inner);
            }
            _ => return Err(self.no_operand(c)),
        };
        c.next();
        Ok(Term {
            symbol,
            value,
            span: token.span,
        })
    }

    fn undefined(&mut self, token: &Token) -> Reported {
        let name = token.text.to_string();
        let near = self.near(&name);
        self.session
            .report(token.span, ExpressionProblem::UndefinedName { name, near })
    }

    /// The constant that was perhaps meant.
    fn near(&self, name: &str) -> Option<String> {
        let macros = self.macros.iter().map(String::as_str);
        self.session
            .nearest(name, macros.chain(exception::CODES.iter().map(|(n, _)| *n)))
    }

    fn constant(&mut self, t: &Term, operator: &str) -> Result<(), Reported> {
        match &t.symbol {
            None => Ok(()),
            Some(s) => Err(self.no_symbol(operator, s.clone())),
        }
    }

    fn no_symbol(&mut self, operator: &str, (symbol, span): (String, Span)) -> Reported {
        let problem = ExpressionProblem::SymbolOperator {
            operator: operator.into(),
            near: self.near(&symbol),
            symbol,
        };
        self.session.report(span, problem)
    }

    fn no_operand(&mut self, c: &Cursor<'_>) -> Reported {
        self.session
            .report(c.span(), ExpressionProblem::ExpectedOperand { found: c.found() })
    }

    fn unclosed(&mut self, c: &Cursor<'_>, closer: &'static str, opener: Span) -> Reported {
        if let Some(r) = c.peek().and_then(|t| bad_token(self.session, t)) {
            return r;
        }
        self.session.report(
            c.span(),
            ExpressionProblem::ExpectedCloser {
                closer,
                found: c.found(),
                opener,
            },
        )
    }
}
