//! Spaces between the tokens of an operand or a value.

use super::lines::Piece;
use crate::lex::{Token, TokenKind};

/// What came before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Nothing, or an opening parenthesis or prefix operator: what follows is close.
    Opening,
    /// Something with a value: an operator that follows has two sides.
    Value,
    /// An operator between two values, or a separator.
    Operator,
    /// The colon of `"file.c":12`.
    Colon,
    /// Something unexpected.
    Other,
}

/// The tokens behind `previous` as text. With `keep` no space appears or disappears, as also where the arguments of a macro may be.
pub(super) fn join<'a>(mut previous: Option<&'a Token>, pieces: &'a [Piece], keep: bool) -> String {
    let mut out = String::new();
    let mut before = Before::Opening;
    // For each open parenthesis, whether it may begin the arguments of a macro.
    let mut open: Vec<bool> = Vec::new();
    let mut calls = 0usize;
    let mut questions = 0u32;
    let mut commented = false;
    for piece in pieces {
        let Some(t) = piece.token() else {
            space(&mut out, true);
            out.push_str(piece.text());
            commented = true;
            continue;
        };
        let called = previous.is_some_and(|p| p.kind == TokenKind::Identifier || p.is(")"));
        let opens_call = t.is("(") && (called || keep);
        let inside = keep || calls > 0;
        let (wanted, next) = classify(t, before, &mut questions);
        let wanted = match before {
            _ if commented => true,
            _ if inside || opens_call => t.space,
            Before::Other => t.space,
            _ => wanted.unwrap_or(t.space),
        };
        space(&mut out, wanted);
        out.push_str(&t.text);
        if t.is("(") {
            open.push(opens_call);
            calls += usize::from(opens_call);
        } else if t.is(")") {
            calls -= usize::from(open.pop() == Some(true));
        }
        before = next;
        commented = false;
        previous = Some(t);
    }
    out
}

fn space(out: &mut String, wanted: bool) {
    if wanted && !out.is_empty() {
        out.push(' ');
    }
}

/// Whether a space belongs before the token, if that is known, and what it is to the next one.
fn classify(t: &Token, before: Before, questions: &mut u32) -> (Option<bool>, Before) {
    let apart = before != Before::Opening && before != Before::Colon;
    if t.kind != TokenKind::Punctuation {
        return (Some(apart), Before::Value);
    }
    match &*t.text {
        "," => (Some(false), Before::Operator),
        "(" => (Some(apart), Before::Opening),
        ")" => (Some(false), Before::Value),
        "-" | "+" | "!" | "~" if before != Before::Value => (Some(apart), Before::Opening),
        "?" => {
            *questions += 1;
            (Some(true), Before::Operator)
        }
        ":" if *questions > 0 => {
            *questions -= 1;
            (Some(true), Before::Operator)
        }
        ":" => (Some(false), Before::Colon),
        "=" | "+" | "-" | "*" | "/" | "%" | "&" | "|" | "^" | "<<" | ">>" | "<" | ">" | "<=" | ">=" | "==" | "!="
        | "&&" | "||" => (Some(true), Before::Operator),
        _ => (None, Before::Other),
    }
}
