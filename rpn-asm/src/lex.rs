//! Text to tokens.

use crate::problem::LexicalProblem;
use crate::source::{ExpansionId, FileId, Span};
use std::rc::Rc;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// A name. May have dots inside, as the kernel's symbols do (`work.isra.0`).
    Identifier,
    /// Begins with a digit; whether it is a number is the expression's business.
    Number,
    /// A character constant with its quotes.
    Character,
    /// A string with its quotes.
    String,
    /// An operator or separator.
    Punctuation,
    /// The end of a line.
    Newline,
    /// Not a token. Harmless in text that is skipped.
    Bad(LexicalProblem),
    /// What is left of text whose problem has been reported: nothing more is to be said about its line.
    Reported,
}

/// A token; cheap to copy, because macros copy a lot.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub kind: TokenKind,
    pub text: Rc<str>,
    pub span: Span,
    /// White space stands before it.
    pub space: bool,
    /// The macros it came out of, which are not expanded again in it. Sorted.
    pub hidden: Rc<[u32]>,
}

impl Token {
    /// True for this operator or separator.
    pub fn is(&self, text: &str) -> bool {
        self.kind == TokenKind::Punctuation && &*self.text == text
    }

    /// The name, if it is one.
    pub fn name(&self) -> Option<&str> {
        (self.kind == TokenKind::Identifier).then_some(&*self.text)
    }

    /// The token in a sentence: "found ...".
    pub fn describe(&self) -> String {
        let short: String = self.text.chars().take(40).flat_map(char::escape_debug).collect();
        match self.kind {
            TokenKind::Newline => "the end of the line".into(),
            TokenKind::Number => format!("number `{short}`"),
            TokenKind::String => format!("string `{}`", short.replace("\\\"", "\"")),
            TokenKind::Character => format!("character `{}`", short.replace("\\'", "'")),
            _ => format!("`{short}`"),
        }
    }
}

/// Longest first.
const PUNCTUATION: [&str; 35] = [
    "...", "<<", ">>", "<=", ">=", "==", "!=", "&&", "||", "##", "+", "-", "*", "/", "%", "&", "|", "^", "~", "!", "<",
    ">", "=", "(", ")", "?", ":", ",", "#", ";", ".", "[", "]", "{", "}",
];

/// Splits a file into tokens; the last line always ends in a [`TokenKind::Newline`]. A backslash before the end of a line is
/// white space, so that the next line continues it; so is a comment, even over several lines.
pub(crate) fn lex(file: FileId, text: &str) -> Vec<Token> {
    let mut lexer = Lexer {
        file,
        text,
        at: 0,
        space: false,
        nothing_hidden: Rc::from([]),
        out: Vec::new(),
    };
    while lexer.at < text.len() {
        lexer.step();
    }
    if lexer.out.last().is_some_and(|t| t.kind != TokenKind::Newline) {
        lexer.push(TokenKind::Newline, 0);
    }
    lexer.out
}

