//! The checksums that S3 stores with its objects.
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html>

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::error::Fault;

/// A checksum of an object's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checksum {
    /// The algorithm, such as `crc64nvme`.
    algorithm: String,
    /// The checksum in base64. A composite one is the checksum of the parts' checksums, and ends in their number:
    /// `Ffo6SA==-3`.
    value: String,
    /// The length of each part but the last one. A composite checksum cannot be checked without it.
    part: Option<u64>,
}

impl Checksum {
    /// Returns the strongest checksum among the headers of an answer.
    pub(super) fn of<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        ALGORITHMS.into_iter().find_map(|(algorithm, _)| {
            let value = header(&format!("x-amz-checksum-{algorithm}"))?;
            Some(Self { algorithm: algorithm.into(), value: value.into(), part: None })
        })
    }

    /// Returns the number of parts of a composite checksum.
    pub(super) fn parts(&self) -> Option<u64> {
        self.value.split_once('-')?.1.parse().ok()
    }

    /// Returns the checksum with the length of the object's parts.
    pub(super) fn with_parts(self, part: u64) -> Self {
        Self { part: Some(part), ..self }
    }
}

/// The beginning of a checksum.
type Begin = fn() -> Algorithm;

/// The algorithms of S3, the strongest first.
const ALGORITHMS: [(&str, Begin); 5] = [
    ("sha256", || Algorithm::Sha256(Sha256::new())),
    ("sha1", || Algorithm::Sha1(Sha1::new())),
    ("crc64nvme", || Algorithm::Crc64(crc64fast_nvme::Digest::new())),
    ("crc32c", || Algorithm::Crc32c(0)),
    ("crc32", || Algorithm::Crc32(crc32fast::Hasher::new())),
];

/// An algorithm in the middle of some bytes.
enum Algorithm {
    Sha256(Sha256),
    Sha1(Sha1),
    Crc64(crc64fast_nvme::Digest),
    Crc32c(u32),
    Crc32(crc32fast::Hasher),
}

impl Algorithm {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(digest) => Digest::update(digest, bytes),
            Self::Sha1(digest) => Digest::update(digest, bytes),
            Self::Crc64(digest) => digest.write(bytes),
            Self::Crc32c(sum) => *sum = crc32c::crc32c_append(*sum, bytes),
            Self::Crc32(hasher) => hasher.update(bytes),
        }
    }

    /// Returns the checksum. The sums are big-endian numbers.
    fn finish(self) -> Vec<u8> {
        match self {
            Self::Sha256(digest) => digest.finalize().to_vec(),
            Self::Sha1(digest) => digest.finalize().to_vec(),
            Self::Crc64(digest) => digest.sum64().to_be_bytes().into(),
            Self::Crc32c(sum) => sum.to_be_bytes().into(),
            Self::Crc32(hasher) => hasher.finalize().to_be_bytes().into(),
        }
    }
}

/// A running checksum of the received bytes.
pub(crate) struct RunningChecksum {
    expected: Checksum,
    begin: Begin,
    current: Algorithm,
    /// The received bytes of the current part.
    taken: u64,
    /// The checksums of the earlier parts.
    parts: Vec<u8>,
}

impl RunningChecksum {
    /// Returns a checksum for an object's bytes, from the first one on; `None` if the object cannot be checked.
    pub(crate) fn new(expected: &Checksum) -> Option<Self> {
        let (_, begin) = ALGORITHMS.into_iter().find(|(name, _)| *name == expected.algorithm)?;
        if expected.parts().is_some() && expected.part.is_none() {
            return None;
        }
        let expected = expected.clone();
        Some(Self { expected, begin, current: begin(), taken: 0, parts: vec![] })
    }

    /// Adds the next bytes.
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        let Some(part) = self.expected.part else { return self.current.update(bytes) };
        while !bytes.is_empty() {
            if self.taken == part {
                self.end_part();
            }
            let left = usize::try_from(part - self.taken).unwrap_or(usize::MAX).min(bytes.len());
            self.current.update(&bytes[..left]);
            self.taken += left as u64;
            bytes = &bytes[left..];
        }
    }

    fn end_part(&mut self) {
        let ended = std::mem::replace(&mut self.current, (self.begin)());
        self.parts.extend_from_slice(&ended.finish());
        self.taken = 0;
    }

    /// Fails if the bytes have another checksum.
    pub(crate) fn verify(mut self) -> Result<(), Fault> {
        let mut actual = if self.expected.part.is_some() {
            self.end_part();
            let mut whole = (self.begin)();
            whole.update(&self.parts);
            STANDARD.encode(whole.finish())
        } else {
            STANDARD.encode(self.current.finish())
        };
        if let Some(parts) = self.expected.parts() {
            actual.push_str(&format!("-{parts}"));
        }
        let Checksum { algorithm, value, .. } = self.expected;
        if actual == value {
            return Ok(());
        }
        Err(Fault::new(format!("the {algorithm} of the bytes is {actual}, not {value} as S3 says"))
            .hint("the bytes were changed on their way, or the object is damaged: upload it again"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verified(algorithm: &str, value: &str, part: Option<u64>, bytes: &[u8]) -> Result<(), Fault> {
        let expected = Checksum { algorithm: algorithm.into(), value: value.into(), part };
        let mut running = RunningChecksum::new(&expected).unwrap();
        for piece in bytes.chunks(2) {
            running.update(piece);
        }
        running.verify()
    }

    #[test]
    fn each_algorithm_of_s3_s_is_known() {
        // The values for "123456789", from the catalogue of CRC algorithms, sha1sum and sha256sum.
        for (algorithm, value) in [
            ("crc32", "y/Q5Jg=="),
            ("crc32c", "4waSgw=="),
            ("crc64nvme", "rosUhgp5mIg="),
            ("sha1", "98O8HYCOBHMq32eZZczDTKeuNEE="),
            ("sha256", "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU="),
        ] {
            verified(algorithm, value, None, b"123456789").unwrap();
            let told = verified(algorithm, value, None, b"123456780").unwrap_err().to_string();
            assert!(told.contains(algorithm) && told.contains(value), "{told}");
        }
    }

    #[test]
    fn a_composite_checksum_is_of_the_parts_checksums() {
        // The digests of "1234", "5678" and "9" by `printf 1234 | sha256sum`, and then the digest of these three.
        let part = |bytes: &[u8]| crate::value::Sha256::of(bytes).0;
        let digests = [part(b"1234"), part(b"5678"), part(b"9")].concat();
        let value = format!("{}-3", STANDARD.encode(part(&digests)));
        verified("sha256", &value, Some(4), b"123456789").unwrap();
        assert!(verified("sha256", &value, Some(3), b"123456789").is_err());
        let unknown = Checksum { algorithm: "sha256".into(), value, part: None };
        assert!(RunningChecksum::new(&unknown).is_none());
    }
}
