//! The worker's I/O buffers: anonymous mappings of one size, kept warm in last-in-first-out order.
//!
//! A buffer holds a whole 64 KiB read (a smaller first read costs a quarter of the machine time of
//! a 16 KiB answer), with free room before and after it, so that a head or the frame of a chunk can
//! be written around a body that is already there and both leave in one write. Mappings instead of
//! the allocator's memory: only touched pages cost, and what is unmapped after a peak is really
//! given back. This is one of the two files with `unsafe`.

#![allow(unsafe_code)]

use std::{
    cell::{Cell, RefCell},
    io,
    ptr::NonNull,
    rc::Rc,
    slice,
};

use monoio::buf::{IoBuf, IoBufMut};
use rustix::mm::{Advice, MapFlags, ProtFlags};

/// The most bytes that one read takes.
pub(crate) const READ_BYTES: usize = 64 << 10;

/// Room kept free before the bytes that are read.
const ROOM_BEFORE: usize = 1 << 10;

/// Room kept free after the bytes that are read: for the end of a chunk and a last chunk.
const ROOM_BEHIND: usize = 64;

const PAGE: usize = 4 << 10;

/// Buffers begin at different offsets of their first page, so many cache lines apart. If they all
/// began at the same offset, the heads in them would share a sixteenth of the cache.
const COLOUR_BYTES: usize = 192;
const COLOURS: usize = 15;

const MAPPING_BYTES: usize =
    (ROOM_BEFORE + COLOURS * COLOUR_BYTES + READ_BYTES + ROOM_BEHIND).div_ceil(PAGE) * PAGE;

/// A buffer: its bytes are between `start` and `end`.
pub(crate) struct Buffer {
    mapping: NonNull<u8>,
    /// Where the first read goes.
    origin: u32,
    start: u32,
    end: u32,
}

impl Buffer {
    fn map(colour: usize) -> io::Result<Buffer> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new anonymous private mapping aliases nothing.
        let mapping = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                MAPPING_BYTES,
                access,
                MapFlags::PRIVATE,
            )
        }?;
        // A huge page would make each touched buffer cost 2 MiB. This is advice: its failure breaks
        // no promise. SAFETY: the range is the mapping just made.
        let _ = unsafe { rustix::mm::madvise(mapping, MAPPING_BYTES, Advice::LinuxNoHugepage) };
        let mapping = NonNull::new(mapping.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let origin = (ROOM_BEFORE + colour % COLOURS * COLOUR_BYTES) as u32;
        Ok(Buffer { mapping, origin, start: origin, end: origin })
    }

    /// Empties it.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.start = self.origin;
        self.end = self.origin;
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The bytes in it.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: start <= end <= MAPPING_BYTES, and every byte of an anonymous mapping is
        // initialised (zero at first).
        unsafe { slice::from_raw_parts(self.mapping.as_ptr().add(self.start as usize), self.len()) }
    }

    /// The bytes in it, mutable.
    #[inline]
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: like `bytes`; `&mut self` makes the borrow unique.
        unsafe {
            slice::from_raw_parts_mut(self.mapping.as_ptr().add(self.start as usize), self.len())
        }
    }

    /// Free room after the bytes that a read may fill.
    #[inline]
    pub(crate) fn room(&mut self) -> &mut [u8] {
        let room = self.room_len();
        // SAFETY: end + room <= origin + READ_BYTES < MAPPING_BYTES.
        unsafe { slice::from_raw_parts_mut(self.mapping.as_ptr().add(self.end as usize), room) }
    }

    #[inline]
    pub(crate) fn room_len(&self) -> usize {
        (self.origin as usize + READ_BYTES).saturating_sub(self.end as usize)
    }

    /// Records that the first `count` bytes of `room` were filled.
    #[inline]
    pub(crate) fn filled(&mut self, count: usize) {
        debug_assert!(count <= self.room_len());
        self.end += count.min(self.room_len()) as u32;
    }

    /// Drops all but the first `len` bytes.
    #[inline]
    pub(crate) fn shorten(&mut self, len: usize) {
        debug_assert!(len <= self.len());
        self.end = self.start + len.min(self.len()) as u32;
    }

    /// Replaces its content by what `fill` writes to the front of all the room that there is, also
    /// that around reads; returns its error, if it has none to write.
    #[inline]
    pub(crate) fn fill_whole<E>(
        &mut self,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<(), E> {
        (self.start, self.end) = (0, MAPPING_BYTES as u32);
        let filled = fill(self.bytes_mut());
        self.end = filled.as_ref().map_or(0, |count| (*count).min(MAPPING_BYTES)) as u32;
        filled.map(|_| ())
    }

    /// Drops `count` bytes from the front. An empty buffer starts over, with all its room.
    #[inline]
    pub(crate) fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.len());
        self.start += count.min(self.len()) as u32;
        if self.start == self.end {
            self.clear();
        }
    }

    /// Moves the bytes to where those of an empty buffer begin, so that all room is after them.
    pub(crate) fn rewind(&mut self) {
        let (from, len) = (self.start as usize, self.len());
        let origin = self.origin as usize;
        if from == origin {
            return;
        }
        // SAFETY: both ranges are in the mapping; `copy` allows them to overlap.
        unsafe {
            let base = self.mapping.as_ptr();
            std::ptr::copy(base.add(from), base.add(origin), len);
        }
        self.start = self.origin;
        self.end = (origin + len) as u32;
    }

    /// Writes `bytes` right before the content; false, and nothing done, if there is not enough
    /// room.
    #[inline]
    pub(crate) fn prepend(&mut self, bytes: &[u8]) -> bool {
        let Some(start) = (self.start as usize).checked_sub(bytes.len()) else {
            return false;
        };
        self.start = start as u32;
        self.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        true
    }

    /// Writes `bytes` at `at`, over the content and beyond its end; false, and nothing done, if
    /// there is not enough room. Unlike a read it may use the room kept for the end of a chunk.
    #[inline]
    pub(crate) fn overwrite(&mut self, at: usize, bytes: &[u8]) -> bool {
        let end = self.start as usize + at + bytes.len();
        if at > self.len() || end > MAPPING_BYTES {
            return false;
        }
        self.end = self.end.max(end as u32);
        self.bytes_mut()[at..at + bytes.len()].copy_from_slice(bytes);
        true
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing refers to it any more. If the kernel cannot split
        // its list of mappings the pages are freed all the same.
        unsafe {
            let base = self.mapping.as_ptr().cast();
            if rustix::mm::munmap(base, MAPPING_BYTES).is_err() {
                let _ = rustix::mm::madvise(base, MAPPING_BYTES, Advice::LinuxDontNeed);
            }
        }
    }
}

