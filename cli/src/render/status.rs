//! The state of probes, as a table.

use std::path::Path;

use comfy_table::{Table, presets};
use dprobes::rpn::object::WatchKind;
use dprobes::wire::{PROBE_HALTED, PROBE_SUSPENDED, ProbeStatus, State};

use super::columns;
use super::escape::{Charset, name, trim};
use super::text::plain;
use crate::refusal;
use crate::user::identity::{AtPath, at_path};

/// When the state of a probe was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Now.
    Now,
    /// When its program was removed: an armed probe is not armed any more.
    AtRemoval,
}

/// The state in a word or two.
pub fn state(code: u32, when: When) -> String {
    match State::from_code(code) {
        Some(State::Armed | State::Waiting | State::Refused | State::Withheld | State::CodeFreed | State::Disarmed)
            if when == When::AtRemoval =>
        {
            "removed".to_owned()
        }
        Some(State::Armed) => "armed".to_owned(),
        Some(State::Exhausted) => "exhausted".to_owned(),
        Some(State::RemovedItself) => "removed itself".to_owned(),
        Some(State::ModuleGone) => "module gone".to_owned(),
        Some(State::Waiting) => "waiting".to_owned(),
        Some(State::Refused) => "refused".to_owned(),
        Some(State::Withheld) => "withheld".to_owned(),
        Some(State::CodeFreed) => "code freed".to_owned(),
        Some(State::Disarmed) => "disarmed".to_owned(),
        None => format!("state {code}"),
    }
}

/// Why a hit would not run the probe's program, in words that need no other facts; `None` if it would.
pub fn why_not(probe: &ProbeStatus) -> Option<&'static str> {
    match State::from_code(probe.state)? {
        State::Armed if probe.flags & PROBE_HALTED != 0 => Some("everything is halted"),
        State::Armed if probe.flags & PROBE_SUSPENDED != 0 => Some("its group is suspended"),
        State::Armed if process_has_ended(probe) => Some("its process has ended"),
        State::Armed => None,
        State::Exhausted => Some("it has taken max_hits"),
        State::RemovedItself => Some("its program has removed it"),
        State::ModuleGone => Some("its module has been unloaded, and the program asks for an address"),
        State::Waiting => Some("its module is not loaded"),
        State::Refused => Some("it was refused when its module was loaded"),
        State::Withheld => Some("another probe of the program was refused"),
        State::CodeFreed => Some("the module's init has run"),
        State::Disarmed => Some("it was taken out by request"),
    }
}

/// Is it a watchpoint in a process that is not there any more?
fn process_has_ended(probe: &ProbeStatus) -> bool {
    let there = |process: u32| Path::new("/proc").join(process.to_string()).exists();
    probe.process != 0 && Path::new("/proc/self").exists() && !there(probe.process)
}

/// The state of a probe, with what a person needs to understand why it is not active, and what has become of its file.
fn described(probe: &ProbeStatus, when: When, charset: Charset) -> String {
    let state = state(probe.state, when);
    match at_path(probe) {
        Some(AtPath::Another) => return format!("{state}, file replaced"),
        Some(AtPath::Nothing) => return format!("{state}, file removed"),
        Some(AtPath::Same | AtPath::Unknown) | None => {}
    }
    if when == When::AtRemoval {
        return state;
    }
    let reason = refusal::when_loaded(probe).map(|reason| plain(&reason, charset));
    match State::from_code(probe.state) {
        Some(State::Waiting) => {
            let waiting = format!("waiting for module {}", name(&probe.module, charset));
            match reason {
                Some(reason) => format!("{waiting} (at the last load it was refused: {reason})"),
                None => waiting,
            }
        }
        Some(State::Refused) => format!("refused: {}", reason.unwrap_or_default()),
        Some(State::Withheld) => "withheld: another probe of the program was refused".to_owned(),
        Some(State::CodeFreed) => "over: the module's init has run".to_owned(),
        Some(State::Armed) => match why_not(probe) {
            Some(why) => format!("{state}, but {why}"),
            None => state,
        },
        Some(State::Disarmed) => "taken out".to_owned(),
        _ => state,
    }
}

/// How the instruction is resumed, in one word.
pub fn resume(code: u32) -> String {
    match code {
        1 => "copied".to_owned(),
        2 => "emulated".to_owned(),
        3 => "stepped".to_owned(),
        // It is a trap by itself: nothing stands for it, and the kernel goes on with it.
        4 => "itself".to_owned(),
        // After a watchpoint there is nothing to carry out.
        0 => "-".to_owned(),
        _ => format!("resume {code}"),
    }
}

/// What a watchpoint watches for, as programs say it: `None` for a breakpoint.
pub fn watch(probe: &ProbeStatus) -> Option<String> {
    let kind = match u8::try_from(probe.watch).map(WatchKind::from_byte) {
        Ok(Some(kind)) => kind.name().to_owned(),
        _ if probe.watch == 0 => return None,
        _ => format!("watch {}", probe.watch),
    };
    Some(format!("{kind} {}", probe.watch_len))
}

