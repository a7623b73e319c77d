//! Records as a trace in the Common Trace Format 1.8 (<https://diamon.org/ctf/v1.8.3/>), for babeltrace2 and Trace Compass.
//!
//! A trace is a folder: `metadata`, which describes everything in text, and a stream of packets for each CPU. A packet says how many records its
//! CPU had lost until its end; readers tell of losses where that number grows.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::mem;
use std::path::{Path, PathBuf};

use dprobes::record::element::{Element, Elements, Words};
use dprobes::record::header::{Header, RecordState};

use super::escape::trim;
use crate::stream::Entry;

const MAGIC: u32 = 0xc1fc_1fc1;

/// The metadata, but for what is different in each trace. All fields are whole bytes without padding.
const DESCRIPTION: &str = include_str!("ctf.tsdl");

/// Bytes of a packet before its events: its header, and its context as in [`DESCRIPTION`].
const PACKET_HEAD: usize = 4 + 16 + 4 + 5 * 8 + 4;

/// The kinds of elements, as [`DESCRIPTION`] numbers them.
mod kind {
    pub const MEMORY: u8 = 0;
    pub const TEXT: u8 = 1;
    pub const RPN_TRACE: u8 = 2;
    pub const ROUTINE: u8 = 3;
    pub const RPN_STACK: u8 = 4;
    pub const LOCALS: u8 = 5;
    pub const GLOBALS: u8 = 6;
    pub const WORDS: u8 = 7;
    pub const KERNEL_STACK: u8 = 8;
    pub const USER_STACK: u8 = 9;
    pub const FAULT: u8 = 10;
    pub const DAMAGED: u8 = 11;
}

/// What is known about the origin of a trace beside its records.
#[derive(Debug, Default)]
pub struct Origin {
    /// The wall-clock time, in nanoseconds since 1970, at which the clock of the records was zero. 0 when it is not known.
    pub epoch_ns: u64,
    /// The probes: major and minor code, and what the program calls the place.
    pub probes: BTreeMap<(u16, u16), String>,
}

/// A trace that is being written.
#[derive(Debug)]
pub struct Trace {
    folder: PathBuf,
    uuid: [u8; 16],
    cpus: BTreeMap<u32, Cpu>,
}

/// The stream of a CPU.
#[derive(Debug)]
struct Cpu {
    number: u32,
    file: File,
    path: PathBuf,
    /// Events of the packet that is being filled.
    events: Vec<u8>,
    begin: Option<u64>,
    /// Time of the last event.
    end: u64,
    /// Records lost so far.
    lost: u64,
    /// Has a packet been written?
    begun: bool,
}

impl Trace {
    /// Begins a trace in a folder that is made for it, or is empty.
    pub fn create(folder: &Path, origin: &Origin) -> Result<Self, (PathBuf, io::Error)> {
        let at = |path: &Path| {
            let path = path.to_owned();
            |error| (path, error)
        };
        fs::create_dir_all(folder).map_err(at(folder))?;
        if fs::read_dir(folder).map_err(at(folder))?.next().is_some() {
            return Err((folder.to_owned(), io::ErrorKind::DirectoryNotEmpty.into()));
        }
        let mut uuid = [0; 16];
        rustix::rand::getrandom(&mut uuid, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| (folder.to_owned(), error.into()))?;
        // A random one, by RFC 9562.
        uuid[6] = uuid[6] & 0x0f | 0x40;
        uuid[8] = uuid[8] & 0x3f | 0x80;
        let metadata = folder.join("metadata");
        fs::write(&metadata, describe(&uuid, origin)).map_err(at(&metadata))?;
        Ok(Trace {
            folder: folder.to_owned(),
            uuid,
            cpus: BTreeMap::new(),
        })
    }

