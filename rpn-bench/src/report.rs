//! Results, for people and for programs.

use crate::measure::quartiles;
use crate::programs::Program;

/// A program in one machine.
pub struct Row {
    machine: &'static str,
    executes: u64,
    /// Nanoseconds for one run: quartiles.
    nanoseconds: [f64; 3],
    /// How many times the first machine's time it takes: quartiles of the rounds.
    ratio: [f64; 3],
}

impl Row {
    /// From the samples of a machine and of the first one, round by round.
    pub fn new(machine: &'static str, executes: u64, own: &[f64], first: &[f64]) -> Self {
        Self {
            machine,
            executes,
            nanoseconds: quartiles(own.iter().copied()),
            ratio: quartiles(own.iter().zip(first).map(|(own, first)| own / first)),
        }
    }

    fn per_instruction(&self) -> f64 {
        self.nanoseconds[1] / self.executes as f64
    }
}

/// Says what the columns are.
pub fn head() {
    println!(
        "Medians of all turns, with the quartiles in brackets. The last column is how many times the time of rpn a machine takes."
    );
    println!(
        "{:<18} {:<17} {:>10} {:>21} {:>13} {:>9} {:>8} {:>15}",
        "", "", "ns/run", "", "instructions", "ns/each", "times", ""
    );
}

/// Prints the rows of a program.
pub fn show(program: &Program, rows: &[Row], json: bool) {
    for (index, row) in rows.iter().enumerate() {
        let [low, median, high] = row.nanoseconds;
        let [least, times, most] = row.ratio;
        let each = row.per_instruction();
        let Row { machine, executes, .. } = row;
        if json {
            println!(
                "{{\"program\":\"{}\",\"compared\":\"{}\",\"machine\":\"{machine}\",\"ns\":{median:.2},\"ns_quartiles\":[{low:.2},{high:.2}],\
                 \"instructions\":{executes},\"ns_per_instruction\":{each:.3},\"times\":{times:.3},\"times_quartiles\":[{least:.3},{most:.3}]}}",
                program.name, program.note
            );
        } else {
            let name = if index == 0 { program.name } else { "" };
            println!(
                "{name:<18} {machine:<17} {median:>10.1} {:>21} {executes:>13} {each:>9.2} {times:>8.2} {:>15}",
                format!("[{low:.1} {high:.1}]"),
                format!("[{least:.2} {most:.2}]"),
            );
        }
    }
    if !json {
        println!("{:<18} {}\n", "", program.note);
    }
}
