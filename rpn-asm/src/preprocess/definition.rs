//! The definition of a macro.

use crate::cursor::Cursor;
use crate::diag::{Reported, Session};
use crate::expression::bad_token;
use crate::lex::Token;
use crate::problem::PreprocessProblem;
use crate::source::Span;
use std::rc::Rc;

const VA_ARGS: &str = "__VA_ARGS__";

#[derive(Debug, Clone)]
pub(super) struct Macro {
    pub name: Rc<str>,
    /// `None` for a macro without parameter list.
    pub parameters: Option<Vec<Rc<str>>>,
    pub variadic: bool,
    pub body: Vec<Token>,
    pub span: Span,
    pub id: u32,
}

impl Macro {
    /// Reads what follows `#define`. `id` gives each name a number, the same one every time.
    pub fn parse(
        cursor: &mut Cursor<'_>,
        session: &mut Session,
        id: impl FnOnce(&Rc<str>) -> u32,
    ) -> Result<Self, Reported> {
        let name = macro_name("define", cursor, session)?;
        let mut variadic = false;
        let mut parameters = None;
        if let Some(open) = cursor.peek().filter(|t| t.is("(") && !t.space) {
            cursor.next();
            let (list, more) = parameter_list(cursor, session, open.span)?;
            (parameters, variadic) = (Some(list), more);
        }
        let m = Self {
            name: Rc::clone(&name.text),
            parameters,
            variadic,
            body: cursor.rest().to_vec(),
            span: name.span,
            id: id(&name.text),
        };
        check_body(&m, session)?;
        Ok(m)
    }

    pub fn parameter(&self, token: &Token) -> Option<usize> {
        let name = token.name()?;
        self.parameters.as_ref()?.iter().position(|p| &**p == name)
    }

    pub fn same_as(&self, other: &Macro) -> bool {
        let alike = |(i, (a, b)): (usize, (&Token, &Token))| a.text == b.text && (i == 0 || a.space == b.space);
        self.parameters == other.parameters
            && self.variadic == other.variadic
            && self.body.len() == other.body.len()
            && self.body.iter().zip(&other.body).enumerate().all(alike)
    }
}

/// The name of a macro in a directive.
pub(super) fn macro_name<'a>(
    directive: &str,
    cursor: &mut Cursor<'a>,
    session: &mut Session,
) -> Result<&'a Token, Reported> {
    if let Some(r) = cursor.peek().and_then(|t| bad_token(session, t)) {
        return Err(r);
    }
    let Some(name) = cursor.name() else {
        let problem = PreprocessProblem::ExpectedName {
            directive: format!("#{directive}"),
            found: cursor.found(),
        };
        return Err(session.report(cursor.span(), problem));
    };
    if name.text.contains(['.', '$']) || ["defined", VA_ARGS].contains(&&*name.text) {
        let name_text = name.text.to_string();
        return Err(session.report(name.span, PreprocessProblem::NotMacroName { name: name_text }));
    }
    Ok(name)
}

type Parameters = (Vec<Rc<str>>, bool);

fn parameter_list(cursor: &mut Cursor<'_>, session: &mut Session, open: Span) -> Result<Parameters, Reported> {
    let mut list: Vec<Rc<str>> = Vec::new();
    if cursor.take(")").is_some() {
        return Ok((list, false));
    }
    loop {
        let variadic = cursor.take("...").is_some();
        if variadic {
            list.push(VA_ARGS.into());
        } else if let Some(p) = cursor.name() {
            if list.contains(&p.text) {
                let name = p.text.to_string();
                return Err(session.report(p.span, PreprocessProblem::DuplicateParameter { name }));
            }
            if p.text.contains(['.', '$']) || &*p.text == VA_ARGS {
                let name = p.text.to_string();
                return Err(session.report(p.span, PreprocessProblem::NotMacroName { name }));
            }
            list.push(Rc::clone(&p.text));
        }
        let named = !list.is_empty();
        if named && cursor.take(")").is_some() {
            return Ok((list, variadic));
        }
        if !named || variadic || cursor.take(",").is_none() || cursor.peek().is_some_and(|t| t.is(")")) {
            let at = if cursor.at_end() { open } else { cursor.span() };
            let found = cursor.found();
            return Err(session.report(at, PreprocessProblem::ParameterList { found }));
        }
    }
}

fn check_body(m: &Macro, session: &mut Session) -> Result<(), Reported> {
    let mut result = Ok(());
    let mut report = |span, problem| result = Err(session.report(span, problem));
    for end in [m.body.first(), m.body.last()].into_iter().flatten() {
        if end.is("##") {
            report(end.span, PreprocessProblem::PasteAtEnd);
        }
    }
    for (i, t) in m.body.iter().enumerate() {
        let parameter_follows = || m.body.get(i + 1).is_some_and(|t| m.parameter(t).is_some());
        if m.parameters.is_some() && t.is("#") && !parameter_follows() {
            report(t.span, PreprocessProblem::StringizeNeedsParameter);
        }
        if t.is("##") && m.body.get(i + 1).is_some_and(|t| t.is("##")) {
            report(t.span, PreprocessProblem::PasteAtEnd);
        }
        if t.name() == Some(VA_ARGS) && !m.variadic {
            report(t.span, PreprocessProblem::StrayVaArgs);
        }
    }
    for t in &m.body {
        if let Some(r) = bad_token(session, t) {
            result = Err(r);
        }
    }
    result
}
