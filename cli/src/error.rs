//! Everything that can end a command early, with its exit code and its message.

use std::io;
use std::path::PathBuf;

use dprobes::rpn::object::ObjectError;
use dprobes::wire::INTERFACE_VERSION;
use rpn_asm::{Diagnostics, DisassembleError, Style};

use crate::commands::run::RunError;
use crate::coredump::{CoreError, HeldError, StopError};
use crate::device::{DEFAULT_PATH, DeviceError};
use crate::kallsyms::ListError;
use crate::report::Report;
use crate::stream::StreamError;

/// How a command ends. Wrong usage ends with 2, by the parser of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// Refused or failed.
    Failed = 1,
    /// The module is not loaded.
    NotLoaded = 3,
    /// Not permitted.
    NotPermitted = 4,
}

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub enum Error {
    /// A file could not be read.
    Read { path: PathBuf, error: io::Error },
    /// A file could not be written.
    Write { path: PathBuf, error: io::Error },
    /// Standard output could not be written.
    Output(io::Error),
    /// The program's text is neither an object nor UTF-8; from this byte on.
    NotText { path: PathBuf, at: usize },
    /// Macros or folders were given for an object.
    Preprocessed { path: PathBuf },
    /// The assembler's messages.
    Assembler(Diagnostics),
    /// The object has no text.
    Disassemble { path: PathBuf, error: DisassembleError },
    /// Text was needed, and the file is an object.
    ObjectForText { path: PathBuf },
    /// These files are not formatted.
    Unformatted(Vec<Report>),
    /// The file is no object, or a damaged one.
    Object { path: PathBuf, error: ObjectError },
    /// The program does not verify.
    Verify(Box<Report>),
    /// Locations could not be resolved: the first of them explained, and how many more.
    Symbols { reports: Vec<Report>, more: usize },
    /// The list of symbols is of no use.
    List { path: PathBuf, error: ListError },
    /// The program cannot run on the machine that was made up.
    Run(RunError),
    /// The device does not answer.
    Device(DeviceError),
    /// The engine refused the request.
    Refused(Box<Report>),
    /// Waiting for records or for signals is not possible.
    Signals(io::Error),
    /// The record stream is damaged.
    Stream(StreamError),
    /// There is no core dump of this process.
    Core { process: i32, error: CoreError },
}

impl From<DeviceError> for Error {
    fn from(error: DeviceError) -> Self {
        Error::Device(error)
    }
}

impl Error {
    /// The exit code.
    pub fn code(&self) -> Code {
        match self {
            Error::Device(DeviceError::NotLoaded { .. }) => Code::NotLoaded,
            Error::Device(DeviceError::NotPermitted { .. }) => Code::NotPermitted,
            Error::List {
                error: ListError::Hidden,
                ..
            } => Code::NotPermitted,
            Error::Core {
                error: CoreError::Stop(StopError::NotPermitted { .. }),
                ..
            } => Code::NotPermitted,
            Error::Core {
                error: CoreError::Write { error, .. } | CoreError::Proc { error, .. },
                ..
            } if error.kind() == io::ErrorKind::PermissionDenied => Code::NotPermitted,
            Error::Read { error, .. } | Error::Write { error, .. }
                if error.kind() == io::ErrorKind::PermissionDenied =>
            {
                Code::NotPermitted
            }
            _ => Code::Failed,
        }
    }

    /// The message, for a terminal with colours.
    pub fn render(&self) -> String {
        match self {
            Error::Assembler(diagnostics) => diagnostics.render(Style::Coloured).trim_end().to_owned(),
            Error::Symbols { reports, more } => {
                let mut all: Vec<_> = reports.iter().map(Report::render).collect();
                if *more > 0 {
                    all.push(Report::new(format!("{more} more locations cannot be resolved")).render());
                }
                all.join("\n\n")
            }
            Error::Unformatted(reports) => reports.iter().map(Report::render).collect::<Vec<_>>().join("\n\n"),
            other => other.report().render(),
        }
    }

