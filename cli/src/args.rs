//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use dprobes::host::Targets;

use crate::commands::run::Run;
use crate::device;
use crate::select::Numbers;

pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  refused or failed; the message says what, where and what to do
  2  wrong usage
  3  the dprobes module is not loaded
  4  not permitted";

const AFTER_HELP: &str = "\
Examples:
  dprobes check openat.rpn         is the program right?
  dprobes run openat.rpn --step    what would it do?
  dprobes insert openat.rpn        put its probes in
  dprobes log --follow             see what they log
  dprobes query                    how often has each fired?
  dprobes top                      which fire most often, now?
  dprobes maps                     what have they counted?
  dprobes vars                     what is in their variables?
  dprobes remove 1                 take the program with major code 1 out

";

/// Automated breakpoints for a running kernel.
///
/// A probe program says where to put breakpoints and what to do when one is hit: look at registers and memory, count, log. The
/// dprobes module verifies a program before it arms it: it cannot run for ever or crash the kernel by a bad address.
#[derive(Debug, Parser)]
#[command(name = "dprobes", version, max_term_width = 100, after_help = format!("{AFTER_HELP}{EXIT_CODES}"))]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub struct Global {
    /// The control device.
    #[arg(long, global = true, hide = true, value_name = "PATH", default_value = device::DEFAULT_PATH)]
    pub device: PathBuf,

    #[command(flatten)]
    pub color: colorchoice_clap::Color,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    #[command(visible_alias = "apply")]
    Insert(Insert),
    Remove(Remove),
    Query(Query),
    Log(Log),
    Maps(Maps),
    Vars(Vars),
    Top(Top),
    Core(Core),
    #[command(visible_alias = "build")]
    Asm(Asm),
    Check(Check),
    Fmt(Fmt),
    Run(Box<Run>),
    Disasm(Disasm),
    Completion(Completion),
}

/// A program, and how to preprocess it.
#[derive(Debug, Args)]
pub struct Source {
    /// The program: text, or an object made by `asm`.
    pub file: PathBuf,

    /// Define a macro, as `#define K V` at the top would; 1 without `=V`.
    #[arg(short = 'D', value_name = "K[=V]", value_parser = definition)]
    pub define: Vec<String>,

    /// Look in this folder too for what `#include` names.
    #[arg(short = 'I', value_name = "DIR")]
    pub include: Vec<PathBuf>,
}

fn definition(text: &str) -> Result<String, String> {
    // Behind the name of a macro with parameters is a parenthesis.
    let name = text.split(['=', '(']).next().unwrap_or("");
    let mut characters = name.chars();
    let first = characters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if first && characters.all(|c| c.is_ascii_alphanumeric() || c == '_') {
        Ok(text.to_owned())
    } else {
        Err("a macro's name has letters, digits and _, and does not begin with a digit".to_owned())
    }
}

/// Put the probes of a program into the running kernel.
///
/// The program is assembled, verified, its symbols are resolved from /proc/kallsyms, and the module verifies it again and arms all of
/// its probes or, when one cannot be armed, none. The message then says which one, where it is in the program, and why.
///
/// The probes stay until `remove`, also after the command has ended. Those of a module that is not loaded wait for it; they go out with it when it is
/// unloaded, and in again when it comes back, with what they have counted.
#[derive(Debug, Args)]
#[command(after_help = format!("\
Examples:
  dprobes insert openat.rpn
  dprobes insert first-failure.rpn -D RET=0x68
  dprobes insert openat.dpo                       an object made by `dprobes asm`
  dprobes insert net.rpn --group 1,4-6            only the probes of these groups
  dprobes insert openat.rpn --replace             the program has been changed
  dprobes insert more.rpn --merge                 more probes for the same program
  dprobes insert openat.rpn --log-to ring,klog    records in the kernel log, too
  dprobes insert word.rpn --process 4711          watchpoints in one process

{EXIT_CODES}"))]
pub struct Insert {
    #[command(flatten)]
    pub source: Source,

    /// Only the probes of these groups: numbers, or ranges such as 3-7.
    #[arg(long, value_name = "N,N-M", value_delimiter = ',', value_parser = Numbers::parse)]
    pub group: Vec<Numbers>,

    /// Only the probes of these types.
    #[arg(long = "type", value_name = "N,N-M", value_delimiter = ',', value_parser = Numbers::parse)]
    pub kind: Vec<Numbers>,

    /// Add the probes to the program with the same major code for the same module, which must be inserted.
    ///
    /// They count in its variables and maps: those that the text declares must be, by name and order, the first of that program's. No
    /// minor code and no place may be in both, and neither may suspend groups. All of the probes are added, or none. From then on it is one program.
    #[arg(long, conflicts_with = "replace")]
    pub merge: bool,

