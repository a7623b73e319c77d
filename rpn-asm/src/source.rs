//! Where text came from: files, spans in them, and the macro expansions that put a token where it is.

use std::collections::HashMap;

/// One source file of a [`SourceMap`], by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(u32);

/// One macro expansion of a [`SourceMap`], by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExpansionId(u32);

impl ExpansionId {
    /// Not from a macro: the text stands in the file as it is.
    pub const NONE: ExpansionId = ExpansionId(0);
}

/// A range of bytes in a source file, and the macro expansion through which it was reached, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    /// The file the text is in.
    pub file: FileId,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
    /// The expansion that copied this text to where it was used; the text itself is then in the macro's definition.
    pub expansion: ExpansionId,
}

impl Span {
    /// The empty span right behind this one.
    pub fn after(self) -> Span {
        Span {
            start: self.end,
            ..self
        }
    }
}

/// A place for people: lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The file as it was named to the assembler.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

/// A file and how it was reached.
#[derive(Debug, Clone)]
pub(crate) struct SourceFile {
    pub name: String,
    pub text: String,
    /// The `#include` directive that read it.
    pub included_at: Option<Span>,
    line_starts: Vec<u32>,
    /// What `#line` said, in the order of the text.
    renumbered: Vec<Renumbered>,
}

/// From this byte on lines count from `line`; they have no number at all if it is 0.
#[derive(Debug, Clone)]
struct Renumbered {
    from: u32,
    line: u32,
    name: Option<String>,
}

/// One use of a macro.
#[derive(Debug, Clone)]
pub(crate) struct Expansion {
    pub name: String,
    /// Where the macro was used. Itself inside another expansion if the use was in a macro's body.
    pub call: Span,
}

/// All files and macro expansions of one run.
#[derive(Debug, Clone, Default)]
pub struct SourceMap {
    files: Vec<SourceFile>,
    expansions: Vec<Expansion>,
}

impl SourceMap {
    /// Adds a file. The text must be shorter than 4 GiB; the callers limit it far below.
    pub(crate) fn add(&mut self, name: String, text: String, included_at: Option<Span>) -> FileId {
        let mut line_starts = vec![0];
        line_starts.extend(
            text.bytes()
                .enumerate()
                .filter(|(_, b)| *b == b'\n')
                .map(|(i, _)| i as u32 + 1),
        );
        self.files.push(SourceFile {
            name,
            text,
            included_at,
            line_starts,
            renumbered: Vec::new(),
        });
        FileId(self.files.len() as u32 - 1)
    }

    /// Records one use of a macro.
    pub(crate) fn expand(&mut self, name: &str, call: Span) -> ExpansionId {
        self.expansions.push(Expansion {
            name: name.to_owned(),
            call,
        });
        ExpansionId(self.expansions.len() as u32)
    }

    pub(crate) fn file(&self, id: FileId) -> &SourceFile {
        &self.files[id.0 as usize]
    }

    pub(crate) fn expansion(&self, id: ExpansionId) -> Option<&Expansion> {
        self.expansions.get((id.0 as usize).checked_sub(1)?)
    }

    /// The text of a span.
    pub fn text(&self, span: Span) -> &str {
        self.file(span.file)
            .text
            .get(span.start as usize..span.end as usize)
            .unwrap_or("")
    }

    /// The line number of a byte, from 1.
    pub(crate) fn line(&self, file: FileId, byte: u32) -> u32 {
        self.file(file).line_starts.partition_point(|s| *s <= byte) as u32
    }

    /// `#line`: from `at`, which begins a line, the text is `line` of file `name`.
    pub(crate) fn set_line(&mut self, at: Span, line: u32, name: Option<String>) {
        self.files[at.file.0 as usize].renumbered.push(Renumbered {
            from: at.start,
            line,
            name,
        });
    }

    /// The line that the object says an instruction is on: where its macro was used, in the program's own file and not one it
    /// includes, and as `#line` has it. 0 if it has none.
    pub(crate) fn debug_line(&self, span: Span) -> u32 {
        let mut at = self.use_site(span);
        while let Some(from) = self.file(at.file).included_at {
            at = self.use_site(from);
        }
        let line = self.line(at.file, at.start);
        let changes = &self.file(at.file).renumbered;
        match changes[..changes.partition_point(|r| r.from <= at.start)].last() {
            None => line,
            Some(r) if r.line == 0 => 0,
            Some(r) => (line - self.line(at.file, r.from)).saturating_add(r.line),
        }
    }