/// A buffer that the kernel is filling.
pub(crate) struct Filling(pub(crate) Buffer);

// SAFETY: the pointer stays valid and in place while the operation owns the buffer, and
// `bytes_total` bytes after it are in the mapping.
unsafe impl IoBufMut for Filling {
    fn write_ptr(&mut self) -> *mut u8 {
        self.0.room().as_mut_ptr()
    }

    fn bytes_total(&mut self) -> usize {
        self.0.room_len()
    }

    unsafe fn set_init(&mut self, count: usize) {
        self.0.filled(count);
    }
}

// SAFETY: as above; only the content can be read.
unsafe impl IoBuf for Filling {
    fn read_ptr(&self) -> *const u8 {
        self.0.bytes().as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.0.len()
    }
}

/// The first `count` bytes of a buffer, which the kernel is reading.
pub(crate) struct Draining {
    pub(crate) buffer: Buffer,
    pub(crate) count: usize,
}

// SAFETY: the pointer stays valid and in place while the operation owns the buffer.
unsafe impl IoBuf for Draining {
    fn read_ptr(&self) -> *const u8 {
        self.buffer.bytes().as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.count.min(self.buffer.len())
    }
}

/// The buffers of one worker.
pub(crate) struct Buffers {
    free: RefCell<Vec<Buffer>>,
    kept_max: usize,
    mapped: Cell<usize>,
}

impl Buffers {
    /// Keeps at most `kept_max` unused buffers.
    pub(crate) fn new(kept_max: usize) -> Rc<Buffers> {
        Rc::new(Buffers {
            free: RefCell::new(Vec::with_capacity(kept_max)),
            kept_max,
            mapped: Cell::new(0),
        })
    }

    /// An empty buffer; the warmest there is, otherwise a new one.
    ///
    /// # Errors
    /// The kernel's, if it gives no more memory.
    #[inline]
    pub(crate) fn take(&self) -> io::Result<Buffer> {
        match self.free.borrow_mut().pop() {
            Some(buffer) => Ok(buffer),
            None => {
                self.mapped.set(self.mapped.get().wrapping_add(1));
                Buffer::map(self.mapped.get())
            }
        }
    }

    /// Takes a buffer back; unmaps it if enough are kept.
    #[inline]
    pub(crate) fn give(&self, mut buffer: Buffer) {
        let mut free = self.free.borrow_mut();
        if free.len() < self.kept_max {
            buffer.clear();
            free.push(buffer);
        }
    }

