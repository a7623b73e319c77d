//! The elements of a record: typed, so that a reader can print them without the program.
//!
//! An element is a token byte, a count of two bytes (little-endian), and a payload. What the count counts depends on the
//! token:
//!
//! | token | element | payload |
//! |---|---|---|
//! | 0x00 | memory | count bytes |
//! | 0x01 | string | count bytes, without a terminating zero |
//! | 0x02 | a trace of the RPN machine: exception code, its two parameters, offset of the instruction, offset of the handler that gets it or -1 | count words: 5 |
//! | 0x03 | a routine in a trace: offset of its first instruction, offset to return to or -1 | count words: 2 |
//! | 0x04 | words from the RPN stack in a trace, the highest first | count words |
//! | 0x05 | local variables | count words |
//! | 0x06 | global variables | count words |
//! | 0x07 | words from the stack, the top one first | count words |
//! | 0x08 | return addresses on the kernel stack, the innermost first | count words |
//! | 0x09 | return addresses on the stack of the process, the innermost first | count words |
//! | 0xff | the address that could not be read | count bytes: 8 |
//!
//! A word is eight bytes, little-endian. Offsets count bytes in the code of the object.
//!
//! A stack-trace record is one whose major and minor code are 0. It begins with a string, the module's name, and with words: the
//! probed address, id, major and minor code of the probe, and how many traces are missing or cut short. Then come traces: an
//! element 0x02, and an element 0x03 for each routine, the innermost first, the handler itself last, followed by the words and
//! variables that the routine wants to have in traces.

/// First byte of an element.
pub mod token {
    /// Memory.
    pub const MEMORY: u8 = 0x00;
    /// A string.
    pub const STRING: u8 = 0x01;
    /// A trace of the RPN machine.
    pub const TRACE: u8 = 0x02;
    /// A routine in a trace.
    pub const FRAME: u8 = 0x03;
    /// Words from the RPN stack in a trace.
    pub const POSITIONS: u8 = 0x04;
    /// Local variables.
    pub const LOCALS: u8 = 0x05;
    /// Global variables.
    pub const GLOBALS: u8 = 0x06;
    /// Words from the stack.
    pub const WORDS: u8 = 0x07;
    /// The kernel stack.
    pub const KERNEL_STACK: u8 = 0x08;
    /// The stack of the process.
    pub const USER_STACK: u8 = 0x09;
    /// A read fault.
    pub const FAULT: u8 = 0xff;
}

/// Bytes before the payload.
pub const PREFIX: usize = 3;

/// Bytes of a read fault element.
pub const FAULT_LEN: usize = PREFIX + 8;

/// The first bytes of an element.
pub const fn prefix(token: u8, count: u16) -> [u8; PREFIX] {
    let [low, high] = count.to_le_bytes();
    [token, low, high]
}

/// Words of a [`token::TRACE`] element.
pub const TRACE_WORDS: u16 = 5;

/// Words of a [`token::FRAME`] element.
pub const FRAME_WORDS: u16 = 2;

