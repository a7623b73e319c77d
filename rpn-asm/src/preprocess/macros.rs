//! The expansion of macros, by the hide-set algorithm that C's rules were written from (Prosser, X3J11/86-196).

use super::definition::{Macro, macro_name};
use crate::cursor::Cursor;
use crate::diag::Session;
use crate::lex::{self, Token, TokenKind};
use crate::problem::PreprocessProblem;
use crate::source::Span;
use std::collections::HashMap;
use std::rc::Rc;

/// Expansions inside each other. Each level may use about a kilobyte of the stack.
const DEEPEST: usize = 200;

/// Tokens and expansions all macros together may produce: a few lines can double a text again and again.
const MOST: usize = 1 << 20;

/// Bytes of a token made by `#` or `##`: these double too.
const LONGEST_TOKEN: usize = 1 << 16;

/// After so many macros whose arguments do not close, each of them looked for to the end of the text, no more are expanded.
const MOST_UNCLOSED: usize = 50;

type HideSet = Rc<[u32]>;

/// All macros that are defined at this point of the text.
#[derive(Default)]
pub(super) struct Macros {
    defined: HashMap<Rc<str>, Macro>,
    ids: HashMap<Rc<str>, u32>,
    produced: usize,
    counter: u64,
    unclosed: usize,
    gave_up: bool,
}

/// One use of a macro with its arguments.
struct Call {
    definition: Macro,
    span: Span,
    hidden: HideSet,
    arguments: Vec<Vec<Token>>,
    space: bool,
}

impl Macros {
    pub fn is_defined(&self, name: &str) -> bool {
        self.defined.contains_key(name) || ["__FILE__", "__LINE__", "__COUNTER__"].contains(&name)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.defined.keys().map(|k| &**k)
    }

    pub fn undefine(&mut self, cursor: &mut Cursor<'_>, session: &mut Session) {
        let Ok(name) = macro_name("undef", cursor, session) else {
            return;
        };
        self.defined.remove(&name.text);
        if !cursor.at_end() {
            let directive = "undef".into();
            session.report(cursor.span(), PreprocessProblem::ExtraTokens { directive });
        }
    }

    pub fn define(&mut self, cursor: &mut Cursor<'_>, session: &mut Session) {
        let next_id = self.ids.len() as u32;
        let ids = &mut self.ids;
        let id = |name: &Rc<str>| *ids.entry(Rc::clone(name)).or_insert(next_id);
        let Ok(m) = Macro::parse(cursor, session, id) else {
            return;
        };
        if let Some(old) = self.defined.get(&m.name).filter(|old| !old.same_as(&m)) {
            let problem = PreprocessProblem::Redefined {
                name: m.name.to_string(),
                first: old.span,
            };
            session.report(m.span, problem);
            return;
        }
        self.defined.insert(Rc::clone(&m.name), m);
    }

    /// Expands every macro in `tokens`. A macro's arguments may go over several lines; the ends of those lines disappear.
    pub fn expand(&mut self, tokens: Vec<Token>, session: &mut Session) -> Vec<Token> {
        self.expand_nested(tokens, session, 0)
    }

    fn expand_nested(&mut self, mut work: Vec<Token>, session: &mut Session, depth: usize) -> Vec<Token> {
        work.reverse();
        let mut out = Vec::new();
        while let Some(mut token) = work.pop() {
            if self.gave_up && self.defined.contains_key(&token.text) {
                token.kind = TokenKind::Reported;
            }
            if token.kind == TokenKind::Identifier {
                if let Some(call) = self.call(&token, &mut work, session) {
                    let mut result = self.substitute(call, session, depth);
                    result.reverse();
                    self.charge(result.len() + 1, token.span, session);
                    work.append(&mut result);
                    continue;
                }
                if let Some(t) = self.built_in(&token, session) {
                    out.push(t);
                    continue;
                }
            }
            out.push(token);
        }
        out
    }

    fn charge(&mut self, tokens: usize, span: Span, session: &mut Session) {
        self.produced += tokens;
        if self.produced > MOST && !self.gave_up {
            self.gave_up = true;
            session.report(span, PreprocessProblem::TooLong { limit: MOST });
        }
    }

    fn built_in(&mut self, token: &Token, session: &Session) -> Option<Token> {
        let site = session.map.use_site(token.span);
        let (kind, text) = match &*token.text {
            "__LINE__" => (TokenKind::Number, session.map.line(site.file, site.start).to_string()),
            "__FILE__" => (TokenKind::String, lex::quote(&session.map.file(site.file).name)),
            "__COUNTER__" => {
                self.counter += 1;
                (TokenKind::Number, (self.counter - 1).to_string())
            }
            _ => return None,
        };
        let text = Rc::from(text);
        Some(Token {
            kind,
            text,
            ..token.clone()
        })
    }

