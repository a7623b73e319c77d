//! The machine to boot, as a QEMU command.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use crate::outcome::Ending;

/// What executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acceleration {
    /// QEMU's translator, one thread per CPU. Works everywhere.
    #[default]
    Tcg,
    /// The host's CPU. To be asked for by name: a `/dev/kvm` that opens may still not run a guest.
    Kvm,
}

impl FromStr for Acceleration {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "tcg" => Ok(Self::Tcg),
            "kvm" => Ok(Self::Kvm),
            _ => Err("expected tcg or kvm".to_owned()),
        }
    }
}

impl fmt::Display for Acceleration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcg => "tcg",
            Self::Kvm => "kvm",
        })
    }
}

/// A machine, and the kernel to boot on it.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The kernel: an ELF file with a PVH note, or a Linux bzImage.
    pub kernel: PathBuf,
    /// Boot module: the initial RAM disk of a Linux guest; for a test kernel its own file, where it finds its symbols.
    pub initrd: Option<PathBuf>,
    /// Kernel command line.
    pub command_line: String,
    /// Number of CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// QEMU's name of the CPU model, with flags: `max`, `qemu64`, `Haswell,+pcid`, ...
    pub cpu_model: String,
    /// What executes the guest's instructions.
    pub acceleration: Acceleration,
    /// Counts instructions: each takes 2^N nanoseconds of the guest's time, its time-stamp counter included, and nothing else does.
    /// One CPU, TCG only.
    pub icount: Option<u8>,
    /// How the guest says that it is done.
    pub ending: Ending,
    /// A run that takes longer is a hang.
    pub time_limit: Duration,
    /// So is one whose serial port has said nothing for so long since it began; the time limit if `None`.
    pub silence_limit: Option<Duration>,
    /// The QEMU program.
    pub qemu: PathBuf,
    /// Further arguments for QEMU.
    pub extra: Vec<OsString>,
}

impl Machine {
    /// A machine of 2 CPUs of model `max` and 256 MiB under TCG that boots `kernel`, a test kernel, for at most a minute.
    pub fn new(kernel: impl Into<PathBuf>) -> Self {
        let kernel = kernel.into();
        Self {
            initrd: Some(kernel.clone()),
            kernel,
            command_line: String::new(),
            cpus: 2,
            memory_mib: 256,
            cpu_model: "max".to_owned(),
            acceleration: Acceleration::default(),
            icount: None,
            ending: Ending::DebugExit,
            time_limit: Duration::from_secs(60),
            silence_limit: None,
            qemu: "qemu-system-x86_64".into(),
            extra: Vec::new(),
        }
    }

    /// A machine of 2 CPUs and 512 MiB that boots Linux and is switched off by it, within five minutes.
    pub fn linux(image: impl Into<PathBuf>, initrd: impl Into<PathBuf>, command_line: impl Into<String>) -> Self {
        Self {
            initrd: Some(initrd.into()),
            command_line: command_line.into(),
            memory_mib: 512,
            ending: Ending::PowerOff,
            time_limit: Duration::from_secs(300),
            ..Self::new(image)
        }
    }

    /// The QEMU command: serial port on its standard output, a reset ends it, triple faults are logged to its standard error.
    pub fn command(&self) -> Command {
        let mut qemu = Command::new(&self.qemu);
        qemu.args([
            "-nodefaults",
            "-no-user-config",
            "-machine",
            "q35",
            "-display",
            "none",
            "-no-reboot",
        ]);
        qemu.args(["-chardev", "stdio,id=serial,signal=off", "-serial", "chardev:serial"]);
        qemu.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-d", "cpu_reset"]);
        qemu.args([
            "-accel",
            match self.acceleration {
                Acceleration::Tcg if self.icount.is_some() => "tcg,thread=single",
                Acceleration::Tcg => "tcg,thread=multi",
                Acceleration::Kvm => "kvm",
            },
        ]);
        if let Some(shift) = self.icount {
            qemu.arg("-icount").arg(format!("shift={shift},sleep=off"));
        }
        qemu.arg("-cpu").arg(&self.cpu_model);
        qemu.arg("-smp").arg(self.cpus.to_string());
        qemu.arg("-m").arg(format!("{}M", self.memory_mib));
        qemu.arg("-kernel").arg(&self.kernel);
        if let Some(initrd) = &self.initrd {
            qemu.arg("-initrd").arg(initrd);
        }
        if !self.command_line.is_empty() {
            qemu.arg("-append").arg(&self.command_line);
        }
        qemu.args(&self.extra);
        qemu
    }
}