/// An element of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element<'a> {
    /// Memory, as it was.
    Memory(&'a [u8]),
    /// A string: bytes that were followed by a zero byte, or by more than the program wanted.
    String(&'a [u8]),
    /// A trace of the RPN machine begins; its routines follow.
    Trace {
        /// Exception code, or 0 where there was none.
        code: u64,
        /// First parameter of the exception.
        parm1: u64,
        /// Second parameter.
        parm2: u64,
        /// Offset of the instruction that raised it, or that asked for the trace.
        offset: u64,
        /// Offset of the handler that got it, if there was one.
        handler: Option<u64>,
    },
    /// A routine in a trace.
    Frame {
        /// Offset of its first instruction.
        called: u64,
        /// Offset to return to; none for the handler itself.
        back: Option<u64>,
    },
    /// Words from the RPN stack in a trace, the highest first.
    Positions(Words<'a>),
    /// Local variables.
    Locals(Words<'a>),
    /// Global variables.
    Globals(Words<'a>),
    /// Words from the stack, the top one first.
    Words(Words<'a>),
    /// Return addresses on the kernel stack, the innermost first.
    KernelStack(Words<'a>),
    /// Return addresses on the stack of the process, the innermost first.
    UserStack(Words<'a>),
    /// The address of the first byte that a logging instruction could not read.
    Fault(u64),
}

/// Words in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words<'a>(&'a [[u8; 8]]);

impl<'a> Words<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The words.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = u64> + use<'a> {
        self.0.iter().map(|word| u64::from_le_bytes(*word))
    }
}

/// Bytes that are not elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementError {
    /// An unknown token.
    Token {
        /// Where.
        offset: usize,
        /// The token.
        found: u8,
    },
    /// The element ends behind the last byte.
    Truncated {
        /// Where it starts.
        offset: usize,
        /// Bytes it has.
        needed: usize,
        /// Bytes there are.
        left: usize,
    },
    /// A fault element whose count is not 8.
    FaultLength {
        /// Where it starts.
        offset: usize,
        /// The count.
        found: u16,
    },
    /// A trace or routine element of other than the words it always has.
    TraceLength {
        /// Where it starts.
        offset: usize,
        /// Its token.
        token: u8,
        /// The count.
        found: u16,
    },
}

/// Whether elements with these lengths end, or the first of them begins, at `at`. The bytes are good elements.
pub(crate) fn is_boundary(elements: &[u8], at: usize) -> bool {
    let mut start = 0;
    while start < at {
        let Some([token, low, high]) = elements.get(start..).and_then(|rest| rest.first_chunk()) else {
            return false;
        };
        start += PREFIX + payload(*token, u16::from_le_bytes([*low, *high]));
    }
    start == at
}

/// Bytes of the payload of an element.
fn payload(token: u8, count: u16) -> usize {
    match token {
        token::MEMORY | token::STRING | token::FAULT => usize::from(count),
        _ => usize::from(count) * 8,
    }
}

/// The elements in some bytes, which need not be good: after an error the iteration ends.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Elements<'a> {
    /// The elements of a record, from the bytes behind its head.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, offset: 0 }
    }

    /// The bytes that have not been looked at; after an error there are none.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn parse(&self) -> Result<(Element<'a>, &'a [u8]), ElementError> {
        let (offset, left) = (self.offset, self.rest.len());
        let truncated = |needed| ElementError::Truncated { offset, needed, left };
        let ([token, low, high], rest) = self.rest.split_first_chunk().ok_or(truncated(PREFIX))?;
        let count = u16::from_le_bytes([*low, *high]);
        match *token {
            token::MEMORY..=token::USER_STACK | token::FAULT => {}
            found => return Err(ElementError::Token { offset, found }),
        }
        if *token == token::FAULT && count != 8 {
            return Err(ElementError::FaultLength { offset, found: count });
        }
        if (*token == token::TRACE && count != TRACE_WORDS) || (*token == token::FRAME && count != FRAME_WORDS) {
            return Err(ElementError::TraceLength {
                offset,
                token: *token,
                found: count,
            });
        }
        let len = payload(*token, count);
        let (payload, rest) = rest.split_at_checked(len).ok_or(truncated(PREFIX + len))?;
        let words = Words(payload.as_chunks().0);
        let word = |index: usize| words.0.get(index).map_or(0, |word| u64::from_le_bytes(*word));
        let offset_of = |index| Some(word(index)).filter(|offset| *offset != u64::MAX);
        let element = match *token {
            token::MEMORY => Element::Memory(payload),
            token::STRING => Element::String(payload),
            token::TRACE => Element::Trace {
                code: word(0),
                parm1: word(1),
                parm2: word(2),
                offset: word(3),
                handler: offset_of(4),
            },
            token::FRAME => Element::Frame {
                called: word(0),
                back: offset_of(1),
            },
            token::POSITIONS => Element::Positions(words),
            token::LOCALS => Element::Locals(words),
            token::GLOBALS => Element::Globals(words),
            token::KERNEL_STACK => Element::KernelStack(words),
            token::USER_STACK => Element::UserStack(words),
            token::FAULT => Element::Fault(word(0)),
            _ => Element::Words(words),
        };
        Ok((element, rest))
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<Element<'a>, ElementError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match self.parse() {
            Ok((element, rest)) => {
                self.offset += self.rest.len() - rest.len();
                self.rest = rest;
                Some(Ok(element))
            }
            Err(error) => {
                self.rest = &[];
                Some(Err(error))
            }
        }
    }
}

impl core::iter::FusedIterator for Elements<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_read_back() {
        let bytes = [
            &[1, 3, 0][..],
            b"abc",
            &[7, 1, 0, 0x44, 0x33, 0x22, 0x11, 0, 0, 0, 0],
            &[0, 2, 0, 0xaa, 0xbb],
            &[0xff, 8, 0, 0x10, 0, 0, 0, 0, 0, 0, 0],
            &[5, 0, 0],
            &[3, 2, 0, 7, 0, 0, 0, 0, 0, 0, 0],
            &[0xff; 8],
            &[8, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        let starts = [0, 6, 17, 22, 33, 36, 55, 66];
        for at in 0..=bytes.len() {
            assert_eq!(is_boundary(&bytes, at), starts.contains(&at), "{at}");
        }
        let mut elements = Elements::new(&bytes);
        assert_eq!(elements.next(), Some(Ok(Element::String(b"abc"))));
        let Some(Ok(Element::Words(words))) = elements.next() else {
            panic!("words expected")
        };
        assert!(words.iter().eq([0x1122_3344]));
        assert_eq!(elements.next(), Some(Ok(Element::Memory(&[0xaa, 0xbb]))));
        assert_eq!(elements.next(), Some(Ok(Element::Fault(0x10))));
        assert_eq!(elements.next(), Some(Ok(Element::Locals(Words(&[])))));
        assert_eq!(elements.next(), Some(Ok(Element::Frame { called: 7, back: None })));
        assert_eq!(
            elements.next(),
            Some(Ok(Element::KernelStack(Words(&[1_u64.to_le_bytes()]))))
        );
        assert_eq!(elements.next(), None);
    }

    #[test]
    fn what_is_no_element_is_an_error_and_the_end() {
        let cases: [(&[u8], ElementError); 7] = [
            (&[10, 0, 0], ElementError::Token { offset: 0, found: 10 }),
            (
                &[1, 0],
                ElementError::Truncated {
                    offset: 0,
                    needed: 3,
                    left: 2,
                },
            ),
            (
                &[1, 0, 0, 1, 2, 0, 7],
                ElementError::Truncated {
                    offset: 3,
                    needed: 5,
                    left: 4,
                },
            ),
            (
                &[7, 0xff, 0xff, 0],
                ElementError::Truncated {
                    offset: 0,
                    needed: 3 + 8 * 65_535,
                    left: 4,
                },
            ),
            (
                &[0xff, 4, 0, 1, 2, 3, 4],
                ElementError::FaultLength { offset: 0, found: 4 },
            ),
            (
                &[2, 4, 0],
                ElementError::TraceLength {
                    offset: 0,
                    token: 2,
                    found: 4,
                },
            ),
            (
                &[3, 3, 0],
                ElementError::TraceLength {
                    offset: 0,
                    token: 3,
                    found: 3,
                },
            ),
        ];
        for (bytes, error) in cases {
            let mut elements = Elements::new(bytes).skip_while(Result::is_ok);
            assert_eq!(elements.next(), Some(Err(error)));
            assert_eq!(elements.next(), None);
        }
    }
}
