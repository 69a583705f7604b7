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
    let last = name.split(' ').next_back()?;
    let mut restore = String::new();
    let remove = match kind {
        _ if is_check(resource) => return None,
        "file" | "link" => format!("rm {name}"),
        // A directory may hold more than the manifest declares.
        "directory" => {
            restore = format!("mv {name}.away {name}");
            format!("mv {name} {name}.away")
        }
        "absent" => format!("mkdir -p $(dirname {name}); touch {name}"),
        "user" => format!("userdel --force {name} 2> /dev/null"),
        "group" => format!("groupdel {name}"),
        "package" => format!("dpkg --purge --force-all {last} > /dev/null 2>&1"),
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
