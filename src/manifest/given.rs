//! Files that a resource gives to a service, such as its environment: the service restarts for them.

use super::Step;

/// Makes each service restart for the files that another resource of this machine gives to it.
pub(super) fn restart_for_given_files(steps: &mut [Step]) {
    let here = steps.iter().flat_map(|step| &step.resources).filter(|declared| declared.not_here.is_none());
    let given = here.filter_map(|declared| declared.resource.given_to_service());
    let given: Vec<_> = given.map(|(service, files)| (service.to_owned(), files)).collect();
    for (service, files) in given {
        let all = steps.iter_mut().flat_map(|step| &mut step.resources);
        all.for_each(|declared| declared.resource.restart_on_files_of(&service, &files));
    }
}
