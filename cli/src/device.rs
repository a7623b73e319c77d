//! The control device of the DProbes module: requests, and the stream of records.
//!
//! `unsafe`, as an `ioctl` hands the kernel addresses. The only other place of the command with it is `coredump/stop.rs`.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use dprobes::wire::{
    INSERT_MERGE, INSERT_NEW, INSERT_REPLACE, INTERFACE_VERSION, IOCTL_INSERT, IOCTL_MAPS, IOCTL_QUERY, IOCTL_READ_MAP,
    IOCTL_REMOVE, IOCTL_RINGS, IOCTL_VARS, InsertRequest, KEEP_ALL, KEEP_GROUP, KEEP_MINOR, KEEP_TYPE, MapStatus,
    MapsRequest, ProbeStatus, QueryRequest, REMOVE_ALL, REMOVE_ALL_NOW, ReadMapRequest, RemoveRequest, Reply,
    RingsRequest, VarStatus, VarsRequest, label,
};
use rustix::io::Errno;
use rustix::ioctl::{Updater, ioctl};

/// As many variables as the module gives at once.
pub const VARS_MAX: u32 = 65536;

/// Where the module's device is.
pub const DEFAULT_PATH: &str = "/dev/dprobes";

/// Where the module has what a kernel recorded that has panicked.
pub const PREVIOUS_PATH: &str = "/dev/dprobes_previous";

/// Why the device does not answer.
#[derive(Debug)]
pub enum DeviceError {
    /// There is no device: the module is not loaded.
    NotLoaded { path: PathBuf },
    /// This user may not.
    NotPermitted { path: PathBuf, root: bool },
    /// The module has no records of a kernel that has panicked.
    NoPrevious { path: PathBuf },
    /// Somebody else has it.
    Busy { path: PathBuf },
    /// It is something else.
    NotADevice { path: PathBuf },
    /// The module speaks another version of the interface; `None` when it does not even say which.
    Version { path: PathBuf, module: Option<u32> },
    /// Anything else.
    Io {
        path: PathBuf,
        doing: &'static str,
        error: io::Error,
    },
}

/// Why a request was not carried out.
#[derive(Debug)]
pub enum RequestError {
    /// The engine refused it and says why.
    Refused(Reply),
    /// It did not get that far.
    Device(DeviceError),
}

impl From<DeviceError> for RequestError {
    fn from(error: DeviceError) -> Self {
        RequestError::Device(error)
    }
}

/// What is done with a program of the same major code for the same module that is inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum How {
    /// There must be none.
    New = INSERT_NEW,
    /// It gets the probes as well.
    Merge = INSERT_MERGE,
    /// It goes, if it is there.
    Replace = INSERT_REPLACE,
}

/// How a program is inserted.
#[derive(Debug, Clone, Copy)]
pub struct InsertOptions<'f> {
    /// For one in user space, the file that it is for.
    pub file: Option<&'f File>,
    pub how: How,
    /// Bits of [`Targets`](dprobes::host::Targets).
    pub targets: u32,
    /// The process in which its watchpoints watch; 0 means all.
    pub process: u32,
    /// Of how many probes that it replaces the final state is wanted.
    pub capacity: usize,
}

/// Which probes of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    All,
    Minor(u16),
    Group(u16),
    Type(u16),
}

/// The device, open, and known to speak our version of the interface.
#[derive(Debug)]
pub struct Device {
    file: File,
    path: PathBuf,
}

impl Device {
    /// Opens the device for requests.
    pub fn open(path: &Path) -> Result<Self, DeviceError> {
        let device = Device {
            file: open(path, true)?,
            path: path.to_owned(),
        };
        if !device.is_device() {
            return Err(DeviceError::NotADevice { path: path.to_owned() });
        }
        device.check_version()?;
        Ok(device)
    }

    /// Opens the stream of records: that of the device, or one that was saved in a file or comes through a pipe.
    pub fn open_stream(path: &Path) -> Result<Self, DeviceError> {
        let device = Device {
            file: open(path, false)?,
            path: path.to_owned(),
        };
        if device.is_device() {
            device.check_version()?;
        }
        Ok(device)
    }

