//! Records and the state of probes as JSON: one object on each line, in ASCII.
//!
//! Addresses and words are strings in hexadecimal, because many readers keep numbers as floating point and would change them. Counts,
//! codes and times are numbers.

use std::io;

use dprobes::record::element::{Element, Elements, Words};
use dprobes::record::header::{Header, RecordState};
use dprobes::rpn::exception;
use dprobes::wire::ProbeStatus;
use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter, Serializer};

use super::address::{Addresses, Role};
use super::escape::trim;
use super::status::{self, When};
use super::text::damage;
use crate::refusal;
use crate::stream::Entry;
use crate::user::identity::at_path;

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line<'a> {
    Record {
        major: u16,
        minor: u16,
        cpu: u32,
        time_ns: u64,
        address: String,
        pid: u32,
        tid: u32,
        uid: u32,
        #[serde(flatten)]
        process: Name<'a>,
        elements: Vec<Item<'a>>,
        /// False, and there, if the instruction is not known to have completed before the machine stopped.
        #[serde(skip_serializing_if = "Option::is_none")]
        completed: Option<bool>,
    },
    Lost {
        cpu: u32,
        count: u64,
    },
}

#[derive(Serialize)]
struct Name<'a> {
    process: std::borrow::Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process_bytes: Option<String>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Item<'a> {
    /// `bytes` is there when the text is not all of it, because they are not UTF-8.
    String {
        text: std::borrow::Cow<'a, str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        bytes: Option<String>,
    },
    Memory {
        length: usize,
        bytes: String,
    },
    Words {
        words: Vec<String>,
    },
    Locals {
        words: Vec<String>,
    },
    Globals {
        words: Vec<String>,
    },
    /// The first frame is where the CPU was, the others are where calls return to. `symbol` is there if there is one.
    KernelStack {
        frames: Vec<Frame>,
    },
    UserStack {
        frames: Vec<Frame>,
    },
    /// A trace of the RPN machine begins; its routines follow, the innermost first. `name` is there if the code has one; a trace that was
    /// asked for has code 0. Offsets count bytes in the code of the object.
    Trace {
        code: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<&'static str>,
        parm1: String,
        parm2: String,
        offset: u64,
        handler: Option<u64>,
    },
    /// A routine in a trace: the offset of its first instruction, and that of the instruction it returns to.
    Routine {
        called: u64,
        back: Option<u64>,
    },
    /// Words from the RPN stack in a trace.
    RpnStack {
        words: Vec<String>,
    },
    Fault {
        address: String,
    },
    Damaged {
        error: String,
    },
}

#[derive(Serialize)]
struct Frame {
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    symbol: Option<String>,
}

/// The file of a probe in user space.
#[derive(Serialize)]
struct ProbedFile {
    device: u64,
    inode: u64,
    /// What is at its path now.
    path: &'static str,
}

#[derive(Serialize)]
struct Status<'a> {
    module: std::borrow::Cow<'a, str>,
    major: u16,
    minor: u16,
    label: std::borrow::Cow<'a, str>,
    address: String,
    group: u16,
    #[serde(rename = "type")]
    type_: u16,
    state: String,
    /// Would a hit run the program?
    active: bool,
    /// Why it would not.
    #[serde(skip_serializing_if = "Option::is_none")]
    why_not: Option<&'static str>,
    /// Why it was refused when its module was loaded, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
    watch: Option<String>,
    /// In which process it watches, if not in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<u32>,
    file: Option<ProbedFile>,
    resume: Option<String>,
    locals: u32,
    hits: u64,
    skipped: u64,
    suspended: u64,
    missed: u64,
    faulted: u64,
    late: u64,
    exceptions: u64,
    overflows: u64,
    unavailable: u64,
    lost: u64,
    unfollowed: u64,
    undelivered: u64,
}

/// An entry of the stream as one line, with a line feed.
pub fn entry(entry: &Entry<'_>, addresses: &Addresses) -> String {
    line(&match entry {
        Entry::Record(header, elements) => record(header, elements, addresses),
        Entry::Lost { cpu, count } => Line::Lost {
            cpu: *cpu,
            count: *count,
        },
    })
}