struct Lexer<'a> {
    file: FileId,
    text: &'a str,
    at: usize,
    space: bool,
    nothing_hidden: Rc<[u32]>,
    out: Vec<Token>,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn push(&mut self, kind: TokenKind, length: usize) {
        let end = self.at + length;
        self.out.push(Token {
            kind,
            text: Rc::from(&self.text[self.at..end]),
            span: Span {
                file: self.file,
                start: self.at as u32,
                end: end as u32,
                expansion: ExpansionId::NONE,
            },
            space: self.space,
            hidden: Rc::clone(&self.nothing_hidden),
        });
        self.at = end;
        self.space = false;
    }

    fn skip(&mut self, length: usize) {
        self.at += length;
        self.space = true;
    }

    fn step(&mut self) {
        let rest = self.rest();
        let Some(c) = rest.chars().next() else { return };
        let continuation = ["\\\r\n", "\\\n"].iter().find(|c| rest.starts_with(**c));
        if let Some(c) = continuation {
            self.skip(c.len());
        } else if c == '\n' {
            self.push(TokenKind::Newline, 1);
        } else if c.is_whitespace() || (c == '\u{feff}' && self.at == 0) {
            self.skip(c.len_utf8());
        } else if rest.starts_with("//") {
            self.line_comment();
        } else if let Some(comment) = rest.strip_prefix("/*") {
            match comment.find("*/") {
                Some(n) => self.skip(n + 4),
                None => {
                    // Mark the opening, not the rest of the file.
                    self.push(TokenKind::Bad(LexicalProblem::UnterminatedComment), 2);
                    self.at = self.text.len();
                }
            }
        } else if c == '"' || c == '\'' {
            self.quoted(c);
        } else if starts_name(c) || (c == '.' && rest[1..].starts_with(starts_name)) {
            let n = name_length(rest);
            self.word(TokenKind::Identifier, n);
        } else if c.is_alphabetic() {
            self.word(TokenKind::Identifier, c.len_utf8());
        } else if c.is_ascii_digit() {
            let n = rest
                .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.'))
                .unwrap_or(rest.len());
            self.push(TokenKind::Number, n);
        } else if let Some(p) = PUNCTUATION.iter().find(|p| rest.starts_with(**p)) {
            self.push(TokenKind::Punctuation, p.len());
        } else {
            self.push(TokenKind::Bad(LexicalProblem::StrayCharacter(c)), c.len_utf8());
        }
    }

    /// A name of so many bytes, unless more of a word follows that cannot be in a name.
    fn word(&mut self, kind: TokenKind, length: usize) {
        let rest = self.rest();
        let whole = rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_'))
            .unwrap_or(rest.len());
        match rest[..whole].chars().find(|c| !c.is_ascii()) {
            Some(c) => self.push(TokenKind::Bad(LexicalProblem::NameNotAscii(c)), whole.max(length)),
            None => self.push(kind, length),
        }
    }

    fn line_comment(&mut self) {
        loop {
            let rest = self.rest();
            let end = rest.find('\n').unwrap_or(rest.len());
            let continued = rest[..end].trim_end_matches('\r').ends_with('\\') && end < rest.len();
            self.skip(end + usize::from(continued));
            if !continued {
                return;
            }
        }
    }

    fn quoted(&mut self, quote: char) {
        let rest = self.rest();
        let mut escaped = false;
        for (i, c) in rest.char_indices().skip(1) {
            match c {
                '\n' => break,
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                _ if c == quote => {
                    let kind = if quote == '"' {
                        TokenKind::String
                    } else {
                        TokenKind::Character
                    };
                    self.push(kind, i + 1);
                    return;
                }
                _ => {}
            }
        }
        let problem = if quote == '"' {
            LexicalProblem::UnterminatedString
        } else {
            LexicalProblem::UnterminatedCharacter
        };
        let end = rest.find('\n').unwrap_or(rest.len());
        let length = rest[..end].trim_end().len();
        self.push(TokenKind::Bad(problem), length);
    }
}

