//! The documents agree with the program and the repository.

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
    process::Command,
};

use glovo_bootstrap::{
    resource::{Kind, Resource},
    stop::Interrupt,
    system::{Mode, System},
};

use crate::{
    book::{Block, Page},
    kind_example::Hostname,
    reference,
    sandbox::{Finished, Sandbox},
};

const README_BYTES: usize = 8_000;
const PAGE_BYTES: usize = 20_000;
const COLUMNS: usize = 100;
/// The faults, and the first of them on the second and the third page.
const FAULTS: usize = 103;
const FIRST_OF_SERVICES: usize = 50;
const FIRST_OF_DNF: usize = 82;
const FAULTS_OF_PEERS: usize = 33;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(path: &str) -> Page {
    Page::read(repository(), path)
}

/// Fails with all of these at once.
#[track_caller]
fn none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn pages_are_short_and_their_lines_narrow() {
    let mut faults = vec![];
    for page in Page::all(repository()) {
        let path = page.path.display();
        let limit = match path.to_string().as_str() {
            "README.md" => README_BYTES,
            _ => PAGE_BYTES,
        };
        if page.text.len() > limit {
            faults.push(format!("{path} has {} bytes, more than {limit}", page.text.len()));
        }
        for (number, line) in page.prose() {
            if line.chars().count() > COLUMNS && !line.starts_with('|') {
                faults.push(format!("{path}:{number} has more than {COLUMNS} columns"));
            }
        }
    }
    none(&faults);
}

