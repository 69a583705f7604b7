//! Writes the generated pages of the book: `cargo run --example reference docs/reference`.
//! It is an example, so that the shipped binary does not contain it. `tests/cli/pages.rs` compares the pages.

/// The page of the real bootstraps.
#[path = "bootstraps.rs"]
#[allow(clippy::disallowed_methods, clippy::missing_panics_doc, reason = "reads files of the repository")]
pub mod bootstraps;

use std::fmt::Write;

use clap::{Arg, Args, Command};
use glovo_bootstrap::{
    cli::Cli,
    deploy::{settings::DeploySettings, shape},
    manifest::schema,
};

/// The widest line of a paragraph. Tables and code may be wider.
const MAX_COLUMNS: usize = 100;
/// The beginning of the verbs' names.
const DEPLOY: &str = "glovo-bootstrap deploy ";
/// The first kind on the second page of the kinds, in the order of the manual.
const FIRST_KIND_OF_MACHINES: &str = "user";

#[allow(
    dead_code,
    clippy::disallowed_methods,
    reason = "writes pages of the repository; the tests take the pages alone"
)]
fn main() -> std::io::Result<()> {
    let directory = std::env::args().nth(1).ok_or_else(|| std::io::Error::other("usage: reference DIRECTORY"))?;
    for (name, text) in pages() {
        std::fs::write(format!("{directory}/{name}"), text)?;
    }
    Ok(())
}

/// Name and text of each generated page.
pub fn pages() -> Vec<(&'static str, String)> {
    let [files, machines] = kinds();
    vec![
        ("kinds.md", files),
        ("kinds-of-machines.md", machines),
        ("command-line.md", command_line()),
        ("command-line-of-deploy.md", command_line_of_deploy()),
        ("deploy-toml.md", deploy_toml()),
        ("template-parameters.md", template_parameters()),
        ("template-parameters-of-one-group.md", template_parameters_of_one_group()),
        ("operations-of-deploy.md", operations_of_deploy()),
        ("bootstraps.md", world()),
    ]
}

/// Returns a page's beginning: its title, a note that it is generated, and a command that works.
fn page(title: &str, command: &str) -> String {
    format!(
        "# {title}\n\n<!-- generated: cargo run --example reference docs/reference -->\n\n```sh\n{command}\n```\n\n"
    )
}

/// Returns the page of the operations that the tests of `deploy` have recorded.
fn operations_of_deploy() -> String {
    let policy = "cloudformation/operator-policy.json";
    let command = format!("aws iam create-policy --policy-name glovo-deploy --policy-document file://{policy}");
    let mut text = page("Permissions of the operator", &command);
    text += "`cloudformation/operator-policy.json` allows the calls of `deploy`, and no others. Replace\n";
    text += "`glovo-app` by the name of your stack, and `my-artifacts` by that of your bucket. In another\n";
    text += "partition, such as `aws-cn`, replace the `aws` of each ARN. Without a bucket, or without variables\n";
    text += "of Parameter Store, remove their statements.\n\n";
    text += "CloudFormation makes the resources of the template with the operator's permissions. These are not\n";
    text += "in the policy: `cloudformation/service-role-policy.json` has them, for the operator or for [a\n";
    text += "service role](../guide/company-accounts.md#the-service-role).\n\n";
    text += "`tests/deploy/requests` checks each request of the tests of `deploy` by AWS's own models, and\n";
    text += "writes this list. The source of a role calls AssumeRole; it needs nothing else.\n\n";
    text += "| service | operation | permission |\n| --- | --- | --- |\n";
    let operations = include_str!("../tests/deploy/operations.tsv");
    for line in operations.lines().filter(|line| !line.starts_with('#')) {
        let [service, operation, action] = line.split('\t').collect::<Vec<_>>()[..] else { continue };
        _ = writeln!(text, "| {service} | {operation} | `{action}` |");
    }
    text
}

fn world() -> String {
    page("Real bootstraps", "glovo-bootstrap validate --steps examples/world/G06.toml") + &bootstraps::page()
}