    /// Take the place of the program with the same major code for the same module, if there is one.
    ///
    /// A place that both have is never unprobed: each hit is one of exactly one of them. All probes of the new one are armed, or the old one
    /// stays. Counts, variables and maps begin anew; the final counts of the old one are shown.
    #[arg(long)]
    pub replace: bool,

    /// Do not compare the instructions with what the program expects there (`opcode`): take whatever there is.
    #[arg(long)]
    pub dont_verify_opcodes: bool,

    /// Have its watchpoints watch what this process does, and no other: its threads, those that begin later among them.
    ///
    /// Not its children, and not what it does after it has executed another file. An address of user space is that process's then.
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub process: Option<u32>,

    /// Where its records go, instead of the ring that `dprobes log` reads.
    #[arg(long, value_name = "TARGET", value_delimiter = ',')]
    pub log_to: Vec<LogTarget>,

    /// Where addresses of symbols come from instead of /proc/kallsyms.
    #[arg(long, hide = true, value_name = "PATH")]
    pub kallsyms: Option<PathBuf>,

    /// Print the probes as JSON, one object a line, as `query --json` does: those that were replaced, then those of the program.
    #[arg(long)]
    pub json: bool,
}

/// Where records go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogTarget {
    /// The ring of the CPU: `dprobes log` reads it.
    Ring,
    /// The kernel log. No more than a rate permits, the module's parameter klog_rate.
    Klog,
    /// The serial port that the module was loaded with, at once, also when the machine is dying; slow.
    Serial,
    /// The trace event dprobes:record, for ftrace, perf and trace-cmd.
    Trace,
}

impl LogTarget {
    /// Its bit in a request.
    pub fn bit(self) -> u32 {
        match self {
            LogTarget::Ring => Targets::RING,
            LogTarget::Klog => Targets::KERNEL_LOG,
            LogTarget::Serial => Targets::SERIAL,
            LogTarget::Trace => Targets::TRACE,
        }
    }
}

/// Take a program, some of its probes, or all, out of the running kernel.
///
/// With --minor, --at, --group or --type only these probes are taken out, for good. Their program stays, with what it has counted, until it
/// is removed.
///
/// When the command ends, no breakpoint of the program is left. Its final counts are shown, as `query` does, and what its maps have in the end, as `maps`
/// does, unless everything is removed; records that it has logged can still be read.
///
/// With --all --now all probes are halted before they are removed, at once, also while another command is busy: a hit does nothing then but
/// carry its instruction out. Where no command can be run SysRq-y does the same: from the keyboard, or by `echo y >/proc/sysrq-trigger`.
#[derive(Debug, Args)]
#[command(after_help = format!("\
Examples:
  dprobes remove 1                   the program with major code 1 for the kernel
  dprobes remove 4 --module e1000    the one with major code 4 for module e1000
  dprobes remove 1 --minor 2         one probe of it
  dprobes remove 1 --at vfs_read+4   the one at this place
  dprobes remove 1 --group 3         those of a group
  dprobes remove --all
  dprobes remove --all --now         at once: something is wrong

{EXIT_CODES}"))]
pub struct Remove {
    /// The program's major code.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub major: Option<u16>,

    /// What the program is for: `name` in its text.
    #[arg(long, value_name = "NAME", default_value = "kernel", conflicts_with = "all")]
    pub module: String,

    /// Only the probe with this minor code.
    #[arg(long, value_name = "N", conflicts_with = "all")]
    pub minor: Option<u16>,

    /// Only the probe at this place, as `query` has it: its label, or its address.
    #[arg(long, value_name = "PLACE", conflicts_with_all = ["all", "minor"])]
    pub at: Option<String>,

    /// Only the probes of this group.
    #[arg(long, value_name = "N", conflicts_with_all = ["all", "minor", "at"])]
    pub group: Option<u16>,

    /// Only the probes of this type.
    #[arg(long = "type", value_name = "N", conflicts_with_all = ["all", "minor", "at", "group"])]
    pub kind: Option<u16>,

    /// Remove every program.
    #[arg(long)]
    pub all: bool,

    /// Halt all probes at once, then remove them.
    #[arg(long, requires = "all", conflicts_with = "major")]
    pub now: bool,

    /// Print the final counts as JSON, one object a line for each probe, then for each map.
    #[arg(long)]
    pub json: bool,
}

