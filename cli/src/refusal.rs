//! What the engine says when it refuses, in words: what was wrong, where, and what to do.

use dprobes::host::{FacilityError, FileError, Prohibited, ReturnError, Targets};
use dprobes::insn::Refusal;
use dprobes::probe::MergeError;
use dprobes::rpn::object::LocationError;
use dprobes::rpn::op::facility;
use dprobes::wire::{ProbeStatus, Reason, Reply, WatchUnsupported};

use crate::device::{RequestError, Which};
use crate::error::Error;
use crate::kallsyms::Kallsyms;
use crate::program::Program;
use crate::render::escape::trim;
use crate::report::Report;

/// What was asked of the engine, as far as it helps to explain why it said no.
#[derive(Debug, Clone, Copy)]
pub enum Request<'a> {
    /// Insert a program. The symbols are those that it was resolved with, if it had any.
    Insert {
        program: &'a Program,
        symbols: Option<&'a Kallsyms>,
    },
    /// Remove the program with this major code for this module.
    Remove { major: u16, module: &'a str },
    /// Take probes of a program out.
    TakeOut { major: u16, module: &'a str, which: Which },
    /// Remove everything.
    RemoveAll,
    /// Nothing: a probe with this label, of a program for this module, was refused when that was loaded.
    Load { label: &'a str, module: &'a str },
}

/// The error of a request that failed.
pub fn error(error: RequestError, request: Request<'_>) -> Error {
    match error {
        RequestError::Refused(reply) => Error::Refused(Box::new(explain(&reply, request))),
        RequestError::Device(error) => Error::Device(error),
    }
}

/// Why a probe was refused when its module was loaded, in one sentence; `None` if it was not.
pub fn when_loaded(probe: &ProbeStatus) -> Option<String> {
    let text = |padded: &[u8]| String::from_utf8_lossy(trim(padded)).into_owned();
    let (label, module) = (&text(&probe.label), &text(&probe.module));
    let reply = Reply {
        reason: probe.reason,
        detail: probe.detail,
        address: probe.refused_at,
        facts: probe.facts,
        ..Reply::default()
    };
    (probe.reason != 0).then(|| explain(&reply, Request::Load { label, module }).message)
}

/// The message for a reply that is a refusal.
pub fn explain(reply: &Reply, request: Request<'_>) -> Report {
    let subject = Subject { reply, request };
    let Some(reason) = Reason::from_code(reply.reason) else {
        return subject
            .report(format!(
                "the module refuses for a reason this command does not know (number {})",
                reply.reason
            ))
            .note(format!("it says errno {}, address {:#x}", reply.error, reply.address))
            .help("use the command that was built with the module");
    };
    match reason {
        Reason::None => subject.report(format!(
            "the module failed with errno {} and gave no reason",
            reply.error
        )),
        Reason::Object => subject
            .report(format!(
                "the module does not accept the object: byte {} is wrong",
                reply.facts[0]
            ))
            .help("use the command that was built with the module"),
        Reason::Verify => subject.verify(),
        Reason::Exists => subject.exists(),
        Reason::Merge => subject.merge(),
        Reason::NotFound => subject.missing(),
        Reason::NoMemory => subject.no_memory(),
        Reason::NoSlot => subject
            .report("no slot is free for the copy of the probed instruction".to_owned())
            .note(format!(
                "the module has {} slots in all; each probe takes one while it is inserted",
                reply.facts[0]
            ))
            .help("remove programs that are no longer needed; `dprobes query` lists them"),
        Reason::Unresolved => subject
            .report(format!("{} has no address", subject.point()))
            .note("symbols are resolved by the command, and this one was not")
            .help("insert the program with this command"),
        Reason::NoModule => subject.no_module(),
        Reason::Prohibited => subject.prohibited(),
        Reason::NotBoundary => subject.not_boundary(),
        Reason::Opcode => subject.opcode(),
        Reason::Instruction => subject.instruction(),
        Reason::Undecodable => subject
            .report(format!("the bytes at {} are not an instruction", subject.place()))
            .note(format!("they are {}", bytes(reply.facts[1], 8)))
            .help("put the probe on another instruction"),
        Reason::Unreadable => subject
            .report(format!("the text at {} cannot be read", subject.place()))
            .help("check the address: is the module still loaded?"),
        Reason::Unwritable => subject.unwritable(),
        Reason::OutOfReach => subject
            .report(format!(
                "the instruction at {} refers to something too far from any slot",
                subject.place()
            ))
            .note("a copy of it must reach the same memory with a displacement of 32 bits")
            .help("put the probe on the instruction before or after it"),
        Reason::AddressInUse => subject.in_use(),
        Reason::ModuleKind => subject.module_kind(),
        Reason::Globals => subject
            .report("the program names global variables for which there is no room".to_owned())
            .note(format!(
                "there may be {} of different names; each stays until the module is unloaded",
                reply.facts[0]
            ))
            .help("use names that other programs use, or local variables"),
        Reason::Maps => subject
            .report(format!(
                "the maps of the program would take {} bytes on each CPU",
                reply.facts[0]
            ))
            .note(format!("the limit is {} bytes", dprobes::aggregate::BYTES_MAX))
            .help("give them fewer `entries`, or a linear histogram fewer ranges"),
        Reason::WatchLocation => subject.watch_location(),
        Reason::Facility => subject.facility(),
        Reason::Target => subject.target(),
        Reason::WatchInUse => subject.watch_in_use(),
        Reason::WatchUnsupported => subject.watch_unsupported(),
        Reason::File => subject.file(),
        Reason::NoProcess => subject
            .report(format!("there is no process {}, in which {} is to be watched", reply.detail, subject.place()))
            .note("a thread has a number of its own, and is not a process")
            .help("`ps -e` lists processes"),
        Reason::MemoryBound => subject
            .report("all programs together would take more memory than they may".to_owned())
            .note(format!(
                "they may take {} bytes; those that are inserted take {}",
                reply.facts[0], reply.facts[1]
            ))
            .note("nothing was inserted")
            .help("remove programs that are no longer needed, or write another bound to /sys/module/dprobes/parameters/memory_max"),
        Reason::NoSymbol | Reason::AmbiguousSymbol => subject.symbol(reason),
        Reason::OutsideSymbol => subject
            .report(format!("{} is outside its function", subject.place()))
            .note(format!("the function has {:#x} bytes", reply.facts[1]))
            .help("the module is not the one the program was written for: look at the function, then correct `offset`"),
        Reason::Return => subject.returns(),
        Reason::CallVariables => subject
            .report(format!("{} is in no call whose variables there are", subject.place()))
            .note("`cv` is for probes on `return(FUNCTION)`, and for those at the beginning of such a FUNCTION")
            .help("give the program a probe at `offset = return(FUNCTION)` as well, or use `lv`"),
    }
}

struct Subject<'a> {
    reply: &'a Reply,
    request: Request<'a>,
}

