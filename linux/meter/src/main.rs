//! Counts the instructions of a call in a Linux guest.
//!
//! Under `qemu -icount shift=0` the time stamp counter advances by one for each instruction that the guest executes. The call is a
//! read of one byte from /dev/zero, if nothing else is asked for.

#![warn(missing_docs)]

mod call;

use std::arch::asm;
use std::arch::x86_64::{__cpuid, _rdtsc};
use std::io;

use clap::{Parser, Subcommand};

use self::call::{Call, Wanted};

/// Count the instructions of one call, such as a read from /dev/zero
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Print the ticks of the time stamp counter for one call, from the best of many rounds
    Ticks {
        /// How many calls in a round
        calls: u32,
        /// How many rounds
        rounds: u32,
        #[command(flatten)]
        wanted: Wanted,
    },
    /// Call, between two marks in an emulator's log of exceptions
    Marked {
        /// How many times
        calls: u32,
        #[command(flatten)]
        wanted: Wanted,
    },
    /// Leave a mark: raise an invalid-opcode exception, which kills this process
    Mark,
}

fn main() -> io::Result<()> {
    match Arguments::parse().verb {
        Verb::Ticks { calls, rounds, wanted } => println!("{}", ticks(&wanted.open()?, calls, rounds)?),
        Verb::Marked { calls, wanted } => {
            let call = wanted.open()?;
            mark_by_child()?;
            call.make(calls)?;
            mark_by_child()?;
        }
        Verb::Mark => mark(),
    }
    Ok(())
}

/// The ticks of one call, from the round that took least: the others were interrupted.
fn ticks(call: &Call, calls: u32, rounds: u32) -> io::Result<u64> {
    let mut best = u64::MAX;
    for _ in 0..rounds {
        let start = now();
        call.make(calls)?;
        best = best.min(now() - start);
    }
    Ok(best / u64::from(calls))
}

fn now() -> u64 {
    // CPUID lets all instructions before it complete (SDM volume 3, "Serializing Instructions").
    __cpuid(0);
    // SAFETY: reading the counter has no effect, and Linux lets programs do it.
    unsafe { _rdtsc() }
}

fn mark_by_child() -> io::Result<()> {
    // It dies of a signal, as it should.
    std::process::Command::new("/proc/self/exe")
        .arg("mark")
        .status()
        .map(drop)
}

/// Nothing else in a guest raises this exception, so it stands out in the log.
fn mark() -> ! {
    // SAFETY: control does not go on behind the instruction.
    unsafe { asm!("ud2", options(noreturn)) }
}
