//! Checks of declared paths: the rule of a run about other users' directories, applied to the declarations alone.

pub(super) mod links;
pub(super) mod order;
pub(super) mod services;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    iter,
};

use self::links::LinkedPath;
use super::{Manifest, scope::Scope};
use crate::{
    diagnostic::{Diagnostic, Place, Spot, nearest},
    host::root::way::{Owner, PathPart, Way, Writers},
    resource::{
        Resource,
        service::{Service, UnitName},
    },
    value::AbsPath,
};

/// A resource that manages a path or reads files.
pub(super) struct Declaration<'a> {
    path: Option<AbsPath>,
    /// Where declared links lead its path.
    linked: Option<LinkedPath>,
    /// Whether it is a link. Its target may be unknown.
    is_link: bool,
    /// The target of the link that it is.
    pub(super) link: Option<String>,
    owner: Option<Owner>,
    /// The users who may write into a directory.
    writers: Option<Writers>,
    files: Vec<AbsPath>,
    /// Where declared links lead the files that it reads; `None` for those on no link.
    linked_files: Vec<Option<AbsPath>>,
    /// The paths that it makes; empty if it makes its own alone.
    made: Vec<AbsPath>,
    /// Whether it fills the directory at its path.
    fills: bool,
    /// Whether nothing may exist at the path.
    is_absent: bool,
    /// The paths below its own that it leaves to others; `None` if it leaves all of them.
    kept: Option<Vec<AbsPath>>,
    /// The files that it cannot do without, each with the field that names it.
    needed: Vec<(&'static str, AbsPath, Spot<'a>)>,
    formatted: Vec<String>,
    mounted: Option<String>,
    mount_point: Option<AbsPath>,
    service: Option<Service>,
    /// Its kind and title.
    shown: String,
    /// The services that are declared after it.
    services_after: Vec<String>,
    spot: Spot<'a>,
    scope: Scope,
}

impl<'a> Declaration<'a> {
    pub(super) fn new(kind: &str, resource: &dyn Resource, spot: Spot<'a>, scope: Scope) -> Self {
        let owner = resource.owner().map(Owner::declared);
        let (mut made, files) = (resource.made_paths(), resource.files());
        // Most make their own path alone.
        let is_own = made.first() == resource.owned_path() && made.len() == 1;
        let path = if is_own { made.pop() } else { resource.owned_path().cloned() };
        let link = resource.link_target().map(Into::into);
        let (writers, is_absent) = (resource.writers(), resource.removes_its_path());
        let (formatted, mounted) = (resource.formatted_devices(), resource.mounted_device().map(str::to_owned));
        let (kept, needed, mount_point) = (resource.kept_paths(), vec![], resource.mount_point().cloned());
        let (service, shown) = (resource.service().cloned(), format!("{kind} {}", resource.title()));
        let services_after = resource.services_after().into_iter().map(Into::into).collect();
        Self {
            path,
            linked: None,
            is_link: resource.link_target().is_some(),
            link,
            owner,
            writers,
            files,
            linked_files: vec![],
            made,
            fills: resource.fills(),
            is_absent,
            kept,
            needed,
            formatted,
            mounted,
            mount_point,
            service,
            shown,
            services_after,
            spot,
            scope,
        }
    }

    /// Adds a file that it cannot do without.
    pub(super) fn needs(&mut self, field: &'static str, file: &AbsPath, spot: Spot<'a>) {
        self.needed.push((field, file.clone(), spot));
    }

    /// Returns whether it makes a file, which has nothing below it.
    fn is_file(&self) -> bool {
        let is_other = self.is_absent || self.is_link || self.mount_point.is_some();
        self.writers.is_none() && !is_other
    }

    /// Returns its path as written, and the path that declared links lead it to, each with the machines for which it is so.
    fn places(&self) -> impl Iterator<Item = (&AbsPath, &Scope)> {
        let linked = self.linked.as_ref().map(|linked| (&linked.path, &linked.scope));
        self.path.iter().map(|path| (path, &self.scope)).chain(linked)
    }