fn record<'a>(header: &'a Header, elements: &'a [u8], addresses: &Addresses) -> Line<'a> {
    let (process, process_bytes) = text(trim(&header.name));
    Line::Record {
        major: header.major,
        minor: header.minor,
        cpu: header.cpu,
        time_ns: header.time,
        address: format!("{:#x}", header.address),
        pid: header.pid,
        tid: header.tid,
        uid: header.uid,
        process: Name { process, process_bytes },
        elements: Elements::new(elements)
            .map(|element| match element {
                Ok(Element::String(bytes)) => {
                    let (text, bytes) = text(bytes);
                    Item::String { text, bytes }
                }
                Ok(Element::Memory(bytes)) => Item::Memory {
                    length: bytes.len(),
                    bytes: hex(bytes),
                },
                Ok(Element::Words(list)) => Item::Words { words: words(list) },
                Ok(Element::Locals(list)) => Item::Locals { words: words(list) },
                Ok(Element::Globals(list)) => Item::Globals { words: words(list) },
                Ok(Element::KernelStack(list)) => Item::KernelStack {
                    frames: frames(list, addresses),
                },
                Ok(Element::UserStack(list)) => Item::UserStack {
                    frames: frames(list, addresses),
                },
                Ok(Element::Trace {
                    code,
                    parm1,
                    parm2,
                    offset,
                    handler,
                }) => Item::Trace {
                    code: format!("{code:#x}"),
                    name: exception::name(code),
                    parm1: format!("{parm1:#x}"),
                    parm2: format!("{parm2:#x}"),
                    offset,
                    handler,
                },
                Ok(Element::Frame { called, back }) => Item::Routine { called, back },
                Ok(Element::Positions(list)) => Item::RpnStack { words: words(list) },
                Ok(Element::Fault(address)) => Item::Fault {
                    address: format!("{address:#x}"),
                },
                Err(error) => Item::Damaged { error: damage(error) },
            })
            .collect(),
        completed: (header.state == RecordState::Provisional as u32).then_some(false),
    }
}

/// The state of a probe as one line, with a line feed.
pub fn probe(probe: &ProbeStatus, when: When) -> String {
    let why_not = status::why_not(probe);
    line(&Status {
        module: String::from_utf8_lossy(trim(&probe.module)),
        major: probe.major,
        minor: probe.minor,
        label: String::from_utf8_lossy(trim(&probe.label)),
        address: format!("{:#x}", probe.address),
        group: probe.group,
        type_: probe.type_,
        state: status::state(probe.state, when),
        active: when == When::Now && why_not.is_none(),
        why_not,
        refused: refusal::when_loaded(probe),
        watch: status::watch(probe),
        process: (probe.process != 0).then_some(probe.process),
        file: at_path(probe).map(|now| ProbedFile {
            device: probe.device,
            inode: probe.inode,
            path: now.word(),
        }),
        resume: (probe.resume != 0).then(|| status::resume(probe.resume)),
        locals: probe.locals,
        hits: probe.hits,
        skipped: probe.skipped,
        suspended: probe.suspended,
        missed: probe.missed,
        faulted: probe.faulted,
        late: probe.late,
        exceptions: probe.exceptions,
        overflows: probe.overflows,
        unavailable: probe.unavailable,
        lost: probe.lost,
        unfollowed: probe.unfollowed,
        undelivered: probe.undelivered,
    })
}

