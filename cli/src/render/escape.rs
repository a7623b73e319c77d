//! Bytes from memory that somebody else filled, made fit for a terminal.

use std::fmt::Write;

/// Which characters the terminal is known to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charset {
    /// Only ASCII: in other encodings a byte above it may be a control code.
    Ascii,
    /// UTF-8.
    Unicode,
}

impl Charset {
    /// What the locale in the environment says.
    pub fn from_env() -> Self {
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .filter_map(std::env::var_os)
            .find(|value| !value.is_empty())
            .unwrap_or_default();
        let locale = locale.to_string_lossy().to_ascii_lowercase();
        if locale.contains("utf-8") || locale.contains("utf8") {
            Charset::Unicode
        } else {
            Charset::Ascii
        }
    }
}

/// The bytes between quotes, as a C programmer would write them: nothing in the result is a control character, ends the quotes or
/// changes the direction of writing.
pub fn quoted(bytes: &[u8], charset: Charset) -> String {
    format!("\"{}\"", escaped(bytes, charset))
}

/// The bytes for use without quotes, such as names.
pub fn escaped(bytes: &[u8], charset: Charset) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                ' '..='~' => out.push(c),
                // The standard library knows which characters have a form of their own: not controls, not marks that change
                // direction or join, not what is unassigned.
                _ if !c.is_ascii() && charset == Charset::Unicode && c.escape_debug().len() == 1 => out.push(c),
                _ => {
                    for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                        push_hex(&mut out, byte);
                    }
                }
            }
        }
        for &byte in chunk.invalid() {
            push_hex(&mut out, byte);
        }
    }
    out
}

/// A name in a zero-padded array.
pub fn name(padded: &[u8], charset: Charset) -> String {
    escaped(trim(padded), charset)
}

/// A zero-padded array up to its first zero.
pub fn trim(padded: &[u8]) -> &[u8] {
    let end = padded.iter().position(|&byte| byte == 0).unwrap_or(padded.len());
    &padded[..end]
}

fn push_hex(out: &mut String, byte: u8) {
    // Writing to a string does not fail.
    let _ = write!(out, "\\x{byte:02x}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_terminal_might_obey_is_escaped() {
        let cases: &[(&[u8], &str, &str)] = &[
            (b"/etc/passwd", r#""/etc/passwd""#, r#""/etc/passwd""#),
            (b"", r#""""#, r#""""#),
            (b"a\"b\\c", r#""a\"b\\c""#, r#""a\"b\\c""#),
            (
                b"\x1b[2J\x1b]0;owned\x07",
                r#""\x1b[2J\x1b]0;owned\x07""#,
                r#""\x1b[2J\x1b]0;owned\x07""#,
            ),
            (b"1\n2\r3\t4\x005", r#""1\n2\r3\t4\x005""#, r#""1\n2\r3\t4\x005""#),
            (
                b"\x7f\x80\x9b31m\xff",
                r#""\x7f\x80\x9b31m\xff""#,
                r#""\x7f\x80\x9b31m\xff""#,
            ),
            // U+009B is the control sequence introducer in one character.
            ("\u{9b}31m".as_bytes(), r#""\xc2\x9b31m""#, r#""\xc2\x9b31m""#),
            // Right-to-left override, zero-width joiner, byte order mark, line separator.
            ("\u{202e}fdp".as_bytes(), r#""\xe2\x80\xaefdp""#, r#""\xe2\x80\xaefdp""#),
            (
                "\u{200d}\u{feff}".as_bytes(),
                r#""\xe2\x80\x8d\xef\xbb\xbf""#,
                r#""\xe2\x80\x8d\xef\xbb\xbf""#,
            ),
            ("\u{2028}".as_bytes(), r#""\xe2\x80\xa8""#, r#""\xe2\x80\xa8""#),
            (
                "Größe ě 日本".as_bytes(),
                r#""Größe ě 日本""#,
                r#""Gr\xc3\xb6\xc3\x9fe \xc4\x9b \xe6\x97\xa5\xe6\x9c\xac""#,
            ),
            (b"cut \xe6\x97", r#""cut \xe6\x97""#, r#""cut \xe6\x97""#),
        ];
        for (bytes, unicode, ascii) in cases {
            assert_eq!(quoted(bytes, Charset::Unicode), *unicode);
            assert_eq!(quoted(bytes, Charset::Ascii), *ascii);
        }
    }

    #[test]
    fn names_end_at_the_first_zero() {
        assert_eq!(name(b"sh\0garbage\0\0\0\0\0\0", Charset::Ascii), "sh");
        assert_eq!(name(b"sixteen bytes so", Charset::Ascii), "sixteen bytes so");
    }

    /// The inverse, to show that nothing is lost.
    fn unescape(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            out.push(match byte {
                b'\\' => match bytes.next().unwrap() {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'x' => {
                        let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                        u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                    }
                    other => other,
                },
                other => other,
            });
        }
        out
    }

    proptest! {
        #[test]
        fn nothing_dangerous_comes_out_and_nothing_is_lost(bytes: Vec<u8>, text: String) {
            for bytes in [bytes.as_slice(), text.as_bytes()] {
                for charset in [Charset::Ascii, Charset::Unicode] {
                    let out = escaped(bytes, charset);
                    prop_assert!(!out.chars().any(char::is_control));
                    prop_assert!(charset == Charset::Unicode || out.is_ascii());
                    prop_assert_eq!(unescape(&out), bytes);
                }
            }
        }
    }
}
