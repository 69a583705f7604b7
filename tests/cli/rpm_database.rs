//! The reader of rpm's database, beside rpm and SQLite themselves.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use glovo_bootstrap::{
    error,
    host::root::Root,
    packages::rpm::{
        database::{RpmDatabase, RpmPackage, RpmProvides},
        pages::{ReadAt, SizedFile},
        snapshot,
        sqlite::Sqlite,
    },
};

/// The arguments of rpm for a database of its own. Debian's rpm else refuses to install.
const ON_DEBIAN: &str = "--force-debian";

/// A directory for a root and for the files of a test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("rpm-database-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("var/lib/rpm")).unwrap();
        Self(path)
    }

    fn root(&self) -> Root {
        Root::open(&self.0).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Starts a Python program with the path of a database.
fn python(program: &str, database: &Path) -> Child {
    let mut command = Command::new("python3");
    _ = command.args(["-c", program]).arg(database).stdout(Stdio::piped());
    command.spawn().unwrap()
}

/// Builds packages with all parts of a version, and names that they provide.
fn build(place: &Place) -> Vec<PathBuf> {
    let mut spec = String::new();
    for index in 0..100 {
        let name = if index == 0 { String::new() } else { format!("%package -n name_{index}.x\n") };
        let epoch = if index % 3 == 1 { format!("Epoch: {index}\n") } else { String::new() };
        let version = ["1.0", "2023.1~rc1", "5^git20240101", "1.2.3.4.5_6+7"][index % 4];
        let provides: String = (0..index % 5).map(|other| format!("Provides: virtual({other}-{index})\n")).collect();
        let description = "A long description of what this package is for.\n".repeat(index * 3);
        let head = if index == 0 { "Name: main\nLicense: MIT\nBuildArch: noarch\n" } else { "" };
        let about = if index == 0 { "%description\n".into() } else { format!("%description -n name_{index}.x\n") };
        let files = if index == 0 { "%files\n".into() } else { format!("%files -n name_{index}.x\n") };
        spec += &format!(
            "{name}{head}{epoch}Version: {version}\nRelease: {index}.amzn2023\nSummary: S\n{provides}{about}{description}\n{files}"
        );
    }
    fs::write(place.path("packages.spec"), spec).unwrap();
    let top = format!("_topdir {}", place.path("top").display());
    _ = output(Command::new("rpmbuild").args(["-bb", "--quiet", "--define", &top]).arg(place.path("packages.spec")));
    fs::read_dir(place.path("top/RPMS/noarch")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn query(place: &Place, format: &str) -> Vec<String> {
    let database = place.path("var/lib/rpm");
    let text = output(Command::new("rpm").arg("--dbpath").arg(database).args(["-qa", "--qf", format]));
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn read(place: &Place) -> Vec<String> {
    let database = RpmDatabase::read(&place.root()).unwrap();
    let line = |package: &RpmPackage| {
        let RpmPackage { name, epoch, version, release, architecture } = package;
        format!("{name} {epoch} {version} {release} {architecture} {}", package.evr())
    };
    let mut lines: Vec<_> = database.iter().map(line).collect();
    lines.sort();
    lines
}

#[test]
fn the_database_of_a_hundred_packages_reads_as_rpm_says() {
    let place = Place::new("packages");
    let packages = build(&place);
    assert_eq!(packages.len(), 100);
    let rpm = |arguments: &[&str], operands: &[PathBuf]| {
        let mut command = Command::new("rpm");
        _ = command.args([ON_DEBIAN, "--justdb", "--nodeps", "--dbpath"]).arg(place.path("var/lib/rpm"));
        output(command.args(arguments).args(operands))
    };
    let format = "%{NAME} %{EPOCHNUM} %{VERSION} %{RELEASE} %{ARCH} %{EVR}\n";
    _ = rpm(&["--install"], &packages);
    let all = query(&place, format);
    assert_eq!((read(&place), all.len()), (all, 100));
    _ = rpm(&["--erase", "name_7.x", "name_8.x", "main"], &[]);
    let left = query(&place, format);
    assert_eq!((read(&place), left.len()), (left, 97));
    let database = RpmProvides::read(&place.root()).unwrap();
    let provided = query(&place, "[%{=NAME} %{PROVIDENAME}\n]");
    let mut count = 0;
    for line in &provided {
        let (name, provided) = line.split_once(' ').unwrap();
        assert_eq!(database.provider(provided), (name != provided).then_some(name), "{line}");
        count += usize::from(name != provided);
    }
    assert!(count > 150, "{count}");
}

/// Writes values of all sizes in many pages, deletes some, and prints the rows that are left.
const VALUES: &str = r"
import random, sqlite3, sys
page, seed = int(sys.argv[1].rsplit('-', 1)[1]), 7
random.seed(seed)
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute(f'PRAGMA page_size = {page}')
database.execute(f'PRAGMA auto_vacuum = {page % 3}')
database.execute('PRAGMA journal_mode = WAL')
database.execute('CREATE TABLE other (a)')
database.execute('CREATE TABLE t (id INTEGER PRIMARY KEY, number INTEGER, text TEXT)')
database.execute('BEGIN')
for id in random.sample(range(-2000, 10**12), 2000):
    number = random.randrange(-2**random.randrange(1, 64), 2**random.randrange(1, 64))
    # Around each size at which a row continues on another page.
    text = chr(97 + id % 26) * random.choice([0, 3, page // 9, page // 2, page - 40, page + id % 9, 3 * page + id % 99])
    database.execute('INSERT INTO t VALUES (?, ?, ?)', (id, number, text))
    database.execute('INSERT INTO other VALUES (?)', (text,))
database.execute('COMMIT')
if page % 512 == 0 and page > 1024:
    database.execute('PRAGMA wal_checkpoint(PASSIVE)')
database.execute('DELETE FROM t WHERE id % 3 = 0')
for id, number, text in database.execute('SELECT id, number, text FROM t ORDER BY id'):
    print(id, number, len(text), text[:1])
sys.stdout.flush()
import os
os._exit(0)
";

#[test]
fn tables_read_as_sqlite_says_with_pages_of_every_size() {
    let place = Place::new("values");
    for page in [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536] {
        let path = place.path(&format!("values-{page}"));
        let expected = python(VALUES, &path).wait_with_output().unwrap();
        assert!(expected.status.success());
        let open = |path: &Path| {
            let file = fs::File::open(path).unwrap();
            SizedFile { size: file.metadata().unwrap().len(), file }
        };
        // The process ended without closing the database, so the deletion is in the log alone.
        let (database, log) = (open(&path), open(&place.path(&format!("values-{page}-wal"))));
        assert!(log.size() > 0);
        let mut read = String::new();
        let sqlite = Sqlite::open(&database, Some(&log)).unwrap();
        let row = sqlite.rows("t", |row| {
            let (id, number, text) = (row.id, row.integer("number")?, row.text("text")?);
            read += &format!("{id} {number} {} {}\n", text.len(), text.chars().take(1).collect::<String>());
            Ok(())
        });
        row.unwrap();
        assert!(read.lines().count() > 1000);
        assert!(read == String::from_utf8(expected.stdout).unwrap(), "pages of {page} bytes");
    }
}

/// Changes all rows in one transaction at a time, and moves the log to the database at different moments.
const WRITER: &str = r"
import random, sqlite3, sys, time
random.seed(1)
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute('PRAGMA page_size = 512')
database.execute('PRAGMA journal_mode = WAL')
database.execute('PRAGMA synchronous = OFF')
database.execute('PRAGMA wal_autocheckpoint = 0')
database.execute('CREATE TABLE t (id INTEGER PRIMARY KEY, number INTEGER, text TEXT)')
with database:
    database.executemany('INSERT INTO t VALUES (?, 0, ?)', [(id, 'x' * 300) for id in range(300)])
print('begun', flush=True)
for round in range(1, 60):
    for step in range(random.randrange(1, 5)):
        database.execute('UPDATE t SET number = number + 1, text = text')
    if round % 3:
        database.execute('PRAGMA wal_checkpoint(TRUNCATE)')
    elif round % 2:
        database.execute('PRAGMA wal_checkpoint(RESTART)')
    time.sleep(random.random() * 0.06)
";

#[test]
fn each_read_of_a_database_in_use_shows_one_commit() {
    let place = Place::new("writer");
    let mut writer = python(WRITER, &place.path("live"));
    let mut begun = [0; 6];
    std::io::Read::read_exact(writer.stdout.as_mut().unwrap(), &mut begun).unwrap();
    let (root, mut last) = (place.root(), -1);
    loop {
        let has_ended = writer.try_wait().unwrap();
        let numbers = snapshot::read(&root, &"/live".into(), |sqlite| {
            let mut numbers = vec![];
            sqlite.rows("t", |row| {
                numbers.push(row.integer("number")?);
                Ok(())
            })?;
            Ok(numbers)
        });
        match numbers {
            Ok(numbers) => {
                let numbers = numbers.unwrap();
                assert_eq!(numbers.len(), 300);
                assert!(numbers.iter().all(|number| *number == numbers[0]), "{numbers:?}");
                assert!(numbers[0] >= last, "{} after {last}", numbers[0]);
                last = numbers[0];
            }
            // The writer may change the database so often that no reading is of one state.
            Err(error) => assert_eq!(error::exit_code(&error), 75, "{error:#}"),
        }
        if let Some(status) = has_ended {
            assert!(status.success() && last > 60, "{status} {last}");
            return;
        }
    }
}
