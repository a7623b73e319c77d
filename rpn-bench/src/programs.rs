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
    /// For eBPF: r1 points to a [`Ground`](crate::ground::Ground); r0 is 0 if the hit leaves no record.
    pub ebpf: &'static str,
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
        ebpf: text!("count.ebpf"),
        registers: &[],
        expect: |observed| first_is(observed, 1),
    },
    Program {
        name: "count, helper",
        note: "an atomic increment in both; in eBPF a helper does it",
        rpn: text!("count.rpn"),
        ebpf: text!("count-helper.ebpf"),
        registers: &[],
        expect: |observed| first_is(observed, 1),
    },
    Program {
        name: "filter",
        note: "a register is not 7: no record",
        rpn: text!("filter.rpn"),
        ebpf: text!("filter.ebpf"),
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
        ebpf: text!("filter.ebpf"),
        registers: &[(RDI, 7)],
        expect: |observed| first_is(observed, 1),
    },
    Program {
        name: "string",
        note: "64 bytes to the log; eBPF copies byte by byte",
        rpn: text!("string.rpn"),
        ebpf: text!("string.ebpf"),
        registers: &[],
        expect: string,
    },
    Program {
        name: "string, helper",
        note: "64 bytes to the log; in eBPF a helper copies them",
        rpn: text!("string.rpn"),
        ebpf: text!("string-helper.ebpf"),
        registers: &[],
        expect: string,
    },
    Program {
        name: "loop",
        note: "the sum of 1 to 1,000: on the stack; in a register of eBPF",
        rpn: text!("loop.rpn"),
        ebpf: text!("loop.ebpf"),
        registers: &[],
        expect: |observed| first_is(observed, 500_500),
    },
    Program {
        name: "loop, variable",
        note: "1,000 atomic increments; eBPF adds without atomicity",
        rpn: text!("loop-variable.rpn"),
        ebpf: text!("loop-variable.ebpf"),
        registers: &[],
        expect: |observed| first_is(observed, 1000),
    },
    Program {
        name: "histogram",
        note: "by powers of two: a map; eBPF finds the bucket by shifts and adds to an array",
        rpn: text!("histogram.rpn"),
        ebpf: text!("histogram.ebpf"),
        registers: &[(RDX, 1500)],
        expect: bucket_of_1500,
    },
    Program {
        name: "histogram, helper",
        note: "by powers of two: a map; in eBPF a helper does it",
        rpn: text!("histogram.rpn"),
        ebpf: text!("histogram-helper.ebpf"),
        registers: &[(RDX, 1500)],
        expect: bucket_of_1500,
    },
    Program {
        name: "histogram, by hand",
        note: "by powers of two: shifts and variables in both",
        rpn: text!("histogram-by-hand.rpn"),
        ebpf: text!("histogram.ebpf"),
        registers: &[(RDX, 1500)],
        expect: bucket_of_1500,
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

/// Between 1024 and 2047: eleven bits, and bucket 0 is for negative values.
fn bucket_of_1500(observed: &Observed) -> Result<()> {
    let right = (0..65).all(|bucket| observed.variables[bucket] == u64::from(bucket == 12));
    ensure!(observed.published && right, "{observed:?}");
    Ok(())
}
