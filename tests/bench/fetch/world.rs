//! The network between servers and client, and what is in it; see world.sh. Dropping it leaves nothing behind.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cells::{Cell, FAR, NEAR, Objects, Protocol, S3_PORT};
use crate::measure::Figure;
use crate::peers::{ACCESS_KEY, BUCKET, Job, Peer, REGION, SECRET_KEY};

/// What the memory of the world holds: the objects, and one download of them.
const SIZE: &str = "5G";
/// A client that takes longer than these seconds is killed, and has failed.
const CLIENT_TIMEOUT_SECONDS: &str = "120";

pub struct World {
    holder: Child,
    servers: Vec<Child>,
    /// On the disk; a tmpfs inside the world is mounted on `ram` in it.
    dir: PathBuf,
    script: PathBuf,
}

impl World {
    /// Starts the servers with the objects that the cells need, and whose time is `delay` away where it is asked for.
    pub fn start(dir: PathBuf, bench: &Path, cells: &[Cell], delay: Duration) -> Result<World> {
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .arg(bench.join("world.sh"))
            .args([&dir, Path::new(SIZE)])
            // Ctrl-C on a terminal must reach only the bench, because the holder cleans up.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("unshare")?;
        let mut ready = String::new();
        _ = BufReader::new(holder.stdout.take().context("piped")?).read_line(&mut ready)?;
        let mut world = World { holder, servers: Vec::new(), dir, script: bench.join("script.py") };
        ensure!(ready == "ready\n", "world.sh failed (the benchmark needs root)");

        let objects = world.outside("objects");
        let mut sets: Vec<&Objects> = cells.iter().map(|cell| cell.objects).collect();
        sets.dedup_by_key(|set| set.name);
        for set in sets {
            set.write(&objects.join(BUCKET).join(set.name))?;
        }
        fs::write(world.outside("nginx.conf"), nginx(&world.inside("")))?;
        let (own, inside) = (std::env::current_exe()?, |name| world.inside(name).display().to_string());
        let own = own.to_str().context("a path that is not UTF-8")?;
        let commands = [
            (false, vec!["nginx".into(), "-p".into(), inside(""), "-c".into(), inside("nginx.conf")]),
            (false, vec![own.into(), "serve".into(), inside("objects/bench"), S3_PORT.to_string()]),
            (true, vec![own.into(), "delay".into(), delay.as_millis().to_string()]),
        ];
        for (client, command) in commands {
            let server = world.enter(client).args(command).stdin(Stdio::null()).spawn()?;
            world.servers.push(server);
        }
        world.wait_for_servers()?;
        Ok(world)
    }

    /// A file of the world's memory, as processes in the world see it.
    fn inside(&self, name: &str) -> PathBuf {
        self.dir.join("ram").join(name)
    }

    /// The same file, as this process sees it.
    fn outside(&self, name: &str) -> PathBuf {
        let path = self.inside(name);
        Path::new("/proc").join(self.holder.id().to_string()).join("root").join(path.strip_prefix("/").unwrap_or(&path))
    }

