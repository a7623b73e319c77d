//! What a user says of the made-up machine, as text: `rax=1,rdi=0x1000`, `0x1000="abc"`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use dprobes::rpn::reg::Reg;

/// Why a setting is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingError {
    /// There is no `=` in it.
    NoValue {
        /// The setting.
        text: String,
    },
    /// A number is no number, or needs more than 64 bits.
    Number {
        /// The number.
        text: String,
    },
    /// A number is too large for what it is for.
    Range {
        /// What it is for.
        what: &'static str,
        /// The number.
        value: u64,
        /// The largest that there can be.
        max: u64,
    },
    /// There is no such register, or other thing that could be set.
    Unknown {
        /// What was named.
        key: String,
        /// What could be.
        known: &'static str,
    },
    /// A register takes another number of words.
    Words {
        /// The register.
        reg: Reg,
        /// The number of words that it has.
        wanted: usize,
        /// The number that was given.
        found: usize,
    },
    /// A process name is longer than 15 bytes, or has a zero byte.
    Name {
        /// The name.
        text: String,
    },
    /// A string does not end, or has an escape that is none.
    String {
        /// The string.
        text: String,
    },
    /// The bytes of memory are not hexadecimal digits in pairs.
    Bytes {
        /// The bytes.
        text: String,
    },
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoValue { text } => write!(f, "`{text}` gives no value: write NAME=VALUE"),
            Self::Number { text } => write!(f, "`{text}` is no number of 64 bits"),
            Self::Range { what, value, max } => write!(f, "{what} {value:#x} is larger than {max:#x}"),
            Self::Unknown { key, known } => write!(f, "`{key}` is not {known}"),
            Self::Words { reg, wanted, found } => write!(
                f,
                "{reg} has {wanted} words, and {found} are given: write them with `:` between, the lowest first"
            ),
            Self::Name { text } => write!(f, "the process name `{text}` is longer than 15 bytes"),
            Self::String { text } => write!(f, "`{text}` is no string: it ends with a `\"`, and knows C's escapes"),
            Self::Bytes { text } => write!(
                f,
                "`{text}` is not memory: write hexadecimal digits in pairs, \"a string\", @FILE, u64:WORD,WORD or zeros:COUNT"
            ),
        }
    }
}

impl std::error::Error for SettingError {}

/// A number as in C: decimal, `0x`, `0b` or `0o`, `_` between digits, perhaps with a minus.
///
/// # Errors
/// It is none.
pub fn number(text: &str) -> Result<u64, SettingError> {
    let text = text.trim();
    let wrong = || SettingError::Number { text: text.to_owned() };
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (radix, digits) = match digits.get(..2) {
        Some("0x" | "0X") => (16, &digits[2..]),
        Some("0b" | "0B") => (2, &digits[2..]),
        Some("0o") => (8, &digits[2..]),
        _ => (10, digits),
    };
    let digits: String = digits.chars().filter(|c| *c != '_').collect();
    if !digits.starts_with(|c: char| c.is_digit(radix)) {
        return Err(wrong());
    }
    let value = u64::from_str_radix(&digits, radix).map_err(|_| wrong())?;
    if !negative {
        return Ok(value);
    }
    if value > 1 << 63 {
        return Err(wrong());
    }
    Ok(value.wrapping_neg())
}

fn limited(text: &str, what: &'static str, max: u64) -> Result<u64, SettingError> {
    let value = number(text)?;
    if value > max {
        return Err(SettingError::Range { what, value, max });
    }
    Ok(value)
}

fn small(text: &str, what: &'static str) -> Result<u32, SettingError> {
    limited(text, what, u32::MAX.into()).map(|value| value as u32)
}

/// `NAME=VALUE`.
fn pair(text: &str) -> Result<(&str, &str), SettingError> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| SettingError::NoValue { text: text.to_owned() })?;
    Ok((key.trim(), value.trim()))
}

/// Settings with commas between them.
fn list<T>(text: &str, each: impl Fn(&str) -> Result<T, SettingError>) -> Result<Vec<T>, SettingError> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(each)
        .collect()
}

