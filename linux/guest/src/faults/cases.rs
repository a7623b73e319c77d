//! linux/testmod/faults.c: instructions that fault, with every kind of exception-table entry.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;

use dprobes::host::Prohibited;
use dprobes::wire::{ProbeStatus, Reason};
use rustix::ioctl::{Updater, ioctl};

use crate::device::Device;
use crate::machine::Module;
use crate::{Outcome, ensure, program};

/// A probe that leaves a record for each hit.
pub const RECORD: &str = "push r, rip\nlog 1\nexit";

/// The instruction was carried out.
pub const COMPLETED: u64 = 1;
/// The fix-up of its exception-table entry was taken.
pub const FIXED_UP: u64 = 2;

/// `struct faults_run`: what to run with which registers, and then how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Run {
    pub name: [u8; 32],
    pub outcome: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
}

impl Run {
    /// A run of a case; registers differ from each other and from anything that a fix-up leaves in them.
    pub fn of(name: &str) -> Self {
        let mut run = Run {
            rax: 0x1111_aaaa,
            rcx: 7,
            rdx: 0x2222_bbbb,
            rsi: 0x3333_cccc,
            rdi: 0x4444_dddd,
            ..Run::default()
        };
        run.name[..name.len()].copy_from_slice(name.as_bytes());
        run
    }
}

/// The loaded module.
pub struct Faults {
    device: File,
    instructions: BTreeMap<String, u64>,
    /// A page of zeros, behind which nothing is mapped.
    pub page: u64,
    /// Dropped last: a module with an open device stays.
    module: Option<Module>,
}

impl Faults {
    /// Loads it.
    pub fn load() -> io::Result<Self> {
        let module = Module::load("dprobes_faults", "")?;
        Ok(Faults {
            module: Some(module),
            ..Self::already_loaded()?
        })
    }

    /// The one that another process has loaded.
    pub fn already_loaded() -> io::Result<Self> {
        let parameter = |name| fs::read_to_string(format!("/sys/module/dprobes_faults/parameters/{name}"));
        let number = |text: &str| u64::from_str_radix(text.trim().trim_start_matches("0x"), 16).expect("an address");
        let instructions = parameter("instructions")?
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(name, address)| (name.to_owned(), number(address)))
            .collect();
        Ok(Faults {
            module: None,
            device: File::open("/dev/dprobes_faults")?,
            instructions,
            page: number(&parameter("page")?),
        })
    }

    /// Where the instruction of a case is.
    pub fn instruction(&self, name: &str) -> u64 {
        self.instructions[name]
    }

    /// Runs a case in this thread.
    pub fn run(&self, mut run: Run) -> io::Result<Run> {
        // SAFETY: the module reads the run and writes it back. It dereferences what it is told to, and recovers from that.
        unsafe { ioctl(&self.device, Updater::<0, _>::new(&mut run)) }?;
        Ok(run)
    }

    /// Leaves it loaded: a task has died inside.
    pub fn abandon(self) {
        self.module.into_iter().for_each(Module::leave);
    }
}

/// Not canonical: a general protection fault, or a stack fault.
const NOT_CANONICAL: u64 = 0x8000_0000_0000_0000;

/// What each case is run with.
fn runs(page: u64) -> Vec<(&'static str, Run)> {
    let mut runs = Vec::new();
    let behind = page + 4096;
    let loads = [
        "default",
        "fault",
        "default_mce_safe",
        "fault_mce_safe",
        "fault_sgx",
        "efault_reg",
        "zero_reg",
        "one_reg",
        "rdmsr_safe",
        "wrmsr_safe",
        "uaccess",
        "copy",
        "ucopy_len8",
        "compare",
        "stack_segment",
    ];
    for name in loads {
        // For these the kernel warns of addresses that are not canonical.
        let warned_of = matches!(name, "uaccess" | "copy" | "ucopy_len8");
        for rsi in [page, behind, behind - 3, NOT_CANONICAL] {
            if rsi != NOT_CANONICAL || !warned_of {
                runs.push((name, Run { rsi, ..Run::of(name) }));
            }
        }
    }
    for name in ["store", "locked"] {
        for rdi in [page, behind, behind - 3, NOT_CANONICAL] {
            let rdx = 0;
            runs.push((
                name,
                Run {
                    rdi,
                    rdx,
                    ..Run::of(name)
                },
            ));
        }
    }
    for rsi in [behind, behind - 3, NOT_CANONICAL] {
        runs.push(("call", Run { rsi, ..Run::of("call") }));
    }
    // Nothing to do, everything done, and half way.
    for (rsi, rcx) in [(behind, 0), (page + 64, 128), (behind - 64, 128), (NOT_CANONICAL, 1)] {
        let run = Run {
            rsi,
            rcx,
            rdi: page,
            ..Run::of("repeated")
        };
        runs.push(("repeated", run));
        if rsi != NOT_CANONICAL {
            runs.push((
                "repeated_load",
                Run {
                    rsi,
                    rcx,
                    ..Run::of("repeated_load")
                },
            ));
        }
    }
    for rcx in [0, 1, 3] {
        let run = Run {
            rax: 100,
            rdx: 2,
            rcx,
            ..Run::of("divide")
        };
        runs.push(("divide", run));
    }
    runs.push((
        "undefined",
        Run {
            rcx: 0,
            ..Run::of("undefined")
        },
    ));
    runs.push(("x87", Run::of("x87")));
    runs
}