    /// Adds an entry of the stream of records.
    pub fn add(&mut self, entry: &Entry<'_>) -> Result<(), (PathBuf, io::Error)> {
        match entry {
            Entry::Record(header, elements) => self.cpu(header.cpu)?.record(header, elements),
            Entry::Lost { cpu, count } => {
                // It is somewhere before what follows: the packet that is open ends before it.
                let uuid = self.uuid;
                let cpu = self.cpu(*cpu)?;
                cpu.flush(&uuid)?;
                cpu.lost = cpu.lost.saturating_add(*count);
            }
        }
        Ok(())
    }

    /// Writes what is still in memory: a reader sees a whole trace.
    pub fn flush(&mut self) -> Result<(), (PathBuf, io::Error)> {
        let uuid = self.uuid;
        self.cpus.values_mut().try_for_each(|cpu| cpu.flush(&uuid))
    }

    /// Ends the trace: what was lost at the very end is told by packets without events.
    pub fn finish(mut self) -> Result<(), (PathBuf, io::Error)> {
        let uuid = self.uuid;
        self.cpus.values_mut().try_for_each(|cpu| {
            cpu.flush(&uuid)?;
            cpu.packet(&uuid)
        })
    }

    fn cpu(&mut self, number: u32) -> Result<&mut Cpu, (PathBuf, io::Error)> {
        use std::collections::btree_map::Entry;
        match self.cpus.entry(number) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let path = self.folder.join(format!("cpu_{number}"));
                let file = match File::create_new(&path) {
                    Ok(file) => file,
                    Err(error) => return Err((path, error)),
                };
                Ok(entry.insert(Cpu {
                    number,
                    file,
                    path,
                    events: Vec::new(),
                    begin: None,
                    end: 0,
                    lost: 0,
                    begun: false,
                }))
            }
        }
    }
}

impl Cpu {
    fn record(&mut self, header: &Header, elements: &[u8]) {
        // Time does not go back in a stream. The clock that hits read may, by a few nanoseconds, after an NMI.
        let time = header.time.max(self.end);
        self.begin.get_or_insert(time);
        self.end = time;
        let out = &mut self.events;
        u64(out, time);
        u16(out, header.major);
        u16(out, header.minor);
        u64(out, header.address);
        u32(out, header.pid);
        u32(out, header.tid);
        u32(out, header.uid);
        out.push(u8::from(header.state == RecordState::Provisional as u32));
        text(out, trim(&header.name));
        let start = out.len();
        u16(out, 0);
        let mut count = 0_u16;
        let mut items = Elements::new(elements);
        let mut rest = elements;
        while let Some(item) = items.next() {
            element(out, item.ok(), rest);
            rest = items.rest();
            count = count.saturating_add(1);
        }
        out[start..start + 2].copy_from_slice(&count.to_le_bytes());
    }

    fn flush(&mut self, uuid: &[u8; 16]) -> Result<(), (PathBuf, io::Error)> {
        if self.events.is_empty() {
            return Ok(());
        }
        self.packet(uuid)
    }

    /// Writes a packet with the events that there are.
    fn packet(&mut self, uuid: &[u8; 16]) -> Result<(), (PathBuf, io::Error)> {
        let begin = self.begin.take().unwrap_or(self.end);
        if !self.begun && self.lost > 0 {
            // Readers tell of what was lost since the packet before.
            self.write(uuid, (begin, begin), 0, &[])?;
        }
        self.begun = true;
        let events = mem::take(&mut self.events);
        self.write(uuid, (begin, self.end), self.lost, &events)
    }

    fn write(
        &mut self,
        uuid: &[u8; 16],
        (begin, end): (u64, u64),
        lost: u64,
        events: &[u8],
    ) -> Result<(), (PathBuf, io::Error)> {
        let bits = (PACKET_HEAD + events.len()) as u64 * 8;
        let mut head = Vec::with_capacity(PACKET_HEAD);
        u32(&mut head, MAGIC);
        head.extend_from_slice(uuid);
        u32(&mut head, 0);
        for number in [bits, bits, begin, end, lost] {
            u64(&mut head, number);
        }
        u32(&mut head, self.number);
        let written = self.file.write_all(&head).and_then(|()| self.file.write_all(events));
        written.map_err(|error| (self.path.clone(), error))
    }
}