/// Show every probe: where it is, what it does, how often it fired.
///
/// Each time the CPU comes to a probe is counted once: in hits (the program ran), skipped (let pass by pass_count), suspended (its group
/// was), missed (inside another hit on the same CPU) or late (after the probe had ended). Faulted counts hits undone because the probed
/// instruction faulted; they happen again. Exceptions are programs that ended by an error, overflows are elements that did not fit
/// into their record, unavailable are exit facilities that are not there, lost are records that did not fit into the ring of their CPU,
/// unfollowed are calls whose return came unnoticed, because too many were under way, undelivered are records that another target of
/// `insert --log-to` did not take, for each of these.
///
/// A probe of a module that is not loaded is waiting: it goes in when the module is loaded, before the module's init runs. If that is not possible it is
/// refused, with the reason, and the other probes of the program are withheld; all are tried again when the module is loaded again.
///
/// With --json `active` says whether a hit would run the program, and `why_not` why it would not.
#[derive(Debug, Args)]
#[command(after_help = format!("\
Examples:
  dprobes query
  dprobes query --json | jq 'select(.missed > 0)'

{EXIT_CODES}"))]
pub struct Query {
    /// Print JSON, one object a line for each probe. Addresses are strings.
    #[arg(long)]
    pub json: bool,
}

/// Print what the probes log, one line for each record.
///
/// A line has the probe (major.minor), the CPU, the time since boot in seconds, process id and name, and what the program logged: strings in
/// quotes, words in hexadecimal (and decimal when that is short), memory as a dump. Bytes that a terminal might obey are escaped.
/// Lost records are said and counted. The records of one CPU are in order; those of several are sorted as far as they were read together.
///
/// A record is printed once: what one `log` has read, another does not see. Without --follow the command ends when no record is left.
///
/// When the ring of a CPU is full, records that do not fit are dropped, and counted. With --keep newest the rings are flight recorders: the oldest records give way, and
/// are counted. A snapshot is read while nothing is recorded; a program asks for one with `exit_to snapshot`, after which nothing is recorded until it has been
/// read by --snapshot.
#[derive(Debug, Args)]
#[command(after_help = format!("\
Examples:
  dprobes log                                  what has been logged so far
  dprobes log --follow                         until Ctrl-C
  dprobes log --follow --count 10
  dprobes log --follow --json | jq .elements
  dprobes log --format ctf --output trace && babeltrace2 trace
  dprobes log --keep newest                    be a flight recorder from now on
  dprobes log --snapshot                       what has led here
  dprobes log --previous                       what led to the panic of the kernel before this one

{EXIT_CODES}"))]
pub struct Log {
    /// Wait for more records, until interrupted.
    #[arg(short, long)]
    pub follow: bool,

    /// How to write them.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: LogFormat,

    /// The same as --format json.
    #[arg(long, conflicts_with = "format")]
    pub json: bool,

    /// What to keep when a ring is full, from now on, instead of printing records.
    #[arg(long, value_name = "WHICH", conflicts_with_all = ["follow", "format", "json", "output", "count", "snapshot", "previous"])]
    pub keep: Option<Keep>,

    /// Record nothing while records are read, and begin again after that.
    #[arg(long, conflicts_with_all = ["follow", "previous"])]
    pub snapshot: bool,

    /// The records of the kernel that ran before this one, if the module was loaded to keep them, with persist_address and persist_size.
    #[arg(long, conflicts_with = "follow")]
    pub previous: bool,

    /// Where those are.
    #[arg(long, hide = true, value_name = "PATH", default_value = device::PREVIOUS_PATH)]
    pub previous_path: PathBuf,

    /// The folder that the trace is written to; it is made, or empty. For --format ctf.
    #[arg(short, long, value_name = "DIR", required_if_eq("format", "ctf"))]
    pub output: Option<PathBuf>,

    /// End after this many records.
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// Name the kernel's addresses by this list, as for a stream that was saved elsewhere: /proc/kallsyms, or the output of `nm -n`.
    #[arg(long, value_name = "PATH")]
    pub kallsyms: Option<PathBuf>,
}

/// Which records a ring keeps that is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Keep {
    /// Those that are there: what does not fit is lost. This is how it is at first.
    Oldest,
    /// The last ones: the oldest give way.
    Newest,
}

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line for each.
    Text,
    /// A JSON object on each line. Addresses and words are strings in hexadecimal.
    Json,
    /// A trace in the Common Trace Format 1.8, a folder, which babeltrace2 and Trace Compass read. Losses are events that were discarded.
    Ctf,
}

