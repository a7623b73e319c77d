//! `dprobes log`.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::args::{Global, Log};
use crate::device::Device;
use crate::error::Error;
use crate::output;
use crate::render::address::Addresses;
use crate::render::escape::Charset;
use crate::render::{json, text};
use crate::stream::{Entry, Stream};

/// As much as the module has ready at once, so that records of several CPUs are sorted together.
const BATCH: usize = 256 << 10;

/// Prints records until there are none, or until interrupted.
pub fn run(args: &Log, global: &Global) -> Result<(), Error> {
    let device = Device::open_stream(&global.device)?;
    let signals = signals().map_err(Error::Signals)?;
    let mut printer = Printer {
        json: args.json,
        charset: Charset::from_env(),
        // A stream that was saved may be from another kernel.
        addresses: Addresses::choose(args.kallsyms.as_ref(), device.is_device())?,
        left: args.count.unwrap_or(u64::MAX),
    };
    let mut stream = Stream::default();
    let mut buffer = vec![0; BATCH];
    while printer.left > 0 {
        match device.read(&mut buffer)? {
            Some(0) => {
                stream.finish().map_err(Error::Stream)?;
                break;
            }
            Some(length) => {
                stream.feed(&buffer[..length]);
                printer.batch(&mut stream)?;
                if wait(&device, &signals, Wait::Not)? == Event::Stop {
                    break;
                }
            }
            None if args.follow => {
                if wait(&device, &signals, Wait::ForInput)? == Event::Stop {
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

struct Printer {
    json: bool,
    charset: Charset,
    addresses: Addresses,
    /// How many records are still to be printed.
    left: u64,
}

impl Printer {
    /// Prints every whole entry there is, by time.
    fn batch(&mut self, stream: &mut Stream) -> Result<(), Error> {
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
        let mut unprinted = 0_u64;
        for (_, record, line) in lines {
            if record && self.left == 0 {
                unprinted += 1;
                continue;
            }
            output::print(&line)?;
            self.left -= u64::from(record && self.left != u64::MAX);
        }
        if unprinted > 0 {
            output::tell(&format!("{unprinted} more had been read already and are not shown"));
        }
        damaged.map_or(Ok(()), |error| Err(Error::Stream(error)))
    }
}
