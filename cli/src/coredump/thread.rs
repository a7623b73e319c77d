//! What a core dump says of a thread.

use std::path::Path;

use elfcore::{ArchComponentState, ArchState, ThreadView};

use super::held::Registers;
use super::stop::{EXTENDED, FLOATING, GENERAL};
use super::{CoreError, read};

/// Milliseconds of a tick, as /proc counts time: USER_HZ is 100.
const MILLISECONDS_OF_TICK: u64 = 10;

/// Words of `struct user_regs_struct`.
const GENERAL_WORDS: usize = 27;

/// A thread and its registers.
pub fn view(process: i32, thread: i32, registers: Registers) -> Result<ThreadView, CoreError> {
    let folder = Path::new("/proc").join(format!("{process}/task/{thread}"));
    let stat = String::from_utf8_lossy(&read(folder.join("stat"))?).into_owned();
    let status = String::from_utf8_lossy(&read(folder.join("status"))?).into_owned();
    let mut command = read(folder.join("cmdline"))?;
    // Arguments are separated by zeros.
    for byte in &mut command {
        if *byte == 0 {
            *byte = b' ';
        }
    }

    // The name may have anything in it, parentheses too.
    let (front, fields) = stat.rsplit_once(") ").unwrap_or(("", ""));
    let name = front.split_once('(').map_or("", |(_, name)| name);
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    // As proc(5) numbers them: the third is the state.
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or("");
    let number = |of: usize| field(of).parse::<i64>().unwrap_or(0);
    let milliseconds = |of: usize| number(of).unsigned_abs() * MILLISECONDS_OF_TICK;
    let line = |name: &str| {
        let words = status.lines().find_map(|line| line.strip_prefix(name));
        words
            .and_then(|words| words.split_ascii_whitespace().next())
            .unwrap_or("")
    };
    let mask = |name: &str| u64::from_str_radix(line(name), 16).unwrap_or(0);

    Ok(ThreadView {
        tid: thread,
        cmd_line: String::from_utf8_lossy(&command).trim_end().to_owned(),
        comm: name.to_owned(),
        state: field(3).bytes().next().unwrap_or(b'?'),
        ppid: number(4) as i32,
        pgrp: number(5) as i32,
        session: number(6) as i32,
        flags: number(9) as i32,
        utime: milliseconds(14),
        stime: milliseconds(15),
        cutime: milliseconds(16),
        cstime: milliseconds(17),
        nice: number(19) as u64,
        uid: line("Uid:").parse().unwrap_or(0),
        gid: line("Gid:").parse().unwrap_or(0),
        cursig: 0,
        sighold: mask("SigBlk:"),
        sigpend: mask("SigPnd:"),
        arch_state: Box::new(state(registers)),
    })
}

fn state(registers: Registers) -> ArchState {
    let (mut general, mut components) = (Vec::new(), Vec::new());
    for (kind, data) in registers {
        match kind {
            GENERAL => general = data.chunks_exact(8).map(word).collect(),
            FLOATING => components.push(component("floating point", kind, b"CORE", data)),
            EXTENDED => components.push(component("extended", kind, b"LINUX", data)),
            _ => {}
        }
    }
    // The writer indexes them.
    general.resize(GENERAL_WORDS, 0);
    ArchState {
        gpr_state: general,
        components,
    }
}

fn word(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

fn component(name: &'static str, note_type: u32, note_name: &'static [u8], data: Vec<u8>) -> ArchComponentState {
    ArchComponentState {
        name,
        note_type,
        note_name,
        data,
    }
}

/// Leaves each thread the sets of registers that all have, and of one length: the writer takes the first for all.
pub fn make_alike(threads: &mut [ThreadView]) {
    for kind in [FLOATING, EXTENDED] {
        let of = |thread: &ThreadView| {
            let components = &thread.arch_state.components;
            components
                .iter()
                .find(|one| one.note_type == kind)
                .map(|one| one.data.len())
        };
        let all: Option<Vec<usize>> = threads.iter().map(of).collect();
        // Notes are aligned to 4 bytes.
        let length = all
            .and_then(|lengths| lengths.into_iter().max())
            .map(|most| most.next_multiple_of(4));
        for thread in &mut *threads {
            let components = &mut thread.arch_state.components;
            match length {
                Some(length) => components
                    .iter_mut()
                    .filter(|one| one.note_type == kind)
                    .for_each(|one| one.data.resize(length, 0)),
                None => components.retain(|one| one.note_type != kind),
            }
        }
    }
}

/// Does the process run 32-bit code? Its program says.
pub fn is_32_bit(folder: &Path) -> Result<bool, CoreError> {
    const CLASS: usize = 4;
    const CLASS_32: u8 = 1;
    let mut head = [0; CLASS + 1];
    let path = folder.join("exe");
    let mut program = super::open(path.clone())?;
    std::io::Read::read_exact(&mut program, &mut head).map_err(|error| super::of_proc(path, error))?;
    Ok(head[CLASS] == CLASS_32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_thread_is_seen_as_it_is() {
        let process = std::process::id() as i32;
        let general: Vec<u8> = (0..27_u64).flat_map(u64::to_le_bytes).collect();
        let view = view(process, process, vec![(GENERAL, general), (FLOATING, vec![1; 512])]).unwrap();
        let name = std::fs::read_to_string("/proc/self/comm").unwrap();
        assert_eq!(view.comm, name.trim_end());
        assert_eq!(view.ppid, std::os::unix::process::parent_id() as i32);
        assert_eq!(view.arch_state.gpr_state, Vec::from_iter(0..27));
        assert_eq!(view.arch_state.components[0].data, [1; 512]);
        assert!(!is_32_bit(Path::new("/proc/self")).unwrap());
    }

    #[test]
    fn threads_have_the_same_sets_of_registers() {
        let process = std::process::id() as i32;
        let mut threads = [
            view(
                process,
                process,
                vec![(FLOATING, vec![1; 512]), (EXTENDED, vec![2; 830])],
            )
            .unwrap(),
            view(process, process, vec![(EXTENDED, vec![3; 576])]).unwrap(),
        ];
        make_alike(&mut threads);
        for thread in &threads {
            assert_eq!(thread.arch_state.components.len(), 1);
            assert_eq!(thread.arch_state.components[0].note_type, EXTENDED);
            assert_eq!(thread.arch_state.components[0].data.len(), 832);
        }
    }
}