/// What a probe is called, and what it watches for if it does.
fn labelled(probe: &ProbeStatus, charset: Charset) -> String {
    let label = name(&probe.label, charset);
    match (watch(probe), probe.process) {
        (Some(watch), 0) => format!("{label} ({watch})"),
        (Some(watch), process) => format!("{label} ({watch} in process {process})"),
        (None, _) => label,
    }
}

/// Is it a probe of the program with this major code for this module?
pub fn is_of(probe: &ProbeStatus, module: &str, major: u16) -> bool {
    // The name is cut when it is longer than its place.
    let name = trim(&probe.module);
    probe.major == major && (name == module.as_bytes() || name.len() == 64 && module.as_bytes().starts_with(name))
}

const HEADINGS: [&str; 18] = [
    "MODULE",
    "PROBE",
    "LABEL",
    "ADDRESS",
    "STATE",
    "RESUME",
    "HITS",
    "SKIPPED",
    "SUSPENDED",
    "MISSED",
    "FAULTED",
    "LATE",
    "EXCEPTIONS",
    "OVERFLOWS",
    "UNAVAILABLE",
    "LOST",
    "UNFOLLOWED",
    "UNDELIVERED",
];
/// The first column of counts.
const COUNTS: usize = 6;

/// What was inserted: a line for each probe.
pub fn inserted(probes: &[ProbeStatus], charset: Charset) -> String {
    let lines: Vec<String> = sorted(probes)
        .into_iter()
        .map(|probe| {
            let label = labelled(probe, charset);
            let on = if label.is_empty() {
                String::new()
            } else {
                format!(" on {label}")
            };
            let codes = format!("{}.{}", probe.major, probe.minor);
            let at = match probe.address {
                0 if probe.watch == 0 && probe.inode == 0 => String::new(),
                address if probe.inode == 0 => format!(" at {address:#x}"),
                offset => format!(" at offset {offset:#x}"),
            };
            format!("probe {codes}{on}{at}: {}", described(probe, When::Now, charset))
        })
        .collect();
    lines.join("\n")
}

/// All probes, by module and number. The last line has no line feed.
pub fn table(probes: &[ProbeStatus], when: When, charset: Charset) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(HEADINGS);
    for probe in sorted(probes) {
        table.add_row([
            name(&probe.module, charset),
            format!("{}.{}", probe.major, probe.minor),
            labelled(probe, charset),
            format!("{:#018x}", probe.address),
            described(probe, when, charset),
            resume(probe.resume),
            probe.hits.to_string(),
            probe.skipped.to_string(),
            probe.suspended.to_string(),
            probe.missed.to_string(),
            probe.faulted.to_string(),
            probe.late.to_string(),
            probe.exceptions.to_string(),
            probe.overflows.to_string(),
            probe.unavailable.to_string(),
            probe.lost.to_string(),
            probe.unfollowed.to_string(),
            probe.undelivered.to_string(),
        ]);
    }
    columns::text(table, |index| index >= COUNTS)
}

/// The probes by module, major and minor code, and address.
pub fn sorted(probes: &[ProbeStatus]) -> Vec<&ProbeStatus> {
    let mut probes: Vec<_> = probes.iter().collect();
    probes.sort_by_key(|probe| (probe.module, probe.major, probe.minor, probe.address));
    probes
}

#[cfg(test)]
mod tests {
    use super::*;
    use dprobes::wire::label;
    use pretty_assertions::assert_eq;

    fn samples() -> Vec<ProbeStatus> {
        let first = ProbeStatus {
            major: 1,
            minor: 1,
            state: State::Armed as u32,
            group: 0,
            type_: 0,
            flags: 0,
            address: 0xffff_ffff_8120_0009,
            watch: 0,
            watch_len: 0,
            process: 0,
            reserved: 0,
            device: 0,
            inode: 0,
            resume: 1,
            locals: 1,
            hits: 1_234_567,
            skipped: 2,
            suspended: 3,
            missed: 4,
            faulted: 5,
            late: 6,
            exceptions: 7,
            overflows: 8,
            unavailable: 9,
            lost: 10,
            unfollowed: 11,
            undelivered: 11,
            reason: 0,
            detail: 0,
            refused_at: 0,
            facts: [0; 2],
            label: label(b"do_sys_openat2"),
            module: label(b"kernel"),
        };
        let hostile = ProbeStatus {
            major: 9,
            minor: 2,
            state: 77,
            resume: 78,
            hits: 0,
            label: label(b"\x1b[2J\xff"),
            module: label(b"e1000"),
            ..first
        };
        let mut unterminated = ProbeStatus {
            minor: 2,
            state: State::Exhausted as u32,
            resume: 2,
            ..first
        };
        unterminated.label = [b'x'; 64];
        vec![
            ProbeStatus {
                minor: 3,
                state: State::RemovedItself as u32,
                resume: 3,
                ..first
            },
            ProbeStatus {
                minor: 4,
                state: State::ModuleGone as u32,
                ..first
            },
            unterminated,
            first,
            hostile,
        ]
    }

