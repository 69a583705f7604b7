//! Manifests that more than one test or benchmark needs.

/// A step of so many small files, `0.conf` and on, in a directory.
pub fn step_of_files(directory: &str, number: usize) -> String {
    let resource = |index| {
        format!("[[resource]]\nkind = \"file\"\npath = \"{directory}/{index}.conf\"\ncontent = \"number {index}\\n\"\n")
    };
    std::iter::once("name = \"files\"\n".to_owned()).chain((0..number).map(resource)).collect()
}
