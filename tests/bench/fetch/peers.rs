//! The programs to compare, with their command lines.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::cells::{Cell, Protocol};

pub const BUCKET: &str = "bench";
pub const ACCESS_KEY: &str = "AKIDBENCH";
pub const SECRET_KEY: &str = "bench-secret-key";
pub const REGION: &str = "eu-central-1";

/// The agent's name in tables; the one all others are compared with.
pub const OURS: &str = "glovo-bootstrap";

/// What a peer is to do: read from the directory `work` in the world, write to `work/out`.
pub struct Job<'a> {
    pub cell: &'a Cell,
    pub work: &'a Path,
    /// Where the objects' files are, for the floors.
    pub source: &'a Path,
    /// Where script.py is.
    pub script: &'a Path,
}

impl Job<'_> {
    fn out(&self) -> String {
        self.work.join("out").display().to_string()
    }

    fn file(&self, name: &str) -> String {
        self.work.join(name).display().to_string()
    }

    /// Writes what peers read their URLs from.
    pub fn write_lists(&self, dir: &Path) -> Result<()> {
        let (mut urls, mut curl) = (String::new(), String::new());
        for name in self.cell.objects.names() {
            writeln!(urls, "{}", self.cell.url(&name))?;
            writeln!(curl, "url = \"{}\"\noutput = \"{}/{name}\"", self.cell.http_url(&name), self.out())?;
        }
        fs::write(dir.join("urls"), urls)?;
        fs::write(dir.join("curl"), curl)?;
        // The CRT client is faster than the aws-cli's own client with max_concurrent_requests = 64, which is faster than its
        // default.
        let aws = "[default]\ns3 =\n  addressing_style = path\n  preferred_transfer_client = crt\n  target_bandwidth = 10Gb/s\n";
        fs::write(dir.join("aws"), aws)?;
        Ok(())
    }
}

pub struct Peer {
    pub name: &'static str,
    /// What it is, and which settings it has got; `None` where it could not be had.
    pub about: Option<String>,
    /// Does it hash what it downloads?
    pub hashes: bool,
    /// No download, but what no download of that kind can undercut.
    pub floor: bool,
    program: PathBuf,
    arguments: fn(&Job) -> Option<Vec<String>>,
}

impl Peer {
    /// Its command line, unless it can't do the job.
    pub fn command(&self, job: &Job) -> Option<Vec<String>> {
        let arguments = (self.arguments)(job)?;
        Some(std::iter::once(self.program.display().to_string()).chain(arguments).collect())
    }
}