#[test]
fn every_link_and_anchor_leads_somewhere() {
    let pages = Page::all(repository());
    let mut faults = vec![];
    for page in &pages {
        for (number, link) in page.links() {
            if link.starts_with("https://") {
                continue;
            }
            let (target, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let path = if target.is_empty() { page.path.clone() } else { below(&page.path, target) };
            let is_in_book = |path: &Path| path.starts_with("docs");
            let found = pages.iter().find(|page| page.path == path);
            let fault = if !repository().join(&path).exists() {
                "does not exist"
            } else if is_in_book(&page.path) && !is_in_book(&path) {
                "is not in the book"
            } else if !anchor.is_empty() && found.is_none_or(|found| !found.anchors().contains(anchor)) {
                "has no such heading"
            } else {
                continue;
            };
            faults.push(format!("{}:{number}: {link} {fault}", page.path.display()));
        }
    }
    none(&faults);
}

/// A relative path from a page.
fn below(page: &Path, target: &str) -> PathBuf {
    let mut path = page.parent().unwrap().to_owned();
    for component in Path::new(target).components() {
        match component {
            Component::ParentDir => _ = path.pop(),
            other => path.push(other),
        }
    }
    path
}

#[test]
fn the_summary_names_every_page_of_the_book() {
    let summary = page("docs/SUMMARY.md");
    let named: BTreeSet<PathBuf> = summary.links().into_iter().map(|(_, link)| below(&summary.path, &link)).collect();
    let pages = Page::all(repository()).into_iter().map(|page| page.path);
    let pages: BTreeSet<PathBuf> =
        pages.filter(|path| path.starts_with("docs") && *path != Path::new("docs/SUMMARY.md")).collect();
    assert_eq!(named, pages);
}

#[test]
fn the_book_is_built_without_warnings() {
    let sandbox = Sandbox::new();
    let needs = Command::new(repository().join("tests/mdbook/needs")).output().unwrap();
    assert!(needs.status.success(), "{needs:?}");
    let mut mdbook = Command::new(String::from_utf8(needs.stdout).unwrap().trim());
    let _ = mdbook.args(["build", "docs", "--dest-dir", &sandbox.at("book")]).current_dir(repository());
    let built = Finished::from(mdbook.output().unwrap()).expect(0);
    let said = built.stdout + &built.stderr;
    assert!(!said.contains("WARN") && !said.contains("ERROR"), "{said}");
    assert!(Path::new(&sandbox.at("book/guide/first-service.html")).exists());
}

#[test]
fn generated_pages_are_what_their_generator_writes() {
    for (name, text) in reference::pages() {
        let is_same = page(&format!("docs/reference/{name}")).text == text;
        assert!(is_same, "write {name} anew: cargo run --example reference docs/reference");
    }
}

#[test]
fn every_block_that_a_page_marks_runs() {
    let mut faults = vec![];
    for page in Page::all(repository()) {
        let sandbox = Sandbox::new();
        fs::create_dir(sandbox.at("page")).unwrap();
        let mut before: Option<(Block, String)> = None;
        for block in page.blocks() {
            let expected = block.option("exit").map_or(0, |code| code.parse().unwrap());
            let finished = if block.is("sh run") {
                run(&sandbox, &block.text)
            } else if block.is("toml manifest") {
                let name = block.file().map_or(format!("line-{}.toml", block.line), str::to_owned);
                let path = sandbox.write(&format!("page/{name}"), block.manifest());
                sandbox.run(&["validate", "--steps", &path])
            } else {
                if block.is("text output") {
                    let output = before.as_ref().filter(|(before, _)| before.is("sh run"));
                    let missing = output.map(|(_, output)| block.missing_from(output)).unwrap_or_default();
                    faults.extend(missing.iter().map(|line| format!("{}: not printed: {line}", at(&page, &block))));
                }
                before = Some((block, String::new()));
                continue;
            };
            let output = finished.stdout + &finished.stderr;
            if finished.code != Some(expected) {
                faults.push(format!("{}: exit code {:?}\n{output}", at(&page, &block), finished.code));
            }
            before = Some((block, output));
        }
    }
    none(&faults);
}

fn at(page: &Page, block: &Block) -> String {
    format!("{}:{}", page.path.display(), block.line)
}

/// Runs a script in the page's directory, where the program is on the search path.
fn run(sandbox: &Sandbox, script: &str) -> Finished {
    let program = Path::new(env!("CARGO_BIN_EXE_glovo-bootstrap"));
    let script = format!("cd {}\n{script}", sandbox.at("page"));
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut command = sandbox.shell(&script);
    Finished::from(command.env("PATH", path).env_remove("GLOVO_BOOTSTRAP_STEPS").output().unwrap())
}

#[test]
fn the_architecture_names_every_room_and_crate() {
    let page = page("ARCHITECTURE.md");
    let mut faults = vec![];
    for entry in fs::read_dir(repository().join("src")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let slash = if name.ends_with(".rs") { "" } else { "/" };
        if !page.text.contains(&format!("`src/{name}{slash}`")) && name != "lib.rs" {
            faults.push(format!("src/{name}{slash} is missing"));
        }
    }
    for path in page.text.split('`').skip(1).step_by(2).filter(|code| code.starts_with("src/")) {
        if !repository().join(path).exists() {
            faults.push(format!("{path} does not exist"));
        }
    }
    let cargo: toml::Table = fs::read_to_string(repository().join("Cargo.toml")).unwrap().parse().unwrap();
    for table in ["dependencies", "dev-dependencies"] {
        let crates = cargo[table].as_table().unwrap().keys();
        faults.extend(crates.filter(|name| !page.text.contains(&format!("`{name}`"))).cloned());
    }
    none(&faults);
}

#[test]
fn every_message_of_troubleshooting_is_in_the_code() {
    let code = code();
    let page = page("docs/troubleshooting.md");
    let headings: Vec<&str> = page.prose().iter().filter_map(|(_, line)| line.strip_prefix("### `")).collect();
    assert!(headings.len() > 10);
    let messages = headings.iter().map(|heading| heading.trim_end_matches('`'));
    none(&messages.filter(|message| !code.contains(*message)).map(str::to_owned).collect::<Vec<_>>());
}

#[test]
fn every_variable_of_the_environment_has_its_row() {
    let code = fs::read_to_string(repository().join("src/environment.rs")).unwrap();
    let page = page("docs/reference/environment.md").text;
    let names: Vec<&str> = code.split("&str = \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(names.contains(&"GLOVO_BOOTSTRAP_LOG"), "{names:?}");
    let missing = names.iter().filter(|name| !page.contains(&format!("`{name}`")));
    none(&missing.map(|name| (*name).to_owned()).collect::<Vec<_>>());
}

/// All texts of `src`.
fn code() -> String {
    fn add(directory: &Path, code: &mut String) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                add(&path, code);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                *code += &fs::read_to_string(path).unwrap();
            }
        }
    }
    let mut code = String::new();
    add(&repository().join("src"), &mut code);
    code
}

