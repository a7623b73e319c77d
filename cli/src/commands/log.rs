//! `dprobes log`.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use dprobes::wire::{RINGS_FREEZE, RINGS_KEEP_NEWEST, RINGS_KEEP_OLDEST, RINGS_THAW};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::args::{Global, Keep, Log, LogFormat};
use crate::device::Device;
use crate::error::Error;
use crate::output;
use crate::render::address::Addresses;
use crate::render::escape::{Charset, trim};
use crate::render::{ctf, json, text};
use crate::stream::{Entry, Stream, StreamError};

/// As much as the module has ready at once, so that records of several CPUs are sorted together.
const BATCH: usize = 256 << 10;

/// Writes records until there are none, or until interrupted.
pub fn run(args: &Log, global: &Global) -> Result<(), Error> {
    if let Some(keep) = args.keep {
        let action = match keep {
            Keep::Oldest => RINGS_KEEP_OLDEST,
            Keep::Newest => RINGS_KEEP_NEWEST,
        };
        return Device::open(&global.device)?
            .rings(action)
            .map_err(Error::from)
            .map(drop);
    }
    let device = if args.previous {
        Device::open_previous(&args.previous_path)?
    } else {
        Device::open_stream(&global.device)?
    };
    let signals = signals().map_err(Error::Signals)?;
    let mut writer = Writer::new(args, &device)?;
    if args.snapshot {
        // Closing the device ends that, whatever becomes of this command.
        device.rings(RINGS_FREEZE)?;
    }
    let mut result = pass_on(args, &device, &signals, &mut writer);
    if args.snapshot {
        result = result.and(device.rings(RINGS_THAW).map_err(Error::from).map(drop));
    }
    // What was read is written, also before an error.
    result.and(writer.finish())
}

fn pass_on(args: &Log, device: &Device, signals: &UnixStream, writer: &mut Writer) -> Result<(), Error> {
    let mut stream = Stream::default();
    let mut buffer = vec![0; BATCH];
    while writer.left > 0 {
        match device.read(&mut buffer)? {
            Some(0) => {
                stream.finish().map_err(Error::Stream)?;
                break;
            }
            Some(length) => {
                stream.feed(&buffer[..length]);
                writer.batch(&mut stream)?;
                if wait(device, signals, Wait::Not)? == Event::Stop {
                    break;
                }
            }
            None if args.follow => {
                if wait(device, signals, Wait::ForInput)? == Event::Stop {
                    break;
                }
            }
            None => break,
        }
    }
    Ok(())
}

/// The end of a pipe that becomes readable when the command is told to end.
fn signals() -> io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
    }
    Ok(read)
}

#[derive(Debug, PartialEq, Eq)]
enum Event {
    /// A signal, or nobody reads our output any more.
    Stop,
    /// There may be something to read.
    Ready,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// Only look whether there is a reason to stop.
    Not,
    /// Until there is something to read or a reason to stop.
    ForInput,
}

fn wait(device: &Device, signals: &UnixStream, wait: Wait) -> Result<Event, Error> {
    let limit = (wait == Wait::Not).then_some(Timespec { tv_sec: 0, tv_nsec: 0 });
    let stdout = io::stdout();
    let mut fds = [
        PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
        // Without events: only errors, such as a pipe whose reader is gone.
        PollFd::from_borrowed_fd(stdout.as_fd(), PollFlags::empty()),
        PollFd::from_borrowed_fd(device.as_fd(), PollFlags::IN),
    ];
    loop {
        match poll(&mut fds, limit.as_ref()) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(Error::Signals(error.into())),
        }
    }
    let stop = !fds[0].revents().is_empty() || fds[1].revents().intersects(PollFlags::ERR | PollFlags::NVAL);
    Ok(if stop { Event::Stop } else { Event::Ready })
}

/// How many records are still to be written, and where to.
struct Writer {
    sink: Sink,
    left: u64,
}

enum Sink {
    Lines(Lines),
    Trace(ctf::Trace),
}

/// Text or JSON on standard output.
struct Lines {
    json: bool,
    charset: Charset,
    addresses: Addresses,
}

