//! Checks of declared paths: the rule of a run about other users' directories, applied to the declarations alone.

pub(super) mod services;

use std::collections::{BTreeMap, BTreeSet};

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
    owner: Option<Owner>,
    /// The users who may write into a directory.
    writers: Option<Writers>,
    files: Vec<AbsPath>,
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
        let (path, files) = (resource.owned_path().cloned(), resource.files());
        let (writers, is_absent) = (resource.writers(), resource.removes_its_path());
        let (formatted, mounted) = (resource.formatted_devices(), resource.mounted_device().map(str::to_owned));
        let (kept, needed, mount_point) = (resource.kept_paths(), vec![], resource.mount_point().cloned());
        let (service, shown) = (resource.service().cloned(), format!("{kind} {}", resource.title()));
        let services_after = resource.services_after().into_iter().map(Into::into).collect();
        Self {
            path,
            owner,
            writers,
            files,
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

    fn fault(&self, message: String, hint: Option<String>) -> Diagnostic {
        let (text, span) = &self.spot;
        Diagnostic { message, place: Some(Place::new(text, span)), hint }
    }
}

/// Returns a warning for each resource in a directory that is declared later. On a machine without this directory, a
/// run would refuse the resource.
pub(super) fn late_directories(declarations: &[Declaration<'_>]) -> Vec<Diagnostic> {
    let directories = declarations.iter().enumerate().filter(|(_, declaration)| declaration.writers.is_some());
    let directories = directories.filter_map(|(index, declaration)| Some((index, declaration.path.as_ref()?)));
    let (mut declared_at, mut made_at) = (BTreeMap::new(), BTreeMap::new());
    for (index, path) in directories {
        _ = declared_at.insert(path.as_str(), index);
        // A directory that is declared in it makes it, too.
        for made in path.ancestors().chain([path.as_str()]) {
            _ = made_at.entry(made).or_insert(index);
        }
    }
    let mut warnings = vec![];
    for (index, declaration) in
        declarations.iter().enumerate().filter(|(_, one)| one.writers.is_none() && !one.is_absent)
    {
        let Some(directory) = declaration.path.as_ref().and_then(AbsPath::directory) else { continue };
        if let Some(late) = declared_at.get(directory)
            && made_at.get(directory).is_some_and(|made| *made > index)
        {
            let (text, span) = &declarations[*late].spot;
            let message = format!("the directory {directory} is declared after a resource in it");
            let hint = format!("move the directory up: it is declared at {}", Place::new(text, span));
            warnings.push(declaration.fault(message, Some(hint)));
        }
    }
    warnings
}

/// Returns a warning for each mount of a device whose file system is declared later. On a blank device, a run would fail.
pub(super) fn late_file_systems(declarations: &[Declaration<'_>]) -> Vec<Diagnostic> {
    let mut warnings = vec![];
    for (index, mount) in declarations.iter().enumerate() {
        let Some(device) = &mount.mounted else { continue };
        let makes = |one: &&Declaration<'_>| one.formatted.contains(device) && !one.scope.excludes(&mount.scope);
        let (before, after) = declarations.split_at(index);
        if let (None, Some(late)) = (before.iter().find(makes), after.iter().find(makes)) {
            let (text, span) = &late.spot;
            let message = format!("the file system of {device} is declared after its mount");
            let hint = format!("move the file system up: it is declared at {}", Place::new(text, span));
            warnings.push(mount.fault(message, Some(hint)));
        }
    }
    warnings
}

/// Returns a warning for each resource at a mount point or below it that is declared before the mount. The first run would
/// make it on the disk under the mount point, and a later one on the mounted file system.
pub(super) fn early_for_mounts(declarations: &[Declaration<'_>]) -> Vec<Diagnostic> {
    let mut warnings = vec![];
    for (index, mount) in declarations.iter().enumerate() {
        let Some(point) = &mount.mount_point else { continue };
        let is_at = |path: &AbsPath| path == point || path.ancestors().any(|above| above == point.as_str());
        for early in declarations[..index].iter().filter(|one| !one.is_absent && !one.scope.excludes(&mount.scope)) {
            let Some(path) = early.path.as_ref().filter(|path| is_at(path)) else { continue };
            let (text, span) = &mount.spot;
            let message = format!("{path} is declared before the mount at {point}, which hides it");
            let hint = format!("move the mount up: it is declared at {}", Place::new(text, span));
            warnings.push(early.fault(message, Some(hint)));
        }
    }
    warnings
}

/// Returns the faults for which a run would fail on every machine. It knows only declared directories.
pub(super) fn faults(declarations: &[Declaration<'_>]) -> Vec<Diagnostic> {
    let directories = declarations.iter().filter_map(|declaration| {
        let path = declaration.path.as_ref()?;
        Some((path.as_str(), (&declaration.owner, declaration.writers?), &declaration.scope))
    });
    let (conditional, everywhere): (Vec<_>, Vec<_>) = directories.partition(|(_, _, scope)| scope.is_conditional());
    let everywhere: BTreeMap<_, _> = everywhere.into_iter().map(|(path, directory, _)| (path, directory)).collect();
    let archives: BTreeSet<&str> = trees(declarations).map(|(path, ..)| path.as_str()).collect();
    let mut faults = vec![];
    for declaration in declarations {
        // A directory of other machines than the declaration's is none of its directories.
        let directory = |path: &str| {
            let of_some = || {
                let mut same = conditional.iter().filter(|(known, ..)| *known == path);
                same.find(|(_, _, scope)| !scope.excludes(&declaration.scope)).map(|(_, directory, _)| directory)
            };
            everywhere.get(path).or_else(of_some)
        };
        let is_plain = |file: &&AbsPath| directory(file.as_str()).is_some() && !archives.contains(file.as_str());
        for file in declaration.files.iter().filter(is_plain) {
            let message = format!("{file} is a directory: only a file's bytes are compared");
            faults.push(declaration.fault(message, Some("name the files in it".into())));
        }
        let Some(path) = &declaration.path else { continue };
        let mut way = Way::default();
        let mut declared = path.ancestors().filter_map(|path| Some((path, directory(path)?)));
        let passed = declared.try_for_each(|(path, (owner, writers))| {
            // Without a declared owner, a new directory is root's, and an existing one keeps its owner.
            let owner = (*owner).clone().or_else(|| way.user().cloned()).unwrap_or_else(|| Owner::Name("root".into()));
            way.pass(&PathPart { path, owner, writers: *writers, is_link: false })
        });
        if let Err(fault) = passed.and_then(|()| way.admit(path.as_str(), declaration.owner.as_ref())) {
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
pub(super) fn inside_archives(declarations: &[Declaration<'_>]) -> Vec<Diagnostic> {
    let is_in = |path: &AbsPath, tree: &AbsPath| path.ancestors().any(|above| above == tree.as_str());
    let mut faults = vec![];
    for (tree, kept, archive) in trees(declarations) {
        for declaration in declarations {
            let Some(path) = declaration.path.as_ref().filter(|path| is_in(path, tree)) else { continue };
            if kept.iter().any(|kept| kept == path || is_in(path, kept)) || archive.scope.excludes(&declaration.scope) {
                continue;
            }
            let (text, span) = &archive.spot;
            let message = format!("{path} is in {tree}, which an archive replaces as a whole");
            let hint =
                format!("name it in `keep` of the archive at {}, or declare another path", Place::new(text, span));
            faults.push(declaration.fault(message, Some(hint)));
        }
    }
    faults
}

/// Returns the faults of resources that make or need a path while another resource of the machine removes it.
pub(super) fn contradictions(declarations: &[Declaration<'_>]) -> Vec<Diagnostic> {
    let removing = || declarations.iter().filter(|declaration| declaration.is_absent);
    let absent: BTreeSet<&str> = removing().filter_map(|one| Some(one.path.as_ref()?.as_str())).collect();
    if absent.is_empty() {
        return vec![];
    }
    let mut faults = vec![];
    for declaration in declarations {
        let remover = |path: &str| {
            let mut all = removing().filter(|one| one.path.as_ref().is_some_and(|known| known.as_str() == path));
            all.find(|one| !one.scope.excludes(&declaration.scope))
        };
        let find = |path: &str| Some((path.to_owned(), absent.get(path).and_then(|path| remover(path))?));
        let hint = |gone: &str, remover: &Declaration<'_>| {
            let (text, span) = &remover.spot;
            Some(format!("keep only one of the two: {gone} is declared absent at {}", Place::new(text, span)))
        };
        if let Some(path) = declaration.path.as_ref().filter(|_| !declaration.is_absent)
            && let Some((gone, remover)) = path.ancestors().find_map(find)
        {
            let message = format!("{path} is below {gone}, which is declared absent");
            faults.push(declaration.fault(message, hint(&gone, remover)));
        }
        for (field, path, (text, span)) in &declaration.needed {
            let Some((gone, remover)) = path.ancestors().chain([path.as_str()]).find_map(find) else { continue };
            let below = if gone == path.as_str() { String::new() } else { format!(" below {gone}") };
            let message = format!("`{field}` names {path}{below}, which is declared absent");
            faults.push(Diagnostic { message, place: Some(Place::new(text, span)), hint: hint(&gone, remover) });
        }
    }
    faults
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
