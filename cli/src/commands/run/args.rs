//! What `dprobes run` can be told.

use std::path::PathBuf;

use clap::Args;
use simulator::Access;
use simulator::settings::{Cpuid, Facts, Hit, Mapping, Named, Numbered, Registers, Words};

use crate::args::{EXIT_CODES, Source};

/// Execute a program here, on a made-up machine.
///
/// Runs the handler of a probe as a hit would, with the verifier and the interpreter of the module, on registers and memory that
/// you give, and shows what it logs and changes and how it ends. Needs neither the module nor root, and touches nothing.
///
/// Registers that you do not give are 0; memory that you do not give cannot be read. Variables and memory keep what one hit leaves in
/// them for the next; registers are set again for each, and the clock goes on by a millisecond.
#[derive(Debug, Args)]
#[command(after_help = format!("\
Examples:
  dprobes run openat.rpn --regs rsi=0x1000,rdi=-100 --mem '0x1000=\"/etc/passwd\"'
  dprobes run openat.rpn --step                       each instruction, with the stack
  dprobes run first-failure.rpn -D RET=0x68 --regs rax=-2 --repeat 10
  dprobes run window.rpn --hit 1 --hit '2: rax=5, pid=7, name=cat' --hit 3
  dprobes run openat.rpn --json | jq 'select(.type == \"record\")'

{EXIT_CODES}"))]
pub struct Run {
    #[command(flatten)]
    pub source: Source,

    /// The probe that is hit, by its minor code, or `all`, one after the other; the first of the program by default.
    #[arg(long, value_name = "MINOR|all", value_parser = probes, conflicts_with = "hit")]
    pub probe: Option<Probes>,

    /// Registers: `rax=1,rdi=0x1000`. One of several words has `:` between them, the lowest first; `none` is one that the machine does
    /// not have.
    #[arg(long, value_name = "REG=VALUE,...")]
    pub regs: Vec<Registers>,

    /// Memory: ADDRESS=6162ff (bytes), ADDRESS="text" (and a zero byte), ADDRESS=@FILE, ADDRESS=u64:WORD,WORD, ADDRESS=u32:..., or
    /// ADDRESS=zeros:COUNT.
    #[arg(long, value_name = "ADDRESS=CONTENT")]
    pub mem: Vec<Mapping>,

    /// Memory that can only be read, in the same forms.
    #[arg(long, value_name = "ADDRESS=CONTENT")]
    pub rom: Vec<Mapping>,

    /// The task that is interrupted: task, pid, tid, uid, name; and the machine's cpu, clock (ns) and tsc.
    #[arg(long, value_name = "NAME=VALUE,...")]
    pub task: Vec<Facts>,

    /// The CPU that the hit is on.
    #[arg(long, value_name = "N")]
    pub cpu: Option<u32>,

    /// Registers that the task has in user mode; without any it is a kernel thread.
    #[arg(long, value_name = "REG=VALUE,...")]
    pub user: Vec<Registers>,

    /// Model-specific registers; reading any other faults.
    #[arg(long, value_name = "NUMBER=VALUE,...")]
    pub msr: Vec<Numbered>,

    /// What I/O ports read as; all others read as ones.
    #[arg(long, value_name = "PORT=VALUE,...")]
    pub port: Vec<Numbered>,

    /// What CPUID answers; zeros elsewhere.
    #[arg(long, value_name = "LEAF[.SUBLEAF]=EAX:EBX:ECX:EDX,...")]
    pub cpuid: Vec<Cpuid>,

    /// Return addresses on the kernel stack, the innermost first.
    #[arg(long, value_name = "ADDRESS,...")]
    pub kstack: Vec<Words>,

    /// Return addresses on the stack of the process, the innermost first.
    #[arg(long, value_name = "ADDRESS,...")]
    pub ustack: Vec<Words>,

    /// Addresses of symbols that the program pushes.
    #[arg(long, value_name = "NAME=ADDRESS,...")]
    pub symbol: Vec<Named>,

    /// Where names of addresses come from: /proc/kallsyms, a System.map, or the output of `nm -n`.
    #[arg(long, value_name = "PATH")]
    pub kallsyms: Option<PathBuf>,

    /// Local variables before the first hit, by name or index.
    #[arg(long, value_name = "NAME=VALUE,...")]
    pub vars: Vec<Named>,

    /// Global variables before the first hit, by name or index.
    #[arg(long, value_name = "NAME=VALUE,...")]
    pub globals: Vec<Named>,

    /// A hit of its own: perhaps the minor code of its probe, then what differs from --regs and --task. Give it once for each hit.
    #[arg(long, value_name = "[MINOR:]NAME=VALUE,...")]
    pub hit: Vec<Hit>,

    /// How often all hits happen.
    #[arg(long, visible_alias = "hits", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub repeat: u64,

    /// Show the last two keys of maps as what they are, the name of a process.
    #[arg(long)]
    pub names: bool,

    /// Show each instruction, and the stack before and after it.
    #[arg(long)]
    pub step: bool,

    /// Print JSON, one object a line. Addresses and words are strings in hexadecimal.
    #[arg(long)]
    pub json: bool,
}

/// Which probes are hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probes {
    /// Each, in the order of the program.
    All,
    /// The one with this minor code.
    Minor(u16),
}

fn probes(text: &str) -> Result<Probes, String> {
    if text == "all" {
        return Ok(Probes::All);
    }
    match text.parse() {
        Ok(minor) => Ok(Probes::Minor(minor)),
        Err(_) => Err("a minor code is a number up to 65535; `all` means every probe".to_owned()),
    }
}

impl Run {
    /// Memory and what a program may do with it.
    pub fn mappings(&self) -> impl Iterator<Item = (&Mapping, Access)> {
        let writable = self.mem.iter().map(|mapping| (mapping, Access::ReadWrite));
        writable.chain(self.rom.iter().map(|mapping| (mapping, Access::ReadOnly)))
    }
}