    /// Returns the files that it reads, as written or where declared links lead them, each with the field that names it.
    fn read_paths(&self) -> impl Iterator<Item = (&AbsPath, &Spot<'a>)> {
        let files = self.files.iter().map(|file| (file, &self.spot));
        let read = files.chain(self.needed.iter().map(|(_, file, spot)| (file, spot)));
        let linked = self.linked_files.iter().map(Option::as_ref).chain(iter::repeat(None));
        read.zip(linked).map(|((file, spot), linked)| (linked.unwrap_or(file), spot))
    }

    /// Returns the place of its declaration.
    fn place(&self) -> Place {
        let (text, span) = &self.spot;
        Place::new(text, span)
    }

    fn fault(&self, message: String, hint: Option<String>) -> Diagnostic {
        Diagnostic { message, place: Some(self.place()), hint }
    }
}

/// Returns all faults of the declarations together.
pub(super) fn all_faults(declarations: &[Declaration<'_>]) -> impl Iterator<Item = Diagnostic> {
    let checks = [faults, contradictions, inside_archives, below_files, links::managers, services::contradictions];
    checks.into_iter().flat_map(move |check| check(declarations))
}

/// Returns all warnings about the declarations together.
pub(super) fn all_warnings(declarations: &[Declaration<'_>]) -> impl Iterator<Item = Diagnostic> {
    let late = [order::late_directories, order::late_file_systems, order::late_files, order::late_links];
    let early = [order::early_for_mounts, services::early];
    late.into_iter().chain(early).flat_map(move |check| check(declarations))
}

/// Returns the faults for which a run would fail on every machine. It knows only declared directories.
fn faults(declarations: &[Declaration<'_>]) -> Vec<Diagnostic> {
    let directories = declarations.iter().flat_map(|declaration| {
        let directory = declaration.writers.map(|writers| (&declaration.owner, writers));
        let places = declaration.places().map(move |(path, scope)| Some((path.as_str(), directory?, scope)));
        places.flatten()
    });
    let (conditional, everywhere): (Vec<_>, Vec<_>) = directories.partition(|(_, _, scope)| scope.is_conditional());
    let everywhere: BTreeMap<_, _> = everywhere.into_iter().map(|(path, directory, _)| (path, directory)).collect();
    let archives: BTreeSet<&str> = trees(declarations).map(|(path, ..)| path.as_str()).collect();
    let mut faults = vec![];
    for declaration in declarations {
        // A directory of other machines than the declaration's is none of its directories.
        let directory = |path: &str, scope: &Scope| {
            let of_some = || {
                let mut same = conditional.iter().filter(|(known, ..)| *known == path);
                same.find(|(_, _, known)| !known.excludes(scope)).map(|(_, directory, _)| directory)
            };
            everywhere.get(path).or_else(of_some)
        };
        let is_plain = |file: &&AbsPath| {
            directory(file.as_str(), &declaration.scope).is_some() && !archives.contains(file.as_str())
        };
        for file in declaration.files.iter().filter(is_plain) {
            let message = format!("{file} is a directory: only a file's bytes are compared");
            faults.push(declaration.fault(message, Some("name the files in it".into())));
        }
        let refused = declaration.places().find_map(|(path, scope)| {
            let mut way = Way::default();
            let mut declared = path.ancestors().filter_map(|path| Some((path, directory(path, scope)?)));
            let passed = declared.try_for_each(|(path, (owner, writers))| {
                // Without a declared owner, a new directory is root's, and an existing one keeps its owner.
                let root = || Owner::Name("root".into());
                let owner = (*owner).clone().or_else(|| way.user().cloned()).unwrap_or_else(root);
                way.pass(&PathPart { path, owner, writers: *writers, is_link: false })
            });
            passed.and_then(|()| way.admit(path.as_str(), declaration.owner.as_ref())).err()
        });
        if let Some(fault) = refused {
            faults.push(declaration.fault(fault.to_string(), fault.advice().map(Into::into)));
        }
    }
    faults
}

/// Returns the directories that archives decide about, each with its kept paths.
fn trees<'d>(
    declarations: &'d [Declaration<'d>],
) -> impl Iterator<Item = (&'d AbsPath, &'d [AbsPath], &'d Declaration<'d>)> {
    declarations.iter().filter_map(|one| Some((one.path.as_ref()?, one.kept.as_deref()?, one)))
}

/// Returns the faults of resources that manage a path in the directory of an archive, which does not keep it.
fn inside_archives(declarations: &[Declaration<'_>]) -> Vec<Diagnostic> {
    let is_in = |path: &AbsPath, tree: &str| path.ancestors().any(|above| above == tree);
    let mut faults = vec![];
    for (written, kept, archive) in trees(declarations) {
        for (tree, here) in archive.places() {
            let kept = kept.iter().map(|kept| [tree.as_str(), &kept.as_str()[written.as_str().len()..]].concat());
            let kept: Vec<String> = kept.collect();
            let is_kept = |path: &AbsPath| kept.iter().any(|kept| kept == path.as_str() || is_in(path, kept));
            for declaration in declarations {
                let mut places = declaration.places().filter(|(_, scope)| !here.excludes(scope));
                let inside = places.find(|(path, _)| is_in(path, tree.as_str()) && !is_kept(path));
                let Some((path, _)) = inside else { continue };
                let message = format!("{path} is in {tree}, which an archive replaces as a whole");
                let hint = format!("name it in `keep` of the archive at {}, or declare another path", archive.place());
                faults.push(declaration.fault(message, Some(hint)));
            }
        }
    }
    faults
}

/// Returns the faults of resources that make or need a path while another resource of the machine removes it.
fn contradictions(declarations: &[Declaration<'_>]) -> Vec<Diagnostic> {
    let mut absent = BTreeMap::<&str, Vec<(&Scope, &Declaration<'_>)>>::new();
    for one in declarations.iter().filter(|declaration| declaration.is_absent) {
        one.places().for_each(|(path, scope)| absent.entry(path.as_str()).or_default().push((scope, one)));
    }
    let remover = |path: &str, scope: &Scope| {
        let (_, remover) = absent.get(path)?.iter().find(|(known, _)| !known.excludes(scope))?;
        Some((path.to_owned(), *remover))
    };
    let hint = |gone: &str, remover: &Declaration<'_>| {
        Some(format!("keep only one of the two: {gone} is declared absent at {}", remover.place()))
    };
    let mut faults = vec![];
    for declaration in declarations.iter().filter(|_| !absent.is_empty()) {
        let mut places = declaration.places().filter(|_| !declaration.is_absent);
        let below = places.find_map(|(path, scope)| Some((path, path.ancestors().find_map(|at| remover(at, scope))?)));
        if let Some((path, (gone, remover))) = below {
            let message = format!("{path} is below {gone}, which is declared absent");
            faults.push(declaration.fault(message, hint(&gone, remover)));
        }
        for (field, path, (text, span)) in &declaration.needed {
            let mut way = path.ancestors().chain([path.as_str()]);
            let Some((gone, remover)) = way.find_map(|at| remover(at, &declaration.scope)) else { continue };
            let below = if gone == path.as_str() { String::new() } else { format!(" below {gone}") };
            let message = format!("`{field}` names {path}{below}, which is declared absent");
            faults.push(Diagnostic { message, place: Some(Place::new(text, span)), hint: hint(&gone, remover) });
        }
    }
    faults
}

/// Returns the faults of resources below the path of a file, which has nothing below it.
fn below_files(declarations: &[Declaration<'_>]) -> Vec<Diagnostic> {
    let mut files = BTreeMap::<&str, Vec<(&Scope, &Declaration<'_>)>>::new();
    let above = directories(declarations);
    let longest = above.iter().map(|path| path.len()).max().unwrap_or_default();
    for one in declarations.iter().filter(|one| one.is_file()) {
        // Most files are deeper than each directory, and need not be looked up.
        let is_above = |path: &AbsPath| path.as_str().len() <= longest && above.contains(path.as_str());
        for (path, scope) in one.places().filter(|(path, _)| is_above(path)) {
            files.entry(path.as_str()).or_default().push((scope, one));
        }
    }
    let mut faults = vec![];
    for declaration in declarations.iter().filter(|one| !files.is_empty() && !one.is_absent) {
        let file = |at: &str, scope: &Scope| files.get(at)?.iter().find(|(known, _)| !known.excludes(scope));
        let below = declaration.places().find_map(|(path, scope)| {
            let (_, file) = path.ancestors().find_map(|at| file(at, scope))?;
            Some((path, file))
        });
        if let Some((path, file)) = below {
            let message = format!("{path} is below {}, which is no directory", file.shown);
            let hint =
                format!("declare another path for one of the two: {} is declared at {}", file.shown, file.place());
            faults.push(declaration.fault(message, Some(hint)));
        }
    }
    faults
}

/// Returns the directories above all declared paths. Neighbours have the same ones.
fn directories<'d>(declarations: &'d [Declaration<'_>]) -> HashSet<&'d str> {
    let (mut all, mut last) = (HashSet::new(), None);
    for (path, _) in declarations.iter().flat_map(Declaration::places) {
        if last != path.directory() {
            last = path.directory();
            all.extend(path.ancestors());
        }
    }
    all
}

/// Limits the undeclared names that are compared with the declared ones.
const MAX_COMPARED: usize = 100;

/// Returns a note for each undeclared path of `restart_on` or `reload_on`, and each undeclared unit of `required_by`, that differs
/// from a declared one by one or two letters. It may be right: a file or unit of a package is not declared. Only the first
/// undeclared ones are compared, so that a large manifest costs no long time.
pub fn near_misses(manifest: &Manifest) -> Vec<String> {
    let all = || manifest.steps.iter().flat_map(|step| &step.resources);
    let near = |field: &str, name: &str, title: &str, declared: &BTreeSet<&str>| {
        let near = nearest(name, declared.iter().copied()).filter(|near| is_slip(name, near))?;
        Some(format!("{title}: `{field}` names {name}, which no resource declares; did you mean `{near}`?"))
    };
    // A resource of a later boot has its path with a placeholder as its title.
    let paths = all().flat_map(|declared| declared.resource.made_paths().into_iter().map(String::from));
    let declared: BTreeSet<String> = paths.chain(all().map(|declared| declared.resource.title())).collect();
    let declared: BTreeSet<&str> = declared.iter().map(String::as_str).filter(|path| path.starts_with('/')).collect();
    let (mut notes, mut left) = (vec![], MAX_COMPARED);
    for (title, service) in all().filter_map(|one| Some((one.title(), one.resource.service()?))) {
        let undeclared = service.read_files().filter(|(_, path)| !declared.contains(path.as_str()));
        let undeclared = undeclared.take(left).inspect(|_| left -= 1);
        notes.extend(undeclared.filter_map(|(field, path)| near(field, path.as_str(), &title, &declared)));
    }
    let services: BTreeSet<&str> = all().filter_map(|one| one.resource.unit()).collect();
    for (title, units) in all().map(|one| (one.title(), one.resource.required_by())) {
        let undeclared = units.iter().map(UnitName::as_str).filter(|unit| !services.contains(unit));
        let undeclared = undeclared.take(left).inspect(|_| left -= 1);
        notes.extend(undeclared.filter_map(|unit| near("required_by", unit, &title, &services)));
    }
    notes
}

/// Returns whether one path may be a typing mistake for the other.
fn is_slip(one: &str, other: &str) -> bool {
    strsim::damerau_levenshtein(one, other) <= 2
}
