//! `panic-check`: no panic and no allocation on the path of a hit.

use std::fs;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::progress::Progress;
use crate::reach::{Graph, Reach};
use crate::workspace::{BARE_METAL, Workspace};

/// How the entries of the library that run on the path of a hit begin: the kernel calls them from its trap handlers.
const ENTRY_PREFIX: &str = "dprobes_on_";

/// Prove that no panic and no allocation is reachable from a trap entry of libdprobes.a
#[derive(Args, Default)]
#[command(
    after_help = "Examples:\n  ./x panic-check\n  ./x panic-check --entry dprobes_query\n\nThe library's relocations say who \
    refers to whom; the shortest chain to a panic is printed."
)]
pub struct Arguments {
    /// Also start from this symbol
    #[arg(long, value_name = "SYMBOL")]
    entry: Vec<String>,
}

/// Builds the release library and checks it.
pub fn run(workspace: &Workspace, progress: &Progress, arguments: &Arguments) -> Result<()> {
    progress.step(
        "libdprobes.a",
        workspace
            .bare_metal_cargo("build")
            .args(["--release", "--package", "dprobes-capi"]),
    )?;
    let library = workspace.target.join(BARE_METAL).join("release/libdprobes.a");
    progress.narrate("panic-check", |_| {
        let archive = fs::read(&library).with_context(|| format!("cannot read {}", library.display()))?;
        let graph = Graph::of_archive(&archive)?;
        let mut entries: Vec<&str> = graph.symbols().filter(|name| name.starts_with(ENTRY_PREFIX)).collect();
        entries.extend(arguments.entry.iter().map(String::as_str));
        entries.sort_unstable();
        if entries.is_empty() {
            bail!("the library has no symbol {ENTRY_PREFIX}*: nothing to start from");
        }
        let mut reached = Vec::new();
        for entry in entries {
            match graph.path_to(entry, must_not_run_on_a_hit)? {
                Reach::Never { of } => reached.push(format!("{entry} ({of} functions and tables)")),
                Reach::Path(path) => {
                    bail!(
                        "a hit can reach {}:\n  {}",
                        path.last().map_or("", String::as_str),
                        path.join("\n  -> ")
                    )
                }
            }
        }
        println!("no panic and no allocation can be reached from {}", reached.join(", "));
        Ok(((), true))
    })
}

/// Is this the demangled name of something that panics or allocates?
fn must_not_run_on_a_hit(name: &str) -> bool {
    const PREFIXES: [&str; 4] = [
        "core::panicking::",
        "core::panic::",
        "alloc::alloc::",
        "alloc::raw_vec::",
    ];
    const PARTS: [&str; 7] = [
        "rust_begin_unwind",
        "unwrap_failed",
        "expect_failed",
        "slice_error_fail",
        "__rust_alloc",
        "__rust_realloc",
        "__rust_dealloc",
    ];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || PARTS.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_panic_counts() {
        for name in [
            "core::panicking::panic_fmt",
            "core::panicking::panic_bounds_check",
            "core::option::unwrap_failed",
            "core::result::unwrap_failed",
            "core::str::slice_error_fail",
            "__rustc::rust_begin_unwind",
            "__rustc::__rust_alloc",
            "alloc::raw_vec::handle_error",
        ] {
            assert!(must_not_run_on_a_hit(name), "{name}");
        }
        assert!(!must_not_run_on_a_hit("dprobes::trap::breakpoint"));
        assert!(!must_not_run_on_a_hit("memcpy"));
    }
}
