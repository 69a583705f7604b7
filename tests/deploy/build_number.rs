//! A build's number stands for its content.

use crate::{
    operator::Operator,
    tape::{changes, of, shares},
};

#[test]
fn an_old_number_is_refused_for_other_content() {
    let operator = Operator::serving_twice();
    operator.content("3");
    for (build, words) in [
        ("2", "build 2 is already serving, with other content"),
        ("1", "build 1 is not newer than build 2 of the stack glovo-app"),
        ("0", "build 0 is not newer than build 2 of the stack glovo-app"),
    ] {
        let _ = operator
            .update(build)
            .expect(2)
            .says(words)
            .says("hint: set BUILD_NUMBER=3 for the new content")
            .says("deploy rollback");
        assert!(changes(&operator.calls()).is_empty(), "{build}");
    }
}

#[test]
fn an_older_number_is_refused_for_the_same_content_too() {
    let operator = Operator::serving_twice();
    let _ = operator.update("1").expect(2).says("build 1 is not newer than build 2");
    assert!(changes(&operator.calls()).is_empty());
}

#[test]
fn a_number_that_was_rolled_back_is_taken() {
    let operator = Operator::serving_twice();
    let _ = operator.deploy(&["rollback"], &[]).expect(0);
    operator.content("3");
    let _ = operator.update("2").expect(2).says("build 2 is not newer than build 2");
    let _ = operator.update("3").expect(0).says("every serving target runs build 3");
}

#[test]
fn a_newer_number_makes_new_machines_also_of_the_same_content() {
    let operator = Operator::serving();
    let _ = operator.update("2").expect(0).says("every serving target runs build 2");
    assert_eq!(shares(&operator.calls()).last(), Some(&["0", "100"]));
}

#[test]
fn the_same_content_with_other_sizes_is_changed_in_place() {
    let operator = Operator::serving();
    let same = ["update-stack", "--yes"];
    let sizes = [("BUILD_NUMBER", "1"), ("MINSIZE", "2"), ("MAXSIZE", "5")];
    let _ = operator.deploy(&same, &sizes).expect(0).says("the stack changes in place; its builds stay");
    let calls = operator.calls();
    assert_eq!(changes(&calls), ["CreateChangeSet", "ExecuteChangeSet"]);
    let changed = of(&calls, "CreateChangeSet")[0];
    let sizes =
        ["BlueMinSize", "BlueDesiredCapacity", "BlueMaxSize", "BlueVersionId"].map(|name| changed.parameter(name));
    assert_eq!(sizes, [Some("2"), Some("2"), Some("5"), None]);
    assert_eq!(operator.parameter("GreenVersionId"), "");
}
