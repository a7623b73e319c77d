//! Core dumps of processes that go on living.
//!
//! The crate `elfcore` writes the file. It is told here what to write: its own view of a process would take threads for stopped that a signal was about to reach, and lose that
//! signal when it lets them go; would wait for ever for one that does not stop; and reads all memory that is mapped, whether there is anything or not.

mod file;
mod held;
mod memory;
mod stop;
mod thread;

use std::fs::File;
use std::io;
use std::path::PathBuf;

use elfcore::{CoreDumpBuilder, Elf64_Auxv, MappedFile, ProcessInfoSource, ThreadView, VaRegion};
use zerocopy::FromBytes;

pub use file::Destination;
use file::Output;
pub use held::{Held, HeldError};
use memory::Reader;
pub use stop::StopError;
use stop::Stopped;

/// Size of a page.
const PAGE: usize = 4096;

/// Why no core dump was taken.
#[derive(Debug)]
pub enum CoreError {
    /// There is no such process, or it has ended meanwhile.
    NoProcess,
    /// It runs 32-bit code.
    Is32Bit,
    /// Its threads cannot be stopped.
    Stop(StopError),
    /// What the module has said of the thread that it holds cannot be read.
    Held(HeldError),
    /// What the kernel says of the process, in this file, is not as it should be.
    Proc { path: PathBuf, error: io::Error },
    /// The file cannot be written.
    Write { path: PathBuf, error: io::Error },
    /// The writer of core dumps refused.
    Elf(elfcore::CoreError),
}

/// What was dumped.
#[derive(Debug)]
pub struct Taken {
    /// The file.
    pub path: PathBuf,
    /// How many threads it has.
    pub threads: usize,
    /// How large it is; less of it takes room.
    pub bytes: u64,
}

/// What elfcore asks for.
struct Source {
    threads: Vec<ThreadView>,
    regions: Vec<VaRegion>,
    auxiliary: Vec<Elf64_Auxv>,
}

impl ProcessInfoSource for Source {
    /// Of which thread the note about the process is; one must be.
    fn pid(&self) -> i32 {
        self.threads.first().map_or(0, |thread| thread.tid)
    }

    fn threads(&self) -> &[ThreadView] {
        &self.threads
    }

    fn va_regions(&self) -> &[VaRegion] {
        &self.regions
    }

    /// The type of their regions cannot be named outside of elfcore 2.0.
    fn mapped_files(&self) -> Option<&[MappedFile]> {
        None
    }

    fn aux_vector(&self) -> Option<&[Elf64_Auxv]> {
        Some(&self.auxiliary)
    }

    fn page_size(&self) -> usize {
        PAGE
    }
}

/// Takes a core dump of a process. Its threads are stopped meanwhile, all but the one that is held already.
pub fn take(process: i32, held: Option<Held>, destination: &Destination) -> Result<Taken, CoreError> {
    let stopped = Stopped::all_but(process, held.as_ref().map(|held| held.thread)).map_err(CoreError::Stop)?;
    let mut threads = Vec::new();
    // The first is the one that debuggers show.
    if let Some(held) = held {
        threads.push(thread::view(process, held.thread, held.registers)?);
    }
    for &id in stopped.threads() {
        let registers = stopped.registers(id).map_err(CoreError::Stop)?;
        threads.push(thread::view(process, id, registers)?);
    }
    // The first thread of a process may have ended before the others, and has no memory then.
    let Some(alive) = threads.first().map(|thread| thread.tid) else {
        return Err(CoreError::NoProcess);
    };
    thread::make_alike(&mut threads);
    let count = threads.len();

    let folder = PathBuf::from(format!("/proc/{process}/task/{alive}"));
    if thread::is_32_bit(&folder)? {
        return Err(CoreError::Is32Bit);
    }
    let regions = memory::regions(&folder)?;
    let reader = Reader::open(&folder, &regions)?;
    let gone = reader.gone();
    let source = Source {
        threads,
        regions: regions.into_iter().map(VaRegion::from).collect(),
        auxiliary: auxiliary(&folder)?,
    };

    let mut output = Output::create(destination, process)?;
    CoreDumpBuilder::from_source(source, reader)
        .write(output.writer())
        .map_err(|error| match error {
            elfcore::CoreError::IoError(error) => output.failed(error),
            other => CoreError::Elf(other),
        })?;
    if gone.get() {
        return Err(CoreError::NoProcess);
    }
    let (path, bytes) = output.finish()?;
    drop(stopped);
    Ok(Taken {
        path,
        threads: count,
        bytes,
    })
}

fn auxiliary(folder: &std::path::Path) -> Result<Vec<Elf64_Auxv>, CoreError> {
    let bytes = read(folder.join("auxv"))?;
    let entries = bytes.chunks_exact(size_of::<Elf64_Auxv>());
    Ok(entries
        .filter_map(|entry| Elf64_Auxv::read_from_bytes(entry).ok())
        .collect())
}

/// Reads a file of /proc.
fn read(path: PathBuf) -> Result<Vec<u8>, CoreError> {
    std::fs::read(&path).map_err(|error| of_proc(path, error))
}

fn open(path: PathBuf) -> Result<File, CoreError> {
    File::open(&path).map_err(|error| of_proc(path, error))
}

fn of_proc(path: PathBuf, error: io::Error) -> CoreError {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ESRCH) => CoreError::NoProcess,
        _ => CoreError::Proc { path, error },
    }
}