/// Writes an element, or `rest` as it is if that is damaged.
fn element(out: &mut Vec<u8>, element: Option<Element<'_>>, rest: &[u8]) {
    match element {
        Some(Element::Memory(bytes)) => {
            counted(out, kind::MEMORY, bytes.len());
            out.extend_from_slice(bytes);
        }
        Some(Element::String(bytes)) => {
            counted(out, kind::TEXT, bytes.len());
            out.extend_from_slice(bytes);
        }
        Some(Element::Trace {
            code,
            parm1,
            parm2,
            offset,
            handler,
        }) => {
            out.push(kind::RPN_TRACE);
            for word in [code, parm1, parm2, offset, handler.unwrap_or(NONE)] {
                u64(out, word);
            }
        }
        Some(Element::Frame { called, back }) => {
            out.push(kind::ROUTINE);
            u64(out, called);
            u64(out, back.unwrap_or(NONE));
        }
        Some(Element::Positions(list)) => words(out, kind::RPN_STACK, list),
        Some(Element::Locals(list)) => words(out, kind::LOCALS, list),
        Some(Element::Globals(list)) => words(out, kind::GLOBALS, list),
        Some(Element::Words(list)) => words(out, kind::WORDS, list),
        Some(Element::KernelStack(list)) => words(out, kind::KERNEL_STACK, list),
        Some(Element::UserStack(list)) => words(out, kind::USER_STACK, list),
        Some(Element::Fault(address)) => {
            out.push(kind::FAULT);
            u64(out, address);
        }
        None => {
            out.push(kind::DAMAGED);
            u32(out, rest.len() as u32);
            out.extend_from_slice(rest);
        }
    }
}

/// An offset that is not there: -1.
const NONE: u64 = u64::MAX;

fn words(out: &mut Vec<u8>, kind: u8, words: Words<'_>) {
    counted(out, kind, words.len());
    for word in words.iter() {
        u64(out, word);
    }
}

/// The count of an element has 16 bits, so that none is cut here.
fn counted(out: &mut Vec<u8>, kind: u8, count: usize) {
    out.push(kind);
    u16(out, count as u16);
}

fn u16(out: &mut Vec<u8>, number: u16) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn u32(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

/// A string field ends at a zero byte, of which a process name has none.
fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
    out.push(0);
}

/// The metadata.
fn describe(uuid: &[u8; 16], origin: &Origin) -> String {
    let mut digits = String::new();
    for (place, byte) in uuid.iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            digits.push('-');
        }
        // Writing to a string does not fail.
        let _ = write!(digits, "{byte:02x}");
    }
    let (seconds, nanos) = (origin.epoch_ns / 1_000_000_000, origin.epoch_ns % 1_000_000_000);
    let mut all = format!(
        "/* CTF 1.8 */\n
env {{
\tdomain = \"kernel\";
\ttracer_name = \"dprobes\";
{}}};

clock {{
\tname = monotonic;
\tfreq = 1000000000;
\toffset_s = {seconds};
\toffset = {nanos};
}};
",
        probes(origin)
    );
    all.push_str(&DESCRIPTION.replace("@uuid@", &digits));
    all
}

/// Fields of the environment that say what each probe is called: `probe_1_2 = "do_sys_openat2"`.
fn probes(origin: &Origin) -> String {
    let mut all = String::new();
    for ((major, minor), place) in &origin.probes {
        let quoted: String = place
            .chars()
            .map(|c| match c {
                '"' => "\\\"".to_owned(),
                '\\' => "\\\\".to_owned(),
                ' '..='~' => c.to_string(),
                _ => "?".to_owned(),
            })
            .collect();
        let _ = writeln!(all, "\tprobe_{major}_{minor} = \"{quoted}\";");
    }
    all
}