    /// The name that the object gives the source: the first that `#line` gave in this file, or its own.
    pub(crate) fn debug_name(&self, file: FileId) -> &str {
        let f = self.file(file);
        f.renumbered.iter().find_map(|r| r.name.as_deref()).unwrap_or(&f.name)
    }

    /// The bytes of the lines that a range touches, without the last line's end.
    pub(crate) fn lines(&self, file: FileId, start: u32, end: u32) -> std::ops::Range<usize> {
        let f = self.file(file);
        let first = f.line_starts[self.line(file, start) as usize - 1] as usize;
        let last = self.line(file, end.max(start)) as usize;
        let stop = f.line_starts.get(last).map_or(f.text.len(), |s| *s as usize - 1);
        first..stop
    }

    /// Where a span begins.
    pub fn location(&self, span: Span) -> Location {
        let f = self.file(span.file);
        let line = self.line(span.file, span.start);
        let start = f.line_starts[line as usize - 1] as usize;
        let before = f.text.get(start..span.start as usize).unwrap_or("");
        Location {
            file: f.name.clone(),
            line,
            column: before.chars().count() as u32 + 1,
        }
    }

    /// The span where the outermost macro that led to `span` was used; `span` itself if none did.
    pub fn use_site(&self, mut span: Span) -> Span {
        while let Some(e) = self.expansion(span.expansion) {
            span = e.call;
        }
        span
    }

    /// A key that sorts by where text was used: the positions of the `#include`s that led to it, and its own.
    pub(crate) fn path(&self, span: Span) -> Vec<u32> {
        let mut at = self.use_site(span);
        let mut path = vec![span.start];
        path.push(at.start);
        while let Some(from) = self.file(at.file).included_at {
            at = self.use_site(from);
            path.push(at.start);
        }
        path.reverse();
        path
    }

    /// One span from the beginning of `a` to the end of `b`. Where they come out of different expansions it is that of the
    /// innermost text that holds both; where no text does, it is `a`.
    pub fn join(&self, a: Span, b: Span) -> Span {
        let chain = |mut s: Span| {
            let mut all = vec![s];
            while let Some(e) = self.expansion(s.expansion) {
                s = e.call;
                all.push(s);
            }
            all
        };
        if a.file == b.file && a.expansion == b.expansion {
            return Self::cover(a, b);
        }
        let right: HashMap<_, _> = chain(b).into_iter().map(|s| ((s.file, s.expansion), s)).collect();
        for s in chain(a) {
            if let Some(other) = right.get(&(s.file, s.expansion)) {
                return Self::cover(s, *other);
            }
        }
        a
    }

    fn cover(a: Span, b: Span) -> Span {
        Span {
            start: a.start.min(b.start),
            end: a.end.max(b.end),
            ..a
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(file: FileId, start: u32, end: u32) -> Span {
        Span {
            file,
            start,
            end,
            expansion: ExpansionId::NONE,
        }
    }

    #[test]
    fn locations_count_characters_from_one() {
        let mut map = SourceMap::default();
        let f = map.add("f".into(), "ab\n\u{e9}\u{e9}x\n".into(), None);
        let at = |s| {
            let l = map.location(span(f, s, s));
            (l.line, l.column)
        };
        assert_eq!(at(0), (1, 1));
        assert_eq!(at(2), (1, 3));
        assert_eq!(at(3), (2, 1));
        assert_eq!(at(7), (2, 3));
        assert_eq!(at(9), (3, 1));
        assert_eq!(map.lines(f, 4, 4), 3..8);
        assert_eq!(map.lines(f, 9, 9), 9..9);
    }

    #[test]
    fn join_goes_up_to_the_common_text() {
        let mut map = SourceMap::default();
        let f = map.add("f".into(), "#define M x\nM + y\n".into(), None);
        let call = span(f, 12, 13);
        let e = map.expand("M", call);
        let body = Span {
            expansion: e,
            ..span(f, 10, 11)
        };
        let y = span(f, 16, 17);
        assert_eq!(map.join(body, y), span(f, 12, 17));
        assert_eq!(map.join(y, body), span(f, 12, 17));
        assert_eq!(map.use_site(body), call);
    }
}
