//! The running kernel's text: its functions, and where their instructions begin.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

/// A function of the kernel itself, as /proc/kallsyms has it: up to the next symbol.
#[derive(Debug, Clone, Copy)]
pub struct Function {
    pub start: u64,
    pub end: u64,
}

/// The functions between the kernel's `_text` and `_etext`, in the order of their addresses.
pub fn functions() -> io::Result<Vec<Function>> {
    let list = fs::read_to_string("/proc/kallsyms")?;
    let mut symbols = Vec::new();
    let (mut first, mut last) = (0, 0);
    for line in list.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (Some(address), Some(kind), Some(name), None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            // Of a module.
            continue;
        };
        let address = u64::from_str_radix(address, 16).map_err(io::Error::other)?;
        match name {
            "_text" => first = address,
            "_etext" => last = address,
            _ => {}
        }
        if "tTwW".contains(kind) {
            symbols.push(address);
        }
    }
    symbols.retain(|address| (first..last).contains(address));
    symbols.sort_unstable();
    symbols.dedup();
    let ends = symbols.iter().copied().skip(1).chain([last]);
    let functions = symbols.iter().zip(ends);
    Ok(functions.map(|(&start, end)| Function { start, end }).collect())
}

/// Reads the kernel's memory through /proc/kcore.
pub struct Kcore {
    file: File,
    /// Address, size and place in the file of what it has.
    segments: Vec<(u64, u64, u64)>,
}

impl Kcore {
    /// Opens it.
    pub fn open() -> io::Result<Self> {
        const HEADERS: usize = 64;
        let file = File::open("/proc/kcore")?;
        // The ELF header says where the program headers are, of 56 bytes each, and how many (System V ABI, chapter 4).
        let mut header = [0; 64];
        file.read_exact_at(&mut header, 0)?;
        let mut segments = Vec::new();
        for index in 0..usize::from(u16::from_le_bytes([header[56], header[57]])).min(HEADERS) {
            let mut segment = [0; 56];
            file.read_exact_at(&mut segment, word(&header, 32) + 56 * index as u64)?;
            if segment[..4] == [1, 0, 0, 0] {
                segments.push((word(&segment, 16), word(&segment, 32), word(&segment, 8)));
            }
        }
        Ok(Kcore { file, segments })
    }

    /// The bytes of a function.
    pub fn bytes(&self, function: Function) -> io::Result<Vec<u8>> {
        let inside =
            |&&(address, size, _): &&(u64, u64, u64)| (address..address.saturating_add(size)).contains(&function.start);
        let (address, _, offset) = self.segments.iter().find(inside).ok_or(io::ErrorKind::NotFound)?;
        let mut bytes = vec![0; (function.end - function.start) as usize];
        self.file.read_exact_at(&mut bytes, function.start - address + offset)?;
        Ok(bytes)
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
