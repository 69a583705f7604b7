//! The chunks of a body: which bytes are present, and which connection receives which others.
//!
//! Memory grows with the chunks that are begun, and not with the length that an origin declares.

use std::{collections::BTreeMap, io::Read};

/// The bytes of a large body that one request asks for. It is much more than a connection delivers in a round trip, and
/// little enough that connections share a body evenly.
pub(crate) const CHUNK_BYTES: u64 = if cfg!(fuzzing) { 64 } else { 8 << 20 };

/// One of the connections that receive a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lane(usize);

/// The claim of a lane to a chunk, and the number of whole chunks when it began.
#[derive(Debug, Clone, Copy)]
struct LaneClaim {
    lane: Lane,
    since: usize,
}

/// A chunk that was claimed or has bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Chunk {
    /// The number of its present bytes, from its start.
    there: u64,
    claim: Option<LaneClaim>,
}

/// The chunks of a body. A body of unknown length is a single chunk.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    total: Option<u64>,
    /// The number of whole chunks from the start on.
    front: u64,
    /// The chunks after them that are claimed or have bytes.
    begun: BTreeMap<u64, Chunk>,
    /// The number of chunks that have become whole, and of lanes.
    completed: usize,
    lanes: usize,
    done: u64,
}

impl Chunks {
    /// Returns the chunks of a body of which no byte is present.
    pub(crate) fn new(total: Option<u64>) -> Self {
        Self { total, ..Self::default() }
    }

    /// Returns the chunks that another process noted: the number of present bytes of each chunk, as far as the file
    /// reaches. `None` if the numbers are impossible.
    pub(crate) fn read(total: u64, file_length: u64, note: impl Read) -> Option<Self> {
        let mut chunks = Self::new(Some(total));
        let reached = file_length.div_ceil(CHUNK_BYTES).min(chunks.count());
        let mut note = std::io::BufReader::new(note.take(reached.saturating_mul(8)));
        for chunk in 0..reached {
            // The bytes written last may be missing at the end of the file. Then their chunk counts as empty.
            let mut count = vec![];
            let read = note.by_ref().take(8).read_to_end(&mut count).ok()?;
            if read == 0 {
                break;
            }
            count.resize(8, 0);
            let there = u64::from_le_bytes(count.try_into().ok()?);
            if there == 0 {
                continue;
            }
            if there > chunks.length(chunk) || chunk * CHUNK_BYTES + there > file_length {
                return None;
            }
            chunks.done += there;
            _ = chunks.begun.insert(chunk, Chunk { there, claim: None });
            chunks.advance();
        }
        Some(chunks)
    }

    /// Returns the number of present bytes.
    pub(crate) fn done(&self) -> u64 {
        self.done
    }

    fn count(&self) -> u64 {
        self.total.map_or(1, |total| total.div_ceil(CHUNK_BYTES).max(1))
    }

    fn length(&self, chunk: u64) -> u64 {
        self.total.map_or(u64::MAX, |total| (total - chunk * CHUNK_BYTES).min(CHUNK_BYTES))
    }

    /// Returns a chunk at or after the front.
    fn chunk(&self, chunk: u64) -> Chunk {
        self.begun.get(&chunk).copied().unwrap_or_default()
    }

    fn lacks(&self, chunk: u64) -> bool {
        self.chunk(chunk).there < self.length(chunk)
    }

    /// Returns the number of the chunk that holds a byte.
    fn holding(&self, offset: u64) -> u64 {
        if self.total.is_none() { 0 } else { offset / CHUNK_BYTES }
    }

    /// Moves the front over whole chunks.
    fn advance(&mut self) {
        while self.front < self.count() && !self.lacks(self.front) {
            _ = self.begun.remove(&self.front);
            self.front += 1;
        }
    }

    /// Adds a connection that will claim chunks.
    pub(crate) fn lane(&mut self) -> Lane {
        self.lanes += 1;
        Lane(self.lanes)
    }

