//! The thread that the module holds at a probe: it says on standard input what that thread has in its registers (`linux/coredump.c`).

use std::io::{self, Read};

/// Sets of registers, each with the type of its note in a core dump.
pub type Registers = Vec<(u32, Vec<u8>)>;

/// The type of the part that is the thread's id.
const THREAD: u32 = 0;

/// No set of registers is longer.
const LENGTH_MAX: u32 = 1 << 20;

/// A thread that waits in the kernel, and is not to be stopped.
#[derive(Debug, PartialEq, Eq)]
pub struct Held {
    /// Its id.
    pub thread: i32,
    /// What it has in its registers at the probe.
    pub registers: Registers,
}

/// Why it is not known.
#[derive(Debug)]
pub enum HeldError {
    /// Standard input cannot be read.
    Read(io::Error),
    /// It ends inside a part.
    Truncated,
    /// A part is longer than any that there is.
    Long { length: u32 },
    /// No part says which thread it is.
    Nobody,
}

impl Held {
    /// Reads it.
    pub fn read(mut from: impl Read) -> Result<Self, HeldError> {
        let mut all = Vec::new();
        from.read_to_end(&mut all).map_err(HeldError::Read)?;
        let (mut rest, mut thread, mut registers) = (all.as_slice(), None, Registers::new());
        while !rest.is_empty() {
            let (kind, length, behind) = head(rest).ok_or(HeldError::Truncated)?;
            if length > LENGTH_MAX {
                return Err(HeldError::Long { length });
            }
            let (bytes, behind) = behind.split_at_checked(length as usize).ok_or(HeldError::Truncated)?;
            rest = behind;
            match (kind, bytes.first_chunk()) {
                (THREAD, Some(id)) => thread = Some(i32::from_le_bytes(*id)),
                _ => registers.push((kind, bytes.to_vec())),
            }
        }
        let thread = thread.ok_or(HeldError::Nobody)?;
        Ok(Held { thread, registers })
    }
}

fn head(bytes: &[u8]) -> Option<(u32, u32, &[u8])> {
    let (kind, rest) = bytes.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    Some((u32::from_le_bytes(*kind), u32::from_le_bytes(*length), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(kind: u32, bytes: &[u8]) -> Vec<u8> {
        let mut part = kind.to_le_bytes().to_vec();
        part.extend((bytes.len() as u32).to_le_bytes());
        part.extend(bytes);
        part
    }

    #[test]
    fn parts_are_read_as_they_were_written() {
        let all = [
            part(0, &77_u32.to_le_bytes()),
            part(1, &[5; 216]),
            part(0x202, &[6; 832]),
        ]
        .concat();
        let held = Held::read(all.as_slice()).unwrap();
        assert_eq!(held.thread, 77);
        assert_eq!(held.registers, [(1, vec![5; 216]), (0x202, vec![6; 832])]);
    }

    #[test]
    fn what_is_cut_short_is_refused_wherever_it_is_cut() {
        let all = [part(0, &77_u32.to_le_bytes()), part(1, &[5; 16])].concat();
        for length in 1..all.len() {
            let cut = Held::read(&all[..length]);
            // Behind the first part it is a thread without registers.
            assert_eq!(cut.is_ok(), length == 12, "{length}: {cut:?}");
        }
        assert!(matches!(Held::read(&[][..]), Err(HeldError::Nobody)));
        let long = part(1, &[]).into_iter().take(4).chain(u32::MAX.to_le_bytes());
        let long: Vec<u8> = long.collect();
        assert!(matches!(
            Held::read(long.as_slice()),
            Err(HeldError::Long { length: u32::MAX })
        ));
    }
}
