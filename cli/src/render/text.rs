//! Records as text: a line for each, and a dump below it for memory that does not fit into the line.

use std::fmt::Write;

use dprobes::record::element::{Element, ElementError, Elements, Words};
use dprobes::record::header::{Header, RecordState};

use super::address::{Addresses, Role};
use super::escape::{Charset, escaped, name, quoted};
use super::trace;
use super::words::word;
use crate::stream::Entry;

/// Bytes of memory that are shown in the line of the record.
const INLINE: usize = 16;

/// The text of an entry, with a line feed at the end.
pub fn entry(entry: &Entry<'_>, charset: Charset, addresses: &Addresses) -> String {
    match entry {
        Entry::Record(header, elements) => record(header, elements, charset, addresses),
        Entry::Lost { cpu, count } => {
            let records = if *count == 1 { "record" } else { "records" };
            format!("LOST {count} {records} on cpu {cpu}: its ring was full\n")
        }
    }
}

fn record(header: &Header, elements: &[u8], charset: Charset, addresses: &Addresses) -> String {
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
    if header.state == RecordState::Provisional as u32 {
        out.push_str(" (not known to have completed)");
    }
    let mut dumps = String::new();
    if trace::is_trace(header)
        && let Some(trace) = trace::Trace::parse(elements)
    {
        trace.text(&mut out, &mut dumps, charset, addresses);
        return out + "\n" + &dumps;
    }
    for element in Elements::new(elements) {
        out.push(' ');
        match element {
            Ok(Element::String(bytes)) => out.push_str(&quoted(bytes, charset)),
            Ok(Element::Words(words)) => out.push_str(&join(words)),
            Ok(Element::Locals(words)) => {
                let _ = write!(out, "locals[{}]", join(words));
            }
            Ok(Element::Globals(words)) => {
                let _ = write!(out, "globals[{}]", join(words));
            }
            Ok(Element::Positions(words)) => {
                let _ = write!(out, "rpn stack[{}]", join(words));
            }
            Ok(Element::Trace { .. } | Element::Frame { .. }) => trace::element(&mut out, element),
            Ok(Element::KernelStack(words)) => stack(&mut out, &mut dumps, "kernel", words, charset, addresses),
            Ok(Element::UserStack(words)) => stack(&mut out, &mut dumps, "user", words, charset, addresses),
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

/// How many return addresses there are, and below the line each of them.
fn stack(out: &mut String, below: &mut String, whose: &str, words: Words<'_>, charset: Charset, addresses: &Addresses) {
    if words.is_empty() {
        let _ = write!(out, "[no {whose} stack]");
        return;
    }
    let _ = write!(out, "[{whose} stack of {}]", words.len());
    for (nth, address) in words.iter().enumerate() {
        // The first is where the CPU is, the others are where calls return to.
        let role = if nth == 0 { Role::Exact } else { Role::Return };
        let name = addresses
            .name(address, role)
            .map_or(String::new(), |name| format!("  {}", plain(&name, charset)));
        let _ = writeln!(below, "        {address:016x}{name}");
    }
}

pub(super) fn join(words: Words<'_>) -> String {
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
        ElementError::FaultLength { offset, found } => format!("the fault at byte {offset} has {found} bytes"),
        ElementError::TraceLength { offset, token, found } => {
            format!("element {token:#04x} at byte {offset} has {found} words")
        }
    }
}

/// A name from a list of symbols or from a program, without quotes.
pub fn plain(text: &str, charset: Charset) -> String {
    escaped(text.as_bytes(), charset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::assert_golden;
    use crate::kallsyms::Kallsyms;
    use crate::render::samples;
    use proptest::prelude::*;

    fn show(elements: &[u8]) -> String {
        entry(
            &Entry::Record(samples::header(), elements),
            Charset::Ascii,
            &Addresses::unnamed(),
        )
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
        let line = entry(
            &Entry::Record(header, &samples::words(7, &[1])),
            Charset::Ascii,
            &Addresses::unnamed(),
        );
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

    fn addresses() -> Addresses {
        let list = "ffffffff81200000 T do_sys_openat2\nffffffff81200080 t do_syscall_64\nffffffff81201000 T next\n\
            ffffffffc0100000 t e1000_probe\t[e1000]\nffffffffc0100080 T e1000_last\t[e1000]\n";
        Addresses::from_symbols(Kallsyms::parse(list.to_owned()).unwrap())
    }

    fn traces() -> Vec<u8> {
        let none = u64::MAX;
        [
            samples::string(b"kernel"),
            samples::words(7, &[0xffff_ffff_8120_0009, 7, 3, 1, 2]),
            samples::words(2, &[0x40, 1, 300, 23, 40]),
            samples::words(3, &[12, 30]),
            samples::words(4, &[1, 2]),
            samples::words(5, &[3]),
            samples::words(3, &[0, none]),
            samples::words(6, &[4]),
            samples::words(2, &[1, 0x1000, 0, 50, none]),
            samples::words(3, &[0, none]),
            samples::words(2, &[0, 0, 0, 60, none]),
            samples::words(2, &[0x20, 0, 0, 61, none]),
            samples::words(2, &[0x1234, 5, 6, 62, none]),
            samples::words(2, &[0x40, 99, 6, 63, none]),
            samples::words(2, &[0x8000, 5, 6, 64, none]),
            vec![77],
        ]
        .concat()
    }

    #[test]
    fn stacks_and_traces_are_golden() {
        let stacks = [
            samples::string(b"/etc/passwd"),
            samples::words(
                8,
                &[
                    0xffff_ffff_8120_0009,
                    0xffff_ffff_8120_0080,
                    0xffff_ffff_8120_0123,
                    0xffff_ffff_c010_0004,
                    0xffff_8880_0000_0000,
                ],
            ),
            samples::words(9, &[0x7f12_3456_7890, 0x40_1000]),
            samples::words(7, &[1]),
        ]
        .concat();
        let nothing = [samples::words(8, &[]), samples::words(9, &[])].concat();
        let header = Header {
            major: 0,
            minor: 0,
            ..samples::header()
        };
        let no_trace = samples::words(2, &[1, 2, 3, 4, 5]);
        let (mut text, mut json) = (String::new(), String::new());
        for record in [
            Entry::Record(samples::header(), &stacks),
            Entry::Record(samples::header(), &nothing),
            Entry::Record(header, &traces()),
            // A program may say that its record is one of these.
            Entry::Record(header, &no_trace),
        ] {
            text += &entry(&record, Charset::Ascii, &addresses());
            json += &crate::render::json::entry(&record, &addresses());
        }
        assert_golden("traces.txt", &text);
        assert_golden("traces.json", &json);
    }

    #[test]
    fn names_and_strings_are_harmless() {
        let header = Header {
            name: *b"\x1b]0;x\x07\0ignored\0\0",
            ..samples::header()
        };
        let line = entry(
            &Entry::Record(header, &samples::string(b"a\"\nb\x9b")),
            Charset::Ascii,
            &Addresses::unnamed(),
        );
        assert_eq!(
            line,
            "1.1     cpu 1       12.345678  4242 \\x1b]0;x\\x07  \"a\\\"\\nb\\x9b\"\n"
        );
    }

    #[test]
    fn a_loss_is_said() {
        let lost = |count| entry(&Entry::Lost { cpu: 3, count }, Charset::Ascii, &Addresses::unnamed());
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
            trace: bool,
        ) {
            let mut header = Header { name, ..Header::from_words(&words) };
            if trace {
                (header.major, header.minor) = (0, 0);
            }
            for charset in [Charset::Ascii, Charset::Unicode] {
                let text = entry(&Entry::Record(header, &elements), charset, &Addresses::unnamed());
                prop_assert!(text.ends_with('\n'));
                prop_assert!(!text.chars().any(|c| c.is_control() && c != '\n'));
                // Only lines of a dump follow the first.
                prop_assert!(text.lines().skip(1).all(|line| line.starts_with("        ")));
            }
        }
    }
}
