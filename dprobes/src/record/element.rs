//! The elements of a record: typed, so that a reader can print them without the program.
//!
//! An element is a token byte, a count of two bytes (little-endian), and a payload. What the count counts depends on the
//! token:
//!
//! | token | element | payload |
//! |---|---|---|
//! | 0x00 | memory | count bytes |
//! | 0x01 | string | count bytes, without a terminating zero |
//! | 0x05 | local variables | count words |
//! | 0x06 | global variables | count words |
//! | 0x07 | words from the stack, the top one first | count words |
//! | 0xff | the address that could not be read | count bytes: 8 |
//!
//! A word is eight bytes, little-endian.

/// First byte of an element.
pub mod token {
    /// Memory.
    pub const MEMORY: u8 = 0x00;
    /// A string.
    pub const STRING: u8 = 0x01;
    /// Local variables.
    pub const LOCALS: u8 = 0x05;
    /// Global variables.
    pub const GLOBALS: u8 = 0x06;
    /// Words from the stack.
    pub const WORDS: u8 = 0x07;
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

/// An element of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element<'a> {
    /// Memory, as it was.
    Memory(&'a [u8]),
    /// A string: bytes that were followed by a zero byte, or by more than the program wanted.
    String(&'a [u8]),
    /// Local variables.
    Locals(Words<'a>),
    /// Global variables.
    Globals(Words<'a>),
    /// Words from the stack, the top one first.
    Words(Words<'a>),
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

    fn parse(&self) -> Result<(Element<'a>, &'a [u8]), ElementError> {
        let (offset, left) = (self.offset, self.rest.len());
        let truncated = |needed| ElementError::Truncated { offset, needed, left };
        let ([token, low, high], rest) = self.rest.split_first_chunk().ok_or(truncated(PREFIX))?;
        let count = u16::from_le_bytes([*low, *high]);
        let len = match *token {
            token::MEMORY | token::STRING => usize::from(count),
            token::LOCALS | token::GLOBALS | token::WORDS => usize::from(count) * 8,
            token::FAULT if count == 8 => 8,
            token::FAULT => return Err(ElementError::FaultLength { offset, found: count }),
            found => return Err(ElementError::Token { offset, found }),
        };
        let (payload, rest) = rest.split_at_checked(len).ok_or(truncated(PREFIX + len))?;
        let words = || Words(payload.as_chunks().0);
        let element = match *token {
            token::MEMORY => Element::Memory(payload),
            token::STRING => Element::String(payload),
            token::LOCALS => Element::Locals(words()),
            token::GLOBALS => Element::Globals(words()),
            token::FAULT => Element::Fault(words().iter().next().unwrap_or(0)),
            _ => Element::Words(words()),
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
        ]
        .concat();
        let mut elements = Elements::new(&bytes);
        assert_eq!(elements.next(), Some(Ok(Element::String(b"abc"))));
        let Some(Ok(Element::Words(words))) = elements.next() else {
            panic!("words expected")
        };
        assert!(words.iter().eq([0x1122_3344]));
        assert_eq!(elements.next(), Some(Ok(Element::Memory(&[0xaa, 0xbb]))));
        assert_eq!(elements.next(), Some(Ok(Element::Fault(0x10))));
        assert_eq!(elements.next(), Some(Ok(Element::Locals(Words(&[])))));
        assert_eq!(elements.next(), None);
    }

    #[test]
    fn what_is_no_element_is_an_error_and_the_end() {
        let cases: [(&[u8], ElementError); 5] = [
            (&[9, 0, 0], ElementError::Token { offset: 0, found: 9 }),
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
        ];
        for (bytes, error) in cases {
            let mut elements = Elements::new(bytes).skip_while(Result::is_ok);
            assert_eq!(elements.next(), Some(Err(error)));
            assert_eq!(elements.next(), None);
        }
    }
}