/// Bytes as text, and as bytes too when the text does not tell them all.
fn text(bytes: &[u8]) -> (std::borrow::Cow<'_, str>, Option<String>) {
    let text = String::from_utf8_lossy(bytes);
    let exact = text.as_bytes() == bytes;
    (text, (!exact).then(|| hex(bytes)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn words(words: Words<'_>) -> Vec<String> {
    words.iter().map(|word| format!("{word:#x}")).collect()
}

fn frames(words: Words<'_>, addresses: &Addresses) -> Vec<Frame> {
    let frame = |(nth, address)| Frame {
        address: format!("{address:#x}"),
        symbol: addresses.name(address, if nth == 0 { Role::Exact } else { Role::Return }),
    };
    words.iter().enumerate().map(frame).collect()
}

/// Any value as one line, with a line feed.
pub fn line(value: &impl Serialize) -> String {
    let mut out = Vec::new();
    // Neither a vector nor our types can fail to be written.
    let _ = value.serialize(&mut Serializer::with_formatter(&mut out, Ascii));
    out.push(b'\n');
    String::from_utf8(out).unwrap_or_default()
}

/// Writes what is not printable ASCII as `\u` escapes: the output is as harmless on a terminal as it is exact.
struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        for c in fragment.chars() {
            if matches!(c, ' '..='~') {
                writer.write_all(&[c as u8])?;
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }

    fn write_char_escape<W: ?Sized + io::Write>(&mut self, writer: &mut W, escape: CharEscape) -> io::Result<()> {
        serde_json::ser::CompactFormatter.write_char_escape(writer, escape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn parse(line: &str) -> Value {
        assert!(line.ends_with('\n') && line.matches('\n').count() == 1, "{line:?}");
        assert!(line.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\n')), "{line:?}");
        serde_json::from_str(line).unwrap()
    }

    #[test]
    fn a_record_has_everything() {
        let elements = [
            samples::string("/tmp/Größe".as_bytes()),
            samples::string(b"\x1b\xff"),
            samples::words(7, &[u64::MAX, 1]),
            samples::words(5, &[2]),
            samples::words(6, &[3]),
            samples::memory(&[0, 0xab]),
            samples::fault(0x10),
            vec![10, 9, 9],
        ];
        assert_eq!(
            parse(&entry(
                &Entry::Record(samples::header(), &elements.concat()),
                &Addresses::unnamed()
            )),
            json!({
                "type": "record",
                "major": 1,
                "minor": 1,
                "cpu": 1,
                "time_ns": 12_345_678_901_u64,
                "address": "0xffffffff81200009",
                "pid": 4242,
                "tid": 4242,
                "uid": 1000,
                "process": "cat",
                "elements": [
                    {"type": "string", "text": "/tmp/Größe"},
                    {"type": "string", "text": "\u{1b}\u{fffd}", "bytes": "1bff"},
                    {"type": "words", "words": ["0xffffffffffffffff", "0x1"]},
                    {"type": "locals", "words": ["0x2"]},
                    {"type": "globals", "words": ["0x3"]},
                    {"type": "memory", "length": 2, "bytes": "00ab"},
                    {"type": "fault", "address": "0x10"},
                    {"type": "damaged", "error": "unknown element 0x0a at byte 77"},
                ],
            })
        );
        assert_eq!(
            parse(&entry(&Entry::Lost { cpu: 1, count: 9 }, &Addresses::unnamed())),
            json!({"type": "lost", "cpu": 1, "count": 9})
        );
    }

    #[test]
    fn a_name_that_is_no_text_is_told_in_bytes_too() {
        let header = Header {
            name: *b"a\xffb\0xxxxxxxxxxxx",
            ..samples::header()
        };
        let value = parse(&entry(&Entry::Record(header, &[]), &Addresses::unnamed()));
        assert_eq!(
            (&value["process"], &value["process_bytes"]),
            (&json!("a\u{fffd}b"), &json!("61ff62"))
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_one_line_of_json_in_ascii(elements in samples::any_elements(), name: [u8; 16], words: [u64; 9]) {
            let header = Header { name, ..Header::from_words(&words) };
            let value = parse(&entry(&Entry::Record(header, &elements), &Addresses::unnamed()));
            prop_assert_eq!(&value["type"], "record");
        }

        #[test]
        fn a_string_comes_back(text: String) {
            let value = parse(&entry(&Entry::Record(samples::header(), &samples::string(text.as_bytes())), &Addresses::unnamed()));
            prop_assert_eq!(&value["elements"][0]["text"], text.as_str());
        }
    }
}
