//! Probes in programs of user space: files and offsets in them, whose hits a facility of the host delivers.
//!
//! Nothing of these is in text or in a slot, and nothing is resumed: the host does that. What a site is for probes in the kernel is here a
//! number, which the host hands back with each hit. Numbers are never given out twice.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::calls::Call;
use super::chain::Chain;
use super::engine::{Control, Engine};
use super::error::{InsertError, PointError};
use super::place::{Spot, first_bytes};
use super::program::{Loaded, Probe};
use super::table::Table;
use crate::host::{FileError, FileId, Host, WatchError};
use crate::insn::MAX_LEN;
use crate::mem::{self, OutOfMemory};
use crate::rpn::object::{Location, Object, Place as At, Point};
use crate::sort;

/// How many are detached with one call.
const AT_ONCE: usize = 32;

/// A file that came with a request, and which one it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct UserFile {
    word: u64,
    pub(super) id: FileId,
}

/// A place in a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UserPlace {
    pub(crate) offset: u64,
    /// Is it where the function there returns to?
    pub(crate) returns: bool,
    /// What is there.
    code: Code,
}

/// The first bytes of an instruction, and perhaps of the ones behind it.
#[derive(Debug, Clone, Copy)]
struct Code {
    bytes: [u8; MAX_LEN],
    len: usize,
}

impl Code {
    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}

/// One probed place. Hits look at it; only the control path changes it.
#[derive(Debug)]
pub(crate) struct UserSite {
    number: u64,
    file: FileId,
    offset: u64,
    returns: bool,
    code: Code,
    pub(crate) chain: Chain<Probe>,
    /// What the host calls it.
    attached: u64,
    /// Is it not attached any more, and about to be freed? Control lock held.
    gone: AtomicBool,
}

impl UserSite {
    /// The bytes in the file, where there is a breakpoint in memory. Of the place that a function returns to they are not known.
    pub(crate) fn code(&self) -> Option<&[u8]> {
        (!self.returns).then(|| self.code.bytes())
    }

    /// Is it where the function there returns to?
    pub(crate) fn is_return(&self) -> bool {
        self.returns
    }

    /// The call of this function whose return address is at `frame` on the stack of a task, as a program knows it.
    pub(crate) fn call(&self, task: u64, frame: u64, loaded: &Loaded) -> Call {
        Call {
            task,
            frame,
            of: loaded.number.rotate_right(24) ^ self.offset,
        }
    }

    fn place(&self) -> (FileId, u64, bool) {
        (self.file, self.offset, self.returns)
    }
}

/// All of them, for hits.
pub(crate) struct UserSites {
    by_number: Table<UserSite>,
}

impl UserSites {
    pub(super) fn new() -> Result<Self, OutOfMemory> {
        Ok(UserSites {
            by_number: Table::new()?,
        })
    }

    /// The site with this number, valid as [`Engine::site`] says.
    pub(crate) fn get(&self, number: u64) -> Option<&UserSite> {
        if number == 0 {
            return None;
        }
        // SAFETY: the table holds null or pointers to boxed sites, which are freed only after they have left it and a core sync has passed.
        unsafe { self.by_number.get(number).as_ref() }
    }
}

/// What only the control path touches.
#[derive(Default)]
pub(crate) struct UserControl {
    /// In the order of file and offset.
    #[expect(clippy::vec_box, reason = "hits refer to a site by address: it must not move")]
    sites: Vec<Box<UserSite>>,
    /// The last number that was given out.
    last: u64,
}

/// On which site a probe is; 0 for none. Only the control path looks.
#[derive(Debug, Default)]
pub(crate) struct UserNumber(AtomicU64);

impl UserNumber {
    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, number: u64) {
        self.0.store(number, Ordering::Relaxed);
    }
}

impl<H: Host> Engine<H> {
    /// Which file a program is for.
    pub(super) fn user_file(&self, file: Option<u64>) -> Result<UserFile, InsertError> {
        let word = file.ok_or(InsertError::File(FileError::NoFile))?;
        match self.host().user_file(word) {
            Ok(id) => Ok(UserFile { word, id }),
            Err(FileError::Unsupported) => Err(InsertError::ModuleKind),
            Err(error) => Err(InsertError::File(error)),
        }
    }

    /// The places of a program's points in its file, with the bytes that they expect.
    pub(super) fn find_user_places(&self, object: &Object<'_>, file: &UserFile) -> Result<Vec<Spot>, InsertError> {
        let mut places = mem::vec(object.points().len())?;
        for (index, point) in object.points().enumerate() {
            let (offset, found) = self.user_place(&point, file);
            let error = |error| InsertError::Point {
                point: index,
                address: offset,
                error,
            };
            places.push(Spot::User(found.map_err(error)?));
        }
        Ok(places)
    }

    fn user_place(&self, point: &Point<'_>, file: &UserFile) -> (u64, Result<UserPlace, PointError>) {
        let offset = match point.location() {
            Location::Place(At::ModuleOffset(offset)) => offset,
            Location::Place(At::Absolute(address)) => return (address, Err(PointError::File(FileError::Address))),
            Location::Symbol { .. } | Location::Source { .. } => return (0, Err(PointError::Unresolved)),
        };
        (offset, self.user_place_at(offset, point, file))
    }