    /// If `token` is the use of a macro, takes its arguments off `work`.
    fn call(&mut self, token: &Token, work: &mut Vec<Token>, session: &mut Session) -> Option<Call> {
        let m = self.defined.get(&token.text)?;
        if token.hidden.binary_search(&m.id).is_ok() {
            return None;
        }
        let mut call = Call {
            definition: m.clone(),
            span: token.span,
            hidden: insert(&token.hidden, m.id),
            arguments: Vec::new(),
            space: token.space,
        };
        if call.hidden.len() > DEEPEST {
            self.give_up_deep(token.span, session);
            call.definition.parameters = None;
            call.definition.body = vec![reported(token)];
            return Some(call);
        }
        let Some(parameters) = &call.definition.parameters else {
            return Some(call);
        };
        let opens = work
            .iter()
            .rev()
            .find(|t| t.kind != TokenKind::Newline)
            .is_some_and(|t| t.is("("));
        if !opens {
            return None;
        }
        let fixed = parameters.len() - usize::from(call.definition.variadic);
        let most = if call.definition.variadic {
            fixed + 1
        } else {
            usize::MAX
        };
        let Some((arguments, close)) = take_arguments(work, most) else {
            let name = token.text.to_string();
            session.report(token.span, PreprocessProblem::UnterminatedCall { name });
            self.unclosed += 1;
            self.gave_up |= self.unclosed >= MOST_UNCLOSED;
            while work.last().is_some_and(|t| t.kind != TokenKind::Newline) {
                work.pop();
            }
            work.push(reported(token));
            // Its own name is hidden in what it leaves.
            call.definition.parameters = None;
            call.definition.body = vec![];
            return Some(call);
        };
        call.span = session.map.join(token.span, close.span);
        call.hidden = insert(&intersect(&token.hidden, &close.hidden), call.definition.id);
        call.arguments = arguments;
        let empty = call.arguments.len() == 1 && call.arguments[0].is_empty();
        if parameters.is_empty() && empty {
            call.arguments.clear();
        }
        if call.definition.variadic && call.arguments.len() == fixed {
            call.arguments.push(Vec::new());
        }
        if call.arguments.len() != parameters.len() {
            let problem = PreprocessProblem::ArgumentCount {
                name: token.text.to_string(),
                expected: fixed,
                variadic: call.definition.variadic,
                found: call.arguments.len(),
                definition: call.definition.span,
            };
            session.report(call.span, problem);
            call.arguments.clear();
            call.definition.parameters = None;
            call.definition.body = vec![reported(token)];
        }
        Some(call)
    }

    fn give_up_deep(&mut self, span: Span, session: &mut Session) {
        self.gave_up = true;
        session.report(span, PreprocessProblem::TooDeep);
    }

    /// The macro's body with arguments in place of parameters.
    fn substitute(&mut self, call: Call, session: &mut Session, depth: usize) -> Vec<Token> {
        if depth >= DEEPEST {
            self.give_up_deep(call.span, session);
            return Vec::new();
        }
        let m = &call.definition;
        let expansion = session.map.expand(&m.name, call.span);
        let mut expanded: Vec<Option<Vec<Token>>> = vec![None; call.arguments.len()];
        let mut out: Vec<Token> = Vec::new();
        // Where the operand to the left of a `##` begins in `out`.
        let mut left = 0;
        let mut i = 0;
        while i < m.body.len() {
            let paste = m.body[i].is("##") && i > 0;
            if paste {
                i += 1;
            }
            let token = &m.body[i];
            let placed = |t: &Token| Token {
                span: Span { expansion, ..t.span },
                ..t.clone()
            };
            let next_pastes = |i: usize| m.body.get(i + 1).is_some_and(|t| t.is("##"));
            let operand = if m.parameters.is_some() && token.is("#") {
                i += 1;
                let argument = m.parameter(&m.body[i]).map(|p| &call.arguments[p]);
                let made = stringize(argument.map_or(&[], Vec::as_slice), placed(token));
                vec![self.made(made, session)]
            } else if let Some(p) = m.parameter(token) {
                let mut tokens = if paste || next_pastes(i) {
                    call.arguments[p].clone()
                } else {
                    let full = expanded[p]
                        .take()
                        .unwrap_or_else(|| self.expand_nested(call.arguments[p].clone(), session, depth + 1));
                    expanded[p].insert(full).clone()
                };
                if let Some(first) = tokens.first_mut() {
                    first.space = token.space;
                }
                tokens
            } else {
                vec![placed(token)]
            };
            i += 1;
            if paste {
                self.paste(&mut out, left, operand, session);
            } else {
                left = out.len();
                out.extend(operand);
            }
            if out.len() > MOST {
                break;
            }
        }
        // Neighbours mostly share one set: make the union once and share it too.
        let mut last: Option<(HideSet, HideSet)> = None;
        for t in &mut out {
            let made = match last.take() {
                Some(pair) if pair.0 == t.hidden => pair,
                _ => (Rc::clone(&t.hidden), union(&t.hidden, &call.hidden)),
            };
            t.hidden = Rc::clone(&made.1);
            last = Some(made);
        }
        if let Some(first) = out.first_mut() {
            first.space = call.space;
        }
        out
    }