impl Subject<'_> {
    /// Calls cannot be followed to their returns.
    fn returns(&self) -> Report {
        let report = self.report(format!("the return of {} cannot be probed", self.place()));
        match ReturnError::from_code(self.reply.detail) {
            Some(ReturnError::Unsupported) | None => report
                .note("this kernel has nothing that follows calls to their returns (CONFIG_RETHOOK)")
                .help("put the probe on the function's `ret`: `objdump -d` shows where there are some"),
            Some(ReturnError::NotEntry) => report
                .note("it is not where a function begins: no call has its return address on top of the stack there")
                .help("name the function alone: `offset = return(FUNCTION)`"),
            Some(ReturnError::NeverReturns) => report
                .note("the function never returns: its code has no way out")
                .help("put a probe on its first instruction: `offset = FUNCTION`"),
            Some(ReturnError::Switches) => report
                .note("the function returns for another task than it was called for, or on another stack")
                .help("put a probe on its first instruction, and one on the caller's instruction behind the call"),
            Some(ReturnError::NoMemory) => report.note("there is no memory to note the calls in"),
        }
    }

    fn program(&self) -> Option<&Program> {
        match self.request {
            Request::Insert { program, .. } => Some(program),
            _ => None,
        }
    }

    fn symbols(&self) -> Option<&Kallsyms> {
        match self.request {
            Request::Insert { symbols, .. } => symbols,
            _ => None,
        }
    }

    /// A message about the point that the reply is about, if it is about one.
    fn report(&self, message: String) -> Report {
        Report::new(message).at(self
            .program()
            .and_then(|program| program.place_of_point(self.reply.point)))
    }

    /// The point as its author wrote it.
    fn point(&self) -> String {
        let name = match self.request {
            Request::Load { label, .. } => label.to_owned(),
            _ => self
                .program()
                .map(|program| program.name_of_point(self.reply.point))
                .unwrap_or_default(),
        };
        if name.is_empty() {
            "the program".to_owned()
        } else {
            name
        }
    }

    /// The point as its author wrote it, and where that is.
    fn place(&self) -> String {
        let (point, address) = (self.point(), self.reply.address);
        match address {
            0 => point,
            _ if point == format!("{address:#x}") => point,
            _ if point == self.at(address) => format!("{point} ({address:#x})"),
            _ => format!("{point} ({})", self.at_address(address)),
        }
    }

    /// An address by the function it is in.
    fn at(&self, address: u64) -> String {
        match self.symbols().and_then(|symbols| symbols.containing(address)) {
            Some((symbol, 0)) => symbol.name.to_owned(),
            Some((symbol, offset)) => format!("{}+{offset:#x}", symbol.name),
            None => format!("{address:#x}"),
        }
    }

    /// An address by the function it is in, and as a number.
    fn at_address(&self, address: u64) -> String {
        let name = self.at(address);
        if name.starts_with("0x") {
            name
        } else {
            format!("{name}, {address:#x}")
        }
    }

    /// Module and major code of the program.
    fn identity(&self) -> (String, u16) {
        match self.request {
            Request::Insert { program, .. } => program.identity(),
            Request::Remove { major, module } | Request::TakeOut { major, module, .. } => (module.to_owned(), major),
            Request::RemoveAll => (String::new(), 0),
            Request::Load { module, .. } => (module.to_owned(), 0),
        }
    }

    fn symbol(&self, reason: Reason) -> Report {
        let (module, _) = self.identity();
        let what = match (self.reply.detail, reason) {
            (0, Reason::AmbiguousSymbol) => {
                format!("module {module} has several symbols with the name of {}", self.point())
            }
            (0, _) => format!("module {module} has no symbol for {}", self.point()),
            (_, Reason::AmbiguousSymbol) => {
                format!("several symbols have a name that the handler of {} uses", self.point())
            }
            (..) => format!(
                "neither module {module} nor the kernel has a symbol that the handler of {} uses",
                self.point()
            ),
        };
        let report = match (self.program(), self.reply.detail) {
            (Some(program), 1..) => {
                let word = u32::try_from(self.reply.facts[0]).unwrap_or(0);
                Report::new(what).at(program.place_of_code(word.saturating_sub(1)))
            }
            _ => self.report(what),
        };
        report.help(match reason {
            Reason::AmbiguousSymbol => {
                "say which by its distance from another symbol, or by an offset in the module".to_owned()
            }
            _ => format!("`nm {module}.ko` lists the symbols that it has"),
        })
    }

    fn verify(&self) -> Report {
        let offset = self.reply.facts[0];
        let place = self
            .program()
            .and_then(|program| program.place_of_code(u32::try_from(offset).ok()?));
        Report::new(format!(
            "the module does not accept the program: the instruction at byte {offset} of its code is wrong"
        ))
        .at(place)
        .note("the command found nothing wrong with it, so the two are of different versions")
        .help("use the command that was built with the module")
    }

    fn exists(&self) -> Report {
        let (module, major) = self.identity();
        let remove = match module.as_str() {
            "kernel" => format!("`dprobes remove {major}`"),
            _ => format!("`dprobes remove {major} --module {module}`"),
        };
        Report::new(format!(
            "a program with major code {major} is inserted for {module} already"
        ))
        .help(format!(
            "remove that one first, with {remove}; or have this one take its place, with --replace"
        ))
        .help("or give this one another code: `major = ...`; a module can have several programs")
    }

    fn merge(&self) -> Report {
        let (module, major) = self.identity();
        let report = self.report(format!(
            "the program cannot be merged into the one with major code {major} for {module}"
        ));
        let report = match MergeError::from_code(self.reply.detail) {
            Some(MergeError::Variables) => report
                .note("its variables are not the first of that program's, with the same names in the same order")
                .help("declare with `vars` what that program declares, or the beginning of it; `dprobes vars` shows them"),
            Some(MergeError::Maps) => report
                .note("its maps are not the first of that program's, with the same names, kinds and options in the same order")
                .help("declare with `map` what that program declares, or the beginning of it; `dprobes maps` shows them"),
            Some(MergeError::Groups) => report
                .note("one of the two suspends groups, which would reach the probes of its own text only")
                .help("insert it as a program of its own: `major = ...`"),
            Some(MergeError::Minor) => report
                .note("that program has a probe with this minor code")
                .help("give this one another: `minor = ...`"),
            Some(MergeError::File) => report
                .note("the file has been replaced since that program was inserted")
                .help("remove that one; its probes are in the file that was there before"),
            None => report.help("use the command that was built with the module"),
        };
        report.note("nothing was inserted")
    }

    fn missing(&self) -> Report {
        match self.request {
            Request::RemoveAll => Report::new("there is nothing to remove"),
            Request::TakeOut { major, module, which } => {
                let what = match which {
                    Which::All => "it has no probes".to_owned(),
                    Which::Minor(minor) => format!("it has no probe with minor code {minor}"),
                    Which::Group(group) => format!("it has no probe of group {group}"),
                    Which::Type(kind) => format!("it has no probe of type {kind}"),
                };
                Report::new(format!(
                    "no program with major code {major} is inserted for {module}, or {what}"
                ))
                .help("`dprobes query --json` shows the codes, the group and the type of each probe")
            }
            Request::Insert { .. } => {
                let (module, major) = self.identity();
                Report::new(format!(
                    "no program with major code {major} is inserted for {module}, into which this could be merged"
                ))
                .help("insert it without --merge")
            }
            _ => {
                let (module, major) = self.identity();
                Report::new(format!("no program with major code {major} is inserted for {module}"))
                    .help("`dprobes query` shows what is inserted; --module says for which module")
            }
        }
    }

    fn no_memory(&self) -> Report {
        let report = Report::new("the kernel has not enough memory for this");
        match self.request {
            Request::Insert { .. } => report
                .note("nothing was inserted")
                .help("remove programs that are no longer needed, or insert fewer probes at once"),
            Request::Load { .. } => report,
            _ => report.note("nothing was removed").help("try again"),
        }
    }

    fn unwritable(&self) -> Report {
        let report = match self.request {
            Request::Insert { .. } => self
                .report(format!("the text at {} cannot be written", self.place()))
                .note("nothing was inserted"),
            _ => Report::new(format!("the text at {:#x} cannot be written", self.reply.address))
                .note("nothing was removed: the probes are still there"),
        };
        report.help("a hypervisor or a security module may protect the kernel's text; see the kernel log")
    }

    fn no_module(&self) -> Report {
        let (module, _) = self.identity();
        Report::new(format!("module {module} is not loaded")).help(format!(
            "load it first: `modprobe {module}`; lsmod shows which are loaded"
        ))
    }

    fn module_kind(&self) -> Report {
        self.report("there are no probes in user space on this kernel".to_owned())
            .note("it is built without uprobes (CONFIG_UPROBES)")
            .help("the kernel and its modules can be probed: `modtype = kernel` or `modtype = kmod`")
    }

    fn prohibited(&self) -> Report {
        let place = self.place();
        let Some(why) = i32::try_from(self.reply.detail).ok().and_then(Prohibited::from_code) else {
            return self
                .report(format!(
                    "the kernel does not allow a probe at {place} (reason {})",
                    self.reply.detail
                ))
                .help("use the command that was built with the module");
        };
        match why {
            Prohibited::NotText => self
                .report(format!("{place} is not code of the kernel or of a loaded module"))
                .help("check the address; with KASLR it changes at every boot, so that a symbol is better"),
            Prohibited::NoFunction => self
                .report(format!("no function is known at {place}"))
                .note("instructions have different lengths: without the start of a function nobody knows where one begins")
                .help("put the probe into a function that /proc/kallsyms lists"),
            Prohibited::Excluded => self
                .report(format!("{place} is excluded from probing"))
                .note("entry code, code marked noinstr, and the engine itself run where a breakpoint would not return")
                .help("put the probe into a caller or a function that it calls"),
            Prohibited::Ftrace => self
                .report(format!("the function tracer owns the bytes at {place}"))
                .help("put the probe on the next instruction, or on the function's first byte: it goes behind the tracer's by itself"),
            Prohibited::JumpLabel => self
                .report(format!("the kernel itself rewrites the bytes at {place} (jump label)"))
                .help("put the probe on the instruction before or after it"),
            Prohibited::StaticCall => self
                .report(format!("the kernel itself rewrites the bytes at {place} (static call)"))
                .help("put the probe on the instruction before or after it, or into the function that is called"),
            Prohibited::Alternative => self
                .report(format!("the kernel is rewriting the bytes at {place} for this CPU (alternatives)"))
                .help("try again; if that does not help, put the probe on another instruction"),
            Prohibited::ExceptionEntry => self
                .report(format!("when the instruction at {place} faults, the kernel decodes it in order to recover"))
                .note("it would find the breakpoint instead; so it is with loads that may reach beyond mapped memory (load_unaligned_zeropad)")
                .help("put the probe on the instruction before or after it"),
            Prohibited::Bug => self
                .report(format!("at {place} there is the ud2 of a BUG or WARN, which the kernel finds by its address"))
                .help("put the probe on the instruction before it, or on __warn"),
            Prohibited::ForeignBreakpoint => self
                .report(format!("something else has a breakpoint at {place}"))
                .note("kprobes, kgdb or another tool; see /sys/kernel/debug/kprobes/list")
                .help("remove that one, or put the probe on another instruction"),
        }
    }

    fn not_boundary(&self) -> Report {
        let [start, next] = self.reply.facts;
        let address = self.reply.address;
        let mut report = self.report(format!("{} is inside an instruction", self.place()));
        if (1..=address).contains(&start) {
            report = report.note(format!(
                "the instruction begins {} byte{} before it, at {}",
                address - start,
                if address - start == 1 { "" } else { "s" },
                self.at_address(start)
            ));
            let mut help = format!("use `{}`", self.offset(start));
            if next > address {
                help.push_str(&format!(" or, for the next instruction, `{}`", self.offset(next)));
            }
            report = report.help(help);
        }
        report
    }

    /// The line that puts a probe at an address.
    fn offset(&self, address: u64) -> String {
        let at = self.at(address);
        if at.starts_with("0x") {
            format!("address = {at}")
        } else {
            format!("offset = {at}")
        }
    }

    fn opcode(&self) -> Report {
        let [expected, found] = self.reply.facts;
        let count = self.reply.detail;
        let more = if count > 8 {
            format!(" (the first 8 of {count})")
        } else {
            String::new()
        };
        self.report(format!("the bytes at {} are not those that the program expects", self.place()))
            .note(format!("expected {}{more}", bytes(expected, count)))
            .note(format!("found    {}{more}", bytes(found, count)))
            .help("this kernel is not the one the program was written for: look at the function, then correct `offset` and `opcode`")
    }

    fn instruction(&self) -> Report {
        let found = bytes(self.reply.facts[1], 8);
        let place = self.place();
        let report = self.report(format!("the instruction at {place} cannot be probed"));
        let refusal = Refusal::from_code(self.reply.detail);
        let report = match refusal {
            Some(refusal) => report.note(refusal.to_string()),
            None => report
                .note(format!(
                    "the reason has number {}, which this command does not know",
                    self.reply.detail
                ))
                .help("use the command that was built with the module"),
        };
        report.note(format!("its first bytes are {found}"))
    }

    fn watch_location(&self) -> Report {
        let (place, address, len) = (self.place(), self.reply.address, self.reply.facts[0]);
        let report = self.report(format!("{place} cannot be watched"));
        match LocationError::from_code(self.reply.detail) {
            Some(LocationError::Unaligned) => {
                let begin = address - address.checked_rem(len).unwrap_or(0);
                report
                    .note(format!(
                        "the address of a watchpoint is a multiple of its length, which is {len}"
                    ))
                    .help(format!(
                        "watch the {len} bytes from {}, or fewer: `watch = ... 1` goes anywhere",
                        self.at_address(begin)
                    ))
            }
            Some(LocationError::NotCanonical) => report.note("nothing can be at such an address"),
            Some(LocationError::NoPort) => report.note("ports go from 0 to 0xffff"),
            None => report
                .note(format!(
                    "the reason has number {}, which this command does not know",
                    self.reply.detail
                ))
                .help("use the command that was built with the module"),
        }
    }

    fn watch_in_use(&self) -> Report {
        let [others, ours] = self.reply.facts;
        let process = self.reply.detail;
        let report = self.report(format!(
            "no debug register is free for the watchpoint on {}",
            self.place()
        ));
        let report = [
            (others, "something else has"),
            (ours, "watchpoints that are inserted have"),
        ]
        .into_iter()
        .filter(|(registers, _)| registers & 0xf != 0)
        .fold(report, |report, (registers, who)| {
            let names = (0..4).filter(|n| registers & 1 << n != 0).map(|n| format!("dr{n}"));
            report.note(format!("{who} {}", names.collect::<Vec<_>>().join(", ")))
        });
        let report = if process == 0 {
            report
        } else {
            report.note(format!("process {} uses some", named(process)))
        };
        report
            .note("a CPU has four; watchpoints on the same bytes for the same thing share one")
            .help("remove watchpoints that are no longer needed, or a debugger's; `dprobes query` lists those that are inserted")
    }

    fn facility(&self) -> Report {
        let number = self.reply.facts[0];
        let name = facility::NAMES.iter().find(|(_, of)| u64::from(*of) == number);
        let name = name.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned());
        let report = Report::new(format!("the program ends with `exit_to {name}`, which is not there"));
        match FacilityError::from_code(self.reply.detail) {
            Some(FacilityError::Absent) if number == u64::from(facility::CORE) => report
                .note("the module does not know which program takes core dumps: its parameter core_helper is empty")
                .help("echo /usr/bin/dprobes >/sys/module/dprobes/parameters/core_helper, or where this command is"),
            Some(FacilityError::Absent) => report
                .note("the module has no such facility on this kernel, and no other module has registered it")
                .help("`exit_to trace` passes the record to ftrace and perf"),
            Some(FacilityError::Forbidden) => report
                .note("it stops the machine, and the module was loaded without permission for that")
                .help("load the module with `dump=1`"),
            None => report
                .note(format!(
                    "the reason has number {}, which this command does not know",
                    self.reply.detail
                ))
                .help("use the command that was built with the module"),
        }
    }

    fn target(&self) -> Report {
        let number = self.reply.facts[0];
        let name = Targets::NAMES.iter().find(|(_, of)| u64::from(*of) == number);
        let name = name.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned());
        let report = Report::new(format!("records cannot go to `{name}`"));
        match (number as u32, FacilityError::from_code(self.reply.detail)) {
            (Targets::SERIAL, Some(FacilityError::Absent)) => report
                .note("the module was loaded without a serial port for records, or the port has not taken a character in time and was given up")
                .help("load the module with `serial_port=0x3f8`, or where the port is"),
            (Targets::KERNEL_LOG, Some(FacilityError::Absent)) => report.note("memory is short"),
            (_, Some(_)) => report.note("the module has no such target on this kernel"),
            (_, None) => report
                .note(format!(
                    "the reason has number {}, which this command does not know",
                    self.reply.detail
                ))
                .help("use the command that was built with the module"),
        }
    }

    fn watch_unsupported(&self) -> Report {
        match WatchUnsupported::from_code(self.reply.detail) {
            Some(WatchUnsupported::Host) => self
                .report("this host has no watchpoints".to_owned())
                .note("nothing was inserted; the kernel log may say more")
                .help("put a probe on the code that is expected to write, without `watch`"),
            Some(WatchUnsupported::IoBreakpoints) => self
                .report(format!("port {} cannot be watched", self.place()))
                .note("a CPU has its I/O breakpoints switched off (bit DE of CR4)"),
            Some(WatchUnsupported::OneProcess) => self
                .report("this host does not watch what a single process does".to_owned())
                .note("nothing was inserted")
                .help("leave out `--process`; `push pid` tells the program which process it is"),
            Some(WatchUnsupported::Ports) => self
                .report(format!("port {} cannot be watched", self.place()))
                .note("Linux manages the debug registers, and has no I/O breakpoints; the test kernel has")
                .help("put a probe on the code that is expected to access the port"),
            None => self
                .report("the module cannot watch this".to_owned())
                .note(format!(
                    "the reason has number {}, which this command does not know",
                    self.reply.detail
                ))
                .help("use the command that was built with the module"),
        }
    }

    fn file(&self) -> Report {
        let (file, _) = self.identity();
        let place = self.place();
        let Some(why) = FileError::from_code(self.reply.detail) else {
            return self
                .report(format!("{file} cannot be probed (reason {})", self.reply.detail))
                .help("use the command that was built with the module");
        };
        match why {
            FileError::Unsupported => self.module_kind(),
            FileError::NoFile => self
                .report("the request came without the file that the program is for".to_owned())
                .help("insert the program with this command"),
            FileError::NotMappable => self
                .report(format!("{file} cannot be probed"))
                .note("it is not a regular file, or is on a file system whose files cannot be mapped into processes")
                .help("copy it to another file system, and run it from there"),
            FileError::Outside => self.report(format!("{place} is behind the end of {file}")),
            FileError::Instruction => self
                .report(format!("the kernel does not probe the instruction at {place} of {file}"))
                .note("its uprobes do not take a lock prefix, int, in, out, hlt, a second breakpoint, and what is no instruction")
                .help("put the probe on the instruction before or after it"),
            FileError::NoMemory => self.no_memory(),
            FileError::Unreadable => self.report(format!("{file} cannot be read")),
            FileError::Address => self
                .report(format!("{place} is an address, and not a place in {file}"))
                .note("the command finds the place in the file, and this object did not go through it")
                .help("insert the program with this command"),
            FileError::Failed => self
                .report(format!("the kernel does not probe {place} of {file}, and does not say why"))
                .help("a security module may not permit to map the file; see the kernel log"),
        }
    }

    fn in_use(&self) -> Report {
        self.report(format!("there is no room for another probe at {}", self.place()))
            .note("a program can have one probe at an address, and only so many programs can have one at the same")
            .help("join the two handlers, or put one of them on the instruction before or after it")
    }
}