/// Returns the pages of the kinds of packages and files, and of all other kinds.
fn kinds() -> [String; 2] {
    let mut files = page("Kinds of packages and files", "glovo-bootstrap steps kinds");
    files += "This command prints all kinds. Fields in bold are required. Each example is a whole resource.\n";
    files += "[The manifest language](manifest.md) says how to write steps and values.\n";
    files += "[Other kinds](kinds-of-machines.md) are on a page of their own.\n\n";
    let mut machines = page("Kinds of accounts, disks, settings and services", "glovo-bootstrap steps kinds service");
    machines += "Fields in bold are required. Each example is a whole resource.\n";
    machines += "[Kinds of packages and files](kinds.md) are on a page of their own. Each kind also has\n";
    machines += "[the fields of every kind](kinds.md#every-kind).\n\n";
    let manual = schema::manual(None).unwrap_or_default();
    let (mut is_code, mut is_of_machines) = (false, false);
    for line in manual.trim().lines() {
        is_code ^= line.starts_with("```");
        let kind = line.strip_prefix("### ").filter(|_| !is_code);
        is_of_machines |= kind == Some(FIRST_KIND_OF_MACHINES);
        let of_every_kind = line.starts_with("Any resource may");
        is_of_machines &= !of_every_kind;
        let page = if is_of_machines { &mut machines } else { &mut files };
        match kind {
            Some(kind) => *page += &format!("## {kind}\n"),
            _ if of_every_kind => *page += &format!("## Every kind\n\n{line}\n"),
            _ if line == "```toml" => *page += "```toml manifest\n",
            _ if is_code || line.starts_with(['|', '`']) => *page += &format!("{line}\n"),
            _ => wrap(page, line),
        }
    }
    [files, machines].map(|page| page.trim_end().to_owned() + "\n")
}

fn command_line() -> String {
    let cli = Cli::command_line();
    let mut page = page("Command line", "glovo-bootstrap help");
    wrap(&mut page, "`glovo-bootstrap COMMAND --help` prints the same for one command.");
    wrap(&mut page, "[The verbs of deploy](command-line-of-deploy.md) are on a page of their own.");
    page += "\n## Options of every command\n\n";
    arguments(&mut page, cli.get_arguments());
    let mut commands = vec![];
    leaves(&cli, "glovo-bootstrap", &mut commands);
    commands.retain(|(path, _)| !path.starts_with(DEPLOY));
    add_commands(&mut page, &commands);
    page
}

fn command_line_of_deploy() -> String {
    let cli = Cli::command_line();
    let mut page = page("Command line of deploy", "glovo-bootstrap deploy --help");
    wrap(&mut page, "`glovo-bootstrap deploy VERB --help` prints the same for one verb.");
    let mut commands = vec![];
    leaves(&cli, "glovo-bootstrap", &mut commands);
    commands.retain(|(path, _)| path.starts_with(DEPLOY));
    add_commands(&mut page, &commands);
    page
}

/// Adds the options that several of these commands share, then each command.
fn add_commands(page: &mut String, commands: &[(String, &Command)]) {
    let shared = shared(commands);
    *page += "\n## Shared options\n\nSeveral commands have these. Each command below names those that it has.\n\n";
    arguments(page, shared.iter().copied());
    for (path, command) in commands {
        *page += &format!("\n## {path}\n\n");
        wrap(page, &sentence(&text(command.get_long_about().or(command.get_about()))));
        let visible = || command.get_arguments().filter(|arg| !arg.is_hide_set());
        let is_shared = |arg: &&Arg| shared.iter().any(|shared| is_same(shared, arg));
        let (common, own): (Vec<&Arg>, Vec<&Arg>) = visible().partition(is_shared);
        if !own.is_empty() {
            *page += "\n";
            arguments(page, own.into_iter());
        }
        if !common.is_empty() {
            let names: Vec<String> = common.iter().map(|arg| format!("`{}`", name(arg))).collect();
            *page += "\n";
            wrap(page, &format!("[Shared](#shared-options): {}.", names.join(", ")));
        }
    }
}

