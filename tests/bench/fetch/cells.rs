//! The cells of the benchmark: objects × protocol × delay.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::Result;

use crate::peers::BUCKET;

pub const HTTP_PORT: u16 = 80;
pub const S3_PORT: u16 = 9000;
/// The server's addresses without and with the added delay; see world.sh.
pub const NEAR: &str = "10.77.0.1";
pub const FAR: &str = "10.77.0.2";

/// Objects of one size.
pub struct Objects {
    pub name: &'static str,
    pub count: u64,
    pub size: u64,
}

pub const SETS: [Objects; 3] = [
    Objects { name: "1x1GiB", count: 1, size: 1 << 30 },
    Objects { name: "200x5MiB", count: 200, size: 5 << 20 },
    Objects { name: "10000x4KiB", count: 10_000, size: 4 << 10 },
];

impl Objects {
    pub fn bytes(&self) -> u64 {
        self.count * self.size
    }

    /// The objects' names, which are those of the downloaded files too.
    pub fn names(&self) -> impl Iterator<Item = String> {
        (0..self.count).map(|number| format!("{number:05}"))
    }

    /// Makes the objects' files: noise that no compression shortens, the same in every run.
    pub fn write(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir)?;
        let mut state = self.size;
        let mut noise = || {
            // The generator splitmix64: <https://prng.di.unimi.it/splitmix64.c>
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut bits = state;
            bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            bits ^ (bits >> 31)
        };
        let mut block = vec![0; self.size.min(1 << 20) as usize];
        for name in self.names() {
            let mut file = File::create(dir.join(name))?;
            for _ in 0..self.size / block.len() as u64 {
                for word in block.chunks_exact_mut(8) {
                    word.copy_from_slice(&noise().to_ne_bytes());
                }
                file.write_all(&block)?;
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http,
    S3,
}

/// One row of the benchmark.
pub struct Cell {
    pub objects: &'static Objects,
    pub protocol: Protocol,
    /// Is the delay added?
    pub far: bool,
    /// To a disk and synced, instead of to memory?
    pub disk: bool,
}

impl Cell {
    pub fn all() -> Vec<Cell> {
        let mut cells = Vec::new();
        for objects in &SETS {
            for protocol in [Protocol::Http, Protocol::S3] {
                cells.extend([false, true].map(|far| Cell { objects, protocol, far, disk: false }));
            }
        }
        cells.extend(SETS[..1].iter().map(|objects| Cell {
            objects,
            protocol: Protocol::Http,
            far: false,
            disk: true,
        }));
        cells
    }

    /// As in `--only`: `1x1GiB-http-0ms`.
    pub fn name(&self) -> String {
        let protocol = if self.protocol == Protocol::Http { "http" } else { "s3" };
        let disk = if self.disk { "-disk" } else { "" };
        format!("{}-{protocol}-{}{disk}", self.objects.name, if self.far { "20ms" } else { "0ms" })
    }

    fn host(&self) -> &'static str {
        if self.far { FAR } else { NEAR }
    }

    /// Where S3 is.
    pub fn endpoint(&self) -> String {
        format!("http://{}:{S3_PORT}", self.host())
    }

    /// An object's URL for peers with S3.
    pub fn url(&self, name: &str) -> String {
        match self.protocol {
            Protocol::Http => self.http_url(name),
            Protocol::S3 => format!("s3://{BUCKET}/{}/{name}", self.objects.name),
        }
    }

    /// An object's URL for peers without S3.
    pub fn http_url(&self, name: &str) -> String {
        let port = if self.protocol == Protocol::Http { HTTP_PORT } else { S3_PORT };
        format!("http://{}:{port}/{BUCKET}/{}/{name}", self.host(), self.objects.name)
    }
}
