//! What a function of a static library can reach.
//!
//! Functions and data are in sections of their own, so a relocation in one is a reference from one to another: a call, a jump, or
//! an address taken. Following references through data as well (tables of functions, vtables) makes the answer an upper bound: what
//! is not reachable here cannot be called, whatever pointers do, unless code outside the library is given to call.

use std::collections::{HashMap, VecDeque};

use anyhow::{Context, Result};
use object::read::archive::ArchiveFile;
use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionIndex};
use rustc_demangle::demangle;

/// Who refers to whom in a library.
#[derive(Default)]
pub struct Graph {
    nodes: Vec<Node>,
    /// The nodes that define a global symbol, and one for each that the library leaves undefined.
    globals: HashMap<String, Vec<usize>>,
}

/// A section, or an undefined symbol.
#[derive(Default)]
struct Node {
    /// The symbols in it, mangled.
    names: Vec<String>,
    references: Vec<Reference>,
}

enum Reference {
    Node(usize),
    Global(String),
}

/// What was found by looking for the forbidden.
#[derive(Debug, PartialEq, Eq)]
pub enum Reach {
    /// Nothing.
    Never {
        /// The number of functions and pieces of data that are reached.
        of: usize,
    },
    /// The shortest chain of references to it, both ends included.
    Path(Vec<String>),
}

impl Graph {
    /// Reads the objects of an archive.
    pub fn of_archive(archive: &[u8]) -> Result<Self> {
        let mut graph = Self::default();
        for member in ArchiveFile::parse(archive).context("no archive")?.members() {
            let member = member?;
            let name = String::from_utf8_lossy(member.name()).into_owned();
            let data = member.data(archive)?;
            // Metadata of the compiler is kept in members that are no objects of their own.
            if data.starts_with(b"\x7fELF") {
                graph.add_object(data).with_context(|| format!("in member {name}"))?;
            }
        }
        Ok(graph)
    }

    fn add_object(&mut self, data: &[u8]) -> Result<()> {
        let object = object::File::parse(data)?;
        let first = self.nodes.len();
        let mut node_of: HashMap<SectionIndex, usize> = HashMap::new();
        for section in object.sections() {
            node_of.insert(section.index(), first + node_of.len());
            self.nodes.push(Node {
                names: vec![section.name()?.to_owned()],
                references: Vec::new(),
            });
        }
        for symbol in object.symbols() {
            let Some(&node) = symbol.section_index().and_then(|section| node_of.get(&section)) else {
                continue;
            };
            let name = symbol.name()?;
            if name.is_empty() {
                continue;
            }
            // The section's own name says least; a symbol takes its place.
            if self.nodes[node]
                .names
                .first()
                .is_some_and(|first| first.starts_with('.'))
            {
                self.nodes[node].names.clear();
            }
            self.nodes[node].names.push(name.to_owned());
            if symbol.is_global() {
                self.globals.entry(name.to_owned()).or_default().push(node);
            }
        }
        for section in object.sections() {
            let from = node_of[&section.index()];
            // Unwind tables and debugging information refer to everything and are never executed.
            let name = section.name()?;
            if name.starts_with(".eh_frame") || name.starts_with(".debug") || name.starts_with(".gcc_except") {
                continue;
            }
            for (_, relocation) in section.relocations() {
                let reference = match relocation.target() {
                    RelocationTarget::Symbol(index) => {
                        let symbol = object.symbol_by_index(index)?;
                        match symbol.section_index().and_then(|section| node_of.get(&section)) {
                            Some(&node) => Reference::Node(node),
                            None => Reference::Global(symbol.name()?.to_owned()),
                        }
                    }
                    RelocationTarget::Section(index) => Reference::Node(node_of[&index]),
                    _ => continue,
                };
                self.nodes[from].references.push(reference);
            }
        }
        Ok(())
    }

    /// The global symbols that the library defines, mangled.
    pub fn symbols(&self) -> impl Iterator<Item = &str> {
        self.globals.keys().map(String::as_str)
    }

    /// Looks for a symbol whose demangled name is forbidden among all that another symbol reaches. An error when the library does
    /// not define that other symbol.
    pub fn path_to(&self, from: &str, forbidden: impl Fn(&str) -> bool) -> Result<Reach> {
        let starts = self
            .globals
            .get(from)
            .with_context(|| format!("the library does not define {from}"))?;
        // The node through which each node was first reached; the starts were reached through themselves.
        let mut reached_from: HashMap<usize, usize> = starts.iter().map(|&start| (start, start)).collect();
        let mut queue: VecDeque<usize> = starts.iter().copied().collect();
        while let Some(node) = queue.pop_front() {
            if let Some(culprit) = self.forbidden_name(node, &forbidden) {
                let mut path = self.path(&reached_from, node);
                *path.last_mut().expect("a path ends in its node") = culprit;
                return Ok(Reach::Path(path));
            }
            for reference in &self.nodes[node].references {
                match reference {
                    Reference::Node(next) => {
                        reached_from.entry(*next).or_insert_with(|| {
                            queue.push_back(*next);
                            node
                        });
                    }
                    Reference::Global(name) => match self.globals.get(name) {
                        Some(definitions) => {
                            for &next in definitions {
                                reached_from.entry(next).or_insert_with(|| {
                                    queue.push_back(next);
                                    node
                                });
                            }
                        }
                        // Undefined here: its name is all there is to judge.
                        None => {
                            let name = format!("{:#}", demangle(name));
                            if forbidden(&name) {
                                let mut path = self.path(&reached_from, node);
                                path.push(name);
                                return Ok(Reach::Path(path));
                            }
                        }
                    },
                }
            }
        }
        Ok(Reach::Never { of: reached_from.len() })
    }