/// A process by its number, and by its name if it is still there.
fn named(process: u32) -> String {
    match std::fs::read_to_string(format!("/proc/{process}/comm")) {
        Ok(name) => format!("{process} ({})", name.trim_end()),
        Err(_) => process.to_string(),
    }
}

/// Bytes of a reply, of which at most 8 are there.
fn bytes(packed: u64, count: u32) -> String {
    let count = (count as usize).min(8);
    let bytes: Vec<_> = packed
        .to_le_bytes()
        .iter()
        .take(count)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    bytes.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Source;
    use crate::golden::assert_golden;
    use std::fmt::Write;

    const SYMBOLS: &str = "\
ffffffff81200000 T do_sys_openat2
ffffffff81200090 T next_function
ffffffff81300000 T _etext
";
    const TEXT: &str = "\
name    = \"kernel\"
modtype = kernel
major   = 1

offset  = do_sys_openat2+0x12   // a comment
minor   = 1
        push    r, rdi
        log     1
        exit
";
    const START: u64 = 0xffff_ffff_8120_0010;

    struct Fixture {
        program: Program,
        symbols: Kallsyms,
        folder: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("probe.rpn");
            std::fs::write(&file, TEXT).unwrap();
            let source = Source {
                file,
                define: vec![],
                include: vec![],
            };
            Fixture {
                program: Program::load(&source, |_| {}).unwrap(),
                symbols: Kallsyms::parse(SYMBOLS.to_owned()).unwrap(),
                folder,
            }
        }

        fn insert(&self) -> Request<'_> {
            Request::Insert {
                program: &self.program,
                symbols: Some(&self.symbols),
            }
        }

        /// The message as a stream that is no terminal gets it.
        fn explain(&self, reply: &Reply, request: Request<'_>) -> String {
            let text = explain(reply, request).render();
            let folder = format!("{}/", self.folder.path().display());
            anstream::adapter::strip_str(&text).to_string().replace(&folder, "")
        }
    }

    /// A reply about the only point of the program.
    fn reply(reason: Reason, detail: u32, facts: [u64; 2]) -> Reply {
        Reply {
            error: reason.errno(),
            reason: reason as u32,
            point: 0,
            detail,
            address: START + 2,
            facts,
        }
    }

    /// Every reason there is, with every detail it can have.
    fn replies() -> Vec<(String, Reply)> {
        let reasons = (0..=u32::from(u16::MAX)).filter_map(Reason::from_code);
        let mut all = Vec::new();
        for reason in reasons {
            let name = format!("{reason:?}");
            match reason {
                Reason::Prohibited => all.extend(
                    (0..=i32::from(u16::MAX))
                        .filter_map(Prohibited::from_code)
                        .map(|why| (format!("{name} {why:?}"), reply(reason, why as u32, [0; 2]))),
                ),
                Reason::Instruction => all.extend(Refusal::ALL.iter().map(|why| {
                    let bytes = u64::from_le_bytes([0x0f, 0x05, 1, 2, 3, 4, 5, 6]);
                    (format!("{name} {why:?}"), reply(reason, *why as u32, [0, bytes]))
                })),
                Reason::NotBoundary => {
                    all.push((name.clone(), reply(reason, 0, [START, 0])));
                    all.push((format!("{name}, next known"), reply(reason, 0, [START, START + 5])));
                }
                Reason::Opcode => {
                    let (expected, found) = ([0x55, 0x48, 0x89, 0xe5], [0x41, 0x57, 0x41, 0x56]);
                    let packed = [expected, found].map(|bytes| u64::from(u32::from_le_bytes(bytes)));
                    all.push((name.clone(), reply(reason, 4, packed)));
                    all.push((format!("{name}, long"), reply(reason, 15, packed)));
                }
                Reason::WatchLocation => all.extend(
                    (0..=u32::from(u16::MAX))
                        .filter_map(LocationError::from_code)
                        .map(|why| (format!("{name} {why:?}"), reply(reason, why as u32, [8, 0]))),
                ),
                Reason::WatchUnsupported => all.extend(
                    (0..=u32::from(u16::MAX))
                        .filter_map(WatchUnsupported::from_code)
                        .map(|why| (format!("{name} {why:?}"), reply(reason, why as u32, [0; 2]))),
                ),
                Reason::File => all.extend(
                    (0..=u32::from(u16::MAX))
                        .filter_map(FileError::from_code)
                        .map(|why| (format!("{name} {why:?}"), reply(reason, why as u32, [0; 2]))),
                ),
                Reason::Return => all.extend(
                    (0..=u32::from(u16::MAX))
                        .filter_map(ReturnError::from_code)
                        .map(|why| (format!("{name} {why:?}"), reply(reason, why as u32, [0; 2]))),
                ),
                Reason::Facility => all.extend(
                    (0..=u32::from(u16::MAX))
                        .filter_map(FacilityError::from_code)
                        .map(|why| (format!("{name} {why:?}"), reply(reason, why as u32, [2, 0]))),
                ),
                Reason::Target => all.extend(
                    Targets::NAMES[1..]
                        .iter()
                        .map(|(target, bit)| (format!("{name} {target}"), reply(reason, 1, [u64::from(*bit), 0]))),
                ),
                Reason::WatchInUse => {
                    all.push((name.clone(), reply(reason, 0, [0b0100, 0b1011])));
                    all.push((format!("{name}, nobody known"), reply(reason, 0, [0; 2])));
                    // Nobody has a number as high as this.
                    all.push((
                        format!("{name} by a process"),
                        reply(reason, 0x7fff_ffff, [0b0001, 0b1110]),
                    ));
                }
                Reason::NoSymbol | Reason::AmbiguousSymbol => {
                    all.push((name.clone(), reply(reason, 0, [0; 2])));
                    all.push((format!("{name} in the handler"), reply(reason, 1, [1, 0])));
                }
                Reason::Object
                | Reason::Verify
                | Reason::NoSlot
                | Reason::Globals
                | Reason::Maps
                | Reason::MemoryBound => {
                    let about_all = Reply {
                        point: u32::MAX,
                        address: 0,
                        ..reply(reason, 0, [3, 0])
                    };
                    all.push((name, about_all));
                }
                Reason::NoProcess => all.push((name, reply(reason, 4711, [0; 2]))),
                _ => all.push((name, reply(reason, 0, [0, 0x0605_0403_0201_ffff]))),
            }
        }
        all
    }

    #[test]
    fn every_refusal_of_an_insert_has_a_message() {
        let fixture = Fixture::new();
        let mut all = String::new();
        for (name, reply) in replies() {
            writeln!(all, "## {name}\n\n{}\n", fixture.explain(&reply, fixture.insert())).unwrap();
        }
        assert_golden("refusals.txt", &all);
    }

    #[test]
    fn every_refusal_of_a_remove_has_a_message() {
        let fixture = Fixture::new();
        let one = Request::Remove {
            major: 7,
            module: "e1000",
        };
        let mut all = String::new();
        for (name, request) in [("one", one), ("all", Request::RemoveAll)] {
            for reason in [Reason::NotFound, Reason::NoMemory, Reason::Unwritable] {
                let text = fixture.explain(&reply(reason, 0, [0; 2]), request);
                writeln!(all, "## {name} {reason:?}\n\n{text}\n").unwrap();
            }
        }
        assert_golden("refusals-remove.txt", &all);
    }

    #[test]
    fn numbers_from_another_version_are_told_as_numbers() {
        let fixture = Fixture::new();
        let unknown = Reply {
            reason: 999,
            ..reply(Reason::None, 0, [0; 2])
        };
        assert!(fixture.explain(&unknown, fixture.insert()).contains("(number 999)"));
        for reason in [
            Reason::Prohibited,
            Reason::Instruction,
            Reason::WatchLocation,
            Reason::WatchUnsupported,
        ] {
            let text = fixture.explain(&reply(reason, 999, [0; 2]), fixture.insert());
            assert!(text.contains("999") && text.contains("built with the module"), "{text}");
        }
    }

    #[test]
    fn a_place_is_named_once() {
        let fixture = Fixture::new();
        let file = fixture.folder.path().join("absolute.rpn");
        std::fs::write(&file, TEXT.replace("offset  = do_sys_openat2+0x12", "address = 0x1000")).unwrap();
        let source = Source {
            file,
            define: vec![],
            include: vec![],
        };
        let program = Program::load(&source, |_| {}).unwrap();
        let request = Request::Insert {
            program: &program,
            symbols: None,
        };
        let reply = Reply {
            address: 0x1000,
            ..reply(Reason::Prohibited, Prohibited::NotText as u32, [0; 2])
        };
        let text = fixture.explain(&reply, request);
        assert!(text.starts_with("error: 0x1000 is not code"), "{text}");
    }

    #[test]
    fn no_message_is_lost_without_symbols_or_a_known_point() {
        let fixture = Fixture::new();
        for (name, reply) in replies() {
            let lost = Reply {
                point: 99,
                facts: [u64::MAX; 2],
                detail: u32::MAX,
                ..reply
            };
            let request = Request::Insert {
                program: &fixture.program,
                symbols: None,
            };
            for request in [request, Request::RemoveAll, Request::Remove { major: 0, module: "" }] {
                assert!(!fixture.explain(&lost, request).is_empty(), "{name}");
            }
        }
    }
}