fn starts_name(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

/// Bytes of the name at the beginning of `s`: a dot or `$` belongs to it only if more of the name follows.
fn name_length(s: &str) -> usize {
    let b = s.as_bytes();
    let word = |i: usize| b.get(i).is_some_and(|c| c.is_ascii_alphanumeric() || *c == b'_');
    let mut i = 0;
    while word(i) || (matches!(b.get(i), Some(b'.' | b'$')) && word(i + 1)) {
        i += 1;
    }
    i
}

/// True if `s` reads back as one name token.
pub(crate) fn is_name(s: &str) -> bool {
    (s.starts_with(starts_name) || (s.starts_with('.') && s[1..].starts_with(starts_name))) && name_length(s) == s.len()
}

/// The value of a string token.
pub(crate) fn string_value(text: &str) -> Result<String, LexicalProblem> {
    let bytes = unescape(&text[1..text.len() - 1])?;
    if bytes.contains(&0) {
        return Err(LexicalProblem::NulInString);
    }
    String::from_utf8(bytes).map_err(|_| LexicalProblem::StringNotUtf8)
}

/// The value of a character constant.
pub(crate) fn character_value(text: &str) -> Result<u8, LexicalProblem> {
    let inner = &text[1..text.len() - 1];
    if let Some(c) = inner.chars().next()
        && !c.is_ascii()
        && inner.len() == c.len_utf8()
    {
        return Err(LexicalProblem::WideCharacter(c));
    }
    match unescape(inner)?.as_slice() {
        [] => Err(LexicalProblem::EmptyCharacter),
        [b] => Ok(*b),
        _ => Err(LexicalProblem::LongCharacter),
    }
}

/// A string token for this value, which [`string_value`] reads back.
pub(crate) fn quote(value: &str) -> String {
    let mut out = String::from("\"");
    for c in value.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() || (c.is_whitespace() && c != ' ') => {
                // Octal with three digits: what follows cannot be taken for part of it.
                let mut utf8 = [0; 4];
                for b in c.encode_utf8(&mut utf8).bytes() {
                    out.push_str(&format!("\\{b:03o}"));
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn unescape(s: &str) -> Result<Vec<u8>, LexicalProblem> {
    let mut out = Vec::with_capacity(s.len());
    let mut rest = s;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        if c != '\\' {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let Some(e) = rest.chars().next() else {
            return Err(LexicalProblem::UnknownEscape(' '));
        };
        let (most, radix) = match e {
            'x' => (usize::MAX, 16),
            '0'..='7' => (3, 8),
            _ => (0, 0),
        };
        if radix == 0 {
            rest = &rest[e.len_utf8()..];
            out.push(match e {
                'n' => b'\n',
                't' => b'\t',
                'r' => b'\r',
                'a' => 7,
                'b' => 8,
                'f' => 12,
                'v' => 11,
                '\\' | '\'' | '"' | '?' => e as u8,
                _ => return Err(LexicalProblem::UnknownEscape(e)),
            });
            continue;
        }
        if radix == 16 {
            rest = &rest[1..];
        }
        let digits = rest
            .bytes()
            .take(most)
            .take_while(|b| (*b as char).is_digit(radix))
            .count();
        let value = u64::from_str_radix(&rest[..digits], radix).map_err(|_| LexicalProblem::NumericEscape)?;
        out.push(u8::try_from(value).map_err(|_| LexicalProblem::NumericEscape)?);
        rest = &rest[digits..];
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::SourceMap;
    use proptest::prelude::*;

    fn kinds(text: &str) -> Vec<(TokenKind, String)> {
        let mut map = SourceMap::default();
        let f = map.add("f".into(), text.into(), None);
        lex(f, text).into_iter().map(|t| (t.kind, t.text.to_string())).collect()
    }

    #[test]
    fn splits_as_expected() {
        use TokenKind::*;
        let got = kinds("ok: push r,rax // c \\\n more\nf.isra.0+0x1f'\\'' \"a\\\"b\" /* x\n */ a...\\\n<<=");
        let want = [
            (Identifier, "ok"),
            (Punctuation, ":"),
            (Identifier, "push"),
            (Identifier, "r"),
            (Punctuation, ","),
            (Identifier, "rax"),
            (Newline, "\n"),
            (Identifier, "f.isra.0"),
            (Punctuation, "+"),
            (Number, "0x1f"),
            (Character, "'\\''"),
            (String, "\"a\\\"b\""),
            (Identifier, "a"),
            (Punctuation, "..."),
            (Punctuation, "<<"),
            (Punctuation, "="),
            (Newline, ""),
        ];
        let want: Vec<_> = want.map(|(k, s)| (k, s.to_owned())).into();
        assert_eq!(got, want);
    }

    #[test]
    fn values() {
        assert_eq!(character_value("'\\x41'"), Ok(b'A'));
        assert_eq!(character_value("'\\0'"), Ok(0));
        assert_eq!(character_value("'\\777'"), Err(LexicalProblem::NumericEscape));
        assert_eq!(character_value("'ab'"), Err(LexicalProblem::LongCharacter));
        assert_eq!(
            character_value("'\u{e9}'"),
            Err(LexicalProblem::WideCharacter('\u{e9}'))
        );
        assert_eq!(string_value("\"a\\n\\303\\251\""), Ok("a\n\u{e9}".into()));
        assert_eq!(string_value("\"\\xff\""), Err(LexicalProblem::StringNotUtf8));
        assert_eq!(string_value("\"\\x\""), Err(LexicalProblem::NumericEscape));
    }

    proptest! {
        #[test]
        fn tokens_cover_any_text_in_order(text in any::<String>()) {
            let mut map = SourceMap::default();
            let f = map.add("f".into(), text.clone(), None);
            let mut at = 0;
            for t in lex(f, &text) {
                prop_assert!(t.span.start >= at && t.span.end as usize <= text.len());
                prop_assert_eq!(&text[t.span.start as usize..t.span.end as usize], &*t.text);
                at = t.span.end;
            }
        }

        #[test]
        fn quoted_strings_read_back(s in "[^\0]*") {
            let q = quote(&s);
            let got = kinds(&q);
            prop_assert_eq!(&got[0], &(TokenKind::String, q.clone()));
            prop_assert_eq!(string_value(&q), Ok(s));
        }
    }
}
