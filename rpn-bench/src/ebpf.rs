//! The same programs in eBPF, with rbpf.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::{Context, Result, anyhow};
use rbpf::EbpfVmRaw;
use zerocopy::IntoBytes;

use crate::ground::{Ground, Observed};
use crate::measure::Contender;
use crate::programs::Program;

/// Numbers of the helpers.
const READ_STRING: u32 = 1;
const ATOMIC_INCREMENT: u32 = 2;
const HISTOGRAM: u32 = 3;
const COUNT_INSTRUCTION: u32 = 4;

/// Text to bytecode. rbpf's assembler knows neither comments nor labels: here `//` begins a comment, `name:` on a line of its own is a
/// label, and the last operand of a jump can be one.
pub fn assemble(text: &str) -> Result<Vec<u8>> {
    assemble_with(text, None)
}

/// The same, with an instruction before each.
fn assemble_with(text: &str, between: Option<&'static str>) -> Result<Vec<u8>> {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or("").trim());
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    let mut labels = HashMap::new();
    let mut instructions = Vec::new();
    for line in lines {
        match line.strip_suffix(':') {
            Some(label) => {
                labels.insert(label, instructions.len());
            }
            None => instructions.extend(between.into_iter().chain([line])),
        }
    }
    let mut source = String::new();
    for (index, line) in instructions.iter().enumerate() {
        let (before, last) = line.rsplit_once(' ').unwrap_or((line, ""));
        match labels.get(last) {
            Some(target) => source.push_str(&format!("{before} {:+}\n", *target as i64 - index as i64 - 1)),
            None => source.push_str(&format!("{line}\n")),
        }
    }
    rbpf::assembler::assemble(&source).map_err(|error| anyhow!("{error}\n{source}"))
}

/// How many instructions of a program are executed: a helper is called before each. It changes r0, which no program reads.
pub fn count(program: &Program) -> Result<u64> {
    let code = assemble_with(program.ebpf, Some("call 4"))?;
    EXECUTED.set(0);
    Interpreter::new(&code, program)?.observe()?;
    Ok(EXECUTED.get())
}

thread_local! {
    static EXECUTED: Cell<u64> = const { Cell::new(0) };
}

/// rbpf's interpreter with a program.
pub struct Interpreter<'a>(Machine<'a>);

/// A program that rbpf has compiled.
pub struct Compiled<'a>(Machine<'a>);

struct Machine<'a> {
    vm: EbpfVmRaw<'a>,
    ground: Box<Ground>,
}

impl<'a> Machine<'a> {
    fn new(code: &'a [u8], program: &Program) -> Result<Self> {
        let mut vm = EbpfVmRaw::new(Some(code))?;
        vm.register_helper(READ_STRING, read_string)?;
        vm.register_helper(ATOMIC_INCREMENT, atomic_increment)?;
        vm.register_helper(HISTOGRAM, histogram)?;
        vm.register_helper(COUNT_INSTRUCTION, count_instruction)?;
        let mut ground = Ground::new(program.registers);
        ground.registers[11] = ground.string.as_ptr() as u64;
        Ok(Self { vm, ground })
    }

    fn observed(&self, r0: u64) -> Result<Observed> {
        let len = usize::try_from(self.ground.log_len)?;
        Ok(Observed {
            published: r0 != 0,
            log: self.ground.log.get(..len).context("a log that is too long")?.to_vec(),
            variables: self.ground.variables.to_vec(),
        })
    }
}

impl<'a> Interpreter<'a> {
    /// A machine for a program.
    pub fn new(code: &'a [u8], program: &Program) -> Result<Self> {
        Machine::new(code, program).map(Self)
    }

    /// Runs it once.
    pub fn observe(&mut self) -> Result<Observed> {
        let r0 = self.0.vm.execute_program(self.0.ground.as_mut_bytes())?;
        self.0.observed(r0)
    }
}

impl Contender for Interpreter<'_> {
    fn run(&mut self, times: u64) {
        for _ in 0..times {
            // It was seen to succeed.
            let _ = std::hint::black_box(self.0.vm.execute_program(self.0.ground.as_mut_bytes()));
        }
    }
}

impl<'a> Compiled<'a> {
    /// Compiles a program.
    pub fn new(code: &'a [u8], program: &Program) -> Result<Self> {
        let mut machine = Machine::new(code, program)?;
        machine.vm.jit_compile()?;
        Ok(Self(machine))
    }

    /// Runs it once.
    pub fn observe(&mut self) -> Result<Observed> {
        let r0 = self.once()?;
        self.0.observed(r0)
    }

    fn once(&mut self) -> Result<u64> {
        // SAFETY: what is compiled accesses memory without checks. The programs are this benchmark's own; rbpf's interpreter, which
        // does check, has run each on the same ground before.
        Ok(unsafe { self.0.vm.execute_program_jit(self.0.ground.as_mut_bytes()) }?)
    }
}

impl Contender for Compiled<'_> {
    fn run(&mut self, times: u64) {
        for _ in 0..times {
            let _ = std::hint::black_box(self.once());
        }
    }
}

/// `(to, size, from)`: copies the string at `from`, at most `size` bytes; returns its length.
fn read_string(to: u64, size: u64, from: u64, _: u64, _: u64) -> u64 {
    let (to, from) = (to as *mut u8, from as *const u8);
    let size = size as usize;
    let mut len = 0;
    while len < size {
        // SAFETY: the programs pass the ground's log and its size, and its string, which ends with a zero byte.
        unsafe {
            let byte = from.add(len).read();
            if byte == 0 {
                break;
            }
            to.add(len).write(byte);
        }
        len += 1;
    }
    len as u64
}

/// `(address)`: adds one to a variable.
fn atomic_increment(address: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    // SAFETY: the programs pass one of the ground's variables, which are aligned and live.
    unsafe { AtomicU64::from_ptr(address as *mut u64) }.fetch_add(1, Relaxed)
}

/// `(address, value)`: adds one to the value's bucket.
fn histogram(address: u64, value: u64, _: u64, _: u64, _: u64) -> u64 {
    let bucket = match value.cast_signed() {
        ..0 => 0,
        _ => 65 - value.leading_zeros() as usize,
    };
    // SAFETY: the programs pass the ground's variables, which are aligned and live, and there are 65 of them: a value that is not
    // negative has a leading zero.
    unsafe { *(address as *mut u64).add(bucket) += 1 };
    0
}

fn count_instruction(_: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    EXECUTED.set(EXECUTED.get() + 1);
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_become_distances() {
        let with = assemble("again:  // here\n  sub64 r1, 1\n jne r1, 0, again\n ja done\ndone:\n exit").unwrap();
        let without = rbpf::assembler::assemble("sub64 r1, 1\njne r1, 0, -2\nja +0\nexit").unwrap();
        assert_eq!(with, without);
    }
}