    #[test]
    fn a_table_has_a_line_for_each_probe() {
        assert_eq!(
            table(&samples(), When::Now, Charset::Ascii),
            r#"MODULE  PROBE  LABEL                                                             ADDRESS             STATE           RESUME        HITS  SKIPPED  SUSPENDED  MISSED  FAULTED  LATE  EXCEPTIONS  OVERFLOWS  UNAVAILABLE  LOST  UNFOLLOWED  UNDELIVERED
e1000   9.2    \x1b[2J\xff                                                       0xffffffff81200009  state 77        resume 78        0        2          3       4        5     6           7          8            9    10          11           11
kernel  1.1    do_sys_openat2                                                    0xffffffff81200009  armed           copied     1234567        2          3       4        5     6           7          8            9    10          11           11
kernel  1.2    xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx  0xffffffff81200009  exhausted       emulated   1234567        2          3       4        5     6           7          8            9    10          11           11
kernel  1.3    do_sys_openat2                                                    0xffffffff81200009  removed itself  stepped    1234567        2          3       4        5     6           7          8            9    10          11           11
kernel  1.4    do_sys_openat2                                                    0xffffffff81200009  module gone     copied     1234567        2          3       4        5     6           7          8            9    10          11           11"#
        );
    }

    #[test]
    fn a_watchpoint_says_what_it_watches_for() {
        let watchpoint = |watch, watch_len, label_: &[u8]| ProbeStatus {
            watch,
            watch_len,
            resume: 0,
            label: label(label_),
            ..samples()[3]
        };
        let all = [
            watchpoint(WatchKind::Write as u32, 8, b"jiffies"),
            watchpoint(WatchKind::Io as u32, 1, b"0x3f8"),
            watchpoint(99, 7, b"x"),
            ProbeStatus {
                process: std::process::id(),
                ..watchpoint(WatchKind::ReadWrite as u32, 4, b"y")
            },
            ProbeStatus {
                process: 1 << 23,
                ..watchpoint(WatchKind::Write as u32, 1, b"z")
            },
        ];
        let of_this = format!("y (rw 4 in process {}) ", std::process::id());
        let text = table(&all, When::Now, Charset::Ascii);
        for (line, expected) in
            text.lines()
                .skip(1)
                .zip(["jiffies (write 8) ", "0x3f8 (io 1) ", "x (watch 99 7) ", &of_this])
        {
            let (_, state) = line.split_once(" 0xffffffff81200009  ").unwrap();
            assert!(
                line.contains(expected) && state.starts_with("armed  ") && state.contains("  -  "),
                "{text}"
            );
        }
        let ended = text.lines().last().unwrap();
        assert!(
            ended.contains("z (write 1 in process 8388608) ") && ended.contains(" armed, but its process has ended  "),
            "{text}"
        );
        assert_eq!(
            inserted(&all[..1], Charset::Ascii),
            "probe 1.1 on jiffies (write 8) at 0xffffffff81200009: armed"
        );
        let json = crate::render::json::probe(&all[0], When::Now);
        assert!(
            json.contains(r#""state":"armed","active":true,"watch":"write 8","file":null,"resume":null,"#),
            "{json}"
        );
        let json = crate::render::json::probe(&all[4], When::Now);
        assert!(
            json.contains(r#""why_not":"its process has ended","watch":"write 1","process":8388608,"file":null,"#),
            "{json}"
        );
    }

    #[test]
    fn what_is_armed_may_do_nothing() {
        for (flags, text) in [
            (1, "armed, but its group is suspended"),
            (3, "armed, but everything is halted"),
        ] {
            let probe = ProbeStatus { flags, ..samples()[3] };
            assert_eq!(described(&probe, When::Now, Charset::Ascii), text);
            let json = crate::render::json::probe(&probe, When::Now);
            assert!(json.contains(r#""active":false,"why_not":"#), "{json}");
        }
    }

    #[test]
    fn what_was_removed_is_not_armed() {
        let text = table(&samples(), When::AtRemoval, Charset::Ascii);
        assert!(text.contains("  removed  ") && !text.contains("armed"), "{text}");
    }

    #[test]
    fn what_was_inserted_is_told_in_a_line_each() {
        assert_eq!(
            inserted(&samples()[2..], Charset::Ascii),
            r#"probe 9.2 on \x1b[2J\xff at 0xffffffff81200009: state 77
probe 1.1 on do_sys_openat2 at 0xffffffff81200009: armed
probe 1.2 on xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx at 0xffffffff81200009: exhausted"#
        );
    }

    #[test]
    fn json_has_every_count() {
        assert_eq!(
            crate::render::json::probe(&samples()[3], When::Now),
            r#"{"module":"kernel","major":1,"minor":1,"label":"do_sys_openat2","address":"0xffffffff81200009","group":0,"type":0,"state":"armed","active":true,"watch":null,"file":null,"resume":"copied","locals":1,"hits":1234567,"skipped":2,"suspended":3,"missed":4,"faulted":5,"late":6,"exceptions":7,"overflows":8,"unavailable":9,"lost":10,"unfollowed":11,"undelivered":11}
"#
        );
    }
}
