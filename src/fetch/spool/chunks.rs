//! Which bytes of a body are there, and which connection brings which others.
//!
//! A body is cut into chunks. Memory grows with those that are begun, whatever length an origin declares.

use std::{collections::BTreeMap, io::Read};

/// What one request asks for of a large body: large beside what a connection delivers in a round trip, small beside what
/// a download's connections should share out evenly.
pub(crate) const CHUNK: u64 = if cfg!(fuzzing) { 64 } else { 8 << 20 };

/// One of the connections that bring a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lane(usize);

/// A lane's work on a chunk, and how many chunks were whole when it began.
#[derive(Debug, Clone, Copy)]
struct LaneClaim {
    lane: Lane,
    since: usize,
}

/// A chunk that is begun.
#[derive(Debug, Clone, Copy, Default)]
struct Chunk {
    /// How many of its bytes are there, from its start.
    there: u64,
    claim: Option<LaneClaim>,
}

/// The chunks of a body. One of unknown length is a single chunk.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    total: Option<u64>,
    /// How many chunks from the start on are whole.
    front: u64,
    /// Chunks from there on that are claimed, or partly or wholly there.
    begun: BTreeMap<u64, Chunk>,
    /// How many chunks have become whole, and how many lanes there were.
    completed: usize,
    lanes: usize,
    done: u64,
}

impl Chunks {
    /// None of a body of this length is there.
    pub(crate) fn new(total: Option<u64>) -> Self {
        Self { total, ..Self::default() }
    }

    /// What another process noted of a body: the number of bytes of each chunk, as far as the file that holds them
    /// reaches. `None` if that makes no sense.
    pub(crate) fn read(total: u64, file_length: u64, note: impl Read) -> Option<Self> {
        let mut chunks = Self::new(Some(total));
        let reached = file_length.div_ceil(CHUNK).min(chunks.count());
        let mut note = std::io::BufReader::new(note.take(reached.saturating_mul(8)));
        for chunk in 0..reached {
            // What was written last of all may be missing at the end, and then nothing of it is there.
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
            if there > chunks.length(chunk) || chunk * CHUNK + there > file_length {
                return None;
            }
            chunks.done += there;
            _ = chunks.begun.insert(chunk, Chunk { there, claim: None });
            chunks.advance();
        }
        Some(chunks)
    }

    /// How many bytes are there.
    pub(crate) fn done(&self) -> u64 {
        self.done
    }

    fn count(&self) -> u64 {
        self.total.map_or(1, |total| total.div_ceil(CHUNK).max(1))
    }

    fn length(&self, chunk: u64) -> u64 {
        self.total.map_or(u64::MAX, |total| (total - chunk * CHUNK).min(CHUNK))
    }

    /// A chunk from the front on.
    fn chunk(&self, chunk: u64) -> Chunk {
        self.begun.get(&chunk).copied().unwrap_or_default()
    }

    fn lacks(&self, chunk: u64) -> bool {
        self.chunk(chunk).there < self.length(chunk)
    }

    /// The chunk that holds a byte.
    fn holding(&self, offset: u64) -> u64 {
        if self.total.is_none() { 0 } else { offset / CHUNK }
    }

    /// Moves the front over chunks that are whole.
    fn advance(&mut self) {
        while self.front < self.count() && !self.lacks(self.front) {
            _ = self.begun.remove(&self.front);
            self.front += 1;
        }
    }

    /// A connection that will claim chunks.
    pub(crate) fn lane(&mut self) -> Lane {
        self.lanes += 1;
        Lane(self.lanes)
    }

    /// Whether some chunk is neither there nor on its way.
    pub(crate) fn has_more(&self) -> bool {
        // Ends at the latest at the first chunk that is not begun.
        (self.front..self.count()).any(|chunk| self.chunk(chunk).claim.is_none() && self.lacks(chunk))
    }

    /// The first byte that is missing of the first chunk that no lane is at, and where that chunk ends.
    ///
    /// A chunk that was claimed so long ago that each lane could have brought two meanwhile counts as free too, or one
    /// when nothing else is left to do: links share unfairly, and one slow connection would hold up the digest and the
    /// end.
    pub(crate) fn claim(&mut self, lane: Lane) -> Option<(u64, u64)> {
        let active = self.begun.values().filter(|chunk| chunk.claim.is_some()).count() + 1;
        let patience = if self.has_more() { 2 * active } else { active };
        let is_free = |claim: Option<LaneClaim>| {
            claim.is_none_or(|claim| claim.lane != lane && self.completed >= claim.since + patience)
        };
        let mut chunks = self.front..self.count();
        let chunk = chunks.find(|chunk| self.lacks(*chunk) && is_free(self.chunk(*chunk).claim))?;
        let start = chunk * CHUNK;
        Some((start + self.take(chunk, lane), start.saturating_add(self.length(chunk))))
    }

