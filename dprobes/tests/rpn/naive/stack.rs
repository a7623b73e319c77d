//! The stack of the second interpreter: words that cannot wrap, or a ring.

pub const WORDS: usize = 1024;

pub enum Stack {
    Bounded(Vec<u64>),
    /// `top` is the number of words, modulo [`WORDS`]: the word at `top - 1` is the top one.
    Ring {
        cells: Box<[u64; WORDS]>,
        top: usize,
    },
}

impl Stack {
    pub fn new(ring: bool) -> Self {
        if ring {
            Self::Ring {
                cells: Box::new([0; WORDS]),
                top: 0,
            }
        } else {
            Self::Bounded(Vec::new())
        }
    }

    pub fn push(&mut self, word: u64) {
        match self {
            Self::Bounded(words) => {
                assert!(words.len() < WORDS);
                words.push(word);
            }
            Self::Ring { cells, top } => {
                cells[*top] = word;
                *top = (*top + 1) % WORDS;
            }
        }
    }

    pub fn pop(&mut self) -> u64 {
        match self {
            Self::Bounded(words) => words.pop().unwrap(),
            Self::Ring { cells, top } => {
                *top = (*top + WORDS - 1) % WORDS;
                cells[*top]
            }
        }
    }

    /// The word so many below the top one.
    pub fn peek(&self, below: usize) -> u64 {
        match self {
            Self::Bounded(words) => words[words.len() - 1 - below],
            Self::Ring { cells, top } => cells[(*top + 2 * WORDS - 1 - below) % WORDS],
        }
    }

    /// Words on it.
    pub fn depth(&self) -> usize {
        match self {
            Self::Bounded(words) => words.len(),
            Self::Ring { top, .. } => *top,
        }
    }

    pub fn is_ring(&self) -> bool {
        matches!(self, Self::Ring { .. })
    }

    /// The first parameter of `RPN_STACK_WRAP` and the second, if this would wrap.
    pub fn wraps(&self, pops: usize, pushes: usize) -> Option<(u64, u64)> {
        let Self::Bounded(words) = self else { return None };
        let depth = words.len();
        if depth < pops {
            Some((0, (pops - depth) as u64))
        } else if depth - pops + pushes > WORDS {
            Some((WORDS as u64, (depth - pops + pushes - WORDS) as u64))
        } else {
            None
        }
    }

    /// The word at a position: so many below the one that was on top when the stack had `base` words, of which `taken` are about to
    /// be taken. The parameters of `RPN_STACK_WRAP` if there is none.
    pub fn at(&mut self, base: usize, position: i64, taken: usize) -> Result<&mut u64, (u64, u64)> {
        let index = base as i128 - 1 - i128::from(position);
        match self {
            Self::Bounded(words) => {
                let left = (words.len() - taken) as i128;
                if index < 0 {
                    Err((0, -index as u64))
                } else if index >= left {
                    Err((WORDS as u64, (index - left + 1) as u64))
                } else {
                    Ok(&mut words[index as usize])
                }
            }
            Self::Ring { cells, .. } => Ok(&mut cells[index.rem_euclid(WORDS as i128) as usize]),
        }
    }

    /// Gives it a number of words.
    pub fn resize(&mut self, depth: usize) {
        match self {
            Self::Bounded(words) => words.resize(depth, 0),
            Self::Ring { top, .. } => *top = depth % WORDS,
        }
    }
}
