//! What is timed: pairs of programs that do the same.

use anyhow::{Result, ensure};

use crate::ground::{Observed, STRING};

/// A program for both machines.
pub struct Program {
    /// What it is called.
    pub name: &'static str,
    /// What exactly is compared, in a few words.
    pub note: &'static str,
    /// For the machine of DProbes, in the language of the assembler.
    pub rpn: &'static str,
    /// How many instructions of it are executed.
    pub rpn_executes: u64,
    /// For eBPF: r1 points to a [`Ground`](crate::ground::Ground); r0 is 0 if the hit leaves no record.
    pub ebpf: &'static str,
    /// How many instructions of it are executed.
    pub ebpf_executes: u64,
    /// Registers that are not zero, by number.
    pub registers: &'static [(usize, u64)],
    /// Checks what the first run left behind.
    pub expect: fn(&Observed) -> Result<()>,
}

/// Numbers of registers.
const RDX: usize = 9;
const RDI: usize = 10;

macro_rules! text {
    ($file:literal) => {
        include_str!(concat!("../programs/", $file))
    };
}

/// All of them.
pub const PROGRAMS: &[Program] = &[
    Program {
        name: "count",
        note: "an atomic increment; eBPF adds without atomicity",
        rpn: text!("count.rpn"),
        rpn_executes: 2,
        ebpf: text!("count.ebpf"),
        ebpf_executes: 5,
        registers: &[],
        expect: |observed| first_is(observed, 1),
    },
    Program {
        name: "count, helper",
        note: "an atomic increment in both; in eBPF a helper does it",
        rpn: text!("count.rpn"),
        rpn_executes: 2,
        ebpf: text!("count-helper.ebpf"),
        ebpf_executes: 4,
        registers: &[],
        expect: |observed| first_is(observed, 1),
    },
    Program {
        name: "filter",
        note: "a register is not 7: no record",
        rpn: text!("filter.rpn"),
        rpn_executes: 5,
        ebpf: text!("filter.ebpf"),
        ebpf_executes: 4,
        registers: &[(RDI, 5)],
        expect: |observed| {
            ensure!(!observed.published && observed.variables[0] == 0, "{observed:?}");
            Ok(())
        },
    },
    Program {
        name: "filter, passing",
        note: "the register is 7: the hit is counted",
        rpn: text!("filter.rpn"),
        rpn_executes: 6,
        ebpf: text!("filter.ebpf"),
        ebpf_executes: 8,
        registers: &[(RDI, 7)],
        expect: |observed| first_is(observed, 1),
    },
    Program {
        name: "string",
        note: "64 bytes to the log; eBPF copies byte by byte",
        rpn: text!("string.rpn"),
        rpn_executes: 4,
        ebpf: text!("string.ebpf"),
        ebpf_executes: 6 + 64 * 6 + 2 + 4,
        registers: &[],
        expect: string,
    },
    Program {
        name: "string, helper",
        note: "64 bytes to the log; in eBPF a helper copies them",
        rpn: text!("string.rpn"),
        rpn_executes: 4,
        ebpf: text!("string-helper.ebpf"),
        ebpf_executes: 8,
        registers: &[],
        expect: string,
    },
    Program {
        name: "loop",
        note: "1,000 additions: on the stack; in a register of eBPF",
        rpn: text!("loop.rpn"),
        rpn_executes: 2 + 1000 * 5 + 3,
        ebpf: text!("loop.ebpf"),
        ebpf_executes: 2 + 1000 * 3 + 3,
        registers: &[],
        expect: |observed| first_is(observed, 3000),
    },
    Program {
        name: "loop, variable",
        note: "1,000 atomic increments; eBPF adds without atomicity",
        rpn: text!("loop-variable.rpn"),
        rpn_executes: 1 + 1000 * 2 + 1,
        ebpf: text!("loop-variable.ebpf"),
        ebpf_executes: 1 + 1000 * 5 + 2,
        registers: &[],
        expect: |observed| first_is(observed, 1000),
    },
    Program {
        name: "histogram",
        note: "the number of bits of 1500, by shifts in both, counted in one of 65 variables",
        rpn: text!("histogram.rpn"),
        rpn_executes: 3 + 4 * 5 + 2 * 11 + 4 + 3,
        ebpf: text!("histogram.ebpf"),
        ebpf_executes: 3 + 4 * 3 + 2 * 5 + 1 + 7,
        registers: &[(RDX, 1500)],
        expect: |observed| {
            ensure!(
                (0..65).all(|bits| observed.variables[bits] == u64::from(bits == 11)),
                "{observed:?}"
            );
            Ok(())
        },
    },
];

fn first_is(observed: &Observed, value: u64) -> Result<()> {
    ensure!(observed.published && observed.variables[0] == value, "{observed:?}");
    Ok(())
}

fn string(observed: &Observed) -> Result<()> {
    ensure!(observed.published && observed.log == STRING, "{observed:?}");
    Ok(())
}