/// A register and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegValue {
    /// The register.
    pub reg: Reg,
    /// Its words, the lowest first; `None`: the machine does not have it.
    pub words: Option<Vec<u64>>,
}

impl RegValue {
    fn parse(key: &str, value: &str) -> Result<Self, SettingError> {
        let reg = Reg::from_name(&key.to_ascii_lowercase()).ok_or_else(|| SettingError::Unknown {
            key: key.to_owned(),
            known: "a register",
        })?;
        if value == "none" {
            return Ok(Self { reg, words: None });
        }
        let words = value.split(':').map(number).collect::<Result<Vec<_>, _>>()?;
        let wanted = reg.words();
        if words.len() != wanted {
            let found = words.len();
            return Err(SettingError::Words { reg, wanted, found });
        }
        let words = Some(words);
        Ok(Self { reg, words })
    }
}

/// Registers: `rax=1,rdi=0x1000`. One of several words has `:` between them, the lowest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registers(pub Vec<RegValue>);

impl FromStr for Registers {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        list(text, |part| {
            let (key, value) = pair(part)?;
            RegValue::parse(key, value)
        })
        .map(Self)
    }
}

/// One fact of the task or the CPU that a hit happens in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// The address of the task.
    Task(u64),
    /// Process id.
    Pid(u32),
    /// Thread id.
    Tid(u32),
    /// Real user id.
    Uid(u32),
    /// Process name, zero-padded.
    Name([u8; 16]),
    /// Number of the CPU.
    Cpu(u32),
    /// Nanoseconds since boot.
    Clock(u64),
    /// Time-stamp counter.
    Tsc(u64),
}

impl Fact {
    fn parse(key: &str, value: &str) -> Result<Option<Self>, SettingError> {
        Ok(Some(match key {
            "task" => Self::Task(number(value)?),
            "pid" => Self::Pid(small(value, "pid")?),
            "tid" => Self::Tid(small(value, "tid")?),
            "uid" => Self::Uid(small(value, "uid")?),
            "name" => {
                let mut name = [0; 16];
                let bytes = value.as_bytes();
                if bytes.len() > 15 || bytes.contains(&0) {
                    return Err(SettingError::Name { text: value.to_owned() });
                }
                name[..bytes.len()].copy_from_slice(bytes);
                Self::Name(name)
            }
            "cpu" => Self::Cpu(small(value, "cpu")?),
            "clock" => Self::Clock(number(value)?),
            "tsc" => Self::Tsc(number(value)?),
            _ => return Ok(None),
        }))
    }
}

/// Facts: `pid=42,name=cat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts(pub Vec<Fact>);

impl FromStr for Facts {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        list(text, |part| {
            let (key, value) = pair(part)?;
            Fact::parse(key, value)?.ok_or_else(|| SettingError::Unknown {
                key: key.to_owned(),
                known: "one of task, pid, tid, uid, name, cpu, clock and tsc",
            })
        })
        .map(Self)
    }
}

/// One hit: `[MINOR:]NAME=VALUE,...`, where a name is that of a register or of a [`Fact`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hit {
    /// The probe that is hit, by its minor code; `None` for the first.
    pub minor: Option<u16>,
    /// What registers hold.
    pub regs: Vec<RegValue>,
    /// Where it happens.
    pub facts: Vec<Fact>,
}

impl FromStr for Hit {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut hit = Self::default();
        let mut rest = text.trim();
        let first = rest.split([':', '=', ',']).next().unwrap_or("");
        let separator = rest[first.len()..].chars().next();
        // Only a number before anything else: `7`, `7:...`.
        if separator != Some('=') && !first.is_empty() {
            let minor = limited(first, "minor", u16::MAX.into())?;
            hit.minor = Some(minor as u16);
            rest = rest[first.len()..].trim_start_matches([':', ',']);
        }
        list(rest, |part| {
            pair(part).map(|(key, value)| (key.to_owned(), value.to_owned()))
        })?
        .into_iter()
        .try_for_each(|(key, value)| {
            match Fact::parse(&key, &value)? {
                Some(fact) => hit.facts.push(fact),
                None => hit.regs.push(RegValue::parse(&key, &value)?),
            }
            Ok(())
        })?;
        Ok(hit)
    }
}