impl Writer {
    fn new(args: &Log, device: &Device) -> Result<Self, Error> {
        let sink = match (&args.output, args.format) {
            (Some(folder), LogFormat::Ctf) => {
                Sink::Trace(ctf::Trace::create(folder, &origin(args, device)?).map_err(not_written)?)
            }
            _ => Sink::Lines(Lines {
                json: args.json || args.format == LogFormat::Json,
                charset: Charset::from_env(),
                // A stream that was saved may be from another kernel.
                addresses: Addresses::choose(args.kallsyms.as_ref(), device.is_device() && !args.previous)?,
            }),
        };
        Ok(Writer {
            sink,
            left: args.count.unwrap_or(u64::MAX),
        })
    }

    /// Writes every whole entry there is.
    fn batch(&mut self, stream: &mut Stream) -> Result<(), Error> {
        let (unwritten, damaged) = match &mut self.sink {
            Sink::Lines(lines) => lines.batch(stream, &mut self.left)?,
            Sink::Trace(trace) => add_all(trace, stream, &mut self.left)?,
        };
        if unwritten > 0 {
            output::tell(&format!("{unwritten} more had been read already and are not shown"));
        }
        damaged.map_or(Ok(()), |error| Err(Error::Stream(error)))
    }

    fn finish(self) -> Result<(), Error> {
        match self.sink {
            Sink::Lines(_) => Ok(()),
            Sink::Trace(trace) => trace.finish().map_err(not_written),
        }
    }
}

/// How many records were not wanted any more, and how the stream is damaged, if it is.
type Batch = (u64, Option<StreamError>);

impl Lines {
    /// Prints every whole entry there is, by time.
    fn batch(&self, stream: &mut Stream, left: &mut u64) -> Result<Batch, Error> {
        let mut lines: Vec<(u64, bool, String)> = Vec::new();
        let damaged = loop {
            match stream.next_entry() {
                Ok(Some(entry)) => {
                    // A loss has no time: it stays where it came, before the records of its CPU that follow.
                    let (time, record) = match entry {
                        Entry::Record(header, _) => (header.time, true),
                        Entry::Lost { .. } => (lines.last().map_or(0, |(time, ..)| *time), false),
                    };
                    let line = if self.json {
                        json::entry(&entry, &self.addresses)
                    } else {
                        text::entry(&entry, self.charset, &self.addresses)
                    };
                    lines.push((time, record, line));
                }
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        lines.sort_by_key(|(time, ..)| *time);
        let mut unwritten = 0;
        for (_, record, line) in lines {
            if record && *left == 0 {
                unwritten += 1;
                continue;
            }
            output::print(&line)?;
            *left -= u64::from(record && *left != u64::MAX);
        }
        Ok((unwritten, damaged))
    }
}

/// Adds every whole entry there is to a trace, in which each CPU has a stream of its own.
fn add_all(trace: &mut ctf::Trace, stream: &mut Stream, left: &mut u64) -> Result<Batch, Error> {
    let mut unwritten = 0;
    let damaged = loop {
        match stream.next_entry() {
            Ok(Some(entry)) => {
                let record = matches!(entry, Entry::Record(..));
                if record && *left == 0 {
                    unwritten += 1;
                    continue;
                }
                trace.add(&entry).map_err(not_written)?;
                *left -= u64::from(record && *left != u64::MAX);
            }
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    trace.flush().map_err(not_written)?;
    Ok((unwritten, damaged))
}

fn not_written((path, error): (PathBuf, io::Error)) -> Error {
    Error::Write { path, error }
}

/// What the trace can say about this machine; nothing of a stream that was saved.
fn origin(args: &Log, device: &Device) -> Result<ctf::Origin, Error> {
    if !device.is_device() || args.previous {
        return Ok(ctf::Origin::default());
    }
    let nanos = |clock| {
        let time = rustix::time::clock_gettime(clock);
        i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
    };
    let epoch = nanos(rustix::time::ClockId::Realtime) - nanos(rustix::time::ClockId::Monotonic);
    let label = |bytes: &[u8]| String::from_utf8_lossy(trim(bytes)).into_owned();
    let probes = device.query()?.into_iter().map(|probe| {
        let place = format!("{}: {}", label(&probe.module), label(&probe.label));
        ((probe.major, probe.minor), place)
    });
    Ok(ctf::Origin {
        epoch_ns: u64::try_from(epoch).unwrap_or(0),
        probes: probes.collect(),
    })
}