#[test]
fn every_field_of_a_json_document_has_its_word() {
    let sandbox = Sandbox::new();
    let target = sandbox.at("file");
    let manifest = sandbox.manifest(&format!(
        "[[resource]]\nkind = \"file\"\npath = \"{target}\"\ncontent = \"x\"\n[[resource]]\nkind = \"file\"\n\
         path = \"/does/not/exist\"\ncontent = \"x\"\n"
    ));
    let source = format!("file://{}", sandbox.write("source", "x"));
    let page = page("docs/reference/json.md").text;
    let _ = sandbox.run(&["run", "--steps", &manifest]).expect(1);
    for arguments in [
        &["plan", "--json", "--steps", &manifest][..],
        &["status", "--json"],
        &["fetch", "--json", "--output-dir", &sandbox.at("files"), &source, "file:///does/not/exist"],
    ] {
        let document = serde_json::from_str(&sandbox.run(arguments).stdout).unwrap();
        let mut names = BTreeSet::new();
        collect(&document, &mut names);
        assert!(names.len() > 5, "{names:?}");
        let missing = names.iter().filter(|name| !page.contains(&format!("`{name}`")));
        none(&missing.map(|name| format!("{arguments:?}: {name}")).collect::<Vec<_>>());
    }
}

/// The names of a document's fields.
fn collect(document: &serde_json::Value, names: &mut BTreeSet<String>) {
    for (name, value) in document.as_object().into_iter().flatten() {
        let _ = names.insert(name.clone());
        collect(value, names);
    }
    for value in document.as_array().into_iter().flatten() {
        collect(value, names);
    }
}

#[test]
fn the_worked_example_of_a_kind_is_one_that_works() {
    let contributing = page("CONTRIBUTING.md");
    let block = contributing.blocks().into_iter().find(|block| block.option("file").is_some()).unwrap();
    let file = fs::read_to_string(repository().join(block.option("file").unwrap())).unwrap();
    assert!(block.text == file, "CONTRIBUTING.md shows another text than {}", block.option("file").unwrap());

    let mut example: toml::Table = Hostname::EXAMPLE.parse().unwrap();
    assert_eq!(example.remove("kind").unwrap().as_str(), Some(Hostname::NAME));
    let hostname: Hostname = example.try_into().unwrap();
    assert_eq!(hostname.check(), []);
    let sandbox = Sandbox::new();
    let system = System::open(&sandbox.path, Mode::Plan, Interrupt::default()).unwrap();
    let changes = hostname.plan(&system).unwrap();
    assert!(changes.len() == 1 && changes[0].is_deferred(), "{changes:?}");
}

#[test]
fn every_fault_has_a_test_that_exists_or_a_reason() {
    let machine = page("docs/design/faults.md").text;
    let services = page("docs/design/faults-of-services.md").text;
    let (services, peers) = services.split_once("\n## The 33 faults").expect("the section of the peers");
    let dnf = page("docs/design/faults-of-dnf.md").text;
    for (part, first, last) in [
        (&*machine, 1, FIRST_OF_SERVICES - 1),
        (services, FIRST_OF_SERVICES, FIRST_OF_DNF - 1),
        (&dnf, FIRST_OF_DNF, FAULTS),
        (peers, 1, FAULTS_OF_PEERS),
    ] {
        let rows = rows(part);
        let numbers: Vec<usize> = rows.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, (first..=last).collect::<Vec<_>>());
        for (number, row) in rows {
            let tests = tests(&row);
            assert!(!tests.is_empty() || row.contains("No test: "), "row {number} has neither a test nor a reason");
            for (file, name) in tests {
                let source = fs::read_to_string(repository().join(&file)).unwrap_or_default();
                assert!(source.contains(&format!("fn {name}(")), "row {number}: there is no test {name} in {file}");
            }
        }
    }
}

/// The numbered items of a list, each with all its lines.
fn rows(text: &str) -> Vec<(usize, String)> {
    let mut rows: Vec<(usize, String)> = vec![];
    for line in text.lines() {
        match line.split_once(". ").and_then(|(number, rest)| Some((number.parse().ok()?, rest))) {
            Some((number, rest)) => rows.push((number, rest.to_owned())),
            None => {
                if let Some((_, row)) = rows.last_mut().filter(|_| line.starts_with("   ")) {
                    *row += "\n";
                    *row += line.trim();
                }
            }
        }
    }
    rows
}

/// A line has the file behind a dash, and the next line the name of the test.
fn tests(row: &str) -> BTreeSet<(String, String)> {
    let quoted = |line: &str| line.trim_start_matches("- ").trim_matches('`').to_owned();
    let lines: Vec<&str> = row.lines().collect();
    let pairs = lines.windows(2).filter(|pair| pair[0].starts_with("- `"));
    pairs.map(|pair| (quoted(pair[0]), quoted(pair[1]))).collect()
}