/// What memory holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// These bytes.
    Bytes(Vec<u8>),
    /// Those of a file.
    File(PathBuf),
}

/// Memory: `ADDRESS=6162ff`, `ADDRESS="text"` (with its zero byte), `ADDRESS=@FILE`, `ADDRESS=u64:WORD,WORD`, `ADDRESS=zeros:COUNT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// Address of the first byte.
    pub start: u64,
    /// What is there.
    pub content: Content,
}

/// More zeros than this have no use, and could take all of the real machine's memory.
const ZEROS_MAX: u64 = 16 << 20;

impl FromStr for Mapping {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (start, content) = pair(text)?;
        let start = number(start)?;
        let content = if let Some(file) = content.strip_prefix('@') {
            Content::File(file.into())
        } else if let Some(string) = content.strip_prefix('"') {
            let wrong = || SettingError::String {
                text: content.to_owned(),
            };
            let mut bytes = string.strip_suffix('"').and_then(unescape).ok_or_else(wrong)?;
            bytes.push(0);
            Content::Bytes(bytes)
        } else if let Some(words) = content.strip_prefix("u64:") {
            let words = list(words, number)?;
            Content::Bytes(words.iter().flat_map(|word| word.to_le_bytes()).collect())
        } else if let Some(words) = content.strip_prefix("u32:") {
            let words = list(words, |word| {
                // A negative one too.
                let value = number(word)?;
                let fits = u32::try_from(value).is_ok() || i32::try_from(value.cast_signed()).is_ok();
                let (what, max) = ("a u32", u64::from(u32::MAX));
                fits.then_some(value as u32)
                    .ok_or(SettingError::Range { what, value, max })
            })?;
            Content::Bytes(words.iter().flat_map(|word| word.to_le_bytes()).collect())
        } else if let Some(count) = content.strip_prefix("zeros:") {
            Content::Bytes(vec![0; limited(count, "the number of zeros", ZEROS_MAX)? as usize])
        } else {
            let wrong = || SettingError::Bytes {
                text: content.to_owned(),
            };
            Content::Bytes(hex(content).ok_or_else(wrong)?)
        };
        Ok(Self { start, content })
    }
}

/// Pairs of hexadecimal digits, perhaps with blanks between the pairs.
fn hex(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for part in text.split_whitespace() {
        if !part.is_ascii() || part.len() % 2 != 0 {
            return None;
        }
        for pair in part.as_bytes().chunks(2) {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            bytes.push((digit(pair[0])? * 16 + digit(pair[1])?) as u8);
        }
    }
    Some(bytes)
}

/// The bytes of a string between its quotes.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'"' => return None,
            b'\\' => match rest.next()? {
                b'n' => b'\n',
                b't' => b'\t',
                b'r' => b'\r',
                b'0' => 0,
                b'\\' => b'\\',
                b'"' => b'"',
                b'x' => {
                    let pair = [rest.next()?, rest.next()?];
                    *hex(str::from_utf8(&pair).ok()?)?.first()?
                }
                _ => return None,
            },
            byte => byte,
        });
    }
    Some(bytes)
}

/// Numbers for numbers: `0x10=5,0x11=6`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbered(pub Vec<(u64, u64)>);

impl FromStr for Numbered {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        list(text, |part| {
            let (key, value) = pair(part)?;
            Ok((number(key)?, number(value)?))
        })
        .map(Self)
    }
}

/// Names and their values: `opens=3,fails=1`. A name may be a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named(pub Vec<(String, u64)>);

impl FromStr for Named {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        list(text, |part| {
            let (key, value) = pair(part)?;
            Ok((key.to_owned(), number(value)?))
        })
        .map(Self)
    }
}

/// Words: `0xffffffff81000000,0xffffffff81000010`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words(pub Vec<u64>);

impl FromStr for Words {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        list(text, number).map(Self)
    }
}

/// What `cpuid` answers: `LEAF=EAX:EBX:ECX:EDX` or `LEAF.SUBLEAF=EAX:EBX:ECX:EDX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cpuid(pub Vec<((u32, u32), [u32; 4])>);

