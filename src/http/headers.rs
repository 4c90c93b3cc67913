//! The fields of a head, in order, as ranges of one buffer.
//!
//! A head owns its bytes: the parser copies them in once; edits append to the same buffer and mark
//! what they replace as removed. So nothing moves, and nothing is allocated once the buffers of a
//! reused head have grown. Order is kept; lines of one name are never joined (RFC 9110 §5.3).

use super::names::{Name, NameSet};

/// A range of a head's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) len: u32,
}

impl Span {
    #[inline]
    #[allow(clippy::cast_possible_truncation)] // heads are bounded by `head_bytes_max`
    pub(crate) fn new(start: usize, end: usize) -> Span {
        Span { start: start as u32, len: end.saturating_sub(start) as u32 }
    }

    #[inline]
    pub(crate) fn end(self) -> usize {
        self.start as usize + self.len as usize
    }

    /// The bytes of this range; empty if the range is not within `bytes`.
    #[inline]
    pub(crate) fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.start as usize..self.end()).unwrap_or(&[])
    }
}

/// One header line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) known: Name,
    /// Whether an edit removed it.
    pub(crate) removed: bool,
    /// Whether the buffer holds it exactly as `name: value CRLF`, so that a run of such lines can
    /// be written in one copy.
    pub(crate) canonical: bool,
    pub(crate) name: Span,
    pub(crate) value: Span,
}

/// The fields of a head, in order, and the buffer that they are ranges of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Headers {
    pub(crate) bytes: Vec<u8>,
    pub(crate) fields: Vec<Field>,
    /// Whole lines of ours behind the fields. No query looks at them.
    pub(crate) own_lines: Span,
    /// Whether `Connection` may name fields.
    pub(crate) has_options: bool,
    /// The names that were ever among the fields, so that most queries need no scan.
    names: NameSet,
}

impl Headers {
    /// Empties it and keeps the capacity.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.fields.clear();
        self.own_lines = Span::default();
        self.has_options = false;
        self.names = NameSet::default();
    }

    /// The fields that were not removed, in order.
    #[inline]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|field| !field.removed)
    }

    #[inline]
    pub(crate) fn name(&self, field: &Field) -> &[u8] {
        field.name.of(&self.bytes)
    }

    #[inline]
    pub(crate) fn value(&self, field: &Field) -> &[u8] {
        field.value.of(&self.bytes)
    }

    /// Whether any of these names may be present: no is certain, yes is not.
    #[inline]
    pub(crate) fn may_have(&self, names: NameSet) -> bool {
        self.names.intersects(names)
    }

    /// The values of a known name, in order.
    #[inline]
    pub(crate) fn all(&self, known: Name) -> impl Iterator<Item = &[u8]> {
        let fields = if self.names.contains(known) { self.fields.as_slice() } else { &[] };
        let named = fields.iter().filter(move |field| field.known == known && !field.removed);
        named.map(|field| self.value(field))
    }

    /// The values of any name, in order.
    #[inline]
    pub(crate) fn named<'h>(&'h self, name: &[u8]) -> impl Iterator<Item = &'h [u8]> {
        let named = self.iter().filter(move |field| self.name(field).eq_ignore_ascii_case(name));
        named.map(|field| self.value(field))
    }

    /// The first value of a known name.
    #[inline]
    pub(crate) fn first(&self, known: Name) -> Option<&[u8]> {
        self.all(known).next()
    }

    #[inline]
    pub(crate) fn contains(&self, known: Name) -> bool {
        self.all(known).next().is_some()
    }

    /// Removes every line of a known name.
    pub(crate) fn remove(&mut self, known: Name) {
        if !self.names.contains(known) {
            return;
        }
        for field in &mut self.fields {
            if field.known == known {
                field.removed = true;
            }
        }
    }

    /// Appends a line whose bytes are in the buffer already.
    #[inline]
    pub(crate) fn push_field(&mut self, field: Field) {
        self.names = self.names.with(field.known);
        self.fields.push(field);
    }

    /// Appends lines whose bytes are in the buffer already.
    #[inline]
    pub(crate) fn extend_fields(&mut self, fields: impl Iterator<Item = Field>) {
        let names = &mut self.names;
        self.fields.extend(fields.inspect(|field| *names = names.with(field.known)));
    }

    /// Appends a line, even if there is one of that name. Inlined, so that copying a name known at
    /// build time costs no call.
    #[inline(always)]
    pub(crate) fn push(&mut self, known: Name, name: &[u8], value: &[u8]) {
        self.push_with(known, name, |bytes| bytes.extend_from_slice(value));
    }

    /// Appends a line whose value is written straight into the buffer.
    #[inline(always)]
    pub(crate) fn push_with(&mut self, known: Name, name: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(b": ");
        let value = self.bytes.len();
        write(&mut self.bytes);
        let end = self.bytes.len();
        self.bytes.extend_from_slice(b"\r\n");
        self.push_field(Field {
            known,
            removed: false,
            canonical: true,
            name: Span::new(start, value - 2),
            value: Span::new(value, end),
        });
    }
}
