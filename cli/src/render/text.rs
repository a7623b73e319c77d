//! Records as text: a line for each, and a dump below it for memory that does not fit into the line.

use std::fmt::Write;

use dprobes::record::element::{Element, ElementError, Elements, Words};
use dprobes::record::header::Header;

use super::escape::{Charset, escaped, name, quoted};
use super::words::word;
use crate::stream::Entry;

/// Bytes of memory that are shown in the line of the record.
const INLINE: usize = 16;

/// The text of an entry, with a line feed at the end.
pub fn entry(entry: &Entry<'_>, charset: Charset) -> String {
    match entry {
        Entry::Record(header, elements) => record(header, elements, charset),
        Entry::Lost { cpu, count } => {
            let records = if *count == 1 { "record" } else { "records" };
            format!("LOST {count} {records} on cpu {cpu}: its ring was full\n")
        }
    }
}

fn record(header: &Header, elements: &[u8], charset: Charset) -> String {
    let (seconds, micros) = (header.time / 1_000_000_000, header.time / 1000 % 1_000_000);
    let probe = format!("{}.{}", header.major, header.minor);
    let mut out = format!(
        "{probe:<7} cpu {:<3} {seconds:>6}.{micros:06}  {}",
        header.cpu, header.pid
    );
    // Writing to a string does not fail.
    if header.tid != header.pid {
        let _ = write!(out, "/{}", header.tid);
    }
    let _ = write!(out, " {} ", name(&header.name, charset));
    let mut dumps = String::new();
    for element in Elements::new(elements) {
        out.push(' ');
        match element {
            Ok(Element::String(bytes)) => out.push_str(&quoted(bytes, charset)),
            Ok(Element::Words(words) | Element::Positions(words)) => out.push_str(&join(words)),
            Ok(Element::KernelStack(words)) => {
                let _ = write!(out, "kernel[{}]", join(words));
            }
            Ok(Element::UserStack(words)) => {
                let _ = write!(out, "user[{}]", join(words));
            }
            Ok(Element::Trace { code, parm1, parm2, .. }) => {
                let _ = write!(out, "trace[{code:#x} {parm1:#x} {parm2:#x}]");
            }
            Ok(Element::Frame { called, .. }) => {
                let _ = write!(out, "routine[{called:#x}]");
            }
            Ok(Element::Locals(words)) => {
                let _ = write!(out, "locals[{}]", join(words));
            }
            Ok(Element::Globals(words)) => {
                let _ = write!(out, "globals[{}]", join(words));
            }
            Ok(Element::Memory(bytes)) if bytes.len() <= INLINE => {
                let _ = write!(out, "[{}]", hex(bytes));
            }
            Ok(Element::Memory(bytes)) => {
                let _ = write!(out, "[{} bytes]", bytes.len());
                dump(&mut dumps, bytes);
            }
            Ok(Element::Fault(address)) => {
                let _ = write!(out, "<cannot read {address:#x}>");
            }
            Err(error) => {
                let _ = write!(out, "<damaged record: {}>", damage(error));
            }
        }
    }
    out.push('\n');
    out.push_str(&dumps);
    out
}