    /// Unmaps all but the `count` warmest of the unused buffers.
    pub(crate) fn shrink(&self, count: usize) {
        let mut free = self.free.borrow_mut();
        let surplus = free.len().saturating_sub(count);
        free.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_around_what_is_there() {
        let mut buffer = Buffer::map(7).unwrap();
        buffer.room()[..4].copy_from_slice(b"body");
        buffer.filled(4);
        assert!(buffer.prepend(b"4\r\n") && buffer.overwrite(7, b"\r\n"));
        assert_eq!(buffer.bytes(), b"4\r\nbody\r\n");
        buffer.consume(3);
        assert_eq!(buffer.bytes(), b"body\r\n");
        buffer.rewind();
        assert_eq!(buffer.bytes(), b"body\r\n");
        buffer.consume(6);
        assert!(buffer.is_empty() && buffer.room_len() == READ_BYTES);
    }

    #[test]
    fn a_full_buffer_still_takes_the_end_of_a_chunk_but_never_more_than_the_mapping() {
        let mut buffer = Buffer::map(7).unwrap();
        buffer.room().fill(b'x');
        buffer.filled(READ_BYTES);
        assert_eq!(buffer.room_len(), 0);
        assert!(buffer.overwrite(READ_BYTES, b"\r\n0\r\n\r\n"));
        assert!(!buffer.overwrite(READ_BYTES, &[0; PAGE]));
        let before = buffer.start as usize;
        assert!(before >= ROOM_BEFORE);
        assert!(!buffer.prepend(&vec![0; before + 1]));
        assert!(buffer.prepend(&vec![b'h'; before]));
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        let mut buffer = Buffer::map(0).unwrap();
        buffer.room()[..4].copy_from_slice(b"body");
        buffer.filled(4);
        assert!(!buffer.prepend(&[0; ROOM_BEFORE + 1]));
        assert!(!buffer.overwrite(5, b"x"), "it would leave a gap");
        assert!(!buffer.overwrite(0, &[0; MAPPING_BYTES]));
        assert_eq!(buffer.bytes(), b"body");
        assert!(buffer.prepend(b"") && buffer.overwrite(4, b""));
        assert_eq!(buffer.bytes(), b"body");
    }

    #[test]
    fn what_was_consumed_makes_room_again() {
        let mut buffer = Buffer::map(3).unwrap();
        buffer.filled(READ_BYTES);
        buffer.consume(READ_BYTES - 2);
        buffer.bytes_mut().copy_from_slice(b"ab");
        assert_eq!(buffer.room_len(), 0);
        buffer.rewind();
        assert_eq!((buffer.bytes(), buffer.room_len()), (&b"ab"[..], READ_BYTES - 2));
        // Prepended bytes are moved too.
        assert!(buffer.prepend(b"<"));
        buffer.rewind();
        assert_eq!((buffer.bytes(), buffer.room_len()), (&b"<ab"[..], READ_BYTES - 3));
        buffer.consume(3);
        assert_eq!(buffer.room_len(), READ_BYTES);
    }

    #[test]
    fn the_kernel_is_shown_the_room_and_what_is_to_be_sent() {
        let mut buffer = Buffer::map(1).unwrap();
        buffer.filled(10);
        buffer.consume(3);
        let mut filling = Filling(buffer);
        assert_eq!((filling.bytes_init(), filling.bytes_total()), (7, READ_BYTES - 10));
        let room = filling.write_ptr().cast_const();
        // SAFETY: a mapping is initialised, whatever is in it.
        unsafe { filling.set_init(5) };
        let Filling(buffer) = filling;
        assert_eq!(buffer.len(), 12);
        assert!(std::ptr::eq(&raw const buffer.bytes()[7], room));
        let draining = Draining { count: 4, buffer };
        assert_eq!(draining.bytes_init(), 4);
        assert!(std::ptr::eq(draining.read_ptr(), draining.buffer.bytes().as_ptr()));
        assert_eq!(Draining { count: 99, ..draining }.bytes_init(), 12);
    }

    #[test]
    fn every_colour_has_the_same_room() {
        for colour in 0..=COLOURS {
            let mut buffer = Buffer::map(colour).unwrap();
            assert_eq!(buffer.room_len(), READ_BYTES);
            buffer.filled(READ_BYTES);
            assert!(buffer.overwrite(READ_BYTES, &[b'e'; ROOM_BEHIND]));
            assert!(buffer.prepend(&[b'h'; ROOM_BEFORE]));
        }
    }

    #[test]
    fn the_warmest_buffer_goes_first_and_is_empty() {
        let buffers = Buffers::new(2);
        let (one, mut two) = (buffers.take().unwrap(), buffers.take().unwrap());
        let warmest = two.room().as_ptr();
        two.filled(9);
        buffers.give(one);
        buffers.give(two);
        let mut again = buffers.take().unwrap();
        assert!(again.is_empty() && std::ptr::eq(again.room().as_ptr(), warmest));
    }

    #[test]
    fn keeps_no_more_than_it_may() {
        let buffers = Buffers::new(2);
        let three: Vec<Buffer> = (0..3).map(|_| buffers.take().unwrap()).collect();
        three.into_iter().for_each(|buffer| buffers.give(buffer));
        assert_eq!(buffers.free.borrow().len(), 2);
        buffers.shrink(1);
        assert_eq!(buffers.free.borrow().len(), 1);
    }
}
