//! What the second interpreter logs: elements, as far as they fit.

use dprobes::rpn::interp::Env;

use super::{Naive, Stop};

const NOWHERE: u64 = u64::MAX;

/// An element of words: a token, a count of two bytes, and the words.
fn element(token: u8, words: &[u64]) -> Vec<u8> {
    let mut bytes = vec![token];
    bytes.extend((words.len() as u16).to_le_bytes());
    bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    bytes
}

/// Whether an element begins, or the last one ends, at `wanted`.
pub fn is_boundary(elements: &[u8], wanted: u64) -> bool {
    let mut at = 0;
    while at < elements.len() && (at as u64) < wanted {
        let count = usize::from(u16::from_le_bytes([elements[at + 1], elements[at + 2]]));
        at += 3 + match elements[at] {
            0x00 | 0x01 | 0xff => count,
            _ => 8 * count,
        };
    }
    at as u64 == wanted
}

/// What a routine wants to have shown by traces: ranges of positions, local and global variables.
pub type Shown = [(u64, u64); 3];

impl Naive<'_> {
    fn room(&self) -> usize {
        self.logmax - self.log.len()
    }

    pub(super) fn overflow(&mut self) -> Stop {
        self.log_overflow = true;
        Stop::Raise(0x1000, self.logmax as u64, 0)
    }

    fn fault(&mut self, addr: u64) -> Stop {
        if self.room() >= 11 {
            self.log.extend([0xff, 8, 0]);
            self.log.extend(addr.to_le_bytes());
        } else {
            self.log_overflow = true;
        }
        Stop::Raise(1, addr, 0)
    }

    pub(super) fn log_words(&mut self, token: u8, words: &[u64]) -> Result<(), Stop> {
        self.previous = self.log.len();
        let room = self.room();
        if room < 3 || (room < 11 && !words.is_empty()) {
            return Err(self.overflow());
        }
        let fit = words.len().min((room - 3) / 8);
        self.log.extend(element(token, &words[..fit]));
        if fit < words.len() {
            Err(self.overflow())
        } else {
            Ok(())
        }
    }

    fn log_bytes(&mut self, token: u8, bytes: &[u8], cut: bool) -> Result<(), Stop> {
        self.log.push(token);
        self.log.extend((bytes.len() as u16).to_le_bytes());
        self.log.extend(bytes);
        if cut { Err(self.overflow()) } else { Ok(()) }
    }

    pub(super) fn log_str(&mut self, addr: u64, max: u64) -> Result<(), Stop> {
        self.previous = self.log.len();
        let room = self.room();
        if room < 3 {
            return Err(self.overflow());
        }
        let mut bytes = Vec::new();
        for i in 0..max {
            let bad = addr.saturating_add(i);
            let Ok(byte) = self.machine.load(addr.wrapping_add(i), 1) else {
                return Err(self.fault(bad));
            };
            if byte[0] == 0 {
                break;
            }
            if bytes.len() == room - 3 {
                return self.log_bytes(1, &bytes, true);
            }
            bytes.push(byte[0]);
        }
        self.log_bytes(1, &bytes, false)
    }

    pub(super) fn log_mrf(&mut self, addr: u64, len: u64) -> Result<(), Stop> {
        self.previous = self.log.len();
        let room = self.room();
        if room < 3 {
            return Err(self.overflow());
        }
        let fit = len.min(room as u64 - 3);
        match self.machine.load(addr, fit as usize) {
            Ok(bytes) => self.log_bytes(0, &bytes, fit < len),
            Err(bad) => Err(self.fault(bad)),
        }
    }

    pub(super) fn log_name(&mut self) -> Result<(), Stop> {
        self.previous = self.log.len();
        let name = self.machine.task().name;
        let name: Vec<u8> = name.into_iter().take_while(|byte| *byte != 0).collect();
        let room = self.room();
        if room < 3 {
            return Err(self.overflow());
        }
        let fit = name.len().min(room - 3);
        self.log_bytes(1, &name[..fit], fit < name.len())
    }

    /// Addresses that would fit, and one more if so many are wanted.
    pub(super) fn addresses_wanted(&self, max: u64) -> u64 {
        max.min((self.room().saturating_sub(3) / 8) as u64 + 1)
    }

    /// Appends a trace, as far as it fits: an element that does not is left out, with all behind it.
    pub(super) fn trace(&mut self, at: usize, exception: (u64, u64, u64), handler: Option<usize>) {
        let mut elements = Vec::new();
        let place = |offset: Option<usize>| offset.map_or(NOWHERE, |offset| offset as u64);
        let (code, parm1, parm2) = exception;
        elements.push(element(2, &[code, parm1, parm2, at as u64, place(handler)]));
        for frame in self.frames.iter().rev() {
            elements.push(element(3, &[frame.called as u64, place(frame.back)]));
            let [positions, locals, globals] = frame.shown;
            if positions.1 > 0 {
                let words: Vec<u64> = (positions.0..positions.0 + positions.1)
                    .filter(|position| self.stack.is_ring() || *position < self.stack.depth() as u64)
                    .map(|position| self.stack.peek(position as usize))
                    .collect();
                elements.push(element(4, &words));
            }
            if locals.1 > 0 {
                let words = (locals.0..locals.0 + locals.1).map(|index| self.world.locals[index as usize]);
                elements.push(element(5, &words.collect::<Vec<_>>()));
            }
            if globals.1 > 0 {
                let words = (globals.0..globals.0 + globals.1).map(|index| self.world.global(index as usize));
                elements.push(element(6, &words.collect::<Vec<_>>()));
            }
        }
        for element in elements {
            if self.traces.len() + element.len() > self.ex_logmax {
                self.traces_cut += 1;
                return;
            }
            self.traces.extend(element);
        }
    }

    /// The second record: empty if there is none.
    pub(super) fn trace_record(&self, name: &[u8], [address, id, major, minor]: [u64; 4]) -> Vec<u8> {
        if self.traces.is_empty() {
            return Vec::new();
        }
        let name = &name[..name.len().min(64)];
        let mut bytes = vec![1];
        bytes.extend((name.len() as u16).to_le_bytes());
        bytes.extend(name);
        bytes.extend(element(7, &[address, id, major, minor, self.traces_cut]));
        bytes.extend(&self.traces);
        bytes
    }
}