fn deploy_toml() -> String {
    let mut page = page("deploy.toml", "BUILD_NUMBER=2 glovo-bootstrap deploy plan");
    wrap(
        &mut page,
        "Each setting is a flag, a variable of the environment where one is named, and a key of `deploy.toml`. A flag \
         overrides the environment, which overrides the file. [Deploying](../guide/deploying.md#settings) has an example.",
    );
    page += "\n| key | flag | environment | meaning |\n| --- | --- | --- | --- |\n";
    let settings = DeploySettings::augment_args(Command::new("deploy"))
        .mut_arg("strategy", |strategy| strategy.value_parser(shape::strategies()));
    for arg in settings.get_arguments() {
        let flag = arg.get_long().unwrap_or_default();
        let environment = arg.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default();
        let row =
            [format!("`{}`", flag.replace('-', "_")), format!("`{}`", name(arg)), environment, meaning(arg, false)];
        page += &format!("| {} |\n", row.join(" | "));
    }
    page += "\n`set`, `file` and `parameter` are tables: `set = { jar_url = \"https://repo.example.com/app.jar\" }`.\n";
    page += "A variable's value may be a list: `set = { app_environment = [\"LOG_LEVEL=info\"] }`.\n";
    wrap(
        &mut page,
        "`shift` is a list: `shift = [10, 50, 100]`. `subnets`, `security_groups` and `variables` are a text or a list. \
         `--yes`, `--json`, `--poll` and `--settings-file` are no keys. An unknown key and a name that is set twice are errors.",
    );
    page += "\n";
    wrap(&mut page, "A TIME has units: `500ms`, `30s`, `15m`, `1h30m`, `1d`. `0s` is no time.");
    page
}

fn template_parameters() -> String {
    let mut page = page("Template parameters", "glovo-bootstrap deploy render --output-dir rendered");
    wrap(
        &mut page,
        "`deploy` sets most parameters by itself. `parameter = { NAME = \"VALUE\" }` in `deploy.toml` or `--parameter \
         NAME=VALUE` sets another one; a name that the template lacks is refused. A parameter without a default is required.",
    );
    page += "\n## Parameters worth knowing\n\n";
    for note in NOTES {
        wrap(&mut page, note);
    }
    page += "\n[Four strategies](../guide/deploying.md#four-strategies) says which strategy uses which template.\n";
    page += "[Templates with one group](template-parameters-of-one-group.md) have their own page.\n";
    page + &tables(true)
}

fn template_parameters_of_one_group() -> String {
    let mut page =
        page("Parameters of templates with one group", "glovo-bootstrap deploy render --output-dir rendered");
    page += "[Template parameters](template-parameters.md) says how to set one, and which are worth knowing.\n";
    page + &tables(false)
}

/// Returns the tables of the templates whose builds share the traffic by weights, or of the others.
fn tables(have_weights: bool) -> String {
    let mut page = String::new();
    for (file, template) in templates().into_iter().filter(|(_, text)| text.contains("Weight:\n") == have_weights) {
        page += &format!("\n## {file}\n\n| parameter | default | meaning |\n| --- | --- | --- |\n");
        let parameters = parameters(&template);
        let green: Vec<&str> = parameters.iter().filter_map(|parameter| parameter.name.strip_prefix("Green")).collect();
        for parameter in &parameters {
            let slot = parameter.name.strip_prefix("Blue").filter(|name| green.contains(name));
            if parameter.name.starts_with("Green") && !green.is_empty() {
                continue;
            }
            let name = slot.map_or(format!("`{}`", parameter.name), |name| format!("`Blue{name}`, `Green{name}`"));
            let mut meaning =
                parameter.description.replace("blue slot", if slot.is_some() { "slot" } else { "blue slot" });
            if slot == Some("Weight") {
                meaning.insert_str(0, "Default of green: 0. ");
            }
            page += &format!("| {name} | {} | {} |\n", parameter.default, cell(&meaning));
        }
    }
    page
}

