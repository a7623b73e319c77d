//! What a test kernel asks of the machine it runs on, in a section of its file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use object::{Object, ObjectSection};

use crate::machine::Machine;

const SECTION: &str = ".runner";

/// What a kernel file asks for. Section `.runner` of the file holds words `cpus=N`, `memory_mib=N`, `time_limit_s=N`,
/// `cpu_model=NAME` and `icount=SHIFT`; each may be missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requirements {
    /// Number of CPUs.
    pub cpus: Option<u32>,
    /// Memory in MiB.
    pub memory_mib: Option<u32>,
    /// CPU model.
    pub cpu_model: Option<String>,
    /// Time limit.
    pub time_limit: Option<Duration>,
    /// Virtual time by instructions: 2^SHIFT nanoseconds each.
    pub icount: Option<u8>,
}

/// Why a kernel's requirements cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RequirementsError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The file is no ELF file, or a damaged one.
    #[error("{} is not a kernel in ELF format: {source}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: object::read::Error,
    },
    /// A word of the section is not understood.
    #[error("section .runner has a word that is not understood: {word:?}")]
    Word {
        /// The word.
        word: String,
    },
}

impl Requirements {
    /// Reads the requirements of the kernel at `path`. A file without the section has none.
    pub fn of(path: &Path) -> Result<Self, RequirementsError> {
        let bytes = std::fs::read(path).map_err(|source| RequirementsError::Read {
            path: path.to_owned(),
            source,
        })?;
        let format = |source| RequirementsError::Format {
            path: path.to_owned(),
            source,
        };
        let file = object::File::parse(&*bytes).map_err(format)?;
        match file.section_by_name(SECTION) {
            Some(section) => Self::parse(&String::from_utf8_lossy(section.data().map_err(format)?)),
            None => Ok(Self::default()),
        }
    }

    fn parse(text: &str) -> Result<Self, RequirementsError> {
        let mut requirements = Self::default();
        // The linker may pad with zero bytes.
        for word in text.split([' ', '\n', '\0']).filter(|word| !word.is_empty()) {
            let error = || RequirementsError::Word { word: word.to_owned() };
            let (key, value) = word.split_once('=').ok_or_else(error)?;
            let number = || value.parse::<u32>().ok().filter(|&number| number > 0).ok_or_else(error);
            match key {
                "cpus" => requirements.cpus = Some(number()?),
                "icount" => requirements.icount = Some(value.parse().map_err(|_| error())?),
                "memory_mib" => requirements.memory_mib = Some(number()?),
                "time_limit_s" => requirements.time_limit = Some(Duration::from_secs(number()?.into())),
                "cpu_model" => requirements.cpu_model = Some(value.to_owned()),
                _ => return Err(error()),
            }
        }
        Ok(requirements)
    }

    /// Changes `machine` to what is asked for.
    pub fn apply(&self, machine: &mut Machine) {
        if let Some(cpus) = self.cpus {
            machine.cpus = cpus;
        }
        if self.icount.is_some() {
            machine.icount = self.icount;
        }
        if let Some(memory_mib) = self.memory_mib {
            machine.memory_mib = memory_mib;
        }
        if let Some(cpu_model) = &self.cpu_model {
            machine.cpu_model.clone_from(cpu_model);
        }
        if let Some(time_limit) = self.time_limit {
            machine.time_limit = time_limit;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read() {
        let parsed =
            Requirements::parse("cpus=4 time_limit_s=90 icount=0\n\0\0cpu_model=qemu64,+pcid\n").expect("well-formed");
        let expected = Requirements {
            cpus: Some(4),
            memory_mib: None,
            cpu_model: Some("qemu64,+pcid".to_owned()),
            time_limit: Some(Duration::from_secs(90)),
            icount: Some(0),
        };
        assert_eq!(parsed, expected);
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for text in ["cpus=", "cpus=0", "cpus=many", "colour=red", "cpus"] {
            assert!(matches!(Requirements::parse(text), Err(RequirementsError::Word { word }) if word == text));
        }
    }
}