impl FromStr for Cpuid {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        list(text, |part| {
            let (key, value) = pair(part)?;
            let (leaf, subleaf) = key.split_once('.').unwrap_or((key, "0"));
            let words = value
                .split(':')
                .map(|word| small(word, "a register of cpuid"))
                .collect::<Result<Vec<_>, _>>()?;
            let words = words
                .try_into()
                .map_err(|_| SettingError::NoValue { text: part.to_owned() })?;
            Ok(((small(leaf, "leaf")?, small(subleaf, "subleaf")?), words))
        })
        .map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (text, value) in [
            ("0", 0),
            ("-1", u64::MAX),
            ("0xffff_ffff_8100_0000", 0xffff_ffff_8100_0000),
            ("0b101", 5),
            ("0o17", 15),
            (" 7 ", 7),
            ("18446744073709551615", u64::MAX),
            ("-0x8000000000000000", 1 << 63),
        ] {
            assert_eq!(number(text), Ok(value), "{text}");
        }
        for text in [
            "",
            "-",
            "0x",
            "x",
            "1 2",
            "--1",
            "+1",
            "0x+1",
            "18446744073709551616",
            "-0x8000000000000001",
            "_",
        ] {
            assert!(number(text).is_err(), "{text}");
        }
    }

    #[test]
    fn memory_has_five_forms() {
        let bytes = |text: &str| match text.parse::<Mapping>() {
            Ok(Mapping {
                start: 16,
                content: Content::Bytes(bytes),
            }) => bytes,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(bytes("0x10=61 62ff"), b"ab\xff");
        assert_eq!(bytes(r#"16="a\n\x41\"=,""#), b"a\nA\"=,\0");
        assert_eq!(bytes("0x10=zeros:3"), [0; 3]);
        assert_eq!(bytes("0x10=u64:1,-1")[..9], [1, 0, 0, 0, 0, 0, 0, 0, 255]);
        assert_eq!(bytes("0x10=u32:1,-1"), [1, 0, 0, 0, 255, 255, 255, 255]);
        assert_eq!(
            "16=@a=b".parse(),
            Ok(Mapping {
                start: 16,
                content: Content::File("a=b".into())
            })
        );
        for text in [
            "16",
            "x=00",
            "16=0",
            "16=0g",
            "16=\"a",
            "16=\"\\q\"",
            "16=zeros:17000000",
            "16=u32:0x100000000",
            "16=é1",
        ] {
            assert!(text.parse::<Mapping>().is_err(), "{text}");
        }
    }

    #[test]
    fn hits() {
        let rax = |value| RegValue {
            reg: Reg::Rax,
            words: Some(vec![value]),
        };
        for (text, minor, regs, facts) in [
            ("", None, vec![], vec![]),
            ("7", Some(7), vec![], vec![]),
            ("rax=1", None, vec![rax(1)], vec![]),
            ("7: rax=-1, pid=5", Some(7), vec![rax(u64::MAX)], vec![Fact::Pid(5)]),
        ] {
            assert_eq!(text.parse(), Ok(Hit { minor, regs, facts }), "{text}");
        }
        for text in [
            "70000",
            "rax",
            "rxa=1",
            "pid=0x100000000",
            "name=sixteen-bytes-16",
            "rax=1:2",
        ] {
            assert!(text.parse::<Hit>().is_err(), "{text}");
        }
    }

    #[test]
    fn lists() {
        assert_eq!("".parse(), Ok(Words(vec![])));
        assert_eq!("1,0x2".parse(), Ok(Words(vec![1, 2])));
        assert_eq!("0x10=5".parse(), Ok(Numbered(vec![(16, 5)])));
        assert_eq!(
            "opens=5,1=2".parse(),
            Ok(Named(vec![("opens".into(), 5), ("1".into(), 2)]))
        );
        assert_eq!(
            "1=1:2:3:4,4.2=0:0:0:1".parse(),
            Ok(Cpuid(vec![((1, 0), [1, 2, 3, 4]), ((4, 2), [0, 0, 0, 1])]))
        );
        assert!("1=1:2:3".parse::<Cpuid>().is_err());
        assert!("pod=1".parse::<Facts>().is_err());
    }
}