const NOTES: [&str; 5] = [
    "- `RootDeviceName` must be the AMI's; `deploy` asks EC2 for it. Without `deploy`, set it: `/dev/sda1` for Ubuntu, \
     `/dev/xvda` for Debian and Amazon Linux. Otherwise the root volume keeps the AMI's settings, and a second volume is added.",
    "- A bucket with a key of its own in KMS needs `kms:Decrypt` in the key's policy.",
    "- `ScaleUpThreshold` 90 and `ScaleDownThreshold` 70 make a small group flap. One more machine brings 90 % down to \
     45 % of one machine, 60 % of two, 67.5 % of three: below 70 %. Use a `ScaleDownThreshold` below 45, or \
     `ScalingMode` `target-tracking`.",
    "- `Subnets` and `InstanceSecurityGroups` belong to both slots: a change replaces all machines.",
    "- Tags of the stack reach the machines. Metadata allow no spaces or slashes in the names of tags: such a tag stops \
     instances from starting.",
];

/// Name and text of each template.
#[allow(clippy::disallowed_methods, reason = "reads files of the repository")]
fn templates() -> Vec<(String, String)> {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("cloudformation");
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut templates: Vec<(String, String)> = entries
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "yml"))
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, std::fs::read_to_string(entry.path()).ok()?)))
        .collect();
    templates.sort();
    templates
}

/// A parameter of a template.
struct Parameter {
    name: String,
    /// As a table shows it; empty if it has none.
    default: String,
    description: String,
}

/// Reads the parameters of a template: its block style alone, as `cloudformation/check` holds it.
fn parameters(template: &str) -> Vec<Parameter> {
    let section = template.split("\nParameters:\n").nth(1).unwrap_or_default();
    let lines = section.lines().take_while(|line| line.is_empty() || line.starts_with([' ', '#']));
    let mut parameters: Vec<Parameter> = vec![];
    let mut is_description = false;
    for line in lines {
        let text = line.trim();
        let indentation = line.len() - line.trim_start().len();
        match (indentation, parameters.last_mut()) {
            (2, _) if text.ends_with(':') => {
                parameters.push(Parameter {
                    name: text.trim_end_matches(':').into(),
                    default: String::new(),
                    description: String::new(),
                });
                is_description = false;
            }
            (4, Some(parameter)) => {
                let (key, value) = text.split_once(':').unwrap_or((text, ""));
                is_description = key == "Description";
                match (key, value.trim()) {
                    ("Default", "\"\"") => parameter.default = "empty".into(),
                    ("Default", value) => parameter.default = format!("`{}`", value.trim_matches('"')),
                    ("Description", value) if !value.starts_with(['>', '|']) => {
                        parameter.description = value.trim_matches('"').into();
                    }
                    _ => {}
                }
            }
            (6.., Some(parameter)) if is_description => {
                parameter.description += if parameter.description.is_empty() { "" } else { " " };
                parameter.description += text;
            }
            _ => {}
        }
    }
    parameters
}

/// The commands that have no subcommands, each with its whole name.
fn leaves<'a>(command: &'a Command, path: &str, leaves_: &mut Vec<(String, &'a Command)>) {
    for child in command.get_subcommands().filter(|child| !child.is_hide_set()) {
        let path = format!("{path} {}", child.get_name());
        let has_own = child.get_arguments().any(|arg| !arg.is_global_set());
        if !child.has_subcommands() || has_own {
            leaves_.push((path.clone(), child));
        }
        leaves(child, &path, leaves_);
    }
}