    fn report(&self) -> Report {
        match self {
            Error::Read { path, error } => Report::new(format!("cannot read {}: {}", path.display(), reason(error))),
            Error::Write { path, error } => Report::new(format!("cannot write {}: {}", path.display(), reason(error))),
            Error::Output(error) => Report::new(format!("cannot write to standard output: {}", reason(error))),
            Error::NotText { path, at } => Report::new(format!(
                "{} is neither a program in UTF-8 nor an object",
                path.display()
            ))
            .note(format!("byte {at} is not text")),
            Error::Preprocessed { path } => Report::new(format!(
                "{} is an object; -D and -I have no effect on it",
                path.display()
            ))
            .help("give them to `dprobes asm` when the object is made"),
            Error::Object { path, error } => Report::new(format!("{}: {error}", path.display()))
                .help("make the object again with `dprobes asm`, with the same version of the command"),
            Error::Disassemble { path, error } => Report::new(format!("{}: {error}", path.display())),
            Error::Verify(report) | Error::Refused(report) => Report::clone(report),
            Error::ObjectForText { path } => Report::new(format!("{} is an object, not text", path.display()))
                .help("`dprobes disasm` prints its text"),
            Error::Assembler(_) | Error::Symbols { .. } | Error::Unformatted(_) => Report::default(),
            Error::List { path, error } => list(path, error),
            Error::Run(error) => error.report(),
            Error::Device(error) => device(error),
            Error::Signals(error) => Report::new(format!("cannot wait for records: {}", reason(error))),
            Error::Stream(error) => stream(*error),
            Error::Core { process, error } => core(*process, error),
        }
    }
}

/// What the system says about a failure, without the number.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" (os error ") {
        Some((reason, _)) => reason.to_owned(),
        None => text,
    }
}

fn list(path: &std::path::Path, error: &ListError) -> Report {
    let path = path.display();
    match error {
        ListError::Malformed { line } => Report::new(format!("{path} is not a list of symbols: see line {line}"))
            .note("a line has an address, a type, a name, and [module] for a module's symbol"),
        ListError::StandIn => Report::new(format!("{path} has no symbols: it only says where the real list is"))
            .note("on Debian the real one is in the package linux-image-VERSION-dbg")
            .help("for the kernel that runs, give --kallsyms /proc/kallsyms as root"),
        ListError::Empty => Report::new(format!("{path} has no symbols"))
            .help("the kernel must be built with CONFIG_KALLSYMS, or give a System.map with --kallsyms"),
        ListError::Hidden => Report::new(format!("the kernel hides the addresses in {path}"))
            .help("run the command as root; if that does not help, set the sysctl kernel.kptr_restrict to 1 or 0"),
    }
}

fn device(error: &DeviceError) -> Report {
    match error {
        DeviceError::NotLoaded { path } => {
            Report::new(format!("the dprobes module is not loaded (no {})", path.display()))
                .help("run `insmod dprobes.ko` as root, then try again")
        }
        DeviceError::NotPermitted { path, root: false } => {
            Report::new(format!("not permitted to use {}", path.display()))
                .note("probes see and change everything, so only root may set them (CAP_SYS_ADMIN)")
                .help("run the command as root, for example with sudo")
        }
        DeviceError::NotPermitted { path, root: true } => Report::new(format!(
            "the kernel does not permit the use of {}, even to root",
            path.display()
        ))
        .note("CAP_SYS_ADMIN is missing, as in a container, or the kernel is locked down")
        .help("see /sys/kernel/security/lockdown; run the command outside the container"),
        DeviceError::NoPrevious { path } => Report::new(format!("there are no records of a kernel that has panicked (no {})", path.display()))
            .note("they are kept in memory that is the module's, by persist_address and persist_size, and found when it is loaded with the same after a warm reboot"),
        DeviceError::Busy { path } => Report::new(format!("somebody else is using {}", path.display()))
            .help("the record stream has one reader at a time: end the other `dprobes log`"),
        DeviceError::NotADevice { path } => Report::new(format!("{} is not the device of DProbes", path.display()))
            .note(format!("the module makes a character device, normally {DEFAULT_PATH}")),
        DeviceError::Version { path, module } => {
            let path = path.display();
            let report = match module {
                Some(module) => {
                    Report::new("the dprobes module and this command are of different versions").note(format!(
                        "the module speaks version {module} of the interface, the command version {INTERFACE_VERSION}"
                    ))
                }
                None => Report::new(format!("{path} does not know the request"))
                    .note(format!(
                        "the command speaks version {INTERFACE_VERSION} of the interface"
                    ))
                    .note("the module is of another version, or this is another device"),
            };
            report.help("use the command that was built with the module")
        }
        DeviceError::Io { path, doing, error } => {
            Report::new(format!("{doing} {} failed: {}", path.display(), reason(error)))
        }
    }
}