    /// Opens what the kernel recorded that has panicked.
    pub fn open_previous(path: &Path) -> Result<Self, DeviceError> {
        match open(path, false) {
            Err(DeviceError::NotLoaded { path }) => Err(DeviceError::NoPrevious { path }),
            opened => Ok(Device {
                file: opened?,
                path: path.to_owned(),
            }),
        }
    }

    /// Is this the module's device, and not a stream that was saved?
    pub fn is_device(&self) -> bool {
        self.file
            .metadata()
            .is_ok_and(|metadata| metadata.file_type().is_char_device())
    }

    fn check_version(&self) -> Result<(), DeviceError> {
        let mut request = QueryRequest::default();
        self.query_once(&mut request)?;
        match request.version {
            INTERFACE_VERSION => Ok(()),
            other => Err(DeviceError::Version {
                path: self.path.clone(),
                module: Some(other),
            }),
        }
    }

    /// Inserts a program. If it replaces another the final state of that one's first probes is returned.
    pub fn insert(&self, object: &[u8], options: InsertOptions<'_>) -> Result<Vec<ProbeStatus>, RequestError> {
        let InsertOptions {
            file,
            how,
            targets,
            process,
            capacity,
        } = options;
        let mut last = vec![ProbeStatus::default(); capacity];
        let mut request = InsertRequest {
            object: object.as_ptr().expose_provenance() as u64,
            length: object.len() as u64,
            file: file.map_or(-1, AsRawFd::as_raw_fd),
            how: how as u32,
            targets,
            process,
            last: last.as_mut_ptr().expose_provenance() as u64,
            capacity: u32::try_from(capacity).unwrap_or(u32::MAX),
            ..InsertRequest::default()
        };
        // SAFETY: the number is that of a request of this type, which lives until the call ends. The kernel reads `length`
        // bytes at `object`, which is borrowed that long, and writes the request and at most `capacity` entries at `last`, a vector of that many,
        // exposed and alive until after the call.
        let done = unsafe { ioctl(&self.file, Updater::<{ IOCTL_INSERT }, _>::new(&mut request)) };
        self.outcome(done, request.reply, "inserting through")?;
        last.truncate(request.count as usize);
        Ok(last)
    }

    /// Removes one program and returns the final state of its first `capacity` probes.
    pub fn remove(&self, major: u16, module: &str, capacity: usize) -> Result<Vec<ProbeStatus>, RequestError> {
        let mut last = vec![ProbeStatus::default(); capacity];
        let mut request = RemoveRequest {
            major,
            capacity: u32::try_from(capacity).unwrap_or(u32::MAX),
            module: label(module.as_bytes()),
            last: last.as_mut_ptr().expose_provenance() as u64,
            ..RemoveRequest::default()
        };
        self.remove_request(&mut request)?;
        last.truncate(request.count as usize);
        Ok(last)
    }

    /// Takes probes of a program out for good, and keeps it until it is removed.
    pub fn disarm(&self, major: u16, module: &str, which: Which) -> Result<(), RequestError> {
        let (keep, number) = match which {
            Which::All => (KEEP_ALL, 0),
            Which::Minor(number) => (KEEP_MINOR, number),
            Which::Group(number) => (KEEP_GROUP, number),
            Which::Type(number) => (KEEP_TYPE, number),
        };
        self.remove_request(&mut RemoveRequest {
            major,
            keep,
            number,
            module: label(module.as_bytes()),
            ..RemoveRequest::default()
        })
    }

    /// Removes every program; with `now` all are halted at once before that.
    pub fn remove_all(&self, now: bool) -> Result<(), RequestError> {
        self.remove_request(&mut RemoveRequest {
            all: if now { REMOVE_ALL_NOW } else { REMOVE_ALL },
            ..RemoveRequest::default()
        })
    }

