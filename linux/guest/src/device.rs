//! Requests to /dev/dprobes, as they are: no check stands between a test and the kernel.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;

use dprobes::record::header::{Header, RecordState};
use dprobes::wire::{
    IOCTL_INSERT, IOCTL_QUERY, IOCTL_REMOVE, IOCTL_VARS, InsertRequest, ProbeStatus, QueryRequest, REMOVE_ALL,
    REMOVE_ALL_NOW, Reason, RemoveRequest, Reply, VarStatus, VarsRequest, label,
};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::ioctl::{Opcode, Updater, ioctl};

use crate::machine;

/// Where the device is.
pub const PATH: &str = "/dev/dprobes";

/// The open device.
pub struct Device {
    pub file: File,
}

/// A refusal: what the call returned, and the facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    pub errno: Errno,
    pub reply: Reply,
}

impl Refused {
    /// Why.
    pub fn reason(&self) -> Reason {
        Reason::from_code(self.reply.reason).expect("a known reason")
    }
}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Self {
        Refused {
            errno,
            reply: Reply::default(),
        }
    }
}

impl From<Refused> for libtest_mimic::Failed {
    fn from(refused: Refused) -> Self {
        format!("refused: {refused:?}, {:?}", refused.reason()).into()
    }
}

impl Device {
    /// Opens it.
    pub fn open() -> io::Result<Self> {
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags)
            .open(PATH)?;
        Ok(Device { file })
    }

    /// Opens it so that reading blocks.
    pub fn open_blocking() -> io::Result<Self> {
        Ok(Device {
            file: OpenOptions::new().read(true).write(true).open(PATH)?,
        })
    }

    /// Makes any request with any argument that the kernel may write to.
    ///
    /// # Safety
    /// The kernel writes nowhere but to the argument and to memory that its fields rightly name.
    pub unsafe fn request<const NUMBER: Opcode, T>(&self, argument: &mut T) -> Result<(), Errno> {
        // SAFETY: by this function's contract.
        unsafe { ioctl(&self.file, Updater::<NUMBER, _>::new(argument)) }
    }

    /// Inserts an object.
    pub fn insert(&self, object: &[u8]) -> Result<(), Refused> {
        self.insert_in(0, object)
    }

    /// Inserts an object whose watchpoints are for one process.
    pub fn insert_in(&self, process: u32, object: &[u8]) -> Result<(), Refused> {
        let (object, length) = (object.as_ptr().expose_provenance() as u64, object.len() as u64);
        let mut request = InsertRequest {
            object,
            length,
            process,
            ..InsertRequest::default()
        };
        // SAFETY: the kernel reads the object and writes the reply.
        match unsafe { self.request::<IOCTL_INSERT, _>(&mut request) } {
            Ok(()) if request.reply.error == 0 => Ok(()),
            result => Err(Refused {
                errno: result.err().unwrap_or(Errno::INVAL),
                reply: request.reply,
            }),
        }
    }

    /// Removes a program and returns the final state of its probes.
    pub fn remove(&self, module: &str, major: u16) -> Result<Vec<ProbeStatus>, Refused> {
        let mut last = vec![ProbeStatus::default(); self.query_into(&mut [])?];
        let mut request = remove_request(module, major);
        request.capacity = last.len() as u32;
        request.last = last.as_mut_ptr().expose_provenance() as u64;
        // SAFETY: the kernel writes the request and at most `capacity` states at `last`.
        match unsafe { self.request::<IOCTL_REMOVE, _>(&mut request) } {
            Ok(()) => {
                last.truncate(request.count as usize);
                Ok(last)
            }
            Err(errno) => Err(Refused {
                errno,
                reply: request.reply,
            }),
        }
    }

    /// Removes everything.
    pub fn remove_all(&self) -> Result<(), Refused> {
        self.remove_everything(REMOVE_ALL)
    }

    /// Halts everything at once, and removes it.
    pub fn remove_all_now(&self) -> Result<(), Refused> {
        self.remove_everything(REMOVE_ALL_NOW)
    }

    /// Takes the probes of a program out, and keeps the program.
    pub fn disarm(&self, module: &str, major: u16) -> Result<(), Refused> {
        let mut request = RemoveRequest {
            keep: 1,
            ..remove_request(module, major)
        };
        // SAFETY: the kernel writes the request.
        let result = unsafe { self.request::<IOCTL_REMOVE, _>(&mut request) };
        result.map_err(|errno| Refused {
            errno,
            reply: request.reply,
        })
    }

    /// The variables that a request chooses, as many as there is room for, and how many there are.
    pub fn vars(&self, mut request: VarsRequest, capacity: usize) -> Result<(Vec<VarStatus>, usize), Errno> {
        let mut vars = vec![VarStatus::default(); capacity];
        request.buffer = vars.as_mut_ptr().expose_provenance() as u64;
        request.capacity = capacity as u32;
        // SAFETY: the kernel writes the request and at most `capacity` entries at `buffer`.
        unsafe { self.request::<IOCTL_VARS, _>(&mut request) }?;
        vars.truncate(request.count as usize);
        Ok((vars, request.count as usize))
    }

    fn remove_everything(&self, all: u16) -> Result<(), Refused> {
        let mut request = RemoveRequest {
            all,
            ..remove_request("", 0)
        };
        // SAFETY: the kernel writes the request.
        let result = unsafe { self.request::<IOCTL_REMOVE, _>(&mut request) };
        result.map_err(|errno| Refused {
            errno,
            reply: request.reply,
        })
    }

    /// The state of every probe.
    pub fn query(&self) -> io::Result<Vec<ProbeStatus>> {
        let mut probes = vec![ProbeStatus::default(); self.query_into(&mut [])?];
        let count = self.query_into(&mut probes)?;
        probes.truncate(count);
        Ok(probes)
    }

    /// The state of as many probes as there is room for, and how many there are.
    fn query_into(&self, probes: &mut [ProbeStatus]) -> Result<usize, Errno> {
        let mut request = QueryRequest {
            buffer: probes.as_mut_ptr().expose_provenance() as u64,
            capacity: probes.len() as u32,
            ..QueryRequest::default()
        };
        // SAFETY: the kernel writes the request and at most `capacity` states at `buffer`.
        unsafe { self.request::<IOCTL_QUERY, _>(&mut request) }?;
        Ok(request.count as usize)
    }

    /// Reads what records there are, without waiting for more: heads and elements.
    pub fn records(&self) -> io::Result<Vec<(Header, Vec<u8>)>> {
        self.records_up_to(usize::MAX)
    }

    /// Reads what records there are, and counts those of hits: not those that tell how many were lost.
    pub fn count_records(&self) -> io::Result<u64> {
        let records = self.records()?;
        let of_hits = records
            .iter()
            .filter(|(header, _)| header.state != RecordState::Lost as u32);
        Ok(of_hits.count() as u64)
    }

    /// The same as [`records`](Self::records), but it stops when it has read more than some bytes, or as often as these take: what reading runs through may be
    /// probed and leave records itself, a few for each reading, so that there is no end to them.
    pub fn records_up_to(&self, bytes: usize) -> io::Result<Vec<(Header, Vec<u8>)>> {
        let mut records = Vec::new();
        let mut buffer = vec![0; 1 << 18];
        let mut total = 0;
        let mut readings = (bytes / buffer.len()).saturating_add(2 * machine::cpus());
        loop {
            if total > bytes || readings == 0 {
                return Ok(records);
            }
            readings -= 1;
            match (&self.file).read(&mut buffer) {
                Ok(length) => {
                    total += length;
                    records.extend(parse(&buffer[..length]));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(records),
                Err(error) => return Err(error),
            }
        }
    }
}

/// The records in a piece of the stream, which holds whole ones.
///
/// # Panics
/// If it does not.
pub fn parse(mut bytes: &[u8]) -> Vec<(Header, Vec<u8>)> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let header = Header::parse(bytes).expect("the head of a record");
        let (record, rest) = bytes.split_at_checked(header.length as usize).expect("a whole record");
        records.push((
            header,
            record[Header::SIZE..Header::SIZE + header.elements as usize].to_vec(),
        ));
        bytes = rest;
    }
    records
}

/// A request to remove a program.
pub fn remove_request(module: &str, major: u16) -> RemoveRequest {
    RemoveRequest {
        major,
        module: label(module.as_bytes()),
        ..RemoveRequest::default()
    }
}