    /// Returns whether some chunk is neither whole nor claimed.
    pub(crate) fn has_more(&self) -> bool {
        // This ends at the latest at the first chunk that is not begun.
        (self.front..self.count()).any(|chunk| self.chunk(chunk).claim.is_none() && self.lacks(chunk))
    }

    /// Returns the first missing byte of the first free chunk, and the end of that chunk.
    ///
    /// A chunk with a slow lane counts as free, too: one that was claimed so long ago that each lane could have
    /// received two chunks since, or one chunk if no other chunk is left. Connections share a link unfairly, and a slow
    /// one would delay the digest and the end.
    pub(crate) fn claim(&mut self, lane: Lane) -> Option<(u64, u64)> {
        let active = self.begun.values().filter(|chunk| chunk.claim.is_some()).count() + 1;
        let patience = if self.has_more() { 2 * active } else { active };
        let is_free = |claim: Option<LaneClaim>| {
            claim.is_none_or(|claim| claim.lane != lane && self.completed >= claim.since + patience)
        };
        let mut chunks = self.front..self.count();
        let chunk = chunks.find(|chunk| self.lacks(*chunk) && is_free(self.chunk(*chunk).claim))?;
        let start = chunk * CHUNK_BYTES;
        Some((start + self.take(chunk, lane), start.saturating_add(self.length(chunk))))
    }

    /// Returns the end of the chunk that begins at `start`, if it is not claimed and has no bytes.
    pub(crate) fn claim_at(&mut self, lane: Lane, start: u64) -> Option<u64> {
        let index = start / CHUNK_BYTES;
        let chunk = self.chunk(index);
        if index < self.front || index >= self.count() || chunk.claim.is_some() || chunk.there > 0 {
            return None;
        }
        _ = self.take(index, lane);
        Some(start.saturating_add(self.length(index)))
    }

    /// Gives a chunk to a lane. Returns the number of its present bytes.
    fn take(&mut self, chunk: u64, lane: Lane) -> u64 {
        let chunk = self.begun.entry(chunk).or_default();
        chunk.claim = Some(LaneClaim { lane, since: self.completed });
        chunk.there
    }

    /// Returns whether the chunk that holds a byte is this lane's.
    pub(crate) fn is_claimed(&self, lane: Lane, offset: u64) -> bool {
        self.chunk(self.holding(offset)).claim.is_some_and(|claim| claim.lane == lane)
    }

    /// Notes bytes received at `offset`, which follow the present ones of their chunk. Returns the number of the chunk,
    /// and of its present bytes.
    pub(crate) fn add(&mut self, offset: u64, bytes: u64) -> (u64, u64) {
        let index = self.holding(offset);
        let length = self.length(index);
        let chunk = self.begun.entry(index).or_default();
        chunk.there += bytes;
        let there = chunk.there;
        self.done += bytes;
        if there >= length {
            chunk.claim = None;
            self.completed += 1;
            self.advance();
        }
        (index, there)
    }

    /// Notes the end of a body of unknown length.
    pub(crate) fn end(&mut self) {
        self.total = Some(self.done);
        self.begun.clear();
        self.front = self.count();
    }

    /// Returns the position of the next present bytes after `start`; `None` if all the rest is missing.
    pub(crate) fn gap_end(&self, start: u64) -> Option<u64> {
        let next = start / CHUNK_BYTES + 1;
        self.begun.range(next..).find(|(_, chunk)| chunk.there > 0).map(|(chunk, _)| chunk * CHUNK_BYTES)
    }

    /// Ends the claims of all lanes.
    pub(crate) fn release(&mut self) {
        self.begun.retain(|_, chunk| chunk.there > 0);
        self.begun.values_mut().for_each(|chunk| chunk.claim = None);
    }