    /// The variables that a request chooses; `None` when there is no such program, or it has none of these. When they are to be reset this fails
    /// unless `capacity` is enough.
    pub fn vars(&self, chosen: &VarsRequest, mut capacity: u32) -> Result<Option<Vec<VarStatus>>, DeviceError> {
        loop {
            let mut vars = vec![VarStatus::default(); capacity as usize];
            let mut request = VarsRequest {
                buffer: vars.as_mut_ptr().expose_provenance() as u64,
                capacity,
                ..*chosen
            };
            // SAFETY: the number is that of a request of this type, which lives until the call ends. The kernel writes the request and at
            // most `capacity` entries at `buffer`, a vector of that many, exposed and alive until after the call.
            match unsafe { ioctl(&self.file, Updater::<{ IOCTL_VARS }, _>::new(&mut request)) } {
                Ok(()) => {}
                Err(Errno::NOENT) => return Ok(None),
                Err(error) => return Err(self.error(error, "reading the variables of")),
            }
            if request.count <= capacity {
                vars.truncate(request.count as usize);
                return Ok(Some(vars));
            }
            if capacity == VARS_MAX {
                return Ok(Some(vars));
            }
            // More may come meanwhile.
            capacity = request.count.saturating_add(64).min(VARS_MAX);
        }
    }

    fn remove_request(&self, request: &mut RemoveRequest) -> Result<(), RequestError> {
        // SAFETY: the number is that of a request of this type, which is borrowed until the call ends. The kernel writes the
        // request and at most `capacity` entries at `last`: either none, or a vector of at least that many, exposed by our
        // caller and alive until after the call.
        let done = unsafe { ioctl(&self.file, Updater::<{ IOCTL_REMOVE }, _>::new(request)) };
        self.outcome(done, request.reply, "removing through")
    }

    /// The state of every probe.
    pub fn query(&self) -> Result<Vec<ProbeStatus>, DeviceError> {
        let mut capacity = 64;
        loop {
            let mut probes = vec![ProbeStatus::default(); capacity as usize];
            let mut request = QueryRequest {
                buffer: probes.as_mut_ptr().expose_provenance() as u64,
                capacity,
                ..QueryRequest::default()
            };
            self.query_once(&mut request)?;
            if request.count <= capacity {
                probes.truncate(request.count as usize);
                return Ok(probes);
            }
            // More may be inserted meanwhile.
            capacity = request.count.saturating_add(64);
        }
    }

    fn query_once(&self, request: &mut QueryRequest) -> Result<(), DeviceError> {
        // SAFETY: the number is that of a request of this type, which is borrowed until the call ends. The kernel writes
        // the request and at most `capacity` entries at `buffer`: either none, or a vector of that many, exposed by our
        // one caller and alive until after the call.
        unsafe { ioctl(&self.file, Updater::<{ IOCTL_QUERY }, _>::new(request)) }
            .map_err(|error| self.error(error, "querying"))
    }

    /// Every map.
    pub fn maps(&self) -> Result<Vec<MapStatus>, DeviceError> {
        let mut capacity = 64;
        loop {
            let mut maps = vec![MapStatus::default(); capacity as usize];
            let mut request = MapsRequest {
                buffer: maps.as_mut_ptr().expose_provenance() as u64,
                capacity,
                count: 0,
            };
            // SAFETY: the number is that of a request of this type, which lives until the call ends. The kernel writes the request and at
            // most `capacity` entries at `buffer`, a vector of that many, exposed and alive until after the call.
            unsafe { ioctl(&self.file, Updater::<{ IOCTL_MAPS }, _>::new(&mut request)) }
                .map_err(|error| self.error(error, "listing the maps of"))?;
            if request.count <= capacity {
                maps.truncate(request.count as usize);
                return Ok(maps);
            }
            // More may be inserted meanwhile.
            capacity = request.count.saturating_add(64);
        }
    }

    /// Asks something of the rings: one of the actions of [`RingsRequest`]. What they are like then.
    pub fn rings(&self, action: u32) -> Result<RingsRequest, DeviceError> {
        let mut request = RingsRequest {
            action,
            ..RingsRequest::default()
        };
        // SAFETY: the number is that of a request of this type, which lives until the call ends. The kernel writes nothing else.
        unsafe { ioctl(&self.file, Updater::<{ IOCTL_RINGS }, _>::new(&mut request)) }
            .map_err(|error| self.error(error, "asking about the rings of"))?;
        Ok(request)
    }