fn strings(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// All of them, the agent at `agent` first, those from PyPI in the virtual environment `venv`.
pub fn peers(agent: &Path, venv: &Path) -> Vec<Peer> {
    let python = venv.join("bin/python3");
    let boto3 = version(
        &python,
        &["-c", "import boto3, platform; print(platform.python_version(), 'boto3', boto3.__version__)"],
    );
    let s5cmd = fs::read_dir(venv.join("lib"))
        .ok()
        .and_then(|mut lib| lib.next()?.ok())
        .map(|python| python.path().join("site-packages/s5cmd/bin/s5cmd"))
        .unwrap_or_default();
    vec![
        Peer {
            name: OURS,
            about: version(agent, &["fetch", "--help"]).and_then(|_| version(agent, &["--version"])),
            hashes: true,
            floor: false,
            program: agent.to_owned(),
            arguments: |job| Some(strings(&format!("fetch --output-dir {} --input {}", job.out(), job.file("urls")))),
        },
        Peer {
            name: "curl",
            about: about(version("curl", &["--version"]), "--parallel --parallel-max 64; s3: --aws-sigv4"),
            hashes: false,
            floor: false,
            program: "curl".into(),
            arguments: |job| {
                let signing = match job.cell.protocol {
                    Protocol::Http => String::new(),
                    Protocol::S3 => format!(
                        "--aws-sigv4 aws:amz:{REGION}:s3 --user {ACCESS_KEY}:{SECRET_KEY} \
                         --header x-amz-content-sha256:UNSIGNED-PAYLOAD"
                    ),
                };
                Some(strings(&format!(
                    "--silent --show-error --fail --parallel --parallel-max 64 {signing} --config {}",
                    job.file("curl")
                )))
            },
        },
        Peer {
            name: "aria2c",
            about: about(version("aria2c", &["--version"]), "-x16 -s16 -k1M -j64 --file-allocation=none"),
            hashes: false,
            floor: false,
            program: "aria2c".into(),
            arguments: |job| {
                (job.cell.protocol == Protocol::Http).then(|| {
                    strings(&format!(
                        "--no-conf --quiet -x16 -s16 -k1M -j64 --file-allocation=none --dir {} --input-file {}",
                        job.out(),
                        job.file("urls")
                    ))
                })
            },
        },
        Peer {
            name: "wget2",
            about: about(version("wget2", &["--version"]), "--max-threads=16; one object: --chunk-size=64M"),
            hashes: false,
            floor: false,
            program: "wget2".into(),
            arguments: |job| {
                let chunks = if job.cell.objects.count == 1 { "--chunk-size=64M" } else { "" };
                (job.cell.protocol == Protocol::Http).then(|| {
                    strings(&format!(
                        "--no-config --no-robots --quiet --max-threads=16 {chunks} --directory-prefix {} --input-file {}",
                        job.out(),
                        job.file("urls")
                    ))
                })
            },
        },
        Peer {
            name: "s5cmd",
            about: about(version(&s5cmd, &["version"]), "--numworkers 256 cp --concurrency 16, with a wildcard"),
            hashes: false,
            floor: false,
            program: s5cmd,
            arguments: |job| {
                (job.cell.protocol == Protocol::S3).then(|| {
                    strings(&format!(
                        "--log error --numworkers 256 cp --concurrency 16 s3://{BUCKET}/{}/* {}/",
                        job.cell.objects.name,
                        job.out()
                    ))
                })
            },
        },
        Peer {
            name: "aws s3 cp",
            about: about(
                version("/usr/bin/aws", &["--version"]),
                "--recursive, preferred_transfer_client = crt, target_bandwidth = 10Gb/s",
            ),
            hashes: false,
            floor: false,
            program: "/usr/bin/aws".into(),
            arguments: |job| {
                (job.cell.protocol == Protocol::S3).then(|| {
                    strings(&format!(
                        "--endpoint-url {} s3 cp --recursive --only-show-errors s3://{BUCKET}/{} {}",
                        job.cell.endpoint(),
                        job.cell.objects.name,
                        job.out()
                    ))
                })
            },
        },
        Peer {
            name: "script.py",
            about: about(boto3, "urllib, boto3: 32 threads, hashes while streaming"),
            hashes: true,
            floor: false,
            program: python,
            arguments: |job| Some(strings(&format!("{} {} {} 32", job.script.display(), job.file("urls"), job.out()))),
        },
        Peer {
            name: "cp",
            about: about(version("cp", &["--version"]), "the floor: the server's files, copied"),
            hashes: false,
            floor: true,
            program: "cp".into(),
            arguments: |job| Some(strings(&format!("--recursive {}/. {}", job.source.display(), job.out()))),
        },
        Peer {
            name: "sha256sum",
            about: about(version("sha256sum", &["--version"]), "the other floor: what a script must add to verify"),
            hashes: true,
            floor: true,
            program: "sha256sum".into(),
            arguments: |job| {
                Some(job.cell.objects.names().map(|name| job.source.join(name).display().to_string()).collect())
            },
        },
    ]
}

/// The first line that a program prints when asked so; `None` if it is not there or fails.
fn version(program: impl AsRef<Path>, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program.as_ref()).args(arguments).output().ok().filter(|out| out.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).lines().next()?.chars().take(60).collect())
}

fn about(version: Option<String>, settings: &str) -> Option<String> {
    version.map(|version| format!("{version}; {settings}"))
}
