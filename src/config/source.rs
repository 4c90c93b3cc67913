//! The texts that a configuration came from, and places in them.
//!
//! A source is a file, or the value of a flag or of a variable of the environment: an override is
//! shown in the same pictures as a line of a file. A place is a range of bytes of one source.

use std::ops::Range;

/// A range of bytes of one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) source: u16,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Position {
    /// The bytes of its source.
    pub(crate) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// One text, and its name for messages.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
    /// Where its lines end, so that a line's number is found without counting.
    ends: Vec<u32>,
}

/// All texts of one configuration, in the order they were read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    list: Vec<Source>,
}

impl Sources {
    /// Adds a text and returns its number.
    pub(crate) fn add(&mut self, name: &str, text: String) -> u16 {
        let ends = memchr::memchr_iter(b'\n', text.as_bytes());
        let ends = ends.map(|end| u32::try_from(end).unwrap_or(u32::MAX)).collect();
        self.list.push(Source { name: name.to_owned(), text, ends });
        u16::try_from(self.list.len() - 1).unwrap_or(u16::MAX)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u16 {
        u16::try_from(self.list.len()).unwrap_or(u16::MAX)
    }

    /// The source of a place.
    pub(crate) fn of(&self, place: Position) -> Option<&Source> {
        self.list.get(usize::from(place.source))
    }

    /// The text at a place, as it was written.
    pub(crate) fn text(&self, place: Position) -> &str {
        self.of(place).and_then(|source| source.text.get(place.range())).unwrap_or_default()
    }

    /// The place of a range of bytes of one source.
    pub(crate) fn place(&self, source: u16, range: Range<usize>) -> Position {
        let length = self.list.get(usize::from(source)).map_or(0, |source| source.text.len());
        let narrow = |at: usize| u32::try_from(at.min(length)).unwrap_or(u32::MAX);
        Position { source, start: narrow(range.start), end: narrow(range.end) }
    }

    /// The place of a part of a string whose value is `value`; the whole string if escapes or
    /// expansions shifted it.
    pub(crate) fn within(&self, string: Position, value: &str, part: Range<usize>) -> Position {
        let written = self.text(string);
        let Some(shift) = written.find(value).filter(|_| !value.is_empty()) else {
            return string;
        };
        let start = string.range().start + shift;
        self.place(string.source, start + part.start..start + part.end)
    }

    /// Where the line of a place begins.
    pub(crate) fn line_start(&self, place: Position) -> Position {
        let text = self.of(place).map_or("", |source| source.text.as_str());
        let before = text.get(..place.range().start).unwrap_or_default();
        let start = before.rfind('\n').map_or(0, |end| end + 1);
        self.place(place.source, start..start)
    }

    /// The same place in an earlier, equal line.
    pub(crate) fn same_line_before(&self, place: Position) -> Option<Position> {
        let text = self.of(place).map_or("", |source| source.text.as_str());
        let start = self.line_start(place).range().start;
        let (before, rest) = (text.get(..start)?, text.get(start..)?);
        let line = rest.lines().next()?;
        let code = |line: &'_ str| line.split('#').next().unwrap_or_default().trim().to_owned();
        let mut at = 0;
        for earlier in before.split_inclusive('\n') {
            if code(earlier) == code(line) {
                let name = self.text(place);
                let shift = earlier.rfind(name)?;
                return Some(self.place(place.source, at + shift..at + shift + name.len()));
            }
            at += earlier.len();
        }
        None
    }

    /// The nearest earlier line that sets a key of the name at this place.
    pub(crate) fn setting_before(&self, place: Position) -> Option<Position> {
        let text = self.of(place).map_or("", |source| source.text.as_str());
        let name = self.text(place);
        let mut end = self.line_start(place).range().start;
        for line in text.get(..end)?.split_inclusive('\n').rev() {
            end -= line.len();
            let code = line.trim_start();
            let rest = code.strip_prefix(name).map(str::trim_start);
            if rest.is_some_and(|rest| rest.starts_with(['=', '.'])) {
                let start = end + line.len() - code.len();
                return Some(self.place(place.source, start..start + name.len()));
            }
        }
        None
    }

    /// Where the header of the table begins that contains a place.
    pub(crate) fn header_before(&self, place: Position) -> Option<u32> {
        let text = self.of(place).map_or("", |source| source.text.as_str());
        let before = text.get(..place.range().start).unwrap_or_default();
        let mut start = before.len();
        for line in before.split_inclusive('\n').rev() {
            start -= line.len();
            if line.trim_start().starts_with('[') {
                return u32::try_from(start).ok();
            }
        }
        None
    }

    /// `ringway.toml:12`, or only the name if it is not a file.
    pub(crate) fn name_and_line(&self, place: Position) -> String {
        let Some(source) = self.of(place) else {
            return String::new();
        };
        if source.name.starts_with("--") || source.name.starts_with("RINGWAY_") {
            return source.name.clone();
        }
        let line = source.ends.partition_point(|end| *end < place.start) + 1;
        format!("{}:{line}", source.name)
    }
}
