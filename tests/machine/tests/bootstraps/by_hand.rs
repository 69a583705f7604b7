//! How an administrator removes the effect of a resource by hand.

/// The shell scripts of a removal. Most effects stay removed until the end of a case.
pub struct ByHand {
    pub remove: String,
    /// Brings the effect back; empty if the next run does that.
    pub restore: String,
}

/// The removal of a resource's effect, by its name in a plan. `own` has those of a case; an empty one means that the effect
/// cannot be removed here. A check has no effect.
pub fn of(resource: &str, own: &[(&str, &str)]) -> Option<ByHand> {
    let (kind, name) = resource.split_once(' ')?;
    if let Some((_, remove)) = own.iter().find(|(of, _)| *of == resource) {
        return (!remove.is_empty()).then(|| ByHand { remove: (*remove).to_owned(), restore: String::new() });
    }
    // `package one, two, three=1.* and 2 more`
    let last = name.split(" and ").next()?.split(", ").last()?.split('=').next()?;
    let mut restore = String::new();
    let remove = match kind {
        _ if is_check(resource) => return None,
        "file" | "link" => format!("rm {name}"),
        // A directory may hold more than the manifest declares.
        "directory" => {
            restore = format!("mv {name}.away {name}");
            format!("mv {name} {name}.away")
        }
        "archive" => format!("rm $(find {name} -type f | sort | head -n 1)"),
        "absent" => format!("mkdir -p $(dirname {name}); touch {name}"),
        "user" => format!("userdel --force {name} 2> /dev/null"),
        "group" => format!("groupdel {name}"),
        "package" | "package_file" => format!("dpkg --purge --force-all {last} > /dev/null 2>&1"),
        "apt_repository" => format!("rm /etc/apt/sources.list.d/{name}.sources"),
        "sysctl" => "rm /etc/sysctl.d/90-glovo-bootstrap.conf".to_owned(),
        "service" => format!("systemctl --quiet disable {name}; systemctl stop {name}"),
        _ => panic!("no removal for {resource}: give the case one"),
    };
    Some(ByHand { remove, restore })
}

pub fn is_check(resource: &str) -> bool {
    resource.starts_with("http_check ") || resource.starts_with("tcp_check ")
}

/// Whether the effect of `name` goes when that of `resource` is removed: a directory goes with the one that it is in, and loses
/// its owner with the user.
pub fn goes_with(name: &str, resource: &str) -> bool {
    name.starts_with(&format!("{resource}/")) || (resource.starts_with("user ") && name.starts_with("directory "))
}