    /// A command in the world, on the client's or the servers' side; its environment is empty.
    fn enter(&self, client: bool) -> Command {
        let holder = self.holder.id();
        let network = if client { "root/run/netns/client" } else { "ns/net" };
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &holder.to_string(), "--mount"])
            .arg(format!("--pid=/proc/{holder}/ns/pid_for_children"))
            .arg(format!("--net=/proc/{holder}/{network}"))
            .env_clear()
            .envs([("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("LC_ALL", "C.UTF-8")])
            .env("HOME", self.inside("home"));
        command
    }

    fn wait_for_servers(&mut self) -> Result<()> {
        for attempt in 0.. {
            let answers = |port| self.connect_time(NEAR, port).is_ok();
            if answers(80) && answers(S3_PORT) {
                break;
            }
            ensure!(attempt < 200, "the servers do not answer");
            sleep(Duration::from_millis(50));
            for server in &mut self.servers {
                ensure!(server.try_wait()?.is_none(), "a server ended");
            }
        }
        Ok(())
    }

    /// How long it takes to connect, in milliseconds: one round trip.
    fn connect_time(&self, host: &str, port: u16) -> Result<f64> {
        let output = self
            .enter(true)
            .args(["curl", "--silent", "--output", "/dev/null", "--write-out", "%{time_connect}"])
            .arg(format!("http://{host}:{port}/"))
            .output()?;
        ensure!(output.status.success(), "no answer");
        Ok(String::from_utf8(output.stdout)?.trim().parse::<f64>()? * 1000.0)
    }

    /// The round trips without and with the delay, in milliseconds.
    pub fn round_trips(&self) -> Result<[f64; 2]> {
        let median = |host| -> Result<f64> {
            let times = (0..9).map(|_| self.connect_time(host, 80)).collect::<Result<Vec<_>>>()?;
            Ok(crate::report::median(times))
        };
        Ok([median(NEAR)?, median(FAR)?])
    }

    /// One download by one peer; `None` if the peer can't do such a one. An error if it fails, or what it has
    /// downloaded is wrong.
    pub fn measure(&self, peer: &Peer, cell: &Cell) -> Result<Option<Figure>> {
        // The working directory, in the world's memory or on the disk. Both sides see it at the same path.
        let (work, seen) = if cell.disk {
            (self.dir.join("disk"), self.dir.join("disk"))
        } else {
            (self.inside("work"), self.outside("work"))
        };
        let source = self.inside("objects").join(BUCKET).join(cell.objects.name);
        let job = Job { cell, work: &work, source: &source, script: &self.script };
        let Some(mut command) = peer.command(&job) else { return Ok(None) };
        if cell.disk {
            let line = ["sh", "-c", "\"$@\" && sync -f \"$0\""].map(str::to_owned);
            command = line.into_iter().chain([work.display().to_string()]).chain(command).collect();
        }
        if seen.exists() {
            fs::remove_dir_all(&seen)?;
        }
        fs::create_dir_all(seen.join("out"))?;
        job.write_lists(&seen)?;
        // Otherwise this peer would wait until earlier deletions and writes are on the disk.
        if cell.disk {
            ensure!(Command::new("sync").arg("-f").arg(&seen).status()?.success(), "sync");
        }
        let s3 = (cell.protocol == Protocol::S3).then(|| {
            [
                ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
                ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
                ("AWS_REGION", REGION.to_owned()),
                ("AWS_DEFAULT_REGION", REGION.to_owned()),
                ("AWS_ENDPOINT_URL", cell.endpoint()),
                ("S3_ENDPOINT_URL", cell.endpoint()),
                ("AWS_CONFIG_FILE", work.join("aws").display().to_string()),
                ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ]
        });
        let output = self
            .enter(true)
            .arg(std::env::current_exe()?)
            .args(["measure", "timeout", "--signal=KILL", CLIENT_TIMEOUT_SECONDS])
            .args(command)
            .envs(s3.into_iter().flatten())
            .current_dir("/")
            .stdin(Stdio::null())
            .output()?;
        // Its last output stands before our message about its end.
        let errors = String::from_utf8_lossy(&output.stderr);
        let words: Vec<&str> = errors.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let words = words[words.len().saturating_sub(2)..].join("; ");
        ensure!(output.status.success(), "{words}");
        if peer.name != "sha256sum" {
            check(cell.objects, &self.outside("objects").join(BUCKET).join(cell.objects.name), &seen.join("out"))
                .with_context(|| words)?;
        }
        Figure::parse(&String::from_utf8(output.stdout)?).map(Some)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // The holder cleans up when its standard input ends.
        drop(self.holder.stdin.take());
        for mut child in std::mem::take(&mut self.servers) {
            _ = child.wait();
        }
        _ = self.holder.wait();
    }
}

/// Are the downloaded files these objects, and nothing else?
fn check(objects: &Objects, source: &Path, out: &Path) -> Result<()> {
    let found = fs::read_dir(out)?.count() as u64;
    ensure!(found == objects.count, "{found} files instead of {}", objects.count);
    let same = Command::new("diff").args(["--recursive", "--brief"]).args([source, out]).status()?.success();
    ensure!(same, "wrong bytes");
    Ok(())
}

fn nginx(dir: &Path) -> String {
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("    {name}_temp_path {}/nginx-{name};\n", dir.display()))
        .concat();
    format!(
        "daemon off;\n\
         user root;\n\
         worker_processes 2;\n\
         pid {dir}/nginx.pid;\n\
         error_log stderr crit;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n    \
             sendfile on;\n    \
             tcp_nopush on;\n    \
             access_log off;\n    \
             default_type application/octet-stream;\n\
         {temporary}    \
             server {{ listen 80; root {dir}/objects; }}\n\
         }}\n",
        dir = dir.display(),
    )
}