fn join(words: Words<'_>) -> String {
    words.iter().map(word).collect::<Vec<_>>().join(" ")
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Sixteen bytes a line: offset, bytes, characters.
fn dump(out: &mut String, bytes: &[u8]) {
    for (line, chunk) in bytes.chunks(16).enumerate() {
        let text: String = chunk
            .iter()
            .map(|&byte| {
                if (b' '..=b'~').contains(&byte) {
                    char::from(byte)
                } else {
                    '.'
                }
            })
            .collect();
        let _ = writeln!(out, "        {:04x}  {:<47}  |{text}|", line * 16, hex(chunk));
    }
}

/// What is wrong with the elements of a record, in a few words.
pub fn damage(error: ElementError) -> String {
    match error {
        ElementError::Token { offset, found } => format!("unknown element {found:#04x} at byte {offset}"),
        ElementError::Truncated { offset, needed, left } => {
            format!("the element at byte {offset} has {left} of its {needed} bytes")
        }
        ElementError::TraceLength { offset, found, .. } => format!("the trace at byte {offset} has {found} words"),
        ElementError::FaultLength { offset, found } => format!("the fault at byte {offset} has {found} bytes"),
    }
}

/// A name from a list of symbols or from a program, without quotes.
pub fn plain(text: &str, charset: Charset) -> String {
    escaped(text.as_bytes(), charset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples;
    use proptest::prelude::*;

    fn show(elements: &[u8]) -> String {
        entry(&Entry::Record(samples::header(), elements), Charset::Ascii)
    }

    #[test]
    fn a_record_is_one_line() {
        let elements = [samples::string(b"/etc/passwd"), samples::words(7, &[0xffff_ff9c])].concat();
        assert_eq!(
            show(&elements),
            "1.1     cpu 1       12.345678  4242 cat  \"/etc/passwd\" 0xffffff9c (int -100)\n"
        );
        assert_eq!(show(&[]), "1.1     cpu 1       12.345678  4242 cat \n");
    }

    #[test]
    fn a_thread_is_named_beside_its_process() {
        let header = Header {
            tid: 4243,
            ..samples::header()
        };
        let line = entry(&Entry::Record(header, &samples::words(7, &[1])), Charset::Ascii);
        assert_eq!(line, "1.1     cpu 1       12.345678  4242/4243 cat  1\n");
    }

    #[test]
    fn every_element_has_a_form() {
        let short = show(&[samples::memory(&[0xde, 0xad]), samples::fault(0x1000)].concat());
        assert!(short.ends_with(" [de ad] <cannot read 0x1000>\n"), "{short}");
        let words = show(
            &[
                samples::words(5, &[1, 2]),
                samples::words(6, &[]),
                samples::words(7, &[3, 4]),
            ]
            .concat(),
        );
        assert!(words.ends_with(" locals[1 2] globals[] 3 4\n"), "{words}");
        let dump = show(&samples::memory(b"0123456789abcdef\x1b[2J\xff"));
        let lines: Vec<_> = dump.lines().collect();
        assert!(lines[0].ends_with("  [21 bytes]"), "{dump}");
        assert_eq!(
            lines[1..],
            [
                "        0000  30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66  |0123456789abcdef|",
                "        0010  1b 5b 32 4a ff                                   |.[2J.|",
            ]
        );
    }

    #[test]
    fn names_and_strings_are_harmless() {
        let header = Header {
            name: *b"\x1b]0;x\x07\0ignored\0\0",
            ..samples::header()
        };
        let line = entry(&Entry::Record(header, &samples::string(b"a\"\nb\x9b")), Charset::Ascii);
        assert_eq!(
            line,
            "1.1     cpu 1       12.345678  4242 \\x1b]0;x\\x07  \"a\\\"\\nb\\x9b\"\n"
        );
    }

    #[test]
    fn a_loss_is_said() {
        let lost = |count| entry(&Entry::Lost { cpu: 3, count }, Charset::Ascii);
        assert_eq!(lost(1), "LOST 1 record on cpu 3: its ring was full\n");
        assert_eq!(lost(17), "LOST 17 records on cpu 3: its ring was full\n");
    }

    #[test]
    fn damage_is_said_after_what_is_good() {
        let line = show(&[samples::string(b"ok"), vec![10, 0, 0]].concat());
        assert!(
            line.ends_with(" \"ok\" <damaged record: unknown element 0x0a at byte 5>\n"),
            "{line}"
        );
        let line = show(&[1, 5, 0, b'x']);
        assert!(
            line.ends_with(" <damaged record: the element at byte 0 has 4 of its 8 bytes>\n"),
            "{line}"
        );
        let line = show(&[0xff, 4, 0, 1, 2, 3, 4]);
        assert!(
            line.ends_with(" <damaged record: the fault at byte 0 has 4 bytes>\n"),
            "{line}"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_shown_without_a_control_character(
            elements in samples::any_elements(),
            name: [u8; 16],
            words: [u64; 9],
        ) {
            let header = Header { name, ..Header::from_words(&words) };
            for charset in [Charset::Ascii, Charset::Unicode] {
                let text = entry(&Entry::Record(header, &elements), charset);
                prop_assert!(text.ends_with('\n'));
                prop_assert!(!text.chars().any(|c| c.is_control() && c != '\n'));
                // Only lines of a dump follow the first.
                prop_assert!(text.lines().skip(1).all(|line| line.starts_with("        ")));
            }
        }
    }
}