/// The arguments that more than one command has, with the same words.
fn shared<'a>(commands: &[(String, &'a Command)]) -> Vec<&'a Arg> {
    let all: Vec<&Arg> = commands.iter().flat_map(|(_, command)| command.get_arguments()).collect();
    let mut shared: Vec<&Arg> = vec![];
    for arg in &all {
        let is_often = all.iter().filter(|other| is_same(arg, other)).count() > 1;
        if is_often && !arg.is_hide_set() && !shared.iter().any(|known| is_same(known, arg)) {
            shared.push(arg);
        }
    }
    shared
}

fn is_same(one: &Arg, other: &Arg) -> bool {
    one.get_id() == other.get_id()
        && one.get_help().map(ToString::to_string) == other.get_help().map(ToString::to_string)
}

fn arguments<'a>(page: &mut String, arguments: impl Iterator<Item = &'a Arg>) {
    *page += "| argument | meaning |\n| --- | --- |\n";
    for arg in arguments.filter(|arg| !arg.is_hide_set()) {
        _ = writeln!(page, "| `{}` | {} |", name(arg).replace('|', "\\|"), meaning(arg, true));
    }
}

/// `-s, --stack NAME`, or `STEP…`
fn name(arg: &Arg) -> String {
    let values: Vec<&str> = arg.get_value_names().into_iter().flatten().map(clap::builder::Str::as_str).collect();
    let takes = arg.get_action().takes_values();
    let value = if takes { values.join(" ") } else { String::new() };
    let short = arg.get_short().map(|short| format!("-{short}"));
    let long = arg.get_long().map(|long| format!("--{long}"));
    let flags: Vec<String> = short.into_iter().chain(long).collect();
    if flags.is_empty() {
        let many = arg.get_num_args().is_some_and(|range| range.max_values() > 1);
        return if many || matches!(arg.get_action(), clap::ArgAction::Append) { format!("{value}…") } else { value };
    }
    format!("{} {value}", flags.join(", ")).trim_end().to_owned()
}

/// An argument's help, and its variable of the environment, default and values.
fn meaning(arg: &Arg, with_environment: bool) -> String {
    let mut meaning = sentence(&text(arg.get_long_help().or(arg.get_help())));
    let values: Vec<String> = arg
        .get_possible_values()
        .iter()
        .filter(|_| arg.get_action().takes_values())
        .map(|value| match value.get_help() {
            Some(help) => format!("`{}`: {}", value.get_name(), sentence(&text(Some(help)))),
            None => format!("`{}`", value.get_name()),
        })
        .collect();
    if !values.is_empty() {
        meaning += &format!(" Values: {}", values.join(" "));
    }
    if let Some(variable) = arg.get_env().filter(|_| with_environment) {
        meaning += &format!(" Environment: `{}`.", variable.to_string_lossy());
    }
    let defaults: Vec<String> =
        arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    if !defaults.is_empty() && !arg.is_hide_default_value_set() {
        meaning += &format!(" Default: `{}`.", defaults.join(" "));
    }
    cell(meaning.trim())
}

fn text(styled: Option<&clap::builder::StyledStr>) -> String {
    let text = styled.map(ToString::to_string).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn sentence(text: &str) -> String {
    if text.is_empty() || text.ends_with(['.', ')']) { text.to_owned() } else { format!("{text}.") }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// Adds a paragraph in lines of at most [`MAX_COLUMNS`] columns. Code stays in one line.
fn wrap(page: &mut String, paragraph: &str) {
    let mut words: Vec<String> = vec![];
    for word in paragraph.split_whitespace() {
        match words.last_mut().filter(|last| last.matches('`').count() % 2 == 1) {
            Some(code) => *code += &format!(" {word}"),
            None => words.push(word.to_owned()),
        }
    }
    let indentation = if paragraph.starts_with("- ") { "  " } else { "" };
    let mut width = 0;
    for word in words {
        let columns = word.chars().count();
        if width > 0 && width + 1 + columns > MAX_COLUMNS {
            page.push('\n');
            page.push_str(indentation);
            width = indentation.len();
        } else if width > 0 {
            page.push(' ');
            width += 1;
        }
        page.push_str(&word);
        width += columns;
    }
    page.push('\n');
}
