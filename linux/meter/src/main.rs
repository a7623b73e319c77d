//! Counts the instructions of a system call in a Linux guest.
//!
//! Under `qemu -icount shift=0` the time stamp counter advances by one for each instruction that the guest executes. The call is a
//! read of one byte from /dev/zero.

#![warn(missing_docs)]

use std::arch::asm;
use std::arch::x86_64::{__cpuid, _rdtsc};
use std::fs::File;
use std::io;

use clap::{Parser, Subcommand};

/// Count the instructions of one read from /dev/zero
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Print the ticks of the time stamp counter for one read, from the best of many rounds
    Ticks {
        /// How many reads in a round
        reads: u32,
        /// How many rounds
        rounds: u32,
    },
    /// Read, between two marks in an emulator's log of exceptions
    Marked {
        /// How many reads
        reads: u32,
    },
    /// Leave a mark: raise an invalid-opcode exception, which kills this process
    Mark,
}

fn main() -> io::Result<()> {
    let zero = File::open("/dev/zero")?;
    match Arguments::parse().verb {
        Verb::Ticks { reads, rounds } => println!("{}", ticks(&zero, reads, rounds)?),
        Verb::Marked { reads } => {
            mark_by_child()?;
            read(&zero, reads)?;
            mark_by_child()?;
        }
        Verb::Mark => mark(),
    }
    Ok(())
}

fn read(zero: &File, times: u32) -> io::Result<()> {
    for _ in 0..times {
        rustix::io::read(zero, &mut [0; 1])?;
    }
    Ok(())
}

/// The ticks of one read, from the round that took least: the others were interrupted.
fn ticks(zero: &File, reads: u32, rounds: u32) -> io::Result<u64> {
    let mut best = u64::MAX;
    for _ in 0..rounds {
        let start = now();
        read(zero, reads)?;
        best = best.min(now() - start);
    }
    Ok(best / u64::from(reads))
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