    /// Where the chunk ends that begins at `start`, if no lane is at it and nothing of it is there.
    pub(crate) fn claim_at(&mut self, lane: Lane, start: u64) -> Option<u64> {
        let index = start / CHUNK;
        let chunk = self.chunk(index);
        if index < self.front || index >= self.count() || chunk.claim.is_some() || chunk.there > 0 {
            return None;
        }
        _ = self.take(index, lane);
        Some(start.saturating_add(self.length(index)))
    }

    /// Gives a chunk to a lane; returns how many bytes of it are there.
    fn take(&mut self, chunk: u64, lane: Lane) -> u64 {
        let chunk = self.begun.entry(chunk).or_default();
        chunk.claim = Some(LaneClaim { lane, since: self.completed });
        chunk.there
    }

    /// Whether the chunk that holds a byte is this lane's.
    pub(crate) fn is_claimed(&self, lane: Lane, offset: u64) -> bool {
        self.chunk(self.holding(offset)).claim.is_some_and(|claim| claim.lane == lane)
    }

    /// Takes note of bytes that have arrived at `offset`, and so follow those of their chunk that are there. Returns the
    /// chunk's number, and how many of its bytes are there now.
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

    /// A body of unknown length has ended.
    pub(crate) fn end(&mut self) {
        self.total = Some(self.done);
        self.begun.clear();
        self.front = self.count();
    }

    /// Where the next bytes after `start` are that are there; `None` if all the rest is missing.
    pub(crate) fn gap_end(&self, start: u64) -> Option<u64> {
        let next = start / CHUNK + 1;
        self.begun.range(next..).find(|(_, chunk)| chunk.there > 0).map(|(chunk, _)| chunk * CHUNK)
    }

    /// Takes the chunks from all lanes.
    pub(crate) fn release(&mut self) {
        self.begun.retain(|_, chunk| chunk.there > 0);
        self.begun.values_mut().for_each(|chunk| chunk.claim = None);
    }

    /// How many bytes are there without a gap.
    pub(crate) fn frontier(&self) -> u64 {
        if self.front >= self.count() { self.done } else { self.front * CHUNK + self.chunk(self.front).there }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_that_lags_behind_is_free_for_another_lane() {
        let mut chunks = Chunks::new(Some(6 * CHUNK));
        let (slow, fast) = (chunks.lane(), chunks.lane());
        assert_eq!(chunks.claim(slow), Some((0, CHUNK)));
        assert_eq!(chunks.add(0, 3), (0, 3));
        for chunk in 1..=4 {
            assert_eq!(chunks.claim(fast), Some((chunk * CHUNK, (chunk + 1) * CHUNK)));
            assert!(chunks.is_claimed(fast, chunk * CHUNK));
            assert_eq!(chunks.add(chunk * CHUNK, CHUNK), (chunk, CHUNK));
        }
        assert_eq!(chunks.claim(fast), Some((3, CHUNK)), "what is there stays");
        assert!(!chunks.is_claimed(slow, 3) && chunks.done() == 4 * CHUNK + 3);
        assert_eq!(chunks.claim(slow), Some((5 * CHUNK, 6 * CHUNK)));
        assert_eq!(chunks.add(5 * CHUNK, CHUNK), (5, CHUNK));
        assert_eq!(chunks.claim(slow), None, "the other one has only just begun");
        assert_eq!((chunks.frontier(), chunks.gap_end(3)), (3, Some(CHUNK)));
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
            // As noted by another process: two chunks, of which the file holds one.
            let note = [CHUNK.to_le_bytes(), 5u64.to_le_bytes()].concat();
            let chunks = Chunks::read(total, CHUNK, &note[..]).unwrap();
            assert_eq!((chunks.done(), chunks.frontier()), (CHUNK, CHUNK));
        }
    }

    #[test]
    fn a_note_that_makes_no_sense_is_refused() {
        let read = |counts: &[u64], length: u64| {
            let note: Vec<u8> = counts.iter().flat_map(|count| count.to_le_bytes()).collect();
            Chunks::read(3 * CHUNK, length, &note[..]).map(|chunks| (chunks.done(), chunks.frontier()))
        };
        assert_eq!(read(&[CHUNK, 0, 7], 3 * CHUNK), Some((CHUNK + 7, CHUNK)));
        assert_eq!(read(&[CHUNK + 1], 3 * CHUNK), None, "more than a chunk");
        assert_eq!(read(&[10], 9), None, "more than the file has");
        assert_eq!(read(&[], 3 * CHUNK), Some((0, 0)));
    }

    #[test]
    fn a_body_of_unknown_length_is_one_chunk_until_it_ends() {
        let mut chunks = Chunks::new(None);
        let lane = chunks.lane();
        assert_eq!(chunks.claim(lane), Some((0, u64::MAX)));
        for offset in [0, CHUNK, 2 * CHUNK] {
            assert!(chunks.is_claimed(lane, offset));
            _ = chunks.add(offset, CHUNK);
        }
        assert_eq!(chunks.frontier(), 3 * CHUNK);
        chunks.end();
        assert_eq!((chunks.frontier(), chunks.done(), chunks.claim(lane)), (3 * CHUNK, 3 * CHUNK, None));
    }
}