    /// A token that `#` or `##` made, if it is not too long.
    fn made(&mut self, token: Token, session: &mut Session) -> Token {
        if token.text.len() <= LONGEST_TOKEN {
            return token;
        }
        let limit = LONGEST_TOKEN;
        session.report(token.span, PreprocessProblem::TokenTooLong { limit });
        Token {
            text: "".into(),
            ..reported(&token)
        }
    }

    /// `##`: glues the last token of `out` and the first of `right`. An operand without tokens glues to nothing.
    fn paste(&mut self, out: &mut Vec<Token>, left: usize, right: Vec<Token>, session: &mut Session) {
        let mut right = right.into_iter();
        if out.len() > left
            && let Some(b) = right.next()
            && let Some(a) = out.pop()
        {
            let text = format!("{}{}", a.text, b.text);
            let span = session.map.join(a.span, b.span);
            let made = lex::lex(span.file, &text);
            match made.first().filter(|t| t.text.len() == text.len()) {
                Some(t) if !matches!(t.kind, TokenKind::Bad(_)) => {
                    let token = Token {
                        kind: t.kind,
                        text: Rc::clone(&t.text),
                        span,
                        space: a.space,
                        hidden: intersect(&a.hidden, &b.hidden),
                    };
                    out.push(self.made(token, session));
                }
                _ => {
                    session.report(span, PreprocessProblem::InvalidPaste { text });
                    out.push(reported(&a));
                }
            }
        }
        out.extend(right);
    }
}

/// In place of a token that gave rise to a problem.
fn reported(token: &Token) -> Token {
    Token {
        kind: TokenKind::Reported,
        ..token.clone()
    }
}

/// Takes `( ... )` off the end of `work`, split at commas into at most `most` arguments. `None`, and nothing taken, if it does
/// not close.
fn take_arguments(work: &mut Vec<Token>, most: usize) -> Option<(Vec<Vec<Token>>, Token)> {
    let mut arguments = vec![Vec::new()];
    let mut level = 0usize;
    let mut space = false;
    for i in (0..work.len()).rev() {
        let t = &work[i];
        if t.kind == TokenKind::Newline {
            space = true;
            continue;
        }
        let outermost = level == 1;
        if t.is("(") {
            level += 1;
            if level == 1 {
                continue;
            }
        } else if t.is(")") {
            level -= 1;
            if level == 0 {
                let close = t.clone();
                work.truncate(i);
                return Some((arguments, close));
            }
        } else if t.is(",") && outermost && arguments.len() < most {
            arguments.push(Vec::new());
            continue;
        }
        let mut t = t.clone();
        t.space |= space;
        space = false;
        if let Some(last) = arguments.last_mut() {
            last.push(t);
        }
    }
    None
}

/// `#`: the argument as a string, with one space where it had any.
fn stringize(argument: &[Token], hash: Token) -> Token {
    let mut text = String::from("\"");
    for (i, t) in argument.iter().enumerate() {
        if i > 0 && t.space {
            text.push(' ');
        }
        let quoted = matches!(t.kind, TokenKind::String | TokenKind::Character);
        for c in t.text.chars() {
            if quoted && (c == '"' || c == '\\') {
                text.push('\\');
            }
            text.push(c);
        }
    }
    text.push('"');
    Token {
        kind: TokenKind::String,
        text: text.into(),
        ..hash
    }
}

fn insert(set: &HideSet, id: u32) -> HideSet {
    match set.binary_search(&id) {
        Ok(_) => Rc::clone(set),
        Err(at) => {
            let mut v = set.to_vec();
            v.insert(at, id);
            v.into()
        }
    }
}

fn union(a: &HideSet, b: &HideSet) -> HideSet {
    if a.is_empty() || a == b {
        return Rc::clone(b);
    }
    let mut v: Vec<u32> = a.iter().chain(&**b).copied().collect();
    v.sort_unstable();
    v.dedup();
    v.into()
}

fn intersect(a: &HideSet, b: &HideSet) -> HideSet {
    if a == b {
        return Rc::clone(a);
    }
    a.iter().copied().filter(|id| b.binary_search(id).is_ok()).collect()
}