/// Show what the maps of programs have counted: tables and histograms.
///
/// All CPUs are merged, and probes go on meanwhile. The largest values come first. Keys are decimal numbers, or symbols where they are
/// addresses in the kernel. A range [4, 8) has the values from 4 up to, but without, 8; K is 1024, M is 1024 K, and so on. DROPPED says
/// how many updates found no room in the table of their CPU: all others are counted.
///
/// With --json each map is one line: module, major, name, kind (count, sum, min, max, avg, log2, linear), keys (how many there are), room
/// (entries on each CPU), bytes, dropped, and entries. An entry has keys (strings of decimal digits), symbols (only if a key has one)
/// and value; for avg instead of that average, count and sum, the first and the last as strings, and for histograms total and buckets: from,
/// to (the last value in it) and count. A bucket that is open below has no from, one that is open above no to.
#[derive(Debug, Args)]
#[command(after_help = format!("\
Examples:
  dprobes maps                      all
  dprobes maps kernel 1             those of program 1 for the kernel
  dprobes maps kernel 1 latency     one
  dprobes maps kernel 4 --names     with process names as keys
  dprobes maps --json | jq 'select(.dropped > 0) | .name'

{EXIT_CODES}"))]
pub struct Maps {
    /// Only those of programs for this module.
    pub module: Option<String>,

    /// Only those of programs with this major code.
    pub major: Option<u16>,

    /// Only the one of this name.
    pub name: Option<String>,

    /// Show the last two keys as what they are, the name of a process: for maps whose program pushes it as key, with `push name`.
    #[arg(long, conflicts_with = "json")]
    pub names: bool,

    /// Print JSON, one object a line for each map.
    #[arg(long)]
    pub json: bool,

    /// Where names of addresses come from instead of /proc/kallsyms.
    #[arg(long, hide = true, value_name = "PATH")]
    pub kallsyms: Option<PathBuf>,
}

/// Show the variables of programs, or set them to zero.
///
/// Each is read, or exchanged for zero, at one moment, and probes go on meanwhile: what was shown when it was reset is exactly what had been counted until
/// then. Variables that a program has allocated are not shown.
///
/// With --json each is one line: scope (local, global), module and major (of a local one), index, name (if it has one) and value, a string of
/// decimal digits, without sign.
#[derive(Debug, Args)]
#[command(after_help = format!("\
Examples:
  dprobes vars                             all
  dprobes vars kernel 1                    those of program 1 for the kernel
  dprobes vars kernel 1 -v opens -v 2-5    some, by name or by place
  dprobes vars kernel 1 -v opens --reset   show one and set it to 0
  dprobes vars --global

{EXIT_CODES}"))]
pub struct Vars {
    /// Only those of programs for this module.
    pub module: Option<String>,

    /// Only those of the program with this major code.
    pub major: Option<u16>,

    /// The global ones.
    #[arg(long, conflicts_with = "module")]
    pub global: bool,

    /// Only this one, by its name or its place, or those from one place to another.
    #[arg(short = 'v', long = "var", value_name = "NAME|N|N-M")]
    pub vars: Vec<String>,

    /// Set them to 0, and show what they had before. Needs a program, or --global.
    #[arg(long)]
    pub reset: bool,

    /// Print JSON, one object a line for each variable.
    #[arg(long)]
    pub json: bool,
}

/// Show which probes fire most often, again and again.
///
/// Rates are those since the update before, the highest first. On a terminal each update takes the place of the one before.
///
/// With --json each probe is one line in each update: module, major, minor, label, state, seconds (since the update before), hits_per_second,
/// missed_per_second, lost_per_second, and hits, all there ever were.
#[derive(Debug, Args)]
#[command(after_help = format!("\
Examples:
  dprobes top                       every second, until Ctrl-C
  dprobes top --interval 0.2
  dprobes top --json --count 1      one update, for a program

{EXIT_CODES}"))]
pub struct Top {
    /// Seconds between updates.
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    pub interval: Duration,

    /// End after this many updates.
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// Print JSON, one object a line.
    #[arg(long)]
    pub json: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    match text.parse().map(Duration::try_from_secs_f64) {
        Ok(Ok(interval)) if (Duration::from_millis(10)..=Duration::from_hours(1)).contains(&interval) => Ok(interval),
        _ => Err("a number of seconds from 0.01 to 3600".to_owned()),
    }
}