    fn user_place_at(&self, offset: u64, point: &Point<'_>, file: &UserFile) -> Result<UserPlace, PointError> {
        if point.watch().is_some() {
            return Err(PointError::Watch(WatchError::Unsupported));
        }
        let mut bytes = [0; MAX_LEN];
        let read = self.host().read_user_file(file.word, offset, &mut bytes);
        let len = read.map_err(PointError::File)?.min(MAX_LEN);
        if len == 0 {
            return Err(PointError::File(FileError::Outside));
        }
        let code = Code { bytes, len };
        let expected = point.opcode();
        let there = code.bytes().get(..expected.len()).unwrap_or(code.bytes());
        if there != expected {
            return Err(PointError::Opcode {
                len: expected.len(),
                expected: first_bytes(expected),
                found: first_bytes(there),
            });
        }
        Ok(UserPlace {
            offset,
            returns: point.returns(),
            code,
        })
    }

    /// Has the host deliver hits at the places of a program, which nobody is interested in yet. On failure, and until somebody is, what has
    /// been attached is [released](Self::release_user_sites).
    pub(super) fn attach_user_sites(
        &self,
        control: &mut Control,
        loaded: &Loaded,
        places: &[Spot],
        file: &UserFile,
    ) -> Result<(), InsertError> {
        let UserControl { sites, last } = &mut control.user;
        let known = sites.len();
        sites.try_reserve(places.len()).map_err(|_| InsertError::NoMemory)?;
        let old = self.user_sites.by_number.reserve(places.len())?;
        let mut done = Ok(());
        for (probe, spot) in loaded.probes.iter().zip(places) {
            let Spot::User(place) = spot else { continue };
            let there = sites
                .get(..known)
                .and_then(|known| {
                    known
                        .binary_search_by_key(&(file.id, place.offset, place.returns), |site| site.place())
                        .ok()
                })
                .and_then(|index| sites.get(index));
            if let Some(site) = there {
                probe.user.set(site.number);
                continue;
            }
            match self.attach_user_site(*last + 1, place, file) {
                Ok(site) => {
                    *last += 1;
                    probe.user.set(site.number);
                    sites.push(site);
                }
                Err(error) => {
                    done = Err(error.of(probe));
                    break;
                }
            }
        }
        sort::by_key(sites, |site| site.place());
        if !old.is_empty() {
            // A hit that may be reading the old table has ended after this.
            self.host().sync_cores();
        }
        drop(old);
        done
    }

    fn attach_user_site(&self, number: u64, place: &UserPlace, file: &UserFile) -> Result<Box<UserSite>, AttachError> {
        let mut site = mem::boxed(UserSite {
            number,
            file: file.id,
            offset: place.offset,
            returns: place.returns,
            code: place.code,
            chain: Chain::new(),
            attached: 0,
            gone: AtomicBool::new(false),
        })?;
        // A hit that comes before the site is in the table is nobody's, as are all before the program is linked.
        site.attached = self
            .host()
            .attach_user(file.word, place.offset, number, place.returns)?;
        self.user_sites.by_number.insert(number, &raw mut *site);
        Ok(site)
    }

    /// The place that a probe is at, or is to be.
    pub(super) fn user_site_of(&self, probe: &Probe) -> Option<&UserSite> {
        self.user_sites.get(probe.user.get())
    }

    /// From now on hits at the places of a program are its probes' as well, or instead of those that are going.
    pub(super) fn link_user_sites(&self, loaded: &Loaded, going: &dyn Fn(&Probe) -> bool) {
        for probe in &loaded.probes {
            if let Some(site) = self.user_site_of(probe) {
                site.chain.link_instead(probe, going);
            }
        }
    }

    /// Detaches the sites at which no probe wants to fire that is not `going`, and takes their probes off them.
    pub(super) fn release_user_sites(&self, control: &mut Control, going: impl Fn(&Probe) -> bool) {
        let sites = &mut control.user.sites;
        let is_gone = |site: &UserSite| site.gone.load(Ordering::Relaxed);
        let mut unwanted = sites
            .iter()
            .filter(|site| !site.chain.iter().any(|probe| probe.is_active() && !going(probe)));
        loop {
            let mut attached = [0; AT_ONCE];
            let mut count = 0;
            for (place, site) in attached.iter_mut().zip(&mut unwanted) {
                site.gone.store(true, Ordering::Relaxed);
                *place = site.attached;
                count += 1;
            }
            if count == 0 {
                break;
            }
            self.host().detach_user(attached.get(..count).unwrap_or(&[]));
        }
        if !sites.iter().any(|site| is_gone(site)) {
            return;
        }
        for site in sites.iter().filter(|site| is_gone(site)) {
            self.user_sites.by_number.remove(site.number);
            while let Some(probe) = site.chain.iter().next() {
                probe.user.set(0);
                site.chain.unlink(probe);
            }
        }
        // A hit elsewhere may be passing through the table.
        self.host().sync_cores();
        sites.retain(|site| !is_gone(site));
    }

    /// Takes a probe off its site, if it is on one, which others may want.
    pub(super) fn leave_user_site(&self, probe: &Probe) {
        if let Some(site) = self.user_site_of(probe) {
            probe.user.set(0);
            site.chain.unlink(probe);
        }
    }
}

/// Why a site was not attached.
enum AttachError {
    NoMemory,
    File(FileError),
}

impl From<OutOfMemory> for AttachError {
    fn from(_: OutOfMemory) -> Self {
        AttachError::NoMemory
    }
}

impl From<FileError> for AttachError {
    fn from(error: FileError) -> Self {
        AttachError::File(error)
    }
}

impl AttachError {
    fn of(self, probe: &Probe) -> InsertError {
        match self {
            AttachError::NoMemory | AttachError::File(FileError::NoMemory) => InsertError::NoMemory,
            AttachError::File(error) => InsertError::Point {
                point: probe.point,
                address: probe.address,
                error: PointError::File(error),
            },
        }
    }
}