    /// The entries of a map, as the module writes them, and how many updates did not fit; `None` when its program is not inserted any
    /// more.
    pub fn read_map(&self, map: &MapStatus) -> Result<Option<(Vec<u8>, u64)>, DeviceError> {
        let size = (map.entry_bytes as usize).max(1);
        let mut bytes = Vec::new();
        let mut request = ReadMapRequest {
            id: map.id,
            ..ReadMapRequest::default()
        };
        // The first call finds out how many there are.
        let mut room = 0;
        loop {
            let start = bytes.len();
            bytes.resize(start + room * size, 0);
            let piece = &mut bytes[start..];
            request.buffer = piece.as_mut_ptr().expose_provenance() as u64;
            request.length = piece.len() as u64;
            // SAFETY: the number is that of a request of this type, which lives until the call ends. The kernel writes the request and at
            // most `length` bytes at `buffer`, which are ours, exposed and alive until after the call.
            match unsafe { ioctl(&self.file, Updater::<{ IOCTL_READ_MAP }, _>::new(&mut request)) } {
                Ok(()) => {}
                Err(Errno::NOENT) => return Ok(None),
                // An entry changed all the time.
                Err(Errno::AGAIN) => {
                    bytes.truncate(start);
                    continue;
                }
                Err(error) => return Err(self.error(error, "reading a map of")),
            }
            bytes.truncate(start + request.count as usize * size);
            if request.left == 0 {
                return Ok(Some((bytes, request.dropped)));
            }
            if let Some(last) = bytes[start..].rchunks_exact(size).next() {
                let keys = last.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
                request.resume = 1;
                request.after = [0; 4];
                for (after, key) in request.after.iter_mut().zip(keys.take(map.keys as usize)) {
                    *after = key;
                }
            }
            // More may come meanwhile. One call gives no more than a megabyte.
            room = (request.left as usize + 64).min((1 << 20) / size + 1);
        }
    }

    fn outcome(&self, done: Result<(), Errno>, reply: Reply, doing: &'static str) -> Result<(), RequestError> {
        match done {
            _ if reply.reason != 0 => Err(RequestError::Refused(reply)),
            Ok(()) if reply.error == 0 => Ok(()),
            Ok(()) => Err(self
                .error(Errno::from_raw_os_error(reply.error.saturating_neg()), doing)
                .into()),
            Err(error) => Err(self.error(error, doing).into()),
        }
    }

    fn error(&self, error: Errno, doing: &'static str) -> DeviceError {
        match error {
            Errno::NOTTY => DeviceError::Version {
                path: self.path.clone(),
                module: None,
            },
            _ => classify(&self.path, doing, error.into()),
        }
    }

    /// Reads what there is of the stream, up to the size of the buffer: `Some(0)` at its end, `None` when there is nothing at
    /// present.
    pub fn read(&self, buffer: &mut [u8]) -> Result<Option<usize>, DeviceError> {
        loop {
            match rustix::io::read(&self.file, &mut *buffer) {
                Ok(length) => return Ok(Some(length)),
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.error(error, "reading")),
            }
        }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn open(path: &Path, write: bool) -> Result<File, DeviceError> {
    File::options()
        .read(true)
        .write(write)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .map_err(|error| classify(path, "opening", error))
}

/// What an error of the system means here.
pub fn classify(path: &Path, doing: &'static str, error: io::Error) -> DeviceError {
    let path = path.to_owned();
    match Errno::from_io_error(&error) {
        Some(Errno::NOENT | Errno::NXIO | Errno::NODEV) if doing == "opening" => DeviceError::NotLoaded { path },
        Some(Errno::ACCESS | Errno::PERM) => DeviceError::NotPermitted {
            path,
            root: rustix::process::geteuid().is_root(),
        },
        Some(Errno::BUSY) => DeviceError::Busy { path },
        Some(Errno::ISDIR) => DeviceError::NotADevice { path },
        _ => DeviceError::Io { path, doing, error },
    }
}
