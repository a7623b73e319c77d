use super::{Explanation, say};

/// What can be wrong with the characters of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LexicalProblem {
    /// A character that begins nothing.
    StrayCharacter(char),
    /// A letter beyond ASCII in a name.
    NameNotAscii(char),
    /// A string without its closing quote on the same line.
    UnterminatedString,
    /// A character constant without its closing quote on the same line.
    UnterminatedCharacter,
    /// `/*` without `*/`.
    UnterminatedComment,
    /// `''`.
    EmptyCharacter,
    /// `'ab'`.
    LongCharacter,
    /// A character constant beyond one byte.
    WideCharacter(char),
    /// A backslash followed by something that is no escape.
    UnknownEscape(char),
    /// `\x` without digits, or a value beyond one byte.
    NumericEscape,
    /// A zero byte in a string.
    NulInString,
    /// A byte escape that does not give UTF-8.
    StringNotUtf8,
}

impl LexicalProblem {
    pub(super) fn explain(&self) -> Explanation {
        use LexicalProblem::*;
        match self {
            StrayCharacter(c) => say(
                format!("unexpected character `{}`", shown(*c)),
                "no token begins like this",
            ),
            NameNotAscii(c) => say(
                format!("`{}` cannot be in a name", shown(*c)),
                "names have the letters a to z, digits and `_`",
            ),
            UnterminatedString => say("string is not closed", "expected `\"` before the end of the line"),
            UnterminatedCharacter => say(
                "character constant is not closed",
                "expected `'` before the end of the line",
            ),
            UnterminatedComment => say("comment is not closed", "no `*/` follows before the end of the file"),
            EmptyCharacter => say(
                "character constant is empty",
                "expected one character between the quotes",
            ),
            LongCharacter => say(
                "character constant has more than one character",
                "expected one character",
            )
            .help("write several characters as one number: the first character is the lowest byte, 0x6261 is \"ab\""),
            WideCharacter(c) => say(
                format!("character `{}` does not fit in one byte", shown(*c)),
                "expected a character up to `\\x7f`",
            ),
            UnknownEscape(c) => say(format!("unknown escape `\\{}`", shown(*c)), "not an escape sequence").help(
                "known escapes are \\n \\t \\r \\0 \\a \\b \\f \\v \\\\ \\' \\\" \\xHH and up to three octal digits",
            ),
            NumericEscape => say("numeric escape out of range", "expected a value from 0 to 255"),
            NulInString => say("string contains a zero byte", "names end at a zero byte"),
            StringNotUtf8 => say("string is not UTF-8", "the escapes do not give valid text"),
        }
    }
}

/// The character itself if it can be seen.
fn shown(c: char) -> String {
    match c {
        '\\' | '\'' | '"' => c.to_string(),
        _ => c.escape_debug().to_string(),
    }
}
