//! Reading the tokens of one statement, directive or expression from left to right.

use crate::lex::{Token, TokenKind};
use crate::source::Span;

/// A position in tokens that are all on one line.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    tokens: &'a [Token],
    at: usize,
    end: Span,
}

impl<'a> Cursor<'a> {
    /// `end` is where a problem with the end of the tokens is shown: right behind the last of them, or behind what came before
    /// if there are none.
    pub fn new(tokens: &'a [Token], before: Span) -> Self {
        Self {
            tokens,
            at: 0,
            end: tokens.last().map_or(before, |t| t.span).after(),
        }
    }

    pub fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.at)
    }

    pub fn next(&mut self) -> Option<&'a Token> {
        let t = self.tokens.get(self.at)?;
        self.at += 1;
        Some(t)
    }

    /// Takes the next token if it is this operator or separator.
    pub fn take(&mut self, text: &str) -> Option<&'a Token> {
        self.peek().filter(|t| t.is(text))?;
        self.next()
    }

    /// Takes the next token if it is a name.
    pub fn name(&mut self) -> Option<&'a Token> {
        self.peek().filter(|t| t.kind == TokenKind::Identifier)?;
        self.next()
    }

    pub fn at_end(&self) -> bool {
        self.at >= self.tokens.len()
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [Token] {
        &self.tokens[self.at..]
    }

    /// The place of the next token, or of the end.
    pub fn span(&self) -> Span {
        self.peek().map_or(self.end, |t| t.span)
    }

    /// The next token in a sentence.
    pub fn found(&self) -> String {
        self.peek()
            .map_or_else(|| "the end of the line".into(), Token::describe)
    }
}