    fn forbidden_name(&self, node: usize, forbidden: &impl Fn(&str) -> bool) -> Option<String> {
        self.nodes[node]
            .names
            .iter()
            .map(|name| format!("{:#}", demangle(name)))
            .find(|name| forbidden(name))
    }

    /// The chain that led to `node`, itself included.
    fn path(&self, reached_from: &HashMap<usize, usize>, mut node: usize) -> Vec<String> {
        let mut path = Vec::new();
        loop {
            path.push(
                self.nodes[node]
                    .names
                    .first()
                    .map(|name| format!("{:#}", demangle(name)))
                    .unwrap_or_default(),
            );
            let previous = reached_from[&node];
            if previous == node {
                break;
            }
            node = previous;
        }
        path.reverse();
        path
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;
    use std::sync::LazyLock;

    use super::*;

    /// A library of the real compiler, with one entry that cannot panic and three that can, each in another way.
    const LIBRARY: &str = r#"
        #![no_std]
        #[panic_handler]
        fn panic(_: &core::panic::PanicInfo) -> ! { loop {} }

        #[unsafe(no_mangle)]
        pub extern "C" fn never(a: usize) -> usize { a.wrapping_add(1) }

        #[unsafe(no_mangle)]
        pub extern "C" fn index(i: usize) -> u8 { deeper(i) }

        #[inline(never)]
        fn deeper(i: usize) -> u8 { [1, 2, 3][core::hint::black_box(i)] }

        static TABLE: [fn(usize) -> u8; 1] = [deeper];

        #[unsafe(no_mangle)]
        pub extern "C" fn table() -> u8 { core::hint::black_box(&TABLE)[0](0) }

        unsafe extern "C" { fn outside(a: usize) -> usize; }

        #[unsafe(no_mangle)]
        pub extern "C" fn calls_outside(a: usize) -> usize { unsafe { outside(a) } }
    "#;

    static GRAPH: LazyLock<Graph> = LazyLock::new(|| {
        let folder = std::env::temp_dir().join(format!("dprobes-reach-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (source, archive) = (folder.join("lib.rs"), folder.join("lib.a"));
        fs::write(&source, LIBRARY).unwrap();
        let status = Command::new("rustc")
            .args([
                "--edition=2024",
                "--crate-type=staticlib",
                "-Copt-level=3",
                "-Cpanic=abort",
                "-o",
            ])
            .args([&archive, &source])
            .status()
            .unwrap();
        assert!(status.success());
        let graph = Graph::of_archive(&fs::read(&archive).unwrap()).unwrap();
        fs::remove_dir_all(folder).unwrap();
        graph
    });

    fn path(from: &str, forbidden: impl Fn(&str) -> bool) -> Vec<String> {
        match GRAPH.path_to(from, forbidden).unwrap() {
            Reach::Path(path) => path,
            Reach::Never { of } => panic!("{from} reaches {of} things and none is forbidden"),
        }
    }

    #[test]
    fn panics_are_found_and_only_where_they_are() {
        let panics = |name: &str| name.starts_with("core::panicking::");
        assert_eq!(GRAPH.path_to("never", panics).unwrap(), Reach::Never { of: 1 });
        assert_eq!(GRAPH.path_to("calls_outside", panics).unwrap(), Reach::Never { of: 1 });

        let index = path("index", panics);
        assert_eq!(index.first().unwrap(), "index");
        assert!(index.iter().any(|name| name.ends_with("deeper")), "{index:?}");
        assert!(
            index.last().unwrap().starts_with("core::panicking::panic_bounds_check"),
            "{index:?}"
        );

        let table = path("table", panics);
        assert!(
            table.iter().any(|name| name.ends_with("TABLE")),
            "a table of functions is followed: {table:?}"
        );
    }

    #[test]
    fn undefined_symbols_are_judged_by_name() {
        assert_eq!(
            path("calls_outside", |name| name == "outside"),
            ["calls_outside", "outside"]
        );
    }

    #[test]
    fn a_missing_entry_is_an_error() {
        assert!(GRAPH.path_to("no_such_entry", |_| false).is_err());
        assert!(GRAPH.symbols().any(|name| name == "never"));
    }
}