fn core(process: i32, error: &CoreError) -> Report {
    match error {
        CoreError::NoProcess | CoreError::Stop(StopError::NoProcess) => {
            Report::new(format!("there is no process {process}, or it has ended meanwhile"))
        }
        CoreError::Is32Bit => Report::new(format!("process {process} runs 32-bit code"))
            .note("core dumps are written of 64-bit processes alone"),
        CoreError::Stop(StopError::Itself) => Report::new("the command cannot dump itself"),
        CoreError::Stop(StopError::Traced { thread, by }) => {
            Report::new(format!("process {by} traces thread {thread} already"))
                .note("a thread has one tracer at a time, such as gdb or strace")
                .help("end that one, or have it take the dump (`gcore` does)")
        }
        CoreError::Stop(StopError::NotPermitted { thread }) => Report::new(format!("thread {thread} may not be traced"))
            .note("that takes CAP_SYS_PTRACE, or a process of one's own; kernel.yama.ptrace_scope may forbid it, even to root if it is 3"),
        CoreError::Stop(StopError::Stubborn { thread }) => Report::new(format!("thread {thread} does not stop"))
            .note("it waits in the kernel for something that no signal interrupts, as a device, or a child of vfork(); the process goes on unchanged"),
        CoreError::Stop(StopError::Failed { thread, doing, error }) => {
            Report::new(format!("thread {thread}: {doing} failed: {}", reason(error)))
        }
        CoreError::Held(error) => Report::new("what the module has said of the thread that it holds cannot be read")
            .note(match error {
                HeldError::Read(error) => reason(error),
                HeldError::Truncated => "it ends inside a part".to_owned(),
                HeldError::Long { length } => format!("a part has {length} bytes"),
                HeldError::Nobody => "it does not say which thread that is".to_owned(),
            })
            .help("use the command that was built with the module"),
        CoreError::Proc { path, error } => Report::new(format!("cannot read {}: {}", path.display(), reason(error))),
        CoreError::Write { path, error } => Report::new(format!("cannot write {}: {}", path.display(), reason(error))),
        CoreError::Elf(error) => Report::new(format!("the core dump cannot be written: {error}")),
    }
}

fn stream(error: StreamError) -> Report {
    match error {
        StreamError::Malformed { at } => Report::new(format!("the record stream is damaged at byte {at}"))
            .note("what was printed before is good; what comes after cannot be read"),
        StreamError::Truncated { at, left } => {
            Report::new(format!("the record stream ends inside the record at byte {at}"))
                .note(format!("{left} bytes of it are there"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::classify;
    use crate::golden::assert_golden;
    use rustix::io::Errno;
    use std::path::Path;

    fn text(error: &Error) -> String {
        anstream::adapter::strip_str(&error.render()).to_string()
    }

    fn opening(errno: Errno) -> Error {
        Error::Device(classify(Path::new(DEFAULT_PATH), "opening", errno.into()))
    }

    #[test]
    fn what_the_device_answers_has_its_exit_code() {
        for (errno, code) in [
            (Errno::NOENT, Code::NotLoaded),
            (Errno::NXIO, Code::NotLoaded),
            (Errno::NODEV, Code::NotLoaded),
            (Errno::ACCESS, Code::NotPermitted),
            (Errno::PERM, Code::NotPermitted),
            (Errno::BUSY, Code::Failed),
            (Errno::ISDIR, Code::Failed),
            (Errno::IO, Code::Failed),
        ] {
            assert_eq!(opening(errno).code(), code, "{errno}");
        }
        // A device that is open was there.
        let reading = Error::Device(classify(Path::new(DEFAULT_PATH), "reading", Errno::NODEV.into()));
        assert_eq!(reading.code(), Code::Failed);
    }

    #[test]
    fn every_answer_of_the_device_has_a_message() {
        let path = || PathBuf::from(DEFAULT_PATH);
        let errors = [
            DeviceError::NotLoaded { path: path() },
            DeviceError::NotPermitted {
                path: path(),
                root: false,
            },
            DeviceError::NotPermitted {
                path: path(),
                root: true,
            },
            DeviceError::Busy { path: path() },
            DeviceError::NoPrevious { path: path() },
            DeviceError::NotADevice { path: path() },
            DeviceError::Version {
                path: path(),
                module: Some(7),
            },
            DeviceError::Version {
                path: path(),
                module: None,
            },
            DeviceError::Io {
                path: path(),
                doing: "reading",
                error: Errno::IO.into(),
            },
        ];
        let all: String = errors
            .into_iter()
            .map(|error| text(&Error::Device(error)) + "\n\n")
            .collect();
        assert_golden("device.txt", &all);
    }

    #[test]
    fn a_hostile_name_does_not_reach_the_terminal() {
        let path = PathBuf::from("/tmp/\u{1b}[2J\u{9b}31m");
        let text = text(&Error::Device(DeviceError::NotLoaded { path }));
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    }
}
