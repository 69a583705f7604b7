//! The checksums that S3 stores with its objects.
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html>

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_smithy_checksums::{ChecksumAlgorithm, http::HttpChecksum};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

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
    /// Returns the strongest checksum in an answer.
    pub(super) fn of(object: &GetObjectOutput) -> Option<Self> {
        [
            ("sha256", object.checksum_sha256()),
            ("sha1", object.checksum_sha1()),
            ("crc64nvme", object.checksum_crc64_nvme()),
            ("crc32c", object.checksum_crc32_c()),
            ("crc32", object.checksum_crc32()),
        ]
        .into_iter()
        .find_map(|(algorithm, value)| Some(Self { algorithm: algorithm.into(), value: value?.into(), part: None }))
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

/// A running checksum of the received bytes.
pub(crate) struct RunningChecksum {
    expected: Checksum,
    algorithm: ChecksumAlgorithm,
    current: Box<dyn HttpChecksum>,
    /// The received bytes of the current part.
    taken: u64,
    /// The checksums of the earlier parts.
    parts: Vec<u8>,
}

impl RunningChecksum {
    /// Returns a checksum for an object's bytes, from the first one on; `None` if the object cannot be checked.
    pub(crate) fn new(expected: &Checksum) -> Option<Self> {
        let algorithm: ChecksumAlgorithm = expected.algorithm.parse().ok()?;
        if expected.parts().is_some() && expected.part.is_none() {
            return None;
        }
        let expected = expected.clone();
        Some(Self { expected, algorithm, current: algorithm.into_impl(), taken: 0, parts: vec![] })
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
        let ended = std::mem::replace(&mut self.current, self.algorithm.into_impl());
        self.parts.extend_from_slice(&ended.finalize());
        self.taken = 0;
    }

    /// Fails if the bytes have another checksum.
    pub(crate) fn verify(mut self) -> Result<(), Fault> {
        let mut actual = if self.expected.part.is_some() {
            self.end_part();
            let mut whole = self.algorithm.into_impl();
            whole.update(&self.parts);
            STANDARD.encode(whole.finalize())
        } else {
            STANDARD.encode(self.current.finalize())
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