/// Inserts `object`, runs, and removes it: how the run ended, the final state of the probe, how many records it left.
fn probed(
    device: &Device,
    faults: &Faults,
    object: &[u8],
    run: Run,
) -> Result<(Run, ProbeStatus, usize), libtest_mimic::Failed> {
    device.insert(object)?;
    let ended = faults.run(run)?;
    let last = device.remove("kernel", 1)?[0];
    Ok((ended, last, device.records()?.len()))
}

pub fn every_exception_and_every_fix_up() -> Outcome {
    let _module = Module::dprobes()?;
    let (device, faults) = (Device::open()?, Faults::load()?);
    let mut trap_numbers = BTreeMap::<u64, u32>::new();
    let (mut completed, mut fixed_up) = (0, 0);
    for (name, run) in runs(faults.page) {
        let place = [faults.instruction(name)];
        let bare = faults.run(run)?;
        // The kind of entry that puts the number of the exception into rax.
        let into_rax = !matches!(name, "rdmsr_safe" | "repeated_load");
        if bare.outcome == FIXED_UP && bare.rax < 32 && into_rax {
            *trap_numbers.entry(bare.rax).or_default() += 1;
        }
        let plain = program::at(1, &place, RECORD);
        let (ended, last, records) = probed(&device, &faults, &plain, run)?;
        ensure!(ended == bare, "{name}: {run:x?}\nbare   {bare:x?}\nprobed {ended:x?}");
        let counts = (last.hits, last.faulted, records);
        let expected = match bare.outcome {
            COMPLETED => (1, 0, 1),
            FIXED_UP => (0, 1, 0),
            outcome => return Err(format!("{name}: {outcome}").into()),
        };
        ensure!(
            counts == expected,
            "{name}: {run:x?}\nhits, faulted, records: {counts:?}, expected {expected:?}"
        );
        ensure!((last.missed, last.late, last.lost) == (0, 0, 0), "{name}: {last:?}");

        let on_fault = program::with(1, &place, "logonfault = yes", RECORD);
        let (ended, last, records) = probed(&device, &faults, &on_fault, run)?;
        ensure!(
            ended == bare,
            "{name}, logonfault: {run:x?}\nbare   {bare:x?}\nprobed {ended:x?}"
        );
        ensure!(
            (last.hits, last.faulted, records) == (expected.0, expected.1, 1),
            "{name}, logonfault: {records} records, {last:?}"
        );
        if bare.outcome == COMPLETED {
            completed += 1
        } else {
            fixed_up += 1
        }
    }
    println!("    {completed} completed, {fixed_up} fixed up; exceptions by number: {trap_numbers:?}");
    for exception in [0, 6, 13, 14, 16] {
        ensure!(
            trap_numbers.contains_key(&exception),
            "exception {exception} is in none of the cases"
        );
    }
    Ok(())
}

pub fn what_the_kernel_decodes_is_refused() -> Outcome {
    let _module = Module::dprobes()?;
    let (device, faults) = (Device::open()?, Faults::load()?);
    let object = program::at(1, &[faults.instruction("zeropad")], RECORD);
    let refused = device
        .insert(&object)
        .expect_err("the kernel would decode the breakpoint");
    let why = (refused.reason(), Prohibited::from_code(refused.reply.detail as i32));
    ensure!(
        why == (Reason::Prohibited, Some(Prohibited::ExceptionEntry)),
        "{refused:?}"
    );
    Ok(())
}