/// Take a core dump of a process, which goes on living.
///
/// All of its threads are stopped meanwhile, and go on as if nothing had happened, but for the system calls that Linux does not restart after a stop (signal(7)). The file is an
/// ELF core dump, which gdb reads: every thread's registers, and the memory that the kernel's own dumps have (core(5)): what is in no file, or differs from it. It is readable for its
/// owner alone, has its name when it is complete, and takes no room for zeros. Where a probe is, the memory has its breakpoint.
///
/// The module runs this command for programs that end with `exit_to core`, if its parameter core_helper is the path of the command. The thread that was hit has the registers of
/// the hit then, and is the first in the file. It needs no module otherwise, but the right to trace the process.
#[derive(Debug, Args)]
#[command(after_help = format!("\
Examples:
  dprobes core 4711                       core.4711.1, or the next number that is free
  dprobes core 4711 --output before.core
  gdb /usr/bin/program before.core
  echo /usr/bin/dprobes >/sys/module/dprobes/parameters/core_helper
                                          permits `exit_to core`

{EXIT_CODES}"))]
pub struct Core {
    /// The process.
    #[arg(value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pub process: i32,

    /// The file, which must not be there yet.
    #[arg(short, long, value_name = "FILE", conflicts_with = "directory")]
    pub output: Option<PathBuf>,

    /// The folder for core.PID.N, N the first number that is free; it is made if it is not there. Without either it is the current one.
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,

    /// The module holds a thread of the process, and has written on standard input what that thread has in its registers.
    #[arg(long, hide = true)]
    pub held: bool,

    /// Print as JSON what was written, one object: process, file, threads, bytes.
    #[arg(long)]
    pub json: bool,
}

/// Assemble a program to an object.
///
/// The object has everything but the addresses of symbols, which are resolved when it is inserted.
#[derive(Debug, Args)]
#[command(after_help = format!("\
Examples:
  dprobes asm openat.rpn -o openat.dpo
  dprobes asm first-failure.rpn -D RET=0x68 -o first-failure.dpo

{EXIT_CODES}"))]
pub struct Asm {
    #[command(flatten)]
    pub source: Source,

    /// Where to write the object; `-` is standard output.
    #[arg(short, long, value_name = "OUT")]
    pub output: PathBuf,
}

/// Check a program without inserting it.
///
/// Assembles and verifies it with the code that the module uses. Needs neither the module nor root. With --kallsyms the symbols are
/// resolved too.
#[derive(Debug, Args)]
#[command(after_help = format!("\
Examples:
  dprobes check openat.rpn
  sudo dprobes check openat.rpn --kallsyms /proc/kallsyms

{EXIT_CODES}"))]
pub struct Check {
    #[command(flatten)]
    pub source: Source,

    /// Resolve symbols too, with this list: /proc/kallsyms (as root), a System.map, or the output of `nm -n`.
    #[arg(long, visible_alias = "symbols", value_name = "PATH")]
    pub kallsyms: Option<PathBuf>,

    /// Print the summary as JSON, one object.
    #[arg(long)]
    pub json: bool,
}

/// Format the text of programs.
///
/// Instructions, items and comments are put in columns; nothing but white space changes, no line becomes another one, and the program
/// means what it meant. Files are replaced completely or not at all.
#[derive(Debug, Args)]
#[command(after_help = format!("\
Examples:
  dprobes fmt openat.rpn
  dprobes fmt --check *.rpn          for a build: fails when one is not formatted
  dprobes fmt < openat.rpn           for an editor: from standard input to standard output

{EXIT_CODES}"))]
pub struct Fmt {
    /// The programs' text; none, or `-`: standard input, and the result goes to standard output.
    pub files: Vec<PathBuf>,

    /// Change nothing; fail if a file is not formatted, and say where.
    #[arg(long)]
    pub check: bool,

    /// Print the formatted text, and leave the files as they are.
    #[arg(long, conflicts_with = "check")]
    pub stdout: bool,
}

/// Print an object as text.
#[derive(Debug, Args)]
#[command(after_help = format!("\
Examples:
  dprobes disasm openat.dpo

{EXIT_CODES}"))]
pub struct Disasm {
    /// The object.
    pub object: PathBuf,
}

/// Print what has a shell complete the command line of `dprobes`.
#[derive(Debug, Args)]
#[command(after_help = format!("\
Examples:
  dprobes completion bash >/usr/share/bash-completion/completions/dprobes
  dprobes completion zsh >/usr/share/zsh/site-functions/_dprobes
  dprobes completion fish >~/.config/fish/completions/dprobes.fish
  . <(dprobes completion bash)                    for this shell

{EXIT_CODES}"))]
pub struct Completion {
    /// The shell.
    pub shell: Shell,
}

/// A shell that completes command lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn definitions() {
        for good in ["RET=0x68", "_x1", "A=b=c", "A=", "F(x)=x+1"] {
            assert_eq!(definition(good), Ok(good.to_owned()));
        }
        for bad in ["", "=1", "1A", "A-B=1"] {
            assert!(definition(bad).is_err(), "{bad}");
        }
    }
}