    /// Returns the number of bytes before the first gap.
    pub(crate) fn frontier(&self) -> u64 {
        if self.front >= self.count() { self.done } else { self.front * CHUNK_BYTES + self.chunk(self.front).there }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_that_lags_behind_is_free_for_another_lane() {
        let mut chunks = Chunks::new(Some(6 * CHUNK_BYTES));
        let (slow, fast) = (chunks.lane(), chunks.lane());
        assert_eq!(chunks.claim(slow), Some((0, CHUNK_BYTES)));
        assert_eq!(chunks.add(0, 3), (0, 3));
        for chunk in 1..=4 {
            assert_eq!(chunks.claim(fast), Some((chunk * CHUNK_BYTES, (chunk + 1) * CHUNK_BYTES)));
            assert!(chunks.is_claimed(fast, chunk * CHUNK_BYTES));
            assert_eq!(chunks.add(chunk * CHUNK_BYTES, CHUNK_BYTES), (chunk, CHUNK_BYTES));
        }
        assert_eq!(chunks.claim(fast), Some((3, CHUNK_BYTES)), "what is there stays");
        assert!(!chunks.is_claimed(slow, 3) && chunks.done() == 4 * CHUNK_BYTES + 3);
        assert_eq!(chunks.claim(slow), Some((5 * CHUNK_BYTES, 6 * CHUNK_BYTES)));
        assert_eq!(chunks.add(5 * CHUNK_BYTES, CHUNK_BYTES), (5, CHUNK_BYTES));
        assert_eq!(chunks.claim(slow), None, "the other one has only just begun");
        assert_eq!((chunks.frontier(), chunks.gap_end(3)), (3, Some(CHUNK_BYTES)));
    }

    #[test]
    fn memory_grows_with_what_has_arrived_not_with_what_was_declared() {
        for total in [1 << 47, 1 << 52, 1 << 60, i64::MAX.cast_unsigned(), u64::MAX] {
            let mut chunks = Chunks::new(Some(total));
            let lanes: Vec<Lane> = (0..16).map(|_| chunks.lane()).collect();
            for lane in &lanes {
                assert!(chunks.claim(*lane).is_some() && chunks.has_more());
            }
            assert_eq!((chunks.begun.len(), chunks.gap_end(0)), (16, None));
            chunks.release();
            assert_eq!(chunks.begun.len(), 0);
            // Another process noted two chunks, of which the file holds one.
            let note = [CHUNK_BYTES.to_le_bytes(), 5u64.to_le_bytes()].concat();
            let chunks = Chunks::read(total, CHUNK_BYTES, &note[..]).unwrap();
            assert_eq!((chunks.done(), chunks.frontier()), (CHUNK_BYTES, CHUNK_BYTES));
        }
    }

    #[test]
    fn a_note_that_makes_no_sense_is_refused() {
        let read = |counts: &[u64], length: u64| {
            let note: Vec<u8> = counts.iter().flat_map(|count| count.to_le_bytes()).collect();
            Chunks::read(3 * CHUNK_BYTES, length, &note[..]).map(|chunks| (chunks.done(), chunks.frontier()))
        };
        assert_eq!(read(&[CHUNK_BYTES, 0, 7], 3 * CHUNK_BYTES), Some((CHUNK_BYTES + 7, CHUNK_BYTES)));
        assert_eq!(read(&[CHUNK_BYTES + 1], 3 * CHUNK_BYTES), None, "more than a chunk");
        assert_eq!(read(&[10], 9), None, "more than the file has");
        assert_eq!(read(&[], 3 * CHUNK_BYTES), Some((0, 0)));
    }

    #[test]
    fn a_body_of_unknown_length_is_one_chunk_until_it_ends() {
        let mut chunks = Chunks::new(None);
        let lane = chunks.lane();
        assert_eq!(chunks.claim(lane), Some((0, u64::MAX)));
        for offset in [0, CHUNK_BYTES, 2 * CHUNK_BYTES] {
            assert!(chunks.is_claimed(lane, offset));
            _ = chunks.add(offset, CHUNK_BYTES);
        }
        assert_eq!(chunks.frontier(), 3 * CHUNK_BYTES);
        chunks.end();
        assert_eq!((chunks.frontier(), chunks.done(), chunks.claim(lane)), (3 * CHUNK_BYTES, 3 * CHUNK_BYTES, None));
    }
}
